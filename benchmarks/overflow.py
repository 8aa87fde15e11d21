"""What INT8 loses on a processor without VNNI, whose sums overflow: weights of the whole range, of half of it, and refined ones."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from peers.compare import CALIBRATION_PHOTOS

from edgeeff.backends import openvino
from edgeeff.data.images import ImageSet, Logits, PixelFile, Predict
from edgeeff.data.preprocess import Preprocess
from edgeeff.errors import ToolMissing
from edgeeff.export.onnx import to_onnx
from edgeeff.measurement.accuracy import Gate
from edgeeff.measurement.system_state import device
from edgeeff.network import checkpoint
from edgeeff.network.variants import variant
from edgeeff.precision import Precision
from edgeeff.progress import TerminalProgress
from edgeeff.quantization import nncf_ptq
from edgeeff.records import to_json


def require() -> None:
    """Raise ToolMissing where sums do not overflow."""
    if not device().int8_overflows:
        raise ToolMissing("expected a processor without VNNI instructions.")


def measured(network: str, weights: Path, calibration: ImageSet, test: ImageSet) -> dict[str, Any]:
    """Accuracy on test photos, and the squared error of the logits in percent of their power about each photo's mean."""
    v, progress = variant(network), TerminalProgress()
    preprocess = Preprocess.standard(v.resolution, v.mean, v.std)
    photos, gate = PixelFile(calibration.draw(CALIBRATION_PHOTOS), preprocess), Gate(PixelFile(test, preprocess), max_drop=100)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        onnx = to_onnx(checkpoint.load(weights, v)[0].eval(), preprocess, folder / "float.onnx")
        (folder / "float").mkdir()
        plain = openvino.compile(onnx, folder / "float")

        def quantized(name: str, overflows: bool) -> Path:
            progress.say(f"{network}: {name}")
            (folder / name).mkdir()
            return nncf_ptq.quantize(plain, photos, folder / name, overflows=overflows, progress=progress)

        with mock.patch.object(nncf_ptq, "refine"):  # what NNCF makes of it
            files = {"half of the range": quantized("half", True), "whole range": quantized("whole", False)}
        files["refined"] = quantized("refined", True)
        exact = openvino.load(plain, precision=Precision.FLOAT32, throughput=True)
        gate.judge("float32", exact)
        truth = logits(exact, gate.pixels)
        power = np.square(truth - truth.mean(1, keepdims=True)).sum()
        errors = {}
        for name, file in files.items():
            run = openvino.load(file, precision=Precision.INT8, throughput=True)
            gate.judge(name, run)
            errors[name] = float(100 * np.square(logits(run, gate.pixels) - truth).sum() / power)
    return {"steps": to_json(gate.reports), "errors": errors}


def logits(run: Predict, pixels: PixelFile) -> Logits:
    return np.concatenate([run(batch) for batch in pixels.batches(128)])
