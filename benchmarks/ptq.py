"""edgeeff's post-training INT8 and NNCF's, of the same photos, both run by OpenVINO: what each loses, and how fast each is.

On a processor without VNNI instructions sums overflow, and each quantizer's answer to that is compared with what it does elsewhere.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from peers.compare import CALIBRATION_PHOTOS

from edgeeff.backends import openvino
from edgeeff.data.images import ImageSet, Logits, PixelFile, Predict
from edgeeff.data.preprocess import Preprocess
from edgeeff.export import qdq
from edgeeff.export.onnx import to_onnx
from edgeeff.machine import LOCAL
from edgeeff.measurement.accuracy import Gate
from edgeeff.measurement.benchmark import BenchmarkRequest, CompiledModel
from edgeeff.measurement.latency import ratio
from edgeeff.measurement.system_state import device
from edgeeff.network import checkpoint
from edgeeff.network.variants import variant
from edgeeff.precision import Precision
from edgeeff.progress import TerminalProgress
from edgeeff.quantization import fake_quant, nncf_ptq
from edgeeff.records import to_json


def measured(network: str, weights: Path, calibration: ImageSet, test: ImageSet) -> dict[str, Any]:
    """Accuracy on test photos, the squared error of the logits in percent of their power about each photo's mean, and how many
    times as fast as float32 the files for this processor are."""
    v, progress = variant(network), TerminalProgress()
    preprocess = Preprocess.standard(v.resolution, v.mean, v.std)
    photos, gate = PixelFile(calibration.draw(CALIBRATION_PHOTOS), preprocess), Gate(PixelFile(test, preprocess), max_drop=100)
    model = checkpoint.load(weights, v)[0].eval()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "float").mkdir()
        plain = openvino.compile(to_onnx(model, preprocess, folder / "float.onnx"), folder / "float")

        def by_nncf(overflows: bool) -> Path:
            import openvino as ov

            with nncf_ptq.quiet_nncf() as nncf:
                fix = nncf.OverflowFix.ENABLE if overflows else nncf.OverflowFix.DISABLE
                advanced = nncf.AdvancedQuantizationParameters(overflow_fix=fix)
                images = list(photos.batches(1))
                options = {"subset_size": len(images), "advanced_parameters": advanced, **nncf_ptq.scheme(nncf)}
                quantized = nncf.quantize(ov.Core().read_model(plain), nncf.Dataset(images), **options)
            return openvino.save(quantized, Path(tempfile.mkdtemp(dir=folder)))

        def by_edgeeff(overflows: bool) -> Path:
            ranges = fake_quant.calibrate(model, photos, symmetric=False, overflows=overflows)
            bare, scales = fake_quant.strip(fake_quant.fake_quantized(model, ranges))
            made = Path(tempfile.mkdtemp(dir=folder))
            graph = qdq.write(to_onnx(bare, preprocess, made / "float.onnx"), scales, made / "qdq.onnx")
            return openvino.compile(graph, made)

        files = {}
        for name, make in {"NNCF": by_nncf, "edgeeff": by_edgeeff}.items():
            for overflows in (False, True):
                progress.say(
                    f"{network}: {name}, weights {'for processors whose sums overflow' if overflows else 'of the whole range'}"
                )
                files[name, overflows] = make(overflows)
        exact = openvino.load(plain, precision=Precision.FLOAT32, throughput=True)
        gate.judge("float32", exact)
        truth = logits(exact, gate.pixels)
        power = np.square(truth - truth.mean(1, keepdims=True)).sum()
        here = device().int8_overflows
        models = {"float32": CompiledModel("openvino", plain, Precision.FLOAT32, v.resolution)}
        models |= {name: CompiledModel("openvino", files[name, here], Precision.INT8, v.resolution) for name in ("NNCF", "edgeeff")}
        latencies = {k: m.latency for k, m in LOCAL.benchmark(BenchmarkRequest(models), progress).metrics.items()}
        rows = []
        for (name, overflows), file in files.items():
            run = openvino.load(file, precision=Precision.INT8, throughput=True)
            step, error = gate.judge(name, run), 100 * np.square(logits(run, gate.pixels) - truth).sum() / power
            faster = to_json(ratio(latencies["float32"], latencies[name])._asdict()) if overflows == here else None
            rows.append({"by": name, "overflows": overflows, "step": to_json(step), "error": float(error), "faster": faster})
    return {"rows": rows, "overflow_here": here}


def logits(run: Predict, pixels: PixelFile) -> Logits:
    return np.concatenate([run(batch) for batch in pixels.batches(128)])
