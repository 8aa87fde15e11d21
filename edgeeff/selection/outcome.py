"""The forms of a model, decided about: what goes into the bundle, and the verdict in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .. import backends
from ..backends import tensorrt
from ..budget import Budget
from ..bundle import Golden
from ..context import NetworkContext
from ..errors import BuildFailed
from ..manifest import HeldOut, Improvement, Rehearsal
from ..measurement.accuracy import Answers, Gate, StepReport
from ..measurement.benchmark import BenchmarkRequest, BenchmarkResult, CompiledModel, Metrics
from ..measurement.confidence import Confidence
from ..measurement.latency import ratio
from ..measurement.unknown import Known, Unknown
from ..network.architecture import Variant
from ..precision import Precision
from ..progress import Progress
from ..quantization.forms import Form
from ..quantization.ladder import Candidates
from .shipping import Offer, Terms, decide

GOLDEN = 8  # photos by which a bundle can check itself
GOLDEN_FOR_ENGINES = 64  # photos: an engine is compared with what its graph answers to them here
ROUNDS = 20  # these latencies are the ones quoted: more rounds than a pick needs


@dataclass(frozen=True)
class Sibling:
    """A form with what it costs, measured in one run with the others."""

    form: Form
    metrics: Metrics


@dataclass(frozen=True)
class Outcome:
    """What goes into the bundle, and why. `siblings` and `measured` are of a device at hand, `going` and `rehearsals` of graphs.

    `confidence` has the temperature of each form that goes, and `answers` are the shipped one's with it to the validation photos.
    Photos outside of what is `known` to the shipped one by more than a threshold are `unknown`.
    """

    shipped: Form
    verdict: str
    files: tuple[Path, ...]
    golden: Golden
    siblings: tuple[Sibling, ...] = ()
    measured: BenchmarkResult | None = None
    going: tuple[Form, ...] = ()
    rehearsals: tuple[Rehearsal, ...] = ()
    held_out: HeldOut | None = None
    confidence: Mapping[Precision, Confidence] = field(default_factory=dict)
    answers: Answers | None = None
    known: Known | None = None
    unknown: Unknown | None = None
    improvement: Improvement | None = None

    @property
    def metrics(self) -> Metrics | None:
        return next((s.metrics for s in self.siblings if s.form is self.shipped), None)


def ship(context: NetworkContext, variant: Variant, candidates: Candidates) -> Outcome:
    """Decide what ships: for a device at hand by measuring every form, for one that compiles for itself every graph that passes."""
    return (_graphs if context.target.compiles_on_device else _measured)(context, variant, candidates)


def _measured(context: NetworkContext, variant: Variant, candidates: Candidates) -> Outcome:
    target, budget, gate = context.target, context.budget, context.gate
    forms = [f for f in candidates.forms if context.machine.can_run(f.runtime)]
    models = {str(i): CompiledModel(f.runtime, f.file, f.precision, f.preprocess.resolution) for i, f in enumerate(forms)}
    measured = context.machine.benchmark(BenchmarkRequest(models, budget, target.threads, ROUNDS), context.progress)
    siblings = [Sibling(form, metrics) for form, metrics in zip(forms, measured.metrics.values(), strict=True)]
    advice = "Raise the budget to that, fit a smaller variant, or measure on an idle machine."
    terms = Terms(f"{variant.name} at {variant.resolution} px", budget, advice, context.job.accept)
    shipped = siblings[decide([_offer(s.form, s.metrics) for s in siblings], terms)]
    notes = list(candidates.notes)
    if measured.noise:
        notes.append(f"Not a sound measurement, twice: {'; '.join(measured.noise)}. Repeat it on an idle machine: edgeeff bench.")
    form = shipped.form
    images = next(context.at(form.preprocess).gate.pixels.batches(GOLDEN))
    run = target.runtime.load(form.file, precision=form.precision, threads=target.threads)
    return Outcome(
        shipped=form,
        verdict=_explain(shipped, siblings, notes, budget, gate),
        files=(*target.runtime.files(form.file), form.onnx),
        golden={"images": images, "logits": run(images)},
        siblings=tuple(siblings),
        measured=measured,
    )


def _graphs(context: NetworkContext, variant: Variant, candidates: Candidates) -> Outcome:
    """The forms that pass the gate, INT8 first; with --accept all of them, where none passes."""
    target, gate, accept = context.target, context.gate, context.job.accept
    own = sorted((f for f in candidates.forms if f.precision in target.precisions), key=lambda f: not f.precision.quantized)
    terms = Terms(variant.name, Budget(), "", accept)
    shipped = own[decide([_offer(f) for f in own], terms)]
    passed = [f for f in own if f.report.passed] or [f for f in own if not f.report.not_finite]
    going = [f for f in passed if f.onnx == shipped.onnx]  # of one network
    rehearsals = rehearse(going, context.progress)
    images = next(context.at(shipped.preprocess).gate.pixels.batches(GOLDEN_FOR_ENGINES))
    runtime = backends.get(target.judge)
    graphs = {Precision.FLOAT32: shipped.onnx, **{f.precision: f.file for f in going}}
    answers = {p: runtime.load(file, precision=p, threads=target.threads)(images) for p, file in graphs.items()}
    return Outcome(
        shipped=shipped,
        verdict=" ".join((_explain_graphs(target.name, going, own, rehearsals), *gate.remarks)),
        files=(*(f.file for f in going), shipped.onnx),
        golden={"images": images, "logits": answers[shipped.precision], **{str(p): a for p, a in answers.items()}},
        going=tuple(going),
        rehearsals=tuple(rehearsals),
    )


def rehearse(forms: Sequence[Form], progress: Progress) -> list[Rehearsal]:
    """Each form's parse and build by TensorRT-RTX, which needs no GPU; nothing where that is not installed."""
    if not tensorrt.can_rehearse():
        return []
    rehearsals = []
    for form in forms:
        try:
            rehearsals.append(Rehearsal(form.precision, "built", tuple(tensorrt.rehearse(form.file, progress=progress))))
        except BuildFailed as error:
            rehearsals.append(Rehearsal(form.precision, str(error)))
    return rehearsals


def milliseconds(value: float) -> str:
    return f"{value:.2f} ms" if value < 100 else f"{value:.0f} ms"


def _offer(form: Form, metrics: Metrics | None = None) -> Offer:
    report = form.report
    loss = math.inf if report.not_finite else report.loss
    return Offer(form.precision, report.passed, loss, report.refusal, metrics, form.reference)


def _explain(shipped: Sibling, siblings: Sequence[Sibling], notes: Sequence[str], budget: Budget, gate: Gate) -> str:
    """Why this form ships, in a few sentences."""
    form, latency = shipped.form, shipped.metrics.latency
    floats = [s for s in siblings if s.form.precision is Precision.FLOAT32]  # none: the target has it not, nor the host's runtime
    parts = [f"Ship {form.precision}: p{budget.percentile} {milliseconds(latency.at(budget.percentile))} ({budget})"]
    if floats:
        base = min(floats, key=lambda s: s.metrics.latency.p50)
        best = f"{base.form.runtime}, p50 {milliseconds(base.metrics.latency.p50)}"
        parts.append(f", {ratio(base.metrics.latency, latency)} as fast as the best float32 ({best})")
    parts.append(_accuracy(form, gate))
    if not form.report.passed:
        parts.append(" It fails the gate, and was accepted all the same.")
    parts.append(about_int8(form, siblings))
    return "".join(parts) + "".join(f" {note}" for note in (*notes, *gate.remarks))


def _accuracy(form: Form, gate: Gate) -> str:
    report = form.report
    if report.top1 is None:
        return f"; {report.agreement:.2f}% of {report.images} photos keep the float model's label.{worst_class(report)}"
    balanced = "" if report.balanced is None else f" (mean of the classes {report.balanced:.2f})"
    text = f"; top-1 {report.top1:.2f}{balanced}, {report.change}, allowed {gate.max_drop:g}."
    if report.passed and not report.proven:
        more = f"about {report.needed} would" if report.needed else "no number would at this drop"
        text += f" {report.images} photos cannot prove that the drop stays within it: {more}."
    return text + worst_class(report)


def worst_class(report: StepReport) -> str:
    """A sentence about the class that loses most, and the number of photos that tells; empty where none loses any."""
    worst = report.worst_class
    if worst is None:
        return ""
    return f" Class {worst.name!r} loses most: {worst.before:.2f} → {worst.after:.2f}% of its {worst.photos} photos."


def about_int8(form: Form, siblings: Sequence[Sibling]) -> str:
    """Why INT8 does not ship, or what it needed."""
    integers = [s for s in siblings if s.form.precision.quantized]
    if not form.precision.quantized:
        if not integers:
            return ""
        if passed := [s.metrics.latency.p50 for s in integers if s.form.report.passed]:
            return f" INT8 does not pay here: p50 {milliseconds(min(passed))}."
        nearest = min(integers, key=lambda s: s.form.report.loss).form.report
        return f" INT8 fails the gate after every strategy ({nearest.refusal})"
    whole = next((s for s in integers if s.form.reference), None)
    if form.excluded_layers and whole:
        part = next(s for s in integers if s.form.strategy == form.strategy)
        cost = part.metrics.latency.p50 - whole.metrics.latency.p50
        return f" Kept in float: {', '.join(form.excluded_layers)}; that costs {cost:+.2f} ms."
    return "" if form.routine else f" INT8 needed {form.strategy}."


def _explain_graphs(target: str, going: Sequence[Form], own: Sequence[Form], rehearsals: Sequence[Rehearsal]) -> str:
    """What goes to the device, why, and what is still to be found out there."""
    parts = [f"To {target} go {_listed([f.name for f in going])}; the device builds them all and keeps the fastest."]
    if refusals := [f.report.refusal for f in own if f not in going and f.report.refusal]:
        parts.append(f"Left out, for they miss the gate: {' '.join(refusals)}")
    if any(not f.report.passed for f in going):
        parts.append("They fail the gate, and were accepted all the same.")
    if rehearsals:
        failed = [f"{r.precision}: {r.outcome}" for r in rehearsals if r.outcome != "built"]
        noted = sorted({w for r in rehearsals for w in r.warnings})
        version = tensorrt.rehearsal_version()
        parts.append(
            f"TensorRT-RTX {version} does not build {'; '.join(failed)}."
            if failed
            else f"TensorRT-RTX {version} parses and builds each{', with warnings: ' + '; '.join(noted) if noted else ''}."
        )
    parts.append("Latency and TensorRT's own rounding are measured on the device, not here.")
    return " ".join(parts)


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
