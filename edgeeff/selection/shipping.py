"""Which form of the model ships, and why: every one judged and timed, the fastest that passes the gate and the budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import AccuracyGateFailed, BudgetNotMet
from ..measurement.accuracy import Gate, StepReport
from ..measurement.latency import Compiled, Costs, Figures, Machine, Measurement, Request, ratio
from ..network.variants import Variant
from ..progress import Progress
from ..report.tables import milliseconds
from ..target import Budget, Target

FIRST = ("fast bias correction", "ranges chosen per layer")  # the remedies that need no mention
GOLDEN = 8  # photos by which a bundle can check itself
ROUNDS = 20  # these figures are the ones quoted: more than a pick needs


@dataclass(frozen=True)
class Form:
    """One form of the model: a file, how a runtime is to run it, and the accuracy of just that; `onnx` is the same in float."""

    precision: str
    runtime: str
    file: Path
    report: StepReport
    onnx: Path
    activation: str
    remedy: str = ""

    @property
    def label(self) -> str:
        return f"{self.precision}, {self.activation}"

    def to_json(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"precision": self.precision, "activation": self.activation, "runtime": self.runtime}
        report = {key: getattr(self.report, key) for key in ("top1", "drop", "drop_ci", "agreement", "passed")}
        return {**facts, "remedy": self.remedy, **report}


@dataclass(frozen=True)
class Sibling:
    """A form with what it costs, timed in one run with the others."""

    form: Form
    figures: Figures

    @property
    def latency(self) -> Measurement:
        return self.figures.latency

    def to_json(self) -> dict[str, Any]:
        return {**self.form.to_json(), **self.figures.to_json()}


@dataclass(frozen=True)
class Outcome:
    """What goes into the bundle, and why. `facts` are the manifest's that depend on where the model was compiled."""

    shipped: Form
    verdict: str
    files: list[Path]
    golden: dict[str, Any]
    facts: dict[str, Any]
    forms: list[Form]
    siblings: list[Sibling] = field(default_factory=list)


def decide(
    v: Variant,
    forms: list[Form],
    remedy: str,
    reverted: list[str],
    notes: list[str],
    target: Target,
    budget: Budget,
    gate: Gate,
    *,
    accept: bool,
    on: Machine,
    progress: Progress,
) -> Outcome:
    """Time every form and choose; `remedy` is the one that INT8 needed, and left the layers `reverted` in float."""
    siblings, costs = timed(v, target, forms, budget, on, progress)
    shipped = best(v, siblings, target, budget, gate, accept=accept)
    form = shipped.form
    if form.remedy and form.remedy != remedy:
        remedy, reverted = form.remedy, []
    if costs.disturbed:
        notes = [
            *notes,
            f"Not a sound measurement, twice: {'; '.join(costs.disturbed)}. Repeat it on an idle machine: edgeeff bench.",
        ]
    verdict = explain(shipped, siblings, remedy, reverted, notes, budget, gate)
    images = next(gate.pixels.batches(GOLDEN))
    run = target.runtime.load(form.file, precision=form.precision, threads=target.threads)
    facts = {
        **shipped.figures.to_json(),
        "conditions": costs.conditions,
        "disturbed": list(costs.disturbed),
        "siblings": [s.to_json() for s in siblings],
        "reverted_layers": reverted,
    }
    files = [*target.runtime.files(form.file), form.onnx]
    return Outcome(form, verdict, files, {"images": images, "logits": run(images)}, facts, forms, siblings)


def timed(
    v: Variant, target: Target, forms: list[Form], budget: Budget, on: Machine, progress: Progress
) -> tuple[list[Sibling], Costs]:
    """What every form costs, in interleaved blocks of one run."""
    forms = [f for f in forms if on.runs(f.runtime)]
    files = {f"{f.runtime} {f.label}": Compiled(f.runtime, f.file, f.precision.split(" ")[0], v.resolution) for f in forms}
    costs = on.costs(Request(files, budget, target.threads, ROUNDS), progress)
    return [Sibling(form, figures) for form, figures in zip(forms, costs.figures.values(), strict=True)], costs


def best(v: Variant, siblings: list[Sibling], target: Target, budget: Budget, gate: Gate, *, accept: bool = False) -> Sibling:
    """The fastest form that passes the gate and the budget; otherwise says which of the two it breaks.

    With `accept`, where no form within the budget passes the gate, the one of them that loses least.
    """
    own = [s for s in siblings if s.form.runtime == target.backend and s.form.precision in target.precisions]
    accurate = [s for s in own if s.form.report.passed]
    if fitting := [s for s in accurate if not s.figures.over(budget)]:
        return min(fitting, key=lambda s: s.latency.at(budget.percentile))
    if tempting := [s for s in own if not s.figures.over(budget)]:
        nearest = min(tempting, key=lambda s: loss(s.form.report))
        if accept:
            return nearest
        raise AccuracyGateFailed(
            f"{v.name}: {gate.refusal(nearest.form.report)} No form within the gate meets {budget}. --accept ships it all the same."
        )
    fastest = min(accurate or own, key=lambda s: s.latency.at(budget.percentile))
    rounds = fastest.latency.rounds
    raise BudgetNotMet(
        f"{v.name} at {v.resolution} px does not meet {budget}: {fastest.form.precision} needs "
        f"{' and '.join(fastest.figures.over(budget))} (blocks from {min(rounds):.2f} to {max(rounds):.2f} ms). "
        "Raise the budget to that, fit a smaller variant, or measure on an idle machine."
    )


def loss(report: StepReport) -> float:
    """What a form loses against the float model: points of top-1, without labels of agreement."""
    return 100 - report.agreement if report.drop is None else report.drop


def explain(
    shipped: Sibling, siblings: list[Sibling], remedy: str, reverted: list[str], notes: list[str], budget: Budget, gate: Gate
) -> str:
    """Why this form ships, in a few sentences. `remedy` is the one INT8 needed, `reverted` the layers it left in float."""
    form, report = shipped.form, shipped.form.report
    base = min((s for s in siblings if s.form.precision == "float32"), key=lambda s: s.latency.p50)
    speed, (low, high) = ratio(base.latency, shipped.latency)
    parts = [
        f"Ship {form.precision}: p{budget.percentile} {milliseconds(shipped.latency.at(budget.percentile))} ({budget}), "
        f"{speed:.2f}× ({low:.2f} to {high:.2f}) as fast as the best float32 "
        f"({base.form.runtime}, p50 {milliseconds(base.latency.p50)})"
    ]
    if report.drop is None or report.drop_ci is None:
        parts.append(f"; {report.agreement:.2f}% of {report.images} photos keep the float model's label.")
    else:
        parts.append(
            f"; top-1 {report.top1:.2f}, drop {report.drop:+.2f} points ({report.drop_ci[0]:+.2f} to {report.drop_ci[1]:+.2f}), "
            f"allowed {gate.max_drop:g}."
        )
        if report.passed and not report.proven:
            more = f"about {report.needed} would" if report.needed else "no number would at this drop"
            parts.append(f" {report.images} photos cannot prove that the drop stays within it: {more}.")
    if not report.passed:
        parts.append(" It fails the gate, and was accepted all the same.")
    integers = [s for s in siblings if s.form.precision.startswith("int8")]
    if not form.precision.startswith("int8") and integers:
        nearest = min(integers, key=lambda s: loss(s.form.report))
        if not any(s.form.report.passed for s in integers):
            parts.append(f" INT8 fails the gate after every remedy ({gate.refusal(nearest.form.report)})")
        else:
            parts.append(f" INT8 does not pay here: p50 {milliseconds(min(s.latency.p50 for s in integers))}.")
    elif reverted:
        whole = next(s for s in siblings if s.form.precision == "int8 (all layers)")
        part = next(s for s in siblings if s.form.remedy == remedy)
        cost = part.latency.p50 - whole.latency.p50
        parts.append(f" Kept in float: {', '.join(reverted)}; that costs {cost:+.2f} ms.")
    elif remedy not in FIRST:
        parts.append(f" INT8 needed {remedy}.")
    return "".join(parts) + "".join(f" {note}" for note in notes)
