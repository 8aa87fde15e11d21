"""ONNX Runtime on CPU: the reference that judges every exported graph, and a competitor in float32. Its INT8 is a Q/DQ graph."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput
from ..images import Logits, Pixels, Predict

PRECISIONS = ("float32", "fp16", "int8", "int8-fp16", "int8-mixed")
MODEL = "compiled.onnx"  # beside the portable model.onnx of a bundle
JUDGE = "onnxruntime"


def available() -> str | None:
    return None if find_spec("onnxruntime") else "onnxruntime is not installed: pip install 'edgeeff[onnxruntime]'"


def version() -> str:
    import onnxruntime

    return str(onnxruntime.__version__)


def supported(precision: str) -> bool:
    return precision in PRECISIONS


def compile(onnx: Path, folder: Path) -> Path:
    """An ONNX file is what it runs: a copy."""
    return Path(shutil.copyfile(onnx, folder / MODEL))


def files(model: Path) -> list[Path]:
    return [model]


def load(model: Path, *, precision: str, threads: int = 0, throughput: bool = False) -> Predict:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exception types share no base but Exception
        raise BadInput(f"{model}: ONNX Runtime cannot load it ({str(error).strip().splitlines()[-1][:200]}).") from error
    name: Any = session.get_inputs()[0].name

    def predict(images: Pixels) -> Logits:
        return np.concatenate([session.run(None, {name: image[None]})[0] for image in images])

    return predict
