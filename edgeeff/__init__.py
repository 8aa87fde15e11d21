"""edgeeff: the largest EfficientNet within a device's budget, in INT8, proven accurate on your photos and measured on your device.

    job = edgeeff.Job(target="host-cpu", weights="W.pth", variants=["v2-b0"], calib="photos", val="val", out="my-model")
    predict = edgeeff.fit(job).bundle.load()

`fit`, `pick` and `compile` take a job; `Bundle` runs what they make, `edgeeff.camera.Camera` on live frames, and `edgeeff.remote`
does the same on other machines. Importing edgeeff loads no torch, onnx or nncf: what needs them imports them. It also turns off
the telemetry of the libraries it uses, in this process and those it starts, so import it before them.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from .budget import Budget
from .bundle import Bundle
from .compilation import Compilation
from .compilation import compile_bundle as compile
from .errors import AccuracyGateFailed, BadInput, BudgetNotMet, BuildFailed, Disturbed, EdgeeffError, ToolMissing, Unreachable
from .job import CompileJob, Job, PickJob
from .machine import LOCAL, Machine
from .precision import Precision
from .progress import SILENT, Progress
from .target import Target

# Nothing is sent anywhere. ONNX Runtime 1.29 and newer looks up a host at the first session, and the Hugging Face hub is told which
# other libraries are installed: https://github.com/microsoft/onnxruntime/blob/main/docs/Privacy.md. MLflow tells how it is used.
os.environ.update(ORT_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_TELEMETRY="1", MLFLOW_DISABLE_TELEMETRY="true")
# Through this package, without which both work, OpenVINO tells Google Analytics that it was imported, and NNCF what it quantizes.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # the import system's way to say that a module is missing

if TYPE_CHECKING:
    from .pipeline import Fit
    from .selection.search import Choice

__all__ = [
    "AccuracyGateFailed",
    "BadInput",
    "Budget",
    "BudgetNotMet",
    "BuildFailed",
    "Bundle",
    "Compilation",
    "CompileJob",
    "Disturbed",
    "EdgeeffError",
    "Job",
    "PickJob",
    "Precision",
    "Target",
    "ToolMissing",
    "Unreachable",
    "compile",
    "fit",
    "pick",
]


def fit(job: Job, *, machine: Machine = LOCAL, progress: Progress = SILENT) -> Fit:
    """Weights or photos become a bundle within the budget, measured on `machine`. Raises an EdgeeffError with the reason."""
    from . import pipeline  # torch

    return pipeline.fit(job, machine=machine, progress=progress)


def pick(job: PickJob, *, machine: Machine = LOCAL, progress: Progress = SILENT) -> Choice:
    """The largest variant within a budget, from measurements on `machine`. Raises BudgetNotMet with the figure that would do."""
    from .selection import search
    from .selection.candidates import Search

    return search.pick(Search.of(job), machine=machine, progress=progress)
