"""edgeeff: the largest EfficientNet within a device's budget, in INT8, proven accurate on your photos and measured on your device.

Importing it loads numpy and Pillow only; torch, onnx and nncf are imported by the steps that need them.
"""

from .bundle import Bundle
from .errors import AccuracyGateFailed, BadInput, BudgetNotMet, BuildFailed, EdgeeffError, ToolMissing, Unreachable
from .pipeline import Fit, Job, fit
from .target import Budget, Target

__all__ = [
    "AccuracyGateFailed",
    "BadInput",
    "Budget",
    "BudgetNotMet",
    "BuildFailed",
    "Bundle",
    "EdgeeffError",
    "Fit",
    "Job",
    "Target",
    "ToolMissing",
    "Unreachable",
    "fit",
]
