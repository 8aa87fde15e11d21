"""A bundle after a new driver, runtime or library: what its manifest says, taken again and compared. Nothing is written.

Hashes, golden photos, accuracy and latency are those of `verify`, `eval` and `bench`. This file only compares.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

from .backends import tensorrt
from .budget import Budget
from .bundle import Bundle, Replay
from .errors import AccuracyGateFailed, BadInput, BudgetNotMet, EdgeeffError, Unreliable, error_for, exit_code
from .evaluation import BundleBenchmark, Evaluation, benchmark_bundle, evaluate
from .job import EvaluateJob, RequalifyJob
from .manifest import Manifest
from .measurement.accuracy import ROUNDING, StepReport, share_error
from .measurement.benchmark import Metrics
from .measurement.latency import Latency
from .measurement.remarks import Z
from .measurement.system_state import Device, SystemState, device, snapshot
from .precision import Precision
from .progress import SILENT, Progress

Outcome = Literal["same", "differs", "not compared", "not sound"]
PACKAGES = ("edgeeff", "numpy", "pillow")  # that run a bundle, beside its runtime


@dataclass(frozen=True)
class Line:
    """One thing as the manifest has it, and as it is now. `note` says in words what changed, and what that rests on.

    `exit_code` is that of the error which the line stands for (`errors.EXIT_CODES`), 0 where it stands for none.
    """

    what: str
    manifest: str
    now: str
    outcome: Outcome
    note: str = ""
    exit_code: int = 0


@dataclass(frozen=True)
class Requalification:
    """What was compared: `results` of the bundle, and the `environment` that they are from. `evaluation` and `benchmark` are None
    where accuracy and latency were not taken again."""

    bundle: str
    precision: Precision
    results: tuple[Line, ...]
    environment: tuple[Line, ...]
    verdict: str
    evaluation: Evaluation | None
    benchmark: BundleBenchmark | None

    @property
    def error(self) -> EdgeeffError | None:
        """That of the first result which stands for one; None where the bundle still does what it has to."""
        failed = next((line for line in self.results if line.exit_code), None)
        return error_for(failed.exit_code)(f"{self.bundle}: {failed.note}.") if failed else None


@dataclass(frozen=True)
class Judged:
    """The shipped file's accuracy on photos, in percent, as the manifest has it; `drop` is from the float network's there.

    `max_drop` is what the gate allows there; None on photos that only tell.
    """

    photos_sha256: str
    images: int
    top1: float
    drop: float
    drop_ci: tuple[float, float]
    max_drop: float | None = None


def requalify(job: RequalifyJob, *, progress: Progress = SILENT) -> Requalification:
    """A bundle held to its manifest on this machine.

    Latency is measured on the manifest's own device only, and accuracy where there are photos. Raises what `verify`, `eval` and
    `bench` raise where there is nothing to compare; a difference is no error here, but a Line.
    """
    bundle = job.open()
    facts, here = bundle.manifest, device()
    environment = tuple(_environment(bundle, here))
    results = [Line("files", f"{len(facts.files)} hashes", "all match", "same"), *_golden(bundle.replay())]
    evaluation, benchmark = None, None
    if job.val is not None:
        photos = EvaluateJob(job.bundle, job.val, max_corrupt=job.max_corrupt, trusted=job.trusted, not_before=job.not_before)
        evaluation = evaluate(photos, progress=progress)
    results += _accuracy(_judged(facts), evaluation)
    if recorded := _recorded(facts, here):
        benchmark = benchmark_bundle(job, progress=progress)
        results += _latency(facts, recorded, benchmark)
    else:
        why = "this is another device" if facts.metrics else "the manifest has none"
        results.append(Line("p50 ms", "", "", "not compared", f"latency is not compared: {why}"))
    verdict = _verdict(results, environment)
    return Requalification(str(job.bundle), facts.precision, tuple(results), environment, verdict, evaluation, benchmark)


def _golden(replayed: Mapping[str, Replay]) -> Iterator[Line]:
    """How far the golden photos' answers are off, as photos and as a camera's frames."""
    for name, found in replayed.items():
        limit, now = f"off by ≤ {found.allowed:.3g}", f"off by {found.off:.4f}"
        if found.same:
            yield Line(f"golden {name}", limit, now, "same")
        else:
            yield Line(
                f"golden {name}", limit, now, "differs", f"golden {name} give other logits: {found}", exit_code(BadInput(""))
            )


def _judged(facts: Manifest) -> list[Judged]:
    """Where the manifest has the shipped file's accuracy on labelled photos: on those that chose it, and on test photos."""
    engine = next((e for e in facts.engines if e.precision is facts.precision and e.accuracy), None)
    graph = next((f for f in facts.forms if f.precision is facts.precision), None)
    form = graph if facts.shipped is None else facts.siblings[facts.shipped]
    report = engine.accuracy if engine else form
    photos = engine.photos_sha256 if engine else facts.validation_sha256
    images = report.images if isinstance(report, StepReport) else facts.validation_photos
    found = []
    if report and report.top1 is not None and report.drop is not None and report.drop_ci is not None:
        limit = facts.max_drop if report.passed else None
        found.append(Judged(photos, images, report.top1, report.drop, report.drop_ci, limit))
    if facts.held_out:
        test = facts.held_out.steps[1]
        if test.top1 is not None and test.drop is not None and test.drop_ci is not None:
            found.append(Judged(facts.held_out.photos_sha256, test.images, test.top1, test.drop, test.drop_ci))
    return found


def _accuracy(judged: list[Judged], now: Evaluation | None) -> Iterator[Line]:
    """Accuracy on the manifest's own photos, or on others, and the gate where the photos are those of the gate."""
    then = next((each for each in judged if now and each.photos_sha256 == now.photos_sha256), None)
    nearest = then or next(iter(judged), None)
    recorded = f"{nearest.top1:.2f} of {nearest.images}" if nearest else ""
    if now is None or now.top1 is None or nearest is None:
        why = "no photos were given (--val)" if now is None else "the manifest has none with labels"
        measured = "" if now is None or now.top1 is None else f"{now.top1:.2f} of {now.images}"
        yield Line("top-1 %", recorded, measured, "not compared", f"accuracy is not compared: {why}")
        return
    change = f"top-1 {nearest.top1:.2f} → {now.top1:.2f} on"
    drop = nearest.top1 + nearest.drop - now.top1
    if then is None:
        margin = Z * math.hypot(share_error(nearest.top1, nearest.images), share_error(now.top1, now.images))
        differs = abs(now.top1 - nearest.top1) > margin
        within = f"{'more than' if differs else 'within'} the ±{margin:.2f} points that the sampling of both explains at 95%"
        note = f"{change} other photos than the manifest's: {within}"
    else:
        low, high = then.drop_ci
        differs = not low - ROUNDING <= drop <= high + ROUNDING
        within = f"{'outside' if differs else 'within'} the manifest's {then.drop:+.2f} ({low:+.2f} to {high:+.2f})"
        note = f"{change} the same {then.images} photos: the drop from float is {drop:+.2f} points, {within}"
        if abs(now.top1 - then.top1) <= ROUNDING:
            note = ""
    yield Line("top-1 %", recorded, f"{now.top1:.2f} of {now.images}", "differs" if differs else "same", note)
    if then and then.max_drop is not None:
        failed = drop > then.max_drop + ROUNDING
        limits = ("accuracy gate", f"drop ≤ {then.max_drop:g}", f"{drop:+.2f}")
        refusal = f"the accuracy gate fails: drop {drop:.2f} points > {then.max_drop:g} allowed ({now.images} images)"
        yield Line(*limits, "differs", refusal, exit_code(AccuracyGateFailed(""))) if failed else Line(*limits, "same")


def _recorded(facts: Manifest, here: Device) -> list[Latency]:
    """The manifest's latencies of this device; of equal machines that were measured as one, all of theirs."""
    if facts.metrics is None:
        return []
    if not facts.device.hosts:
        return [facts.metrics.latency] if facts.device.same_kind(here) else []
    hosts = facts.metrics.hosts
    return [hosts[name] for name, each in facts.device.hosts.items() if name in hosts and each.same_kind(here)]


def _latency(facts: Manifest, recorded: list[Latency], result: BundleBenchmark) -> Iterator[Line]:
    """The latency, which differs only where intervals do not overlap and both measurements are sound; and the budget."""
    timed, then = result.metrics.latency, max(latency.p50 for latency in recorded)
    low, high = min(latency.ci[0] for latency in recorded), max(latency.ci[1] for latency in recorded)
    shown = ("p50 ms", f"{then:.3f} ({low:.3f} … {high:.3f})", f"{timed.p50:.3f} ({timed.ci[0]:.3f} … {timed.ci[1]:.3f})")
    if result.disturbed:
        unsound = f"not a sound measurement, twice: {'; '.join(result.disturbed)}. Repeat it when idle"
        yield Line(*shown, "not sound", unsound, exit_code(Unreliable("")))
        return
    if facts.disturbed:
        disturbed = f"latency is not compared: the manifest's was disturbed ({'; '.join(facts.disturbed)})"
        yield Line(*shown, "not compared", disturbed)
    else:
        apart = timed.ci[0] > high or timed.ci[1] < low
        change = f"{100 * abs(timed.p50 / then - 1):.0f}% {'slower' if timed.p50 > then else 'faster'}"
        note = f"p50 {then:.3f} → {timed.p50:.3f} ms, {change}: the intervals {'do not ' if apart else ''}overlap"
        yield Line(*shown, "differs" if apart else "same", note)
    if facts.budget.measured:
        yield _budget(facts.budget, result.metrics)


def _budget(budget: Budget, metrics: Metrics) -> Line:
    """The budget, but for limits of what `bench` does not measure."""
    unknown = [name for name in budget.limits if name in metrics.costs and metrics.costs[name] is None]
    known = {name: limit for name, limit in budget.limits.items() if name not in unknown}
    over = metrics.over(Budget(percentile=budget.percentile, **known))
    note = f"{', '.join(unknown)} is not measured" if unknown else ""
    if not over:
        return Line("budget", str(budget), "met", "same", note)
    said = f"the budget ({budget}) is not met: {', '.join(over)}"
    return Line("budget", str(budget), "not met", "differs", said, exit_code(BudgetNotMet("")))


def _environment(bundle: Bundle, here: Device) -> Iterator[Line]:
    """What the results depend on beside the bundle: what the manifest has of it, and what is here."""
    facts, now = bundle.manifest, snapshot().state
    then = next((each for each in facts.device.hosts.values() if each.same_kind(here)), facts.device)
    same = then.same_kind(here)
    yield _setting("device", *((then.cpu, here.cpu) if same else (_described(then), _described(here))))
    yield _setting("threads", str(facts.threads or then.cores), str(facts.threads or here.cores))
    yield _setting(facts.backend, facts.versions.get(facts.backend, ""), bundle.runtime().version())
    for package in PACKAGES:
        yield _setting(package, facts.versions.get(package, ""), metadata.version(package))
    known = {"power mode": (_power_mode(facts.conditions[0]) if facts.conditions else "", _power_mode(now))}
    if facts.backend == "tensorrt":
        known |= tensorrt.moved(bundle.path / facts.model)
    for what, (before, after) in known.items():
        if before or after:  # not every machine tells
            yield _setting(what, before, after)


def _setting(what: str, then: str, now: str) -> Line:
    return Line(what, then, now, "same" if then == now else "differs" if then and now else "not compared")


def _described(each: Device) -> str:
    return ", ".join(filter(None, (each.cpu, each.machine, each.family, " ".join(each.flags), each.os)))


def _power_mode(state: SystemState) -> str:
    return state.board.power_mode if state.board else state.power_mode


def _verdict(results: list[Line], environment: tuple[Line, ...]) -> str:
    """What differs, what that rests on, and what else is different here, in sentences."""
    found = {line.outcome: [each.what for each in results if each.outcome == line.outcome] for line in results}
    if "differs" in found:
        verdict = f"Differs: {', '.join(found['differs'])}."
    elif "not sound" in found:
        verdict = "The same, as far as it is known: the measurement is not sound."
    else:
        verdict = "Same, as far as it was compared." if "not compared" in found else "Same."
    notes = [f"{line.note[0].upper()}{line.note[1:]}." for line in results if line.note]
    changes = [f"{line.what} {line.manifest} → {line.now}" for line in environment if line.outcome == "differs"]
    around = f"The environment differs: {'; '.join(changes)}." if changes else "The environment is the manifest's."
    return " ".join((verdict, *notes, around))
