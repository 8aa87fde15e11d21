"""The strategies with a small network on digits: what each gives, and where the climb ends."""

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from cameras import Said
from contexts import context_of

from edgeeff import BadInput, Precision, backends
from edgeeff.context import NetworkContext
from edgeeff.data.images import ImageSet, PixelFile
from edgeeff.data.preprocess import Preprocess
from edgeeff.errors import AccuracyGateFailed
from edgeeff.export import qdq
from edgeeff.export.tensorrt_lint import lint
from edgeeff.network.model import Deployed, EfficientNet, create
from edgeeff.quantization.ladder import best, climb, gain, integer_forms
from edgeeff.quantization.strategies import STRATEGIES, Network, Quantized, Strategy, recovered

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("brief")]


@pytest.fixture(scope="module")
def pixels(digits: Path) -> PixelFile:
    v = create("b0", classes=16, resolution=32).variant
    return PixelFile(ImageSet.open(digits / "train").draw(64), Preprocess(32, 32, v.mean, v.std))


@pytest.fixture(scope="module")
def model(pixels: PixelFile):
    torch.manual_seed(0)
    network = create("b0", classes=16, resolution=32).train()
    with torch.no_grad():
        for _ in range(20):
            Deployed(network, pixels.preprocess)(torch.from_numpy(pixels.rows(0, 64)))
    return network.eval()


@dataclass(frozen=True)
class Refused:
    """A strategy whose file does not answer as its network does."""

    name: str = "refused"

    def applies(self, context: NetworkContext, network: Network) -> bool:
        return True

    def quantize(self, context: NetworkContext, network: Network) -> Quantized:
        raise AccuracyGateFailed("they agree on 0.0% of the calibration photos.")


@dataclass(frozen=True)
class Overflowing:
    """A strategy whose file answers with logits that are not finite."""

    name: str = "overflowing"

    def applies(self, context: NetworkContext, network: Network) -> bool:
        return True

    def quantize(self, context: NetworkContext, network: Network) -> Quantized:
        broken = replace(context, cache=context.cache.within("overflowing"))
        return Quantized(network, Network.export(overflowing(network.model), broken).compiled)


def overflowing(model: EfficientNet) -> EfficientNet:
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.classifier.weight.fill_(3e38)
    return other


def strategy(name: str) -> Strategy:
    return next(s for s in STRATEGIES if s.name == name)


def test_the_first_rung_that_passes_ends_the_climb(pixels: PixelFile, model, tmp_path: Path) -> None:
    attempts = climb(*context_of("host-cpu", pixels, model, tmp_path, agreement=0))
    assert [a.strategy for a in attempts] == ["ranges chosen per layer"]
    assert best(attempts) is attempts[0]


def test_logits_that_are_no_numbers_are_an_attempt_that_failed(pixels: PixelFile, model, tmp_path: Path) -> None:
    context, network = context_of("host-cpu", pixels, model, tmp_path, agreement=0)
    context = replace(context, progress=(said := Said()))
    attempts = climb(context, network, [Refused(), Overflowing(), STRATEGIES[0]])
    assert [line.partition(",")[0] for line in said.lines if "next: " in line] == [
        "refused: they agree on 0.0% of the calibration photos; next: overflowing",
        "overflowing: int8 (overflowing): a logit is not a finite number for 64 of 64 photos (100.00%). Check the weights",
    ]
    assert [(a.strategy, bool(a.report and a.report.passed)) for a in attempts] == [
        ("refused", False),
        ("overflowing", False),
        ("ranges chosen per layer", True),
    ]
    assert "0.0% of the calibration photos" in attempts[0].note
    assert attempts[1].report.not_finite == 64
    assert best(attempts) is attempts[2]
    with pytest.raises(AccuracyGateFailed, match="calibration photos"):
        climb(context, network, [Refused()])


def test_every_rung_is_tried_when_none_passes_and_the_best_is_kept(pixels: PixelFile, model, tmp_path: Path) -> None:
    context, network = context_of("tensorrt-qdq", pixels, model, tmp_path, agreement=100.1)
    attempts = climb(context, network)
    assert [a.strategy for a in attempts] == [
        "ranges chosen per layer",
        "8 layers back to float",
        "16 layers back to float",
        "24 layers back to float",
        "hardswish, recovered",
        "quantization-aware training",
    ]
    assert all(a.report is not None and not a.note for a in attempts)
    assert best(attempts).report.agreement == max(a.report.agreement for a in attempts)
    assert len(attempts[1].quantized.excluded_layers) == 8
    assert attempts[4].quantized.network.activation == "hardswish"
    assert all(lint(a.quantized.file) == [] for a in attempts)
    assert [(f.precision, f.activation) for f in integer_forms(context, attempts[4])] == [(Precision.INT8, "hardswish")]


def test_a_file_that_does_not_answer_as_its_network_is_an_attempt_that_failed(
    pixels: PixelFile, model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, network = context_of("host-cpu", pixels, model, tmp_path, agreement=0)
    write = qdq.write

    def with_wrong_scales(plain: Path, scales: qdq.Scales, path: Path) -> Path:
        wrong = {name: each._replace(data=qdq.Affine(each.data.scale / 8)) for name, each in scales.items()}
        return write(plain, wrong, path)

    monkeypatch.setattr(qdq, "write", with_wrong_scales)
    with pytest.raises(AccuracyGateFailed, match=r"the logits of the compiled file differ by .* expected at most 2 times the "):
        STRATEGIES[0].quantize(context, network)


def test_training_moves_the_ranges(pixels: PixelFile, model, tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    context, network = context_of("tensorrt-qdq", pixels, model, tmp_path, agreement=0)
    scales = []
    for name in ("ranges chosen per layer", "quantization-aware training"):
        graph = onnx.load(strategy(name).quantize(context, network).file).graph
        scales.append({i.name: numpy_helper.to_array(i) for i in graph.initializer if i.name.endswith("_scale")})
    assert scales[0].keys() == scales[1].keys()
    assert any((scales[0][k] != scales[1][k]).any() for k in scales[0])


def test_a_trained_network_compiles_for_openvino_too(pixels: PixelFile, model, tmp_path: Path) -> None:
    context, network = context_of("host-cpu", pixels, model, tmp_path, agreement=0)
    file = strategy("quantization-aware training").quantize(context, network).file
    plain = context.cache.root / "silu-float" / "model.xml"
    sizes = [sum(f.stat().st_size for f in backends.get("openvino").files(each)) for each in (file, plain)]
    assert sizes[0] < 0.5 * sizes[1]


def test_when_the_time_is_up_the_best_so_far_stands(pixels: PixelFile, model, tmp_path: Path) -> None:
    attempts = climb(*context_of("tensorrt-qdq", pixels, model, tmp_path, agreement=100.1, seconds=0))
    assert [a.note for a in attempts] == ["", "not tried: the time budget was used up"]
    assert best(attempts) is attempts[0]


def test_too_few_photos_leave_recovery_out_and_say_so(pixels: PixelFile, model, tmp_path: Path) -> None:
    context, network = context_of("tensorrt-qdq", pixels, model, tmp_path, agreement=100.1)
    context = replace(context, photos=replace(context.photos, learning=pixels.images.take([0, 1])))
    attempts = climb(context, network)
    assert "2 photos are too few to distil from" in attempts[4].note
    with pytest.raises(BadInput, match="too few"):
        recovered(context, network, "hardswish")


def test_the_gain_of_a_swap_is_a_ratio_with_its_interval(pixels: PixelFile, model, tmp_path: Path) -> None:
    faster, (low, high) = gain(*context_of("host-cpu", pixels, model, tmp_path, agreement=0), "hardswish")
    assert 0 < low <= faster <= high
