"""Batch norms inside their convolutions: the same answers, and the same gradients of the network's own weights."""

import numpy as np
import pytest
import torch
from networks import SIZE, trained

from edgeeff.data.preprocess import Preprocess
from edgeeff.network.folding import Folded, fold_batch_norms
from edgeeff.network.model import Deployed, EfficientNet, MBBlock, channels_last
from edgeeff.quantization.fake_quant import LayerRange, fake_quantized, layers

pytestmark = pytest.mark.medium
PREPROCESS = Preprocess(SIZE, SIZE, (127.0,) * 3, (64.0,) * 3)
IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8))


@pytest.fixture(params=["b0", "v2-b0", "lite0"])
def network(request: pytest.FixtureRequest) -> EfficientNet:
    return trained(request.param, classes=10, resolution=SIZE)


def plain(network: EfficientNet) -> Deployed:
    return channels_last(Deployed(network, PREPROCESS).eval())


def test_a_folded_copy_answers_as_the_network(network: EfficientNet) -> None:
    folded = fold_batch_norms(network)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(plain(folded)(IMAGES), plain(network)(IMAGES), rtol=1e-3, atol=1e-4)


def test_its_own_weights_get_the_same_gradients(network: EfficientNet) -> None:
    found = {}
    for name, computed in {"plain": plain(network), "folded": Folded(network, PREPROCESS)}.items():
        network.zero_grad()
        computed(IMAGES).square().sum().backward()
        found[name] = {key: p.grad for key, p in network.named_parameters() if p.grad is not None}
    assert found["plain"].keys() == found["folded"].keys() == dict(network.named_parameters()).keys()
    for key, expected in found["plain"].items():
        assert (found["folded"][key] - expected).norm() <= 1e-3 * expected.norm() + 1e-6, key


def test_what_it_learns_is_seen_in_the_next_answer(network: EfficientNet) -> None:
    folded = Folded(network, PREPROCESS)
    before = folded(IMAGES)
    with torch.no_grad():
        for weight in folded.parameters():
            weight.mul_(1.01)
    assert {id(weight) for weight in folded.parameters()} == {id(weight) for weight in network.parameters()}
    torch.testing.assert_close(folded(IMAGES), plain(network)(IMAGES), rtol=1e-3, atol=1e-4)
    assert (folded(IMAGES) - before).abs().max() > 1e-3


def test_one_that_does_not_learn_is_folded_once(network: EfficientNet) -> None:
    folded = Folded(network, PREPROCESS, learns=False)
    before = plain(network)(IMAGES)
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(1.01)
    torch.testing.assert_close(folded(IMAGES), before, rtol=1e-3, atol=1e-4)


def test_its_blocks_give_the_outputs_of_the_networks_blocks(network: EfficientNet) -> None:
    bare, folded = plain(network), Folded(network, PREPROCESS)
    outputs: list[torch.Tensor] = []
    for block in (*(module for module in bare.modules() if isinstance(module, MBBlock)), *folded.blocks):
        block.register_forward_hook(lambda module, inputs, output: outputs.append(output.clone()))
    bare(IMAGES), folded(IMAGES)
    half = len(list(network.variant.blocks()))
    assert len(outputs) == 2 * half
    for expected, found in zip(outputs[:half], outputs[half:], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_a_network_with_quantizers_is_folded_already_and_answers_as_it_is(network: EfficientNet) -> None:
    ranges = {
        name: LayerRange(0.05, "largest", layer.weight.flatten(1).abs().amax(1).detach(), torch.zeros(len(layer.weight)), 0.0)
        for name, layer, _ in layers(fold_batch_norms(network))
    }
    quantized = fake_quantized(network, ranges)
    assert torch.equal(Folded(quantized, PREPROCESS)(IMAGES), plain(quantized)(IMAGES))
