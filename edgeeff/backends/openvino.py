"""OpenVINO on CPU. A compiled model is an IR: `model.xml` beside `model.bin`.

`int8` leaves the layers that are not quantized in float32, `int8-bf16` in bfloat16: the same file, another compile option.
"""

from __future__ import annotations

import itertools
import re
import statistics
import threading
from collections import defaultdict
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..data.frames import Frame, View
from ..data.images import Logits, Pixels, Predict
from ..errors import BadInput
from ..precision import Precision
from . import LayerTime, Watch, profiled_runs, refusal

PRECISIONS = (Precision.FLOAT32, Precision.BF16, Precision.INT8, Precision.INT8_BF16)
MODEL = "model.xml"
JUDGE = "openvino"
FEATURES = True
LATER_STAGE = re.compile(r"/model/blocks/blocks\.[1-9]\d*/")  # any but the first, in the names of layers as they are exported
MODEL_INFO = {
    "model_type": "Classification",
    "output_raw_scores": "True",  # logits, which DL Streamer makes probabilities of
    "resize_type": "crop",  # the largest square in the middle
    "reverse_input_channels": "True",  # frames are BGR, the input is RGB
}
MADE_NAME = re.compile(r"([A-Z][A-Za-z0-9]*)_\d+")  # of a node without one: its type, and a number


def available() -> str | None:
    return None if find_spec("openvino") else "openvino is not installed: pip install 'edgeeff[openvino]'"


def version() -> str:
    import openvino

    return str(openvino.__version__).split("-")[0]


@cache
def _core() -> Any:
    import openvino

    return openvino.Core()


def supported(precision: Precision) -> bool:
    capabilities = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ("BF16" in capabilities or precision.rest != "bf16") and ("INT8" in capabilities or not precision.quantized)


def compile(onnx: Path, folder: Path) -> Path:
    from openvino._offline_transformations import apply_moc_transformations

    model = _core().read_model(onnx)
    # What `openvino.convert_model` runs, without its telemetry. It fuses Sigmoid · x to Swish and biases to their convolutions;
    # quantized without it, V2-B0 was slower than bf16 and its biases were not corrected.
    apply_moc_transformations(model, cf=True, smart_reshape=False)
    return save(model, folder)


def save(model: Any, folder: Path) -> Path:
    """Write an openvino.Model as the IR that `load` reads; equal models give equal files."""
    import openvino

    path = folder / MODEL
    _number_unnamed(model)
    _describe(model)
    try:
        openvino.save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:
        raise BadInput(f"{path}: cannot be written ({str(error).strip()}). Is the disk full?") from error
    return path


def _number_unnamed(model: Any) -> None:
    """Number the nodes that have no name in the graph in their order: OpenVINO counts all that were ever made in the process."""
    numbers = itertools.count()
    for node in model.get_ordered_ops():
        if made := MADE_NAME.fullmatch(node.get_friendly_name()):
            node.set_friendly_name(f"{made[1]}_{next(numbers)}")


def _describe(model: Any) -> None:
    """Say in the IR what DL Streamer and Model API ask of it, for an RGB classifier: without a layout they take pixels for planes.

    The names of classes are not in it: they are no input of what a strategy makes, and DL Streamer takes `labels.txt`. Source:
    `model_info` in DL Streamer's developer guide, and its model_api_converters.cpp of 2026.2.
    """
    import openvino

    inputs = model.get_parameters()
    if len(inputs) == 1 and inputs[0].get_partial_shape().compatible(openvino.PartialShape([1, -1, -1, 3])):
        inputs[0].set_layout(openvino.Layout("NHWC"))
        for key, value in MODEL_INFO.items():
            model.set_rt_info(value, ["model_info", key])


def files(model: Path) -> list[Path]:
    return [model, model.with_suffix(".bin")]


def load(model: Path, *, precision: Precision, threads: int = 0, throughput: bool = False, features: bool = False) -> Predict:
    hint = "THROUGHPUT" if throughput else "LATENCY"
    compiled = _compiled(model, precision, threads, features=features, PERFORMANCE_HINT=hint)
    return _Throughput(compiled, model) if throughput else _Latency(compiled, model)


def layer_times(model: Path, image: Pixels, *, precision: Precision, threads: int = 0) -> list[LayerTime]:
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


def watch(model: Path, view: View, *, precision: Precision, threads: int = 0, features: bool = False) -> Watch:
    return _Request(_compiled(model, precision, threads, view, features, PERFORMANCE_HINT="LATENCY"), model).infer


def _compiled(
    path: Path, precision: Precision, threads: int, view: View | None = None, features: bool = False, **config: Any
) -> Any:
    config["INFERENCE_PRECISION_HINT"] = "bf16" if precision.rest == "bf16" else "f32"
    if threads:
        config["INFERENCE_NUM_THREADS"] = threads
    model = read(path)
    try:
        if features:
            model = _with_features(model)
        return _core().compile_model(_behind(view, model) if view else model, "CPU", config)
    except Exception as error:  # beside RuntimeError, what pybind11 makes of std::bad_alloc and others
        raise refusal("OpenVINO", "load", path, error) from error


def read(path: Path) -> Any:
    """An openvino.Model from an IR, or from ONNX by the file's name; raises BadInput where it is none.

    Core.read_model would try the parsers of all other formats as well.
    """
    from openvino.frontend import FrontEndManager

    reader = FrontEndManager().load_by_framework("onnx" if path.suffix == ".onnx" else "ir")
    try:
        return reader.convert(reader.load(path, True))  # true: weights are mapped from the file, as Core.read_model does
    except Exception as error:  # each parser has types of its own
        raise refusal("OpenVINO", "load", path, error) from error


def _with_features(model: Any) -> Any:
    """The model whose output has features behind the logits: spatial means of each stage's last sum, and what the classifier reads.

    The first stage is left out: it tells little of what a photo shows, and its maps are the largest. The features of every other
    one are at unit length, and quantized where the next layer reads them so: read before that, an INT8 model would round otherwise,
    and its logits differed by 3% of their standard deviation.
    """
    import openvino
    from openvino import opset13 as op

    def unit(features: Any) -> Any:  # (1, C)
        return op.normalize_l2(features, op.constant(np.array([1], np.int64)), 1e-12, "max")

    logits = source = model.output(0).get_node().input_value(0)
    while (node := source.get_node()).get_type_name() != "MatMul":
        source = node.input_value(0)  # past the bias
    pooled = node.input_value(0)
    stages = {}  # the last sum of each, which adds the residual or the bias
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Add" and (stage := LATER_STAGE.match(node.get_friendly_name())):
            readers = [reader.get_node() for reader in node.output(0).get_target_inputs()]
            quantized = (reader for reader in readers if reader.get_type_name() == "FakeQuantize")
            stages[stage[0]] = next(quantized, node).output(0)
    means = [op.reduce_mean(output, op.constant(np.array([2, 3], np.int64)), False) for output in stages.values()]
    return openvino.Model([op.concat([logits, *map(unit, (*means, pooled))], 1)], model.get_parameters(), "features")


def _behind(view: View, model: Any) -> Any:
    """The model with a camera's frames as its input: they are shrunk and cropped in the graph."""
    import openvino
    from openvino import opset13 as op

    def axes(*numbers: int) -> Any:
        return op.constant(np.array(numbers, np.int64))

    frames, size, height, width = view.frames, len(view.rows), view.rows.shape[1], len(view.columns)
    camera = op.parameter(frames.shape, np.uint8, name="frame")
    pixels = camera
    if frames.colour == "NV12":
        planes = op.reshape(camera, axes(1, frames.height * 3 // 2, frames.width, 1), False)
        pixels = op.reshape(op.nv12_to_rgb(planes), axes(frames.height, frames.width, 3), False)
    pixels = op.slice(pixels, axes(view.top, view.left), axes(*view.end), axes(1, 1), axes(0, 1))
    if not view.crops_only:
        tall = op.matmul(view.rows, op.reshape(op.convert(pixels, "f32"), axes(height, 3 * width), False), False, False)
        turned = op.transpose(op.reshape(tall, axes(size, width, 3), False), axes(0, 2, 1))
        small = op.matmul(op.reshape(turned, axes(3 * size, width), False), view.columns, False, False)
        small = op.transpose(op.reshape(small, axes(size, 3, size), False), axes(0, 2, 1))
        pixels = op.convert(op.clamp(op.round(small, "half_to_even"), 0.0, 255.0), "u8")
    if view.swap:
        pixels = op.gather(pixels, axes(2, 1, 0), op.constant(2))
    picture = op.unsqueeze(pixels, axes(0))
    for reader in model.input(0).get_target_inputs():
        reader.replace_source_output(picture.output(0))
    return openvino.Model(model.get_results(), [camera], "camera")


class _Request:
    """One request, which threads use in turn. The output is copied out of the runtime's buffer before the next may start."""

    def __init__(self, compiled: Any, model: Path) -> None:
        self.request, self.model, self.free = compiled.create_infer_request(), model, threading.Lock()

    def infer(self, image: Pixels | Frame) -> Logits:
        """The model's output for the one input, as the model takes it."""
        with self.free:
            try:
                logits: Logits = self.request.infer({0: image}, share_inputs=True)[0]
            except RuntimeError as error:
                raise refusal("OpenVINO", "run", self.model, error) from error
        return logits


class _Latency:
    """An image at a time."""

    def __init__(self, compiled: Any, model: Path) -> None:
        self.request = _Request(compiled, model)

    def __call__(self, images: Pixels) -> Logits:
        one = [self.request.infer(image[None]) for image in images]
        return one[0] if len(one) == 1 else np.concatenate(one)


class _Throughput:
    """As many requests at once as the device has streams; threads use them in turn."""

    def __init__(self, compiled: Any, model: Path) -> None:
        from openvino import AsyncInferQueue

        try:
            self.classes = compiled.output(0).shape[1]
        except (RuntimeError, IndexError) as error:  # no output, one of any shape, or one of fewer dimensions
            raise refusal("OpenVINO", "run", model, error) from error
        self.queue, self.model, self.free = AsyncInferQueue(compiled), model, threading.Lock()
        self.logits: Logits = np.empty((0, self.classes), np.float32)
        self.queue.set_callback(self._store)

    def _store(self, request: Any, row: int) -> None:
        self.logits[row] = request.get_output_tensor(0).data[0]

    def __call__(self, images: Pixels) -> Logits:
        with self.free:
            self.logits = logits = np.empty((len(images), self.classes), np.float32)
            try:
                for row, image in enumerate(images):
                    self.queue.start_async({0: image[None]}, row, share_inputs=True)
                self.queue.wait_all()
            except RuntimeError as error:
                raise refusal("OpenVINO", "run", self.model, error) from error
        return logits
