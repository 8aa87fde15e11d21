"""The device's half of a fit: a bundle's graphs become engines here; each is checked and timed, and the fastest that passes ships.

Never imports torch, onnx or nncf: numpy, Pillow and the device's own TensorRT do.
"""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from . import backends, bundle
from .backends import tensorrt
from .bundle import PAGE, Bundle
from .data.images import ImageSet, PixelFile, Predict
from .errors import AccuracyGateFailed, BadInput, BudgetNotMet, BuildFailed, Disturbed, EdgeeffError, ToolMissing
from .measurement.accuracy import Gate, StepReport
from .measurement.latency import Figures, Measurement, measure, ratio
from .measurement.system_state import Conditions, device, look, throttled
from .progress import SILENT, Progress
from .report.tables import milliseconds
from .target import Budget

FLOAT = "float32"
ROUNDS = 20
# An engine fuses and rounds otherwise than ONNX Runtime does, so a value now and then falls on the other side of a rounding: the
# root of the mean squared difference, in standard deviations of the logits, not the largest one, tells a wrong engine from that.
TOLERANCE = 0.15


@dataclass(frozen=True)
class EngineReport:
    """One form on this device. `difference` is from what the graph answered before, to golden photos; `note` says what failed."""

    precision: str
    file: Path | None
    difference: float | None
    report: StepReport | None
    passed: bool
    latency: Measurement | None
    size_mb: float
    note: str = ""

    @property
    def figures(self) -> Figures:
        assert self.latency is not None
        return Figures(self.latency, self.size_mb)

    def to_json(self) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "precision": self.precision,
            "difference": self.difference,
            "passed": self.passed,
            "note": self.note,
        }
        facts |= {"accuracy": asdict(self.report) if self.report else None, "size_mb": round(self.size_mb, 3)}
        return {**facts, "latency_ms": self.latency.to_json() if self.latency else None}


@dataclass(frozen=True)
class Compiled:
    bundle: Bundle
    shipped: EngineReport
    engines: list[EngineReport]
    verdict: str

    def to_json(self) -> dict[str, Any]:
        engines = [e.to_json() for e in self.engines]
        return {"bundle": str(self.bundle.path), "precision": self.shipped.precision, "engines": engines, "verdict": self.verdict}


def compile(
    path: str | Path,
    *,
    val: str | Path | None = None,
    dla: int | None = None,
    max_corrupt: float = 0.01,
    look: Callable[[], Conditions] = look,
    progress: Progress = SILENT,
) -> Compiled:
    """Build, check and time every form of a bundle, and put the best engine into it.

    With labelled photos in `val` an engine may lose no more than the bundle's `max_drop` against the float32 engine. Without, it
    is held to what its graph, which was judged before, answers to the golden photos.
    """
    source = Bundle.open(path)
    if not source.manifest.get("forms"):
        raise BadInput(f"{path}: nothing to compile: the bundle holds a finished {source.manifest['backend']} file.")
    if missing := tensorrt.available():
        raise ToolMissing(missing)
    pixels = None
    if val is not None:
        images = ImageSet.open(val).labelled_for(source.manifest["classes"], source.labels)
        pixels = PixelFile(images, source.preprocess, max_corrupt=max_corrupt, progress=progress)
    work = source.path.resolve().with_name(f".{source.path.resolve().name}.compiling")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        return _compiled(source, work, pixels, dla, look, progress)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _compiled(
    source: Bundle, work: Path, pixels: PixelFile | None, dla: int | None, look: Callable[[], Conditions], progress: Progress
) -> Compiled:
    facts, golden = source.manifest, source.golden()
    graphs = {FLOAT: "model.onnx", **{f["precision"]: f["file"] for f in facts["forms"]}}
    gate = Gate(pixels, max_drop=facts["max_drop"], progress=progress) if pixels else None
    engines: dict[str, EngineReport] = {}
    runs: dict[str, Predict] = {}
    for precision, name in graphs.items():
        folder = work / precision
        folder.mkdir()
        try:
            file = tensorrt.build(source.path / name, folder, dla=dla if precision != FLOAT else None, progress=progress)
            runs[precision] = tensorrt.load(file, precision=precision)
            engines[precision] = _checked(precision, file, runs[precision], golden, gate)
        except BuildFailed as error:
            if precision == FLOAT:
                raise
            engines[precision] = EngineReport(precision, None, None, None, False, None, 0.0, str(error))
    timing = measure(
        {p: partial(run, golden["images"][:1]) for p, run in runs.items()}, rounds=ROUNDS, look=look, progress=progress
    )
    if slowed := throttled(timing.before, timing.after):
        raise Disturbed(f"twice slowed down while timing, so there is no measurement: {'; '.join(slowed)}. Then run it again.")
    reports = [replace(e, latency=timing.latencies.get(p)) for p, e in engines.items()]
    budget = Budget(**facts["budget"])
    shipped = _best(reports, budget, source.path)
    verdict = _explain(shipped, reports, budget, gate)
    if timing.disturbed:
        verdict += f" Not a sound measurement: {'; '.join(timing.disturbed)}."

    assert shipped.file is not None
    assert shipped.latency is not None
    folder = work / "bundle"
    folder.mkdir()
    layers = shipped.file.with_name(tensorrt.LAYERS)
    files = [*backends.get("tensorrt").files(shipped.file), *([layers] if layers.exists() else [])]
    files += [source.path / name for name in (*graphs.values(), PAGE) if name in facts["files"]]
    answers = {**golden, "logits": runs[shipped.precision](golden["images"])}
    facts = {k: v for k, v in facts.items() if k not in ("schema", "files", "digest")} | {
        "backend": "tensorrt",
        "model": shipped.file.name,
        "precision": shipped.precision,
        "latency_ms": shipped.latency.to_json(),
        "engines": [e.to_json() for e in reports],
        "conditions": [timing.before.to_json(), timing.after.to_json()],
        "disturbed": list(timing.disturbed),
        "device": device(),
        "versions": {**facts["versions"], "tensorrt": tensorrt.version()},
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "verdict": verdict,
    }
    bundle.write(folder, files, source.labels, answers, facts).verify()
    return Compiled(bundle.publish(folder, source.path.resolve()), shipped, reports, verdict)


def _checked(precision: str, file: Path, run: Predict, golden: dict[str, Any], gate: Gate | None) -> EngineReport:
    difference = bundle.difference(run(golden["images"]), golden[precision])
    report = gate.judge(precision, run) if gate else None
    size = file.stat().st_size / 1e6
    note = ""
    if not difference <= TOLERANCE:
        note = f"answers other than its graph does: off by {difference:.3f} standard deviations of the logits, allowed {TOLERANCE}"
        if precision == FLOAT:
            raise EdgeeffError(f"the float32 engine {note}. TensorRT computes something else here; please report it.")
    elif report and not report.passed:
        assert gate is not None
        note = gate.refusal(report)
    return EngineReport(precision, file, difference, report, not note, None, size, note)


def _best(reports: list[EngineReport], budget: Budget, path: Path) -> EngineReport:
    """The fastest that passes and fits the budget; float32 is there to compare with, and ships where it alone passes."""
    passed = [e for e in reports if e.passed and e.latency]
    if len(passed) == 1 and len(reports) > 1:
        notes = "; ".join(f"{e.precision}: {e.note}" for e in reports if e.note)
        raise AccuracyGateFailed(f"{path}: no engine but float32 passes here. {notes}")
    fastest_first = sorted(passed, key=lambda e: e.figures.latency.at(budget.percentile))
    for engine in fastest_first:
        if not engine.figures.over(budget):
            return engine
    needs = " and ".join(fastest_first[0].figures.over(budget))
    raise BudgetNotMet(
        f"{path}: does not meet {budget}: {fastest_first[0].precision} needs {needs} here. "
        "Raise the budget to that, choose a faster power mode, or fit a smaller variant."
    )


def _explain(shipped: EngineReport, reports: list[EngineReport], budget: Budget, gate: Gate | None) -> str:
    base = reports[0]
    assert shipped.latency is not None
    assert base.latency is not None
    speed, (low, high) = ratio(base.latency, shipped.latency)
    parts = [
        f"Ship {shipped.precision}: p{budget.percentile} {milliseconds(shipped.latency.at(budget.percentile))} ({budget}), "
        f"{speed:.2f}× ({low:.2f} to {high:.2f}) as fast as the float32 engine."
    ]
    if shipped.report is None:
        parts.append(
            f"To the golden photos it answers as its graph did, which passed the gate (off by {shipped.difference:.3f} standard "
            "deviations); with --val DIR its accuracy is measured here."
        )
    elif shipped.report.drop is not None and shipped.report.drop_ci is not None:
        low, high = shipped.report.drop_ci
        parts.append(f"Top-1 {shipped.report.top1:.2f}, drop {shipped.report.drop:+.2f} points ({low:+.2f} to {high:+.2f}).")
    integers = [e for e in reports if e.precision.startswith("int8")]
    if not shipped.precision.startswith("int8") and integers:
        passing = [e.latency.p50 for e in integers if e.passed and e.latency]
        parts.append(f"INT8 does not pay here: p50 {milliseconds(min(passing))}." if passing else "No INT8 engine passes here.")
    parts += [f"{e.precision}: {e.note}." for e in reports if e.note]
    return " ".join(parts)
