import hashlib

import pytest
import torch

from edgeeff.network.architecture import Block, ConvSpec, Kind, SqueezeExciteSpec
from edgeeff.network.model import create
from edgeeff.network.variants import VARIANTS, variant

# SHA-256 of the names, shapes and order of all tensors, on which published and saved checkpoints and seeded initialisation rest.
TENSORS = {
    "b0": "0d2204bc5a3586fd0ac7e03d947964bb9c013fc62cc6706cc2731ca60f4e04db",
    "lite0": "187e0f10c2f56c4e87ff47b01f88ecf924e6a0fb03c242a4d0cb332b216a8b5f",
    "v2-b0": "1bf1c6e129ef598da0d8f6822b2902ed098a69ce67bbc719e585f80226932a91",
    "v2-s": "4ff95b906969d33c8489840cf0718cd4daf1167c1cb71d8568288d588f3b627c",
    "phi0.5": "6411a9fb672f21e0a6486ae63bbc848f67e87824f932dceac3d9fe92b05a3d1b",
}


@pytest.mark.parametrize(("name", "digest"), TENSORS.items(), ids=TENSORS)
def test_tensors_keep_their_names_shapes_and_order(name: str, digest: str) -> None:
    with torch.device("meta"):
        tensors = [(key, tuple(tensor.shape)) for key, tensor in create(name).state_dict().items()]
    assert hashlib.sha256(repr(tensors).encode()).hexdigest() == digest


@pytest.mark.parametrize("name", [*VARIANTS, "phi-6"])
def test_each_layer_takes_what_the_one_before_gives(name: str) -> None:
    v = variant(name).at(97)
    channels, size = 3, 97
    for layer in v.layers():
        if isinstance(layer, SqueezeExciteSpec):
            assert (layer.channels, layer.size) == (channels, size)
        else:
            assert (layer.inputs, layer.size) == (channels, size)
            channels, size = layer.outputs, layer.output_size
    assert (channels, v.classifier(10).inputs) == (v.head, v.head)


@pytest.mark.parametrize("name", ["b0", "lite0", "v2-b0"])
def test_the_modules_of_a_block_are_those_described(name: str) -> None:
    with torch.device("meta"):
        model = create(name)
    for block in variant(name).blocks():
        module = model.get_submodule(block.name)
        described = [
            part
            for layer in block.layers()
            for part in ((layer.name, layer.bn, layer.act) if isinstance(layer, ConvSpec) else (layer.name,))
            if part
        ]
        assert module.layers == described
        assert [child for child, _ in module.named_children()] == described


# By hand: 3 × 3 kernels, stride 2, 10 × 10 pixels, 8 channels in between, 6 out, 2 squeezed; weights times pixels of each layer.
@pytest.mark.parametrize(
    ("kind", "inputs", "macs"),
    [
        ("conv", 4, [9 * 4 * 6 * 25]),
        ("fused", 4, [9 * 4 * 8 * 25, 8 * 6 * 25]),
        ("separable", 8, [9 * 8 * 25, 8 * 2, 2 * 8, 8 * 6 * 25]),
        ("mbconv", 4, [4 * 8 * 100, 9 * 8 * 25, 8 * 2, 2 * 8, 8 * 6 * 25]),
    ],
)
def test_multiply_adds_of_each_kind_of_block_by_hand(kind: Kind, inputs: int, macs: list[int]) -> None:
    squeezed = 2 if kind in ("separable", "mbconv") else 0
    block = Block(0, 0, kind, kernel=3, stride=2, inputs=inputs, expanded=8, outputs=6, squeezed=squeezed, size=10)
    assert [conv.macs for layer in block.layers() for conv in layer.convs] == macs
