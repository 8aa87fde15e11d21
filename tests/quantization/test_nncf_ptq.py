from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgeeff import BadInput, Precision, backends
from edgeeff.data.images import ImageSet, PixelFile
from edgeeff.data.preprocess import Preprocess
from edgeeff.export.onnx import to_onnx
from edgeeff.network.model import create
from edgeeff.quantization.nncf_ptq import (
    quantize_with_accuracy_control,
    quantized_layers,
    refuse_blank,
)

pytestmark = pytest.mark.slow
OPENVINO = backends.get("openvino")


@pytest.fixture(scope="module")
def pixels(digits: Path) -> PixelFile:
    v = create("b0", classes=10, resolution=32).variant
    return PixelFile(ImageSet.open(digits / "train").draw(20), Preprocess(32, 32, v.mean, v.std))


@pytest.fixture(scope="module")
def model(tmp_path_factory, pixels: PixelFile) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    network = create("b0", classes=10, resolution=32)
    return OPENVINO.compile(to_onnx(network, pixels.preprocess, folder / "model.onnx"), folder)


@pytest.mark.parametrize("overflows", [False, True])
def test_accuracy_control_gives_an_int8_file_that_runs(overflows: bool, model: Path, pixels: PixelFile, tmp_path: Path) -> None:
    file = quantize_with_accuracy_control(model, pixels, tmp_path, max_drop=100, overflows=overflows)
    assert sum(f.stat().st_size for f in OPENVINO.files(file)) < 0.5 * sum(f.stat().st_size for f in OPENVINO.files(model))
    logits = OPENVINO.load(file, precision=Precision("int8"))(next(pixels.batches(4)))
    assert logits.shape == (4, 10)
    assert np.isfinite(logits).all()


def test_convolutions_are_int8_and_gates_stay_float(model: Path, pixels: PixelFile, tmp_path: Path) -> None:
    layers = quantized_layers(quantize_with_accuracy_control(model, pixels, tmp_path, max_drop=100))
    assert any("conv_dw" in name for name in layers)
    assert any("conv_pwl" in name for name in layers)
    assert not any("/se/" in name for name in layers)
    assert quantized_layers(model) == set()


def test_blank_calibration_photos_are_refused(tmp_path: Path) -> None:
    for i in range(4):
        Image.new("RGB", (32, 32), "black").save(tmp_path / f"{i}.png")
    with pytest.raises(BadInput, match="4 of 4 calibration photos are blank"):
        refuse_blank(PixelFile(ImageSet.open(tmp_path), Preprocess(32, 32, (0, 0, 0), (1, 1, 1))))


def test_quantizing_is_quiet(model: Path, pixels: PixelFile, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    quantize_with_accuracy_control(model, pixels, tmp_path, max_drop=100)
    assert capfd.readouterr() == ("", "")
