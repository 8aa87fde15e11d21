"""The largest network within a budget, from measurements on the device itself.

Weights do not matter to what a network costs, so candidates have random ones. Within a series (B, Lite, V2) a network with no fewer
parameters and no lower resolution costs no less. So one measurement decides many candidates: what fits rules out all that promise
less, what does not fit all that are larger. The answer is that of measuring every one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Protocol

from ..budget import Budget
from ..errors import BudgetNotMet, Disturbed
from ..files import cache_folder, temporary_folder
from ..machine import LOCAL, Machine
from ..network.architecture import Variant
from ..network.variants import expected_top1, variant
from ..progress import SILENT, Progress
from . import latency_model, rivals
from .candidates import Accuracy, Candidate, FormKey, Search
from .latency_model import PRIOR, LatencyModel
from .predictor import LatencyPredictor
from .profiler import Profiler
from .rivals import Rivals

YARDSTICK = "b0"  # measured in turn with every network of a latency model, to cancel the machine's drift
APART = 1.05  # times: what two measurements for a latency model may differ by


class Clock(Protocol):
    """What tells the metrics of a candidate: a measurement on the device, or a prediction. `known` are those told before."""

    known: dict[Variant, Candidate]

    def time(self, v: Variant) -> Candidate: ...

    def forget(self) -> bool:
        """Let measurements of earlier runs stand for new ones no longer; whether any did."""
        ...


@dataclass(frozen=True)
class Choice:
    """`table` has every candidate, smallest first; `frontier` those that no other one beats in both accuracy and latency.
    `rivals` are those outside of the family, where they were asked for."""

    chosen: Candidate
    table: tuple[Candidate, ...]
    budget: Budget
    rivals: Rivals | None = None

    @property
    def frontier(self) -> tuple[Candidate, ...]:
        best, kept = math.inf, []
        for c in reversed([c for c in self.table if c.forms]):  # the most accurate first
            if c.forms[0].metrics.latency.p50 < best:
                best = c.forms[0].metrics.latency.p50
                kept.append(c)
        return tuple(reversed(kept))

    @property
    def noise(self) -> tuple[str, ...]:
        """Why the measurements that the choice rests on cannot be relied on."""
        return tuple(dict.fromkeys(reason for c in self.table for reason in c.noise))


def pick(search: Search, *, machine: Machine = LOCAL, memory: Path | None = None, progress: Progress = SILENT) -> Choice:
    """Choose the largest variant that fits. What was measured before is remembered in `memory`.

    Raises BudgetNotMet, with the smallest one's figures and what binds, when none fits.
    """
    budget, accuracy = search.budget, search.accuracy
    if search.rivals:
        rivals.require(search)
    unmeasured = [Candidate(v, search.classes) for v in search.variants]
    if all(c.over(budget) for c in unmeasured):  # no measurement can change that
        raise BudgetNotMet(_refusal(unmeasured, budget))
    clock = _clock(search, machine, memory or cache_folder() / "measurements.json", progress)
    if search.exhaustive:
        for v in sorted(search.variants, key=accuracy):
            clock.time(v)
    best = largest(search.variants, budget, clock, accuracy, search.classes)
    if best is None and clock.forget():  # the machine may have been busy then: a refusal rests on what is measured now
        best = largest(search.variants, budget, clock, accuracy, search.classes)
    table = tuple(
        replace(clock.known.get(v, Candidate(v, search.classes)), accuracy=accuracy(v))
        for v in sorted(search.variants, key=accuracy)
    )
    if best is None:
        smallest = min((c.variant for c in unmeasured if not c.over(budget)), key=PRIOR.shape)
        raise BudgetNotMet(_refusal([clock.time(smallest)], budget))
    chosen = next(c for c in table if c.variant == best)
    return Choice(chosen, table, budget, rivals.within(search, chosen, table) if search.rivals else None)


def profile(search: Search, path: Path, *, machine: Machine = LOCAL, progress: Progress = SILENT) -> dict[FormKey, LatencyModel]:
    """Measure every variant, in each form, and write what explains their latencies to `path`.

    Meanwhile the machine drifts, so another network is measured in turn with each, and latencies are taken in terms of its own.
    Each is measured twice, in two passes over all; where the two differ by more than APART, a third decides.
    """
    variants = list(search.variants)
    yardsticks: list[float] = []
    relative: dict[FormKey, dict[Variant, list[float]]] = {}
    for turn in (1, 2, 3):
        if turn == 3:
            variants = [v for v in variants if any(max(each[v]) > APART * min(each[v]) for each in relative.values() if v in each)]
        if not variants:
            break
        profiler = Profiler(search, machine, cache_folder() / f"profile-{turn}.json", progress)
        for candidate in _beside_yardstick(profiler, variants):
            assert candidate.yardstick is not None
            yardsticks.append(candidate.yardstick)
            for form in candidate.forms:
                shares = relative.setdefault(form.form, {}).setdefault(candidate.variant, [])
                shares.append(form.metrics.latency.p50 / candidate.yardstick)
    usual = median(yardsticks)
    models = {form: LatencyModel.fit({v: usual * median(shares) for v, shares in each.items()}) for form, each in relative.items()}
    latency_model.write(path, models, profiler.conditions)
    return models


def _beside_yardstick(profiler: Profiler, variants: Sequence[Variant]) -> list[Candidate]:
    """Each variant measured in turn with the yardstick; raises Disturbed where one cannot be relied on."""
    measured = []
    with temporary_folder() as folder:
        profiler.yardstick = next(iter(profiler.built(variant(YARDSTICK), folder).values()))
        for v in variants:
            candidate = profiler.time(v)
            if candidate.noise or not candidate.yardstick:
                raise Disturbed(f"{v.name}: {'; '.join(candidate.noise)}. A latency model needs an idle machine.")
            measured.append(candidate)
    return measured


def largest(
    variants: Sequence[Variant], budget: Budget, clock: Clock, accuracy: Accuracy = expected_top1, classes: int = 1000
) -> Variant | None:
    """The one of highest expected accuracy that fits, found with few measurements."""
    best: Variant | None = None
    undecided = [v for v in variants if not Candidate(v, classes).over(budget)]
    while undecided:
        v = _most_telling(undecided, budget, clock, accuracy) if budget.measured else max(undecided, key=accuracy)
        if budget.measured and clock.time(v).over(budget):
            undecided = [u for u in undecided if not grows(v, u)]
        else:
            best, undecided = v, [u for u in undecided if accuracy(u) > accuracy(v)]
    return best


def grows(a: Variant, b: Variant) -> bool:
    """Whether `b` costs no less than `a`, whatever the device."""
    return a.series == b.series and a.cost().params <= b.cost().params and a.resolution <= b.resolution


def _clock(search: Search, machine: Machine, memory: Path, progress: Progress) -> Clock:
    """What tells latencies: the machine, or where the device is not at hand, what was measured there before."""
    if search.budget.measured and machine is LOCAL and not search.target.here:
        return LatencyPredictor(search)
    return Profiler(search, machine, memory, progress)


def _most_telling(undecided: list[Variant], budget: Budget, clock: Clock, accuracy: Accuracy) -> Variant:
    """What to measure next: the most accurate that should fit, or where none should, the smallest, which would rule out most."""
    shapes = {v: PRIOR.shape(v) for v in undecided}
    if not clock.known:
        return sorted(undecided, key=lambda v: shapes[v])[len(undecided) // 2]
    known = [(k.series, PRIOR.shape(k), c.share(budget)) for k, c in clock.known.items()]
    shares = {v: _expected_share(v.series, shapes[v], known) for v in undecided}
    fitting = [v for v in undecided if shares[v] <= 1]
    return max(fitting, key=accuracy) if fitting else min(undecided, key=lambda v: shares[v])


def _expected_share(series: str, shape: float, known: list[tuple[str, float, float]]) -> float:
    """The share of the nearest of the networks measured, of the same series if there is one, scaled."""
    relatives = [k for k in known if k[0] == series] or known
    _, nearest, share = min(relatives, key=lambda k: abs(math.log(k[1] / shape)))
    return share * shape / nearest


def _refusal(candidates: Sequence[Candidate], budget: Budget) -> str:
    smallest = min(candidates, key=lambda c: PRIOR.shape(c.variant))
    remedy = " That budget, or a lower --resolution, would do." if smallest.forms else ""
    unsound = f" That was not a sound measurement: {'; '.join(smallest.noise)}. Repeat it when idle." if smallest.noise else ""
    return f"no variant fits {budget}. The smallest: {smallest.refusal(budget)}{remedy}{unsound}"
