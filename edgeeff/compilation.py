"""The device's half of a fit: a bundle's graphs become engines; each is checked and measured, and the fastest that passes ships.

Never imports torch, onnx or nncf: numpy, Pillow and the device's own TensorRT do.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from . import backends, bundle, card, job_file, sbom
from .backends import tensorrt
from .bundle import DIAGNOSTICS, REPORT, Bundle, Golden
from .data.images import ImageSet, PixelFile, Predict
from .errors import AccuracyGateFailed, BadInput, BuildFailed, Disturbed, EdgeeffError, ToolMissing
from .files import working_folder
from .job import CompileJob
from .manifest import EngineRecord, Manifest
from .measurement.accuracy import Gate, StepReport
from .measurement.benchmark import Metrics
from .measurement.confidence import Confidence, measure_confidence
from .measurement.latency import LatencyRun, measure, ratio
from .measurement.system_state import Snapshot, device, snapshot, throttling_reasons
from .precision import Precision
from .progress import SILENT, Progress
from .selection.shipping import Offer, Terms, decide

ROUNDS = 20
# An engine fuses and rounds otherwise than ONNX Runtime does, so a value now and then falls on the other side of a rounding: the
# root mean square of the difference, in standard deviations of the logits, not the largest one, tells a wrong engine from that.
TOLERANCE = 0.15
ON_DLA = "On the DLA there is no INT8: it takes implicit quantization only, and edgeeff's scales are Q/DQ pairs in the graph."


@dataclass(frozen=True)
class Engine:
    """One form as it was built here. Without a file, the record says why."""

    record: EngineRecord
    file: Path | None = None
    run: Predict | None = None

    @property
    def metrics(self) -> Metrics | None:
        latency = self.record.latency_ms
        return Metrics(latency, {"size_mb": self.record.size_mb}) if latency else None

    @property
    def loss(self) -> float:
        accuracy = self.record.accuracy
        return accuracy.loss if accuracy else self.record.difference or 0.0


@dataclass(frozen=True)
class Compilation:
    """The bundle with its engine, every engine that was built, and which of them ships."""

    bundle: Bundle
    shipped: EngineRecord
    engines: tuple[EngineRecord, ...]
    verdict: str


def compile_bundle(
    job: CompileJob, *, take_snapshot: Callable[[], Snapshot] = snapshot, progress: Progress = SILENT
) -> Compilation:
    """Build, check and measure every form of a bundle, and put the best engine into it.

    With photos in `job.val` an engine is held to the bundle's own gate against the float32 engine, by classes too. Without,
    it is compared with what its graph, which was judged before, answers to the golden photos. A signature that `job.trusted` keys
    made is checked before anything is built; the bundle with the engine has another manifest, and is not signed.
    """
    source = job.open()
    facts = source.manifest
    if not facts.forms:
        raise BadInput(f"{job.bundle}: nothing to compile: the bundle holds a finished {facts.backend} file.")
    if missing := tensorrt.available():
        raise ToolMissing(missing)
    if job.dla is not None:
        _require_dla(source, job.dla)
    gate = None
    if job.val is not None:
        images = ImageSet.open(job.val).labelled_for(facts.classes, source.labels)
        pixels = PixelFile(images, source.preprocess, max_corrupt=job.max_corrupt, progress=progress)
        gate = Gate(
            pixels,
            max_drop=facts.max_drop,
            min_agreement=facts.min_agreement,
            max_class_drop=facts.max_class_drop,
            progress=progress,
        )
    with working_folder(source.path.resolve()) as work:
        engines = _built(source, work, gate, job.dla, progress)
        golden = source.golden()
        runs = {str(e.record.precision): partial(e.run, golden["images"][:1]) for e in engines if e.run}
        timed = measure(runs, rounds=ROUNDS, take_snapshot=take_snapshot, progress=progress)
        if slowed := throttling_reasons(timed.before.state, timed.after.state):
            raise Disturbed(
                f"the board slowed down twice while it was measured, so there is no measurement: {'; '.join(slowed)}. "
                "Then run it again."
            )
        engines = [replace(e, record=_with_latency(e.record, timed)) for e in engines]
        shipped = engines[_decide(engines, source)]
        verdict = _explain(shipped.record, [e.record for e in engines], source)
        confidence = _confidence(source, shipped, gate)
        said = [confidence.sentence] if confidence else []
        verdict = " ".join((verdict, *said, *(gate.remarks if gate else ()), *([ON_DLA] if job.dla is not None else [])))
        if timed.noise:
            verdict += f" Not a sound measurement: {'; '.join(timed.noise)}."
        written = _write(source, work / "bundle", shipped, engines, timed, replace(facts, verdict=verdict, confidence=confidence))
        written.verify()
        published = bundle.publish(written.path, source.path.resolve())
    return Compilation(published, shipped.record, tuple(e.record for e in engines), verdict)


def _graphs(source: Bundle) -> dict[Precision, str]:
    """The file of each graph; the float32 one is there to compare with."""
    return {Precision.FLOAT32: "model.onnx", **{form.precision: form.file for form in source.manifest.forms}}


def _require_dla(source: Bundle, core: int) -> None:
    """Refuse, before anything is built, a DLA core that is not there, and a bundle without a form that it takes."""
    tensorrt.require_dla(core)
    if all(form.precision.quantized for form in source.manifest.forms):
        forms = ", ".join(str(form.precision) for form in source.manifest.forms)
        raise BadInput(f"{source.path}: --dla {core} takes the fp16 form, expected one; the bundle has {forms}. {ON_DLA}")


def _built(source: Bundle, work: Path, gate: Gate | None, dla: int | None, progress: Progress) -> list[Engine]:
    """An engine of every graph that its device takes, checked; raises where there is none of the float32 one."""
    golden, engines = source.golden(), []
    for precision, name in _graphs(source).items():
        if dla is not None and precision.quantized:
            continue
        folder = work / str(precision)
        folder.mkdir()
        reference = precision is Precision.FLOAT32
        try:
            file = tensorrt.build(source.path / name, folder, dla=None if reference else dla, progress=progress)
            run = tensorrt.load(file, precision=precision)
            engines.append(Engine(_checked(precision, file, run, golden, gate), file, run))
        except BuildFailed as error:
            if reference:
                raise
            engines.append(Engine(EngineRecord(precision, None, False, str(error), None, 0.0)))
    return engines


def _checked(precision: Precision, file: Path, run: Predict, golden: Golden, gate: Gate | None) -> EngineRecord:
    """How far an engine is from its graph on the golden photos, and its accuracy, where there are photos to judge on."""
    difference = bundle.difference(run(golden["images"]), golden[str(precision)])
    report = gate.judge(str(precision), run) if gate else None
    note = ""
    if not difference <= TOLERANCE:
        note = f"answers other than its graph does: off by {difference:.3f} standard deviations of the logits, allowed {TOLERANCE}"
        if precision is Precision.FLOAT32:
            raise EdgeeffError(f"the float32 engine {note}. TensorRT computes something else here; please report it.")
    elif report and not report.passed:
        note = report.refusal
    told = difference if math.isfinite(difference) else None
    size_mb, photos = round(file.stat().st_size / 1e6, 3), gate.pixels.images.sha256 if gate else ""
    return EngineRecord(precision, told, not note, note, report, size_mb, photos_sha256=photos)


def _with_latency(record: EngineRecord, timed: LatencyRun) -> EngineRecord:
    return replace(record, latency_ms=timed.latencies.get(str(record.precision)))


def _decide(engines: list[Engine], source: Bundle) -> int:
    built = [i for i, e in enumerate(engines) if e.run]
    notes = "; ".join(f"{e.record.precision}: {e.record.note}" for e in engines if e.record.note)
    if not any(engines[i].record.passed for i in built if i):
        raise AccuracyGateFailed(f"{source.path}: no engine but float32 passes here. {notes}")
    offers = [Offer(e.record.precision, e.record.passed, e.loss, e.record.note, e.metrics) for e in (engines[i] for i in built)]
    advice = "Raise the budget to that, choose a faster power mode, or fit a smaller variant."
    return built[decide(offers, Terms(str(source.path), source.manifest.budget, advice))]


def _confidence(source: Bundle, shipped: Engine, gate: Gate | None) -> Confidence | None:
    """That of the engine on the gate's photos; where these fit no temperature, that of the graph that it was built from."""
    record = shipped.record
    known = next((form.confidence for form in source.manifest.forms if form.precision is record.precision), None)
    if gate is None or record.accuracy is None or shipped.run is None:
        return known
    found, _ = measure_confidence(gate, gate.reports.index(record.accuracy), shipped.run, str(record.precision))
    return found if found.photos or known is None else known


def _write(source: Bundle, folder: Path, shipped: Engine, engines: list[Engine], timed: LatencyRun, facts: Manifest) -> Bundle:
    """The bundle with the engine, beside the graphs that it was built from."""
    assert shipped.file is not None
    assert shipped.run is not None
    golden = source.golden()
    folder.mkdir()
    layers = shipped.file.with_name(tensorrt.LAYERS)
    files = [*backends.get("tensorrt").files(shipped.file), *([layers] if layers.exists() else [])]
    kept = (*_graphs(source).values(), REPORT, DIAGNOSTICS, sbom.NAME, job_file.NAME)
    files += [source.path / name for name in kept if name in facts.files]
    answers: Mapping[str, object] = {**golden, "logits": shipped.run(golden["images"])}
    manifest = replace(
        facts,
        backend="tensorrt",
        model=shipped.file.name,
        precision=shipped.record.precision,
        metrics=shipped.metrics,
        engines=tuple(e.record for e in engines),
        conditions=(timed.before.state, timed.after.state),
        disturbed=timed.noise,
        device=device(),
        versions={**facts.versions, "tensorrt": tensorrt.version()},
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )
    (folder / card.NAME).write_text(card.render(manifest, source.labels), encoding="utf-8")
    return bundle.write(folder, files, source.labels, answers, manifest)  # type: ignore[arg-type]


def _explain(shipped: EngineRecord, engines: list[EngineRecord], source: Bundle) -> str:
    """Why this engine ships, in a few sentences."""
    base, budget, latency = engines[0], source.manifest.budget, shipped.latency_ms
    assert latency is not None
    assert base.latency_ms is not None
    parts = [
        f"Ship {shipped.precision}: p{budget.percentile} {latency.at(budget.percentile):.2f} ms ({budget}), "
        f"{ratio(base.latency_ms, latency)} as fast as the float32 engine.",
        _accuracy(shipped.accuracy, shipped.difference),
    ]
    integers = [e for e in engines if e.precision.quantized]
    if not shipped.precision.quantized and integers:
        passing = [e.latency_ms.p50 for e in integers if e.passed and e.latency_ms]
        parts.append(f"INT8 does not pay here: p50 {min(passing):.2f} ms." if passing else "No INT8 engine passes here.")
    parts += [f"{e.precision}: {e.note}." for e in engines if e.note]
    return " ".join(part for part in parts if part)


def _accuracy(report: StepReport | None, difference: float | None) -> str:
    if report is None:
        return (
            f"To the golden photos it answers as its graph did, which passed the gate (off by {difference:.3f} standard "
            "deviations); with --val DIR its accuracy is measured here."
        )
    return "" if report.top1 is None else f"Top-1 {report.top1:.2f}, {report.change}."
