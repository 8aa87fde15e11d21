"""Smaller networks: the same weights otherwise, a variant of the family, matched to the whole network."""

import numpy as np
import pytest
import torch
from networks import SIZE, trained
from PIL import Image

from edgeeff.data.images import ImageSet, PixelFile
from edgeeff.data.preprocess import Preprocess
from edgeeff.network.distill import Distillation, Matching, Sample
from edgeeff.network.model import EfficientNet, MBBlock
from edgeeff.network.reduce import Reduction, counterparts, gate_means, loss_at, losses, reduced, remaining, removable, resolutions
from edgeeff.network.variants import VARIANTS, variant

pytestmark = pytest.mark.medium
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


def without(network: EfficientNet, *parts: str, **options) -> EfficientNet:
    return reduced(network, Reduction(network.variant.resolution, parts), **options)


@pytest.mark.parametrize("name", list(VARIANTS))
def test_a_block_that_can_be_left_out_has_a_skip(name: str) -> None:
    parts = removable(variant(name))
    blocks = [part.block for part in parts if not part.gate]
    assert all(block.skip for block in blocks)
    assert len(blocks) == sum(stage.repeats - 1 for stage in variant(name).stages)
    assert sum(part.gate for part in parts) == sum(stage.repeats for stage in variant(name).stages if stage.se)
    assert len({part.name for part in parts}) == len(parts)


def test_lower_resolutions_are_multiples_of_16_pixels() -> None:
    assert resolutions(variant("b0")) == [192, 160, 144]
    assert resolutions(variant("b4")) == [336, 288, 240]
    assert resolutions(variant("b0").at(48)) == [32]
    assert resolutions(variant("b0").at(32)) == []


def test_a_network_without_gates_answers_as_the_whole_one_with_constant_gates(whole: EfficientNet, photos: PixelFile) -> None:
    names = ("blocks.0.0.se", "blocks.5.2.se")  # in B0 stage 0 is separable, and the others are inverted bottlenecks
    means = gate_means(whole, photos, PREPROCESS)
    assert len(means) == 16
    images = torch.randn(4, 3, SIZE, SIZE)
    modules = dict(whole.named_modules())
    hooks = [
        modules[name].register_forward_hook(lambda module, inputs, output, name=name: inputs[0] * means[name][:, None, None])
        for name in names
    ]
    with torch.inference_mode():
        expected = whole(images)
        for hook in hooks:
            hook.remove()
        smaller = without(whole, *names, means=means)
        torch.testing.assert_close(smaller(images), expected, rtol=1e-4, atol=1e-4)
        assert (whole(images) - expected).abs().max() > 1e-3  # the gates did something
    assert [stage.ungated for stage in smaller.variant.stages] == [(0,), (), (), (), (), (2,), ()]
    assert smaller.variant.cost(10).params < whole.variant.cost(10).params
    assert "blocks.5.2.se.conv_reduce.weight" not in smaller.state_dict()


def test_a_gate_stays_with_its_block_where_a_block_before_it_is_left_out(whole: EfficientNet) -> None:
    smaller = without(whole, "blocks.5.1", "blocks.5.2.se")
    assert smaller.variant.stages[5].ungated == (1,)
    again = without(smaller, "blocks.5.1")  # which was 5.2
    assert [s.ungated for s in again.variant.stages] == [()] * 7
    fresh = EfficientNet(smaller.variant, 10, whole.padding, whole.bn_eps)
    fresh.load_state_dict(smaller.state_dict())


def test_the_mean_of_a_gate_is_that_over_photos(whole: EfficientNet, photos: PixelFile) -> None:
    found = []
    hook = dict(whole.named_modules())["blocks.3.1.se.gate"].register_forward_hook(lambda m, i, output: found.append(output))
    from edgeeff.network.model import predict

    predict(whole, PREPROCESS)(photos.rows(0, 40))
    hook.remove()
    expected = torch.cat(found).mean((0, 2, 3))
    torch.testing.assert_close(gate_means(whole, photos, PREPROCESS)["blocks.3.1.se"], expected)


def test_a_network_that_answers_no_numbers_costs_everything(whole: EfficientNet, photos: PixelFile) -> None:
    broken = without(whole)
    torch.nn.init.constant_(broken.classifier.bias, float("nan"))
    assert loss_at(broken, photos, photos) == float("inf")


def test_a_lower_resolution_changes_no_weight(whole: EfficientNet, photos: PixelFile) -> None:
    smaller = reduced(whole, Reduction(32))
    assert smaller.variant == whole.variant.at(32)
    assert all(torch.equal(a, b) for a, b in zip(smaller.state_dict().values(), whole.state_dict().values(), strict=True))
    assert loss_at(whole, photos, photos) == pytest.approx(0, abs=1e-6)
    assert loss_at(whole, photos, PixelFile(photos.images, PREPROCESS.at(32))) > 1e-4


def test_a_network_without_blocks_answers_as_the_whole_one_whose_blocks_pass_on_their_input(whole: EfficientNet) -> None:
    smaller = without(whole, *GONE)
    names = [block.name for block in whole.variant.blocks()]
    modules = dict(zip(names, (m for m in whole.modules() if isinstance(m, MBBlock)), strict=True))
    images = torch.randn(4, 3, SIZE, SIZE)
    hooks = [modules[name].register_forward_hook(lambda module, inputs, output: inputs[0]) for name in GONE]
    with torch.inference_mode():
        expected = whole(images)
        for hook in hooks:
            hook.remove()
        torch.testing.assert_close(smaller(images), expected)
        assert (whole(images) - expected).abs().max() > 1e-3  # the blocks did something


def test_it_is_a_variant_of_the_family_with_fewer_repeats(whole: EfficientNet) -> None:
    smaller = without(whole, *GONE)
    assert [s.repeats for s in smaller.variant.stages] == [1, 1, 2, 3, 1, 4, 1]
    fresh = EfficientNet(smaller.variant, 10, whole.padding, whole.bn_eps)
    fresh.load_state_dict(smaller.state_dict())  # every tensor has the name and the shape that the variant says
    assert smaller.variant.cost(10).flops < whole.variant.cost(10).flops
    assert without(whole).variant == whole.variant


@pytest.mark.parametrize("name", ["blocks.1.0", "blocks.9.1", "conv_stem", "blocks.9.1.se"])
def test_a_block_without_a_skip_cannot_be_left_out(whole: EfficientNet, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        without(whole, name)


@pytest.mark.parametrize(
    ("done", "to"),
    [
        ((), GONE),
        (("blocks.2.1",), ("blocks.2.1",)),
        (("blocks.4.1.se", "blocks.5.1"), ("blocks.4.1", "blocks.5.1", "blocks.5.2.se", "blocks.5.3")),  # 5.2 is 5.1 by then
        (
            ("blocks.0.0.se", "blocks.5.1", "blocks.5.2"),
            ("blocks.0.0.se", "blocks.5.1", "blocks.5.2", "blocks.5.3", "blocks.1.0.se"),
        ),
    ],
)
def test_by_way_of_a_smaller_network_it_becomes_the_same(whole: EfficientNet, done: tuple[str, ...], to: tuple[str, ...]) -> None:
    first, last = Reduction(64, done), Reduction(32, to)
    rest = remaining(whole.variant, first, last)
    assert rest
    again, direct = reduced(reduced(whole, first), rest), reduced(whole, last)
    assert again.variant == direct.variant
    for a, b in zip(again.state_dict().values(), direct.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("done", "to"),
    [
        (Reduction(64, ("blocks.2.1",)), Reduction(64, ("blocks.3.1",))),
        (Reduction(64, ("blocks.2.1",)), Reduction(64, ("blocks.2.1.se",))),
        (Reduction(64, ("blocks.3.1",)), Reduction(64, ("blocks.3.2",))),
        (Reduction(64, ("blocks.2.1.se",)), Reduction(64)),
        (Reduction(32), Reduction(64)),
    ],
)
def test_what_is_left_out_does_not_come_back(whole: EfficientNet, done: Reduction, to: Reduction) -> None:
    assert remaining(whole.variant, done, to) is None


def test_a_block_makes_up_for_those_that_are_left_out_after_it() -> None:
    names = [block.name for block in variant("b0").blocks()]
    assert counterparts(variant("b0"), ()) == tuple(range(len(names)))
    matched = [names[i] for i in counterparts(variant("b0"), GONE)]
    assert matched == [name for name in names if name not in ("blocks.1.0", "blocks.4.0", "blocks.4.1")]


def test_the_output_of_a_block_is_matched_with_that_of_its_counterpart(whole: EfficientNet, photos: PixelFile) -> None:
    """Leaving out a last block that does nothing costs nothing, as its counterpart gives what the block before it gives."""
    idle = without(whole)
    block = [m for m in idle.modules() if isinstance(m, MBBlock)][2]  # blocks.1.1
    torch.nn.init.zeros_(block.bn3.weight)
    torch.nn.init.zeros_(block.bn3.bias)
    gone = ("blocks.1.1",)
    recipe = Distillation(counterparts=counterparts(idle.variant, gone))
    samples = [Sample(i, False) for i in range(32)]
    matching = Matching(without(idle, *gone), idle, photos, recipe)
    matching.measure(samples)
    assert matching(matching.views(samples)).item() == pytest.approx(0, abs=1e-6)
    matching = Matching(without(whole, *gone), whole, photos, recipe)
    matching.measure(samples)
    assert matching(matching.views(samples)).item() > 1e-3


def test_the_loss_at_a_block_is_that_of_the_network_without_it(whole: EfficientNet, photos: PixelFile) -> None:
    from edgeeff.network.model import predict

    parts = [part for part in removable(whole.variant) if part.name in ("blocks.1.1", "blocks.5.2", "blocks.5.2.se")]
    means = gate_means(whole, photos, PREPROCESS)
    found = losses(whole, photos, PREPROCESS, parts, means)
    images = photos.rows(0, 40)

    def log_softmax(network: EfficientNet) -> torch.Tensor:
        return torch.from_numpy(predict(network, PREPROCESS)(images)).log_softmax(1)

    assert len(found) == 3
    for part, loss in found.items():
        p, q = log_softmax(whole), log_softmax(without(whole, part.name, means=means))
        assert loss == pytest.approx(float((p.exp() * (p - q)).sum(1).mean()), rel=1e-3, abs=1e-6)
