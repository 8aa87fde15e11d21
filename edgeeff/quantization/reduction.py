"""A smaller network, where it is to be faster than it is: the reductions that buy most on the device at the least loss.

What a part or a lower resolution is worth in latency is measured with files in the fastest precision; what it costs in accuracy is
estimated on the photos that networks recover on, which need no labels. Fusion makes latencies add up badly, so what a latency
budget allows is decided by whole files, and the sums only put the combinations in order. Smaller networks are made in every
precision that is nearly as fast, as they lose less in one than in another.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ..budget import Budget
from ..context import NetworkContext
from ..data.images import PixelFile
from ..manifest import ReductionRecord
from ..measurement.benchmark import BenchmarkRequest, CompiledModel, Metrics
from ..measurement.latency import WORTH, Latency, ratio
from ..network import checkpoint
from ..network.activations import Schedule
from ..network.model import EfficientNet
from ..network.reduce import (
    Means,
    Part,
    Reduction,
    counterparts,
    gate_means,
    loss_at,
    losses,
    reduced,
    reduced_variant,
    remaining,
    removable,
    resolutions,
)
from ..precision import Precision
from ..records import dump_json, read_json
from .random_weights import kept_for_timing
from .strategies import Network, distilled_from

RECOVERY = Schedule(6000, 5e-5)  # at 4e-4 V2-B0 without three blocks ends further from the original on other photos
FURTHER = Schedule(4000, 5e-5)  # from a smaller network, which is recovered: with 3000 it ends a little further from the original
STEPS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.55, 0.7)  # shares of the latency to save, where no latency is asked for
TIMED = tuple(i / 16 for i in range(1, 16))  # shares that are estimated to be saved by what is timed to find those
PHOTOS = 64  # on which losses are estimated
GRAIN = 64  # of combinations whose savings lie in the same 64th of the largest, the one of least loss is considered

Option = Part | int
"""What can make a network smaller: a part that is left out, or a lower resolution."""

Timer = Callable[[Sequence[Reduction]], Mapping[Reduction, Metrics]]
"""What a network costs after several reductions, measured in one run."""

Estimate = Callable[[Sequence[Option]], Mapping[Option, float]]
"""What each option costs in accuracy."""


@dataclass(frozen=True)
class Cut:
    """A reduction, what it saves in milliseconds, and the loss that it was estimated to cost."""

    to: Reduction
    saves_ms: float
    loss: float


@dataclass(frozen=True)
class Plan:
    """What there is to choose from; the reductions that come into question, from the least on; and why these, or why none.

    `precisions` are what the networks are to be made in. The first is the fastest, and what was timed.
    """

    precisions: tuple[Precision, ...] = ()
    options: tuple[ReductionRecord, ...] = ()
    reductions: tuple[Reduction, ...] = ()
    reason: str = ""


def plan(context: NetworkContext, start: Network, passed: Sequence[Precision]) -> Plan:
    """How to make `start` smaller: as little as meets the latency budget, or without one what saves several shares of its latency.

    Of the precisions in which it `passed` the gate the fastest is timed.
    """

    def make(folder: Path) -> None:
        photos = _few(context, PHOTOS)

        def estimate(options: Sequence[Option]) -> dict[Option, float]:
            parts = [option for option in options if isinstance(option, Part)]
            means = gate_means(start.model, photos, context.preprocess)
            found: dict[Option, float] = {}
            for option in options:
                if isinstance(option, int):
                    smaller = context.pixels(photos.images, context.preprocess.at(option))
                    found[option] = loss_at(start.model, photos, smaller)
            for part, loss in losses(start.model, photos, context.preprocess, parts, means).items():
                found[part] = loss
            return found

        variant = start.model.variant
        own = Reduction(variant.resolution)
        options: list[Option] = [*resolutions(variant), *removable(variant)]
        costs = timings(context, start, passed, [own])
        precisions = nearly_fastest({p: costs[p][own].latency for p in costs})

        def time(every: Sequence[Reduction]) -> Mapping[Reduction, Metrics]:
            return timings(context, start, precisions[:1], every)[precisions[0]]

        made = planned(context.budget, own, options, estimate, time, precisions)
        (folder / "plan.json").write_text(dump_json(made), encoding="utf-8")

    budget = context.budget
    limits = f"{budget.latency_ms}-p{budget.percentile}-{'-'.join(map(str, passed))}"  # no inputs of the cache
    name = f"{start.activation}-plan-{limits}"
    return read_json(context.cache.once(name, make) / "plan.json", Plan)


def nearly_fastest(latencies: Mapping[Precision, Latency]) -> tuple[Precision, ...]:
    """The fastest precision, and after it those than which it is not faster by what is worth anything."""
    fastest, *others = sorted(latencies, key=lambda p: latencies[p].p50)
    return fastest, *(p for p in others if ratio(latencies[p], latencies[fastest]).ci[0] <= WORTH)


def planned(
    budget: Budget, own: Reduction, options: Sequence[Option], estimate: Estimate, time: Timer, precisions: tuple[Precision, ...]
) -> Plan:
    """How to make a network smaller than it is (`own`). Nothing is estimated where the budget is met without."""
    precision = precisions[0]
    limit, percentile = budget.latency_ms, budget.percentile
    needs = time([own])[own].upper_bound(percentile)
    if limit is not None and needs <= limit:
        return Plan(precisions, reason=f"In {precision} it needs {needs:.2f} ms, so the network stays as it is.")
    if not options:
        return Plan(precisions, reason=f"In {precision} it needs {needs:.2f} ms, and nothing of the network can be left out.")
    whole, saves = savings(own, options, time)
    losses = {option: loss for option, loss in estimate(options).items() if math.isfinite(loss)}
    records = tuple(ReductionRecord(_named(option), saves[option], loss) for option, loss in losses.items())
    frontier = cuts(own, whole, losses, saves)
    if limit is None:
        steps = _steps(own, frontier, whole, time)
        reason = f"In {precision} it needs {whole:.2f} ms; {len(steps)} smaller networks are possible."
        return Plan(precisions, records, steps, reason)
    missing = f"In {precision} it needs {needs:.2f} ms, {limit:g} are allowed"
    reductions, reason = _within(limit, percentile, frontier, time)
    return Plan(precisions, records, reductions, missing + reason)


def savings(own: Reduction, options: Sequence[Option], time: Timer) -> tuple[float, dict[Option, float]]:
    """The whole network's milliseconds, and by option those that it is faster with it.

    Parts of one kind and stage save the same, so they are timed together.
    """
    alike: dict[object, list[Option]] = defaultdict(list)
    for option in options:
        alike[(option.block.stage, option.gate) if isinstance(option, Part) else option].append(option)
    groups = {_with(own, *members): members for members in alike.values()}
    whole, saved = _saved(own, list(groups), time)
    each = {to: whole * max(0.0, saved[to]) / len(members) for to, members in groups.items()}
    return whole, {option: each[to] for to, members in groups.items() for option in members}


def _saved(own: Reduction, every: Sequence[Reduction], time: Timer) -> tuple[float, dict[Reduction, float]]:
    """The whole network's milliseconds, and the share of them that each reduction saves in the same round.

    Medians over all rounds would not do: were the whole network's a little high, every part would seem to save as much.
    """
    timed = time([own, *every])
    whole = timed[own].latency
    return whole.p50, {to: 1 - 1 / ratio(whole, timed[to].latency).times for to in every}


def cuts(own: Reduction, whole_ms: float, losses: Mapping[Option, float], saves_ms: Mapping[Option, float]) -> list[Cut]:
    """The reductions that no other beats in both, from the least to the most that is saved.

    Losses are taken to add up, and so are the savings of parts; a lower resolution saves its share of what is left. Of each block
    nothing is left out, or its gate, or all of it: a knapsack of multiple choice, solved by dynamic programming.
    """
    blocks: dict[str, list[Part]] = defaultdict(list)
    for option in losses:
        if isinstance(option, Part):
            blocks[option.block.name].append(option)
    grain = sum(max(saves_ms[part] for part in parts) for parts in blocks.values()) / GRAIN
    without = [Cut(own, 0.0, 0.0)]
    for parts in blocks.values():
        more = [
            Cut(_with(cut.to, part), cut.saves_ms + saves_ms[part], cut.loss + losses[part]) for cut in without for part in parts
        ]
        without = _unbeaten([*without, *more], grain)
    frontier = list(without)
    for option in losses:
        if isinstance(option, int):
            left = 1 - saves_ms[option] / whole_ms
            frontier += [
                Cut(_with(cut.to, option), whole_ms - left * (whole_ms - cut.saves_ms), cut.loss + losses[option])
                for cut in without
            ]
    return _unbeaten(frontier, max(cut.saves_ms for cut in frontier) / GRAIN)


def _with(to: Reduction, *options: Option) -> Reduction:
    """A reduction and some options more."""
    for option in options:
        to = replace(to, parts=(*to.parts, option.name)) if isinstance(option, Part) else replace(to, resolution=option)
    return to


def _unbeaten(every: Iterable[Cut], grain: float) -> list[Cut]:
    """Those than which no other saves as much at less loss, the cheapest of each `grain` milliseconds, from the least saved on."""
    frontier: dict[int, Cut] = {}
    least = math.inf
    for cut in sorted(every, key=lambda cut: (-cut.saves_ms, cut.loss, len(cut.to.parts))):
        if cut.loss < least:
            least = cut.loss
            frontier[math.ceil(cut.saves_ms / grain) if grain else 0] = cut
    return list(frontier.values())[::-1]


def _steps(own: Reduction, frontier: Sequence[Cut], whole_ms: float, time: Timer) -> tuple[Reduction, ...]:
    """The reductions that save the shares of STEPS at the least loss, of some that are measured as whole files."""
    some = _enough({cut.to: cut.saves_ms / whole_ms for cut in frontier}, TIMED)
    return _enough(_saved(own, some, time)[1], STEPS)


def _enough(saved: Mapping[Reduction, float], shares: Sequence[float]) -> tuple[Reduction, ...]:
    """For each share the first reduction that saves as much."""
    found = (next((to for to, saves in saved.items() if saves >= share), None) for share in shares)
    return tuple(dict.fromkeys(to for to in found if to))


def _within(limit: float, percentile: int, frontier: Sequence[Cut], time: Timer) -> tuple[tuple[Reduction, ...], str]:
    """The reduction of least loss that meets the limit, if any, and what is to be said of it.

    It is found by halving: each is measured as a whole file.
    """
    measured: dict[int, float] = {}

    def meets(index: int) -> bool:
        to = frontier[index].to
        measured[index] = time([to])[to].upper_bound(percentile)
        return measured[index] <= limit

    low, high = 0, len(frontier) - 1  # `low` misses the limit, and `high` meets it
    if high == 0:
        return (), ", and nothing that can be left out saves time."
    if not meets(high):
        return (), f", and the smallest that the network can be made needs {measured[high]:.2f} ms."
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if meets(middle) else (middle, high)
    to = frontier[high].to
    return (to,), f"; {listed(to)} it is {measured[high]:.2f} ms."


def find_last(reductions: Sequence[Reduction], passes: Callable[[Reduction], bool]) -> None:
    """Try those that lead to the last that passes, by halving: where one misses, those that save more are taken to miss too."""
    passing, missing = -1, len(reductions)
    while missing - passing > 1:
        middle = (passing + missing) // 2
        passing, missing = (middle, missing) if passes(reductions[middle]) else (passing, middle)


def listed(to: Reduction) -> str:
    """A reduction in words."""
    without = ", ".join(name.removeprefix("blocks.") for name in to.parts)
    return f"at {to.resolution} px{f' without {without}' if without else ''}"


def _named(option: Option) -> str:
    return option.name if isinstance(option, Part) else f"{option} px"


def timings(
    context: NetworkContext, network: Network, precisions: Sequence[Precision], every: Sequence[Reduction]
) -> dict[Precision, dict[Reduction, Metrics]]:
    """What a network costs in each precision after each reduction, all measured in one run."""
    target = context.target
    models: dict[str, CompiledModel] = {}
    for to in context.progress.track(every, "smaller networks to be timed", len(every)):
        smaller, prepared = reduced(network.model, to), context.preprocess.at(to.resolution)
        files = kept_for_timing(context, f"{network.activation}-{_name(to)}", smaller, prepared, precisions)
        models |= {_key(to, p): CompiledModel(target.backend, files[p], p, to.resolution) for p in precisions}
    measured = context.machine.benchmark(BenchmarkRequest(models, threads=target.threads), context.progress).metrics
    return {p: {to: measured[_key(to, p)] for to in every} for p in precisions}


def recovered_as(
    context: NetworkContext, original: Network, starts: Sequence[Network], to: Reduction
) -> tuple[NetworkContext, Network]:
    """A network made as small as that, distilled until it answers as the `original` does, as far as it can; and the context for it.

    It is made of the last of `starts` that has all of its parts. The first one has them all.
    """
    whole = original.model.variant
    ways = [(start, remaining(whole, start.reduction, to)) for start in starts]
    start, rest = next((start, rest) for start, rest in reversed(ways) if rest)
    schedule = RECOVERY if start is starts[0] else FURTHER
    aside = _aside(context, f"reduced-from-{_name(start.reduction)}", to)

    def make(folder: Path) -> None:
        means = gate_means(start.model, _few(aside, PHOTOS), aside.preprocess)
        student = partial(_student, start.model, rest, means)
        matched = counterparts(whole, to.parts)
        network = distilled_from(replace(context, cache=aside.cache), original.model, student, schedule, start.activation, matched)
        checkpoint.save(network, folder / "weights.safetensors", aside.preprocess, ())

    weights = aside.cache.once(f"{start.activation}-weights", make) / "weights.safetensors"
    variant = reduced_variant(start.model.variant, rest)
    model = checkpoint.load(weights, variant, resolution=to.resolution)[0]
    return aside, replace(Network.export(model.eval(), aside), left_out=to.parts)


def _student(start: EfficientNet, to: Reduction, means: Means, _: EfficientNet) -> EfficientNet:
    return reduced(start, to, means)


def _few(context: NetworkContext, count: int) -> PixelFile:
    return context.pixels(context.photos.learning.draw(count), context.preprocess)


def _aside(context: NetworkContext, purpose: str, to: Reduction) -> NetworkContext:
    """The context with a cache of its own for a smaller network."""
    smaller = context.at(context.preprocess.at(to.resolution))
    return replace(smaller, cache=context.cache.within(f"{purpose}-{_name(to)}"))


def _key(to: Reduction, precision: Precision) -> str:
    return f"{_name(to)} {precision}"


def _name(to: Reduction) -> str:
    return f"{to.resolution}-{hashlib.sha256(' '.join(to.parts).encode()).hexdigest()[:16]}"
