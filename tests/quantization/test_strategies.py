"""The rungs with a small network on digits: what each gives, and where the climb ends."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgeeff import BadInput, backends
from edgeeff.data.images import ImageSet, PixelFile, Preprocess
from edgeeff.export.tensorrt_lint import lint
from edgeeff.files import Workspace
from edgeeff.measurement.accuracy import Gate
from edgeeff.network.model import Deployed, create, predict
from edgeeff.quantization.strategies import Ladder, best, exported, reverted
from edgeeff.target import Target


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


def ladder(target: str, pixels: PixelFile, model, folder: Path, *, agreement: float, seconds: float = 600) -> Ladder:
    """The gate asks for agreement with the float network: its labels would mean nothing here."""
    gate = Gate(PixelFile(replace(pixels.images, labels=None, classes=()), pixels.preprocess), max_drop=1, min_agreement=agreement)
    gate.judge("float", predict(model, pixels.preprocess))
    return Ladder(
        target=Target.load(target),
        preprocess=pixels.preprocess,
        calibration=pixels,
        learning=pixels.images,
        gate=gate,
        workspace=Workspace(folder),
        original="silu",
        deadline=time.monotonic() + seconds,
        swap_to="hardswish",
        flip=False,
    )


def test_the_first_rung_that_passes_ends_the_climb(pixels: PixelFile, model, tmp_path: Path) -> None:
    climb = ladder("host-cpu", pixels, model, tmp_path, agreement=0)
    attempts = climb.climb(exported(model, pixels.preprocess, climb.target, climb.workspace))
    assert [a.remedy for a in attempts] == ["fast bias correction"]
    assert best(attempts) is attempts[0]


def test_every_rung_is_tried_when_none_passes_and_the_best_is_kept(pixels: PixelFile, model, tmp_path: Path) -> None:
    climb = ladder("tensorrt-qdq", pixels, model, tmp_path, agreement=100.1)
    network = exported(model, pixels.preprocess, climb.target, climb.workspace)
    attempts = climb.climb(network)
    assert [a.remedy for a in attempts] == [
        "ranges chosen per layer",
        "8 layers back to float",
        "16 layers back to float",
        "24 layers back to float",
        "hardswish, recovered",
        "quantization-aware training",
    ]
    assert all(a.report is not None and not a.note for a in attempts)
    assert best(attempts).report.agreement == max(a.report.agreement for a in attempts)
    assert 2 <= len(reverted(attempts, attempts[1])) <= 16
    assert attempts[4].network.activation == "hardswish"
    assert all(lint(a.file) == [] for a in attempts)
    assert [f.label for f in climb.integer_forms(attempts[4])] == ["int8, hardswish"]


def test_training_moves_the_ranges(pixels: PixelFile, model, tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    climb = ladder("tensorrt-qdq", pixels, model, tmp_path, agreement=0)
    network = exported(model, pixels.preprocess, climb.target, climb.workspace)
    scales = []
    for _, file in (climb.quantized(network, "ranges chosen per layer"), climb.trained(network)):
        graph = onnx.load(file).graph
        scales.append({i.name: numpy_helper.to_array(i) for i in graph.initializer if i.name.endswith("_scale")})
    assert scales[0].keys() == scales[1].keys()
    assert any((scales[0][k] != scales[1][k]).any() for k in scales[0])


def test_a_trained_network_compiles_for_openvino_too(pixels: PixelFile, model, tmp_path: Path) -> None:
    climb = ladder("host-cpu", pixels, model, tmp_path, agreement=0)
    file = climb.trained(exported(model, pixels.preprocess, climb.target, climb.workspace))[1]
    plain = climb.workspace.root / "silu-float" / "model.xml"
    sizes = [sum(f.stat().st_size for f in backends.get("openvino").files(each)) for each in (file, plain)]
    assert sizes[0] < 0.5 * sizes[1]


def test_when_the_time_is_up_the_best_so_far_stands(pixels: PixelFile, model, tmp_path: Path) -> None:
    climb = ladder("tensorrt-qdq", pixels, model, tmp_path, agreement=100.1, seconds=0)
    attempts = climb.climb(exported(model, pixels.preprocess, climb.target, climb.workspace))
    assert [a.note for a in attempts] == ["", "not tried: the time was up"]
    assert best(attempts) is attempts[0]


def test_too_few_photos_leave_recovery_out_and_say_so(pixels: PixelFile, model, tmp_path: Path) -> None:
    climb = replace(ladder("tensorrt-qdq", pixels, model, tmp_path, agreement=100.1), learning=pixels.images.take([0, 1]))
    network = exported(model, pixels.preprocess, climb.target, climb.workspace)
    attempts = climb.climb(network)
    assert "2 photos are too few to distil from" in attempts[4].note
    with pytest.raises(BadInput, match="too few"):
        climb.recovered(network, "hardswish")


def test_the_gain_of_a_swap_is_a_ratio_with_its_interval(pixels: PixelFile, model, tmp_path: Path) -> None:
    climb = ladder("host-cpu", pixels, model, tmp_path, agreement=0)
    faster, (low, high) = climb.gain(exported(model, pixels.preprocess, climb.target, climb.workspace), "hardswish")
    assert 0 < low <= faster <= high
