"""A form of the model: a file in one precision, how a runtime is to run it, and how accurate just that is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..data.preprocess import Preprocess
from ..manifest import FormRecord
from ..measurement.accuracy import StepReport
from ..measurement.benchmark import Metrics
from ..precision import Precision


@dataclass(frozen=True, kw_only=True)
class Form:
    """`onnx` is the same network in float. `strategy` made it INT8, and `routine` says that this was the first that is tried.

    `left_out` are parts that the network is without, and `excluded_layers` were left in float by the strategy. A `reference` is
    there to compare with, and never ships.
    """

    precision: Precision
    runtime: str
    file: Path
    report: StepReport
    onnx: Path
    activation: str
    preprocess: Preprocess
    strategy: str = ""
    routine: bool = True
    left_out: tuple[str, ...] = ()
    excluded_layers: tuple[str, ...] = ()
    reference: bool = False

    @property
    def name(self) -> str:
        return self.record().name

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
            left_out=self.left_out,
            resolution=self.preprocess.resolution,
            excluded_layers=self.excluded_layers,
            reference=self.reference,
            file=file,
            metrics=metrics,
        )
