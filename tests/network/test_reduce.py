"""Networks without some of their blocks: the same weights otherwise, a variant of the family, matched to the whole network."""

import numpy as np
import pytest
import torch
from networks import SIZE, trained
from PIL import Image

from edgeeff.data.images import ImageSet, PixelFile
from edgeeff.data.preprocess import Preprocess
from edgeeff.network.distill import Distillation, Matching, Sample
from edgeeff.network.model import EfficientNet, MBBlock
from edgeeff.network.reduce import counterparts, losses, removable, without
from edgeeff.network.variants import VARIANTS, variant

GONE = ("blocks.1.1", "blocks.4.1", "blocks.4.2")
PREPROCESS = Preprocess(SIZE, SIZE, (127.0,) * 3, (64.0,) * 3)


@pytest.fixture(scope="module")
def whole() -> EfficientNet:
    return trained("b0", classes=10, resolution=SIZE)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> PixelFile:
    folder, rng = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for i in range(40):
        pixels = np.clip(rng.normal(rng.uniform(40, 200, 3), rng.uniform(5, 60), (SIZE, SIZE, 3)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return PixelFile(ImageSet.open(folder), PREPROCESS)


@pytest.mark.parametrize("name", list(VARIANTS))
def test_a_block_that_can_be_left_out_has_a_skip(name: str) -> None:
    blocks = removable(variant(name))
    assert all(block.skip for block in blocks)
    assert len(blocks) == sum(stage.repeats - 1 for stage in variant(name).stages)


def test_a_network_without_blocks_answers_as_the_whole_one_whose_blocks_pass_on_their_input(whole: EfficientNet) -> None:
    reduced = without(whole, GONE)
    names = [block.name for block in whole.variant.blocks()]
    modules = dict(zip(names, (m for m in whole.modules() if isinstance(m, MBBlock)), strict=True))
    images = torch.randn(4, 3, SIZE, SIZE)
    hooks = [modules[name].register_forward_hook(lambda module, inputs, output: inputs[0]) for name in GONE]
    with torch.inference_mode():
        expected = whole(images)
        for hook in hooks:
            hook.remove()
        torch.testing.assert_close(reduced(images), expected)
        assert (whole(images) - expected).abs().max() > 1e-3  # the blocks did something


def test_it_is_a_variant_of_the_family_with_fewer_repeats(whole: EfficientNet) -> None:
    reduced = without(whole, GONE)
    assert [s.repeats for s in reduced.variant.stages] == [1, 1, 2, 3, 1, 4, 1]
    fresh = EfficientNet(reduced.variant, 10, whole.padding, whole.bn_eps)
    fresh.load_state_dict(reduced.state_dict())  # every tensor has the name and the shape that the variant says
    assert reduced.variant.cost(10).flops < whole.variant.cost(10).flops
    assert without(whole, ()).variant == whole.variant


@pytest.mark.parametrize("name", ["blocks.1.0", "blocks.9.1", "conv_stem"])
def test_a_block_without_a_skip_cannot_be_left_out(whole: EfficientNet, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        without(whole, [name])


def test_a_block_makes_up_for_those_that_are_left_out_after_it() -> None:
    names = [block.name for block in variant("b0").blocks()]
    assert counterparts(variant("b0"), ()) == tuple(range(len(names)))
    matched = [names[i] for i in counterparts(variant("b0"), GONE)]
    assert matched == [name for name in names if name not in ("blocks.1.0", "blocks.4.0", "blocks.4.1")]


def test_the_output_of_a_block_is_matched_with_that_of_its_counterpart(whole: EfficientNet, photos: PixelFile) -> None:
    """Leaving out a last block that does nothing costs nothing, as its counterpart gives what the block before it gives."""
    idle = without(whole, ())
    block = [m for m in idle.modules() if isinstance(m, MBBlock)][2]  # blocks.1.1
    torch.nn.init.zeros_(block.bn3.weight)
    torch.nn.init.zeros_(block.bn3.bias)
    gone = ("blocks.1.1",)
    recipe = Distillation(counterparts=counterparts(idle.variant, gone))
    samples = [Sample(i, False) for i in range(32)]
    matching = Matching(without(idle, gone), idle, photos, recipe)
    matching.measure(samples)
    assert matching(samples).item() == pytest.approx(0, abs=1e-6)
    matching = Matching(without(whole, gone), whole, photos, recipe)
    matching.measure(samples)
    assert matching(samples).item() > 1e-3


def test_the_loss_of_a_block_is_that_of_the_network_without_it(whole: EfficientNet, photos: PixelFile) -> None:
    from edgeeff.network.model import predict

    found = losses(whole, photos, PREPROCESS, ["blocks.1.1", "blocks.5.2"])
    images = photos.rows(0, 40)

    def log_softmax(network: EfficientNet) -> torch.Tensor:
        return torch.from_numpy(predict(network, PREPROCESS)(images)).log_softmax(1)

    for name, loss in found.items():
        p, q = log_softmax(whole), log_softmax(without(whole, [name]))
        assert loss == pytest.approx(float((p.exp() * (p - q)).sum(1).mean()), rel=1e-3, abs=1e-6)
    with torch.inference_mode():
        assert losses(whole, photos, PREPROCESS, ["blocks.1.1"])["blocks.1.1"] == pytest.approx(found["blocks.1.1"])
