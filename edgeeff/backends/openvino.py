"""OpenVINO on CPU. A compiled model is an IR: `model.xml` beside `model.bin`.

`int8` leaves the layers that are not quantized in float32, `int8-bf16` in bfloat16: the same file, another compile option.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput
from ..images import Logits, Pixels, Predict
from . import LayerTime, profiled_runs

PRECISIONS = ("float32", "bf16", "int8", "int8-bf16")
MODEL = "model.xml"
JUDGE = "openvino"


def available() -> str | None:
    return None if find_spec("openvino") else "openvino is not installed: pip install 'edgeeff[openvino]'"


def version() -> str:
    import openvino

    return str(openvino.__version__).split("-")[0]


@cache
def _core() -> Any:
    import openvino

    return openvino.Core()


def supported(precision: str) -> bool:
    capabilities = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ("BF16" in capabilities or not precision.endswith("bf16")) and (
        "INT8" in capabilities or not precision.startswith("int8")
    )


def compile(onnx: Path, folder: Path) -> Path:
    from openvino._offline_transformations import apply_moc_transformations

    model = _core().read_model(onnx)
    # What `openvino.convert_model` runs, without its telemetry. It fuses Sigmoid · x to Swish and biases to their convolutions;
    # quantized without it, V2-B0 was slower than bf16 and its biases were not corrected.
    apply_moc_transformations(model, cf=True, smart_reshape=False)
    return save(model, folder)


def save(model: Any, folder: Path) -> Path:
    """Write an openvino.Model as the IR that `load` reads."""
    import openvino

    path = folder / MODEL
    try:
        openvino.save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:
        raise BadInput(f"{path}: cannot be written ({str(error).strip()}). Is the disk full?") from error
    return path


def files(model: Path) -> list[Path]:
    return [model, model.with_suffix(".bin")]


def load(model: Path, *, precision: str, threads: int = 0, throughput: bool = False) -> Predict:
    compiled = _compiled(model, precision, threads, PERFORMANCE_HINT="THROUGHPUT" if throughput else "LATENCY")
    return _Throughput(compiled) if throughput else _Latency(compiled)


def layer_times(model: Path, image: Pixels, *, precision: str, threads: int = 0) -> list[LayerTime]:
    request = _compiled(model, precision, threads, PERFORMANCE_HINT="LATENCY", PERF_COUNT=True).create_infer_request()
    runs: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for _ in profiled_runs():
        request.infer({0: image})
        for node in request.get_profiling_info():
            if node.status == node.Status.EXECUTED:
                runs[node.node_name, node.node_type, node.exec_type].append(1000 * node.real_time.total_seconds())
    # the first run is cold, and what ran in that alone prepared something
    layers = [LayerTime(*names, statistics.median(times[1:])) for names, times in runs.items() if len(times) > 1]
    return sorted(layers, key=lambda layer: -layer.milliseconds)


def _compiled(model: Path, precision: str, threads: int, **config: Any) -> Any:
    config["INFERENCE_PRECISION_HINT"] = "bf16" if precision.endswith("bf16") else "f32"
    if threads:
        config["INFERENCE_NUM_THREADS"] = threads
    try:
        return _core().compile_model(model, "CPU", config)
    except RuntimeError as error:
        raise BadInput(f"{model}: OpenVINO cannot load it ({str(error).strip().splitlines()[-1][:200]}).") from error


class _Latency:
    """One request; the output is copied out of the runtime's buffer."""

    def __init__(self, compiled: Any) -> None:
        self.request = compiled.create_infer_request()

    def __call__(self, images: Pixels) -> Logits:
        one = [self.request.infer({0: image[None]}, share_inputs=True)[0] for image in images]
        return one[0] if len(one) == 1 else np.concatenate(one)


class _Throughput:
    """As many requests at once as the device has streams."""

    def __init__(self, compiled: Any) -> None:
        from openvino import AsyncInferQueue

        self.classes = compiled.output(0).shape[1]
        self.queue = AsyncInferQueue(compiled)
        self.logits: Logits = np.empty((0, self.classes), np.float32)
        self.queue.set_callback(self._store)

    def _store(self, request: Any, row: int) -> None:
        self.logits[row] = request.get_output_tensor(0).data[0]

    def __call__(self, images: Pixels) -> Logits:
        self.logits = np.empty((len(images), self.classes), np.float32)
        for row, image in enumerate(images):
            self.queue.start_async({0: image[None]}, row, share_inputs=True)
        self.queue.wait_all()
        return self.logits
