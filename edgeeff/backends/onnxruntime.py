"""ONNX Runtime on CPU: the reference that judges every exported graph, and a competitor in float32. Its INT8 is a Q/DQ graph."""

from __future__ import annotations

import json
import shutil
import statistics
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..data.frames import GRAPH, View
from ..data.images import Logits, Pixels, Predict
from ..files import temporary_folder
from ..precision import Precision
from . import LayerTime, Watch, profiled_runs, refusal

PRECISIONS = (Precision.FLOAT32, Precision.FP16, Precision.INT8, Precision.INT8_FP16, Precision.INT8_MIXED)
MODEL = "compiled.onnx"  # beside the portable model.onnx of a bundle
JUDGE = "onnxruntime"
FEATURES = False


def available() -> str | None:
    return None if find_spec("onnxruntime") else "onnxruntime is not installed: pip install 'edgeeff[onnxruntime]'"


def version() -> str:
    import onnxruntime

    return str(onnxruntime.__version__)


def supported(precision: Precision) -> bool:
    return precision in PRECISIONS


def compile(onnx: Path, folder: Path) -> Path:
    """An ONNX file is what it runs: a copy."""
    return Path(shutil.copyfile(onnx, folder / MODEL))


def files(model: Path) -> list[Path]:
    return [model]


def load(model: Path, *, precision: Precision, threads: int = 0, throughput: bool = False) -> Predict:
    session = _session(model, threads)
    name: Any = session.get_inputs()[0].name

    def predict(images: Pixels) -> Logits:
        try:
            return np.concatenate([session.run(None, {name: image[None]})[0] for image in images])
        except Exception as error:  # its exception types share no base but Exception
            raise refusal("ONNX Runtime", "run", model, error) from error

    return predict


def watch(model: Path, view: View, *, precision: Precision, threads: int = 0) -> Watch:
    run, shrink, constants = load(model, precision=precision, threads=threads), _session(GRAPH, threads), view.constants
    return lambda frame: run(shrink.run(None, {"part": np.ascontiguousarray(view.part(frame)), **constants})[0])


def layer_times(model: Path, image: Pixels, *, precision: Precision, threads: int = 0) -> list[LayerTime]:
    with temporary_folder() as folder:
        session = _session(model, threads, profile=str(folder / "profile"))
        for _ in profiled_runs():
            session.run(None, {session.get_inputs()[0].name: image})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    runs = defaultdict(list)
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            runs[event["name"].removesuffix("_kernel_time"), event["args"]["op_name"]].append(event["dur"] / 1000)
    layers = [LayerTime(name, kind, "", statistics.median(times[1:])) for (name, kind), times in runs.items()]  # the first is cold
    return sorted(layers, key=lambda layer: -layer.milliseconds)


def _session(model: Path, threads: int, profile: str = "") -> Any:
    """`profile`: where to write the time of each node, as the beginning of a path."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.x64quantprecision", "1")  # without VNNI, INT8 sums would overflow 16 bits by default
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exception types share no base but Exception
        raise refusal("ONNX Runtime", "load", model, error) from error
