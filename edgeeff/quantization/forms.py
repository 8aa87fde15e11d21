"""A form of the model: a file in one precision, how a runtime is to run it, and how accurate just that is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..manifest import FormRecord
from ..measurement.accuracy import StepReport
from ..measurement.benchmark import Metrics
from ..precision import Precision


@dataclass(frozen=True, kw_only=True)
class Form:
    """`onnx` is the same network in float. `strategy` made it INT8, and `routine` says that this was the first that is tried.

    `excluded_layers` are those that the strategy left in float. A `reference` is there to compare with, and never ships.
    """

    precision: Precision
    runtime: str
    file: Path
    report: StepReport
    onnx: Path
    activation: str
    strategy: str = ""
    routine: bool = True
    excluded_layers: tuple[str, ...] = ()
    reference: bool = False

    @property
    def name(self) -> str:
        """Its precision; an INT8 form that is there to compare with keeps all layers in INT8."""
        return f"{self.precision} (all layers)" if self.reference and self.precision.quantized else str(self.precision)

    def record(self, metrics: Metrics | None = None, *, file: str = "") -> FormRecord:
        """As the manifest has it; with its file's name where several lie in one bundle."""
        report = self.report
        return FormRecord(
            precision=self.precision,
            activation=self.activation,
            runtime=self.runtime,
            remedy=self.strategy,
            top1=report.top1,
            drop=report.drop,
            drop_ci=report.drop_ci,
            agreement=report.agreement,
            passed=report.passed,
            excluded_layers=self.excluded_layers,
            reference=self.reference,
            file=file,
            metrics=metrics,
        )
