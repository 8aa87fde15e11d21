"""Latency, measured so that two numbers of one run can be compared.

Candidates run in interleaved blocks, round after round, so that a drift of the machine meets all of them. The first runs of a block
are a warm-up (another model was in the caches) and are not counted. Rounds go on until every confidence interval is narrow, or the
time is up. A run that other programs or throttling disturbed is repeated once; if it is disturbed again, its reasons are returned.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..progress import SILENT, Progress
from .system_state import Snapshot, noise_reasons, snapshot

Run = Callable[[], object]  # one inference
Milliseconds = NDArray[np.float64]

ROUNDS = 8  # at least
NARROW = 0.03  # half the 95% interval, as a share of the median
SECONDS = 1.0  # for each candidate, beyond the least number of rounds
BLOCK = 30  # runs
WARM_UP = 3  # runs
BLOCK_SECONDS = 0.5  # a slow model runs shorter blocks, of at least 5
WORTH = 1.05  # times faster, by the lower end of the interval: a smaller gain decides nothing
BINS = 30  # of the histogram
DIGITS = 4  # of milliseconds: a tenth of a microsecond


@dataclass(frozen=True)
class Latency:
    """Milliseconds for one image. `ci`, `ci90` and `ci99` are 95% intervals, `rounds` the median of each block.

    `first` is the first inference after loading, which allocates what the others reuse; it is not among them.
    `histogram`: where its bins begin and end, the number of runs in each of the equal bins, and of those above.
    """

    p50: float
    p90: float
    p99: float
    ci: tuple[float, float]
    rounds: tuple[float, ...]
    ci90: tuple[float, float] = (0.0, 0.0)
    ci99: tuple[float, float] = (0.0, 0.0)
    first: float = 0.0
    histogram: tuple[float, ...] = ()

    def at(self, percentile: int) -> float:
        return {50: self.p50, 90: self.p90, 99: self.p99}[percentile]

    def upper_bound(self, percentile: int) -> float:
        """The upper end of the percentile's interval: what a budget is compared with."""
        return max(self.at(percentile), {50: self.ci, 90: self.ci90, 99: self.ci99}[percentile][1])


@dataclass(frozen=True)
class LatencyRun:
    """Latencies of one run, the machine before and after, and why they cannot be relied on (empty: they can)."""

    latencies: dict[str, Latency]
    before: Snapshot
    after: Snapshot
    noise: tuple[str, ...] = ()


def measure(
    candidates: Mapping[str, Run],
    *,
    rounds: int = ROUNDS,
    narrow: float = NARROW,
    seconds: float = SECONDS,
    take_snapshot: Callable[[], Snapshot] = snapshot,
    progress: Progress = SILENT,
) -> LatencyRun:
    """Time each candidate in interleaved blocks, `rounds` or more, until intervals are `narrow` or `seconds` are over."""
    first = {name: float(_block(run, 1)[0]) for name, run in candidates.items()}
    for repeated in (False, True):
        before = take_snapshot()
        blocks = _interleaved(candidates, rounds, narrow, seconds, progress)
        after = take_snapshot()
        reasons = noise_reasons(before, after)
        if not reasons or repeated:
            break
        progress.say(f"The measurement was disturbed and is repeated once: {'; '.join(reasons)}.")
    return LatencyRun({name: _summary(blocks[name], first[name]) for name in candidates}, before, after, tuple(reasons))


class Speedup(NamedTuple):
    """How many `times` as fast, and the 95% interval."""

    times: float
    ci: tuple[float, float]

    def __str__(self) -> str:
        return f"{self.times:.2f}× ({self.ci[0]:.2f} to {self.ci[1]:.2f})"


def ratio(slow: Latency, fast: Latency) -> Speedup:
    """How many times faster: the median over the rounds, in each of which both ran."""
    ratios = np.array(slow.rounds) / np.array(fast.rounds)
    return Speedup(float(np.median(ratios)), _interval(ratios))


def speedups(latencies: Sequence[Latency], references: Sequence[bool]) -> list[Speedup | None]:
    """How many times as fast each is as the fastest of the `references` by its median; None for each where there are none."""
    slow = [latency for latency, is_reference in zip(latencies, references, strict=True) if is_reference]
    return [ratio(min(slow, key=lambda each: each.p50), latency) if slow else None for latency in latencies]


def _interleaved(
    candidates: Mapping[str, Run], rounds: int, narrow: float, seconds: float, progress: Progress
) -> dict[str, list[Milliseconds]]:
    names = list(candidates)
    sizes = {name: max(5, min(BLOCK, int(BLOCK_SECONDS * 1000 / _warm(candidates[name])))) for name in names}
    blocks: dict[str, list[Milliseconds]] = {name: [] for name in names}
    rng = random.Random(0)

    def one_round() -> None:
        for name in rng.sample(names, len(names)):  # in turn, each would follow the same other one, which leaves its traces
            blocks[name].append(_block(candidates[name], sizes[name] + WARM_UP)[WARM_UP:])

    for _ in progress.track(range(rounds), "measure latency", rounds):
        one_round()
    deadline = time.monotonic() + seconds * len(names)
    while time.monotonic() < deadline and any(_width(b) > narrow for b in blocks.values()):
        one_round()
    return blocks


def _warm(run: Run) -> float:
    """Milliseconds of a run after a warm-up, in which the runtime allocates what it needs."""
    _block(run, WARM_UP)
    return float(np.median(_block(run, 3)))


def _block(run: Run, count: int) -> Milliseconds:
    times = np.empty(count)
    for i in range(count):
        start = time.perf_counter()
        run()
        times[i] = time.perf_counter() - start
    return times * 1000


def _summary(blocks: list[Milliseconds], first: float) -> Latency:
    samples = np.concatenate(blocks)
    p50, p90, p99 = (round(float(p), DIGITS) for p in np.percentile(samples, (50, 90, 99)))
    medians = np.array([np.median(b) for b in blocks])
    ci90, ci99 = _tails(blocks)
    rounds = tuple(round(float(m), DIGITS) for m in medians)
    return Latency(p50, p90, p99, _interval(medians), rounds, ci90, ci99, round(first, DIGITS), _histogram(samples))


def _histogram(samples: Milliseconds) -> tuple[float, ...]:
    """From the shortest run to three quartile distances above the upper quartile, or p99: a tail would squeeze the rest."""
    low, lower, upper, high = np.percentile(samples, (0, 25, 75, 99))
    high = min(high, upper + 3 * (upper - lower))
    counts = np.histogram(samples, BINS, (low, high))[0]
    return (round(float(low), DIGITS), round(float(high), DIGITS), *map(int, counts), int((samples > high).sum()))


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """95% bootstrap interval of the median, over rounds: samples within a block are not independent."""
    draws = np.random.default_rng(0).choice(values, (2000, len(values)))
    low, high = np.percentile(np.median(draws, axis=1), (2.5, 97.5))
    return round(float(low), DIGITS), round(float(high), DIGITS)


def _tails(blocks: list[Milliseconds]) -> list[tuple[float, float]]:
    """95% bootstrap intervals of p90 and p99, whole rounds drawn."""
    samples = np.array(blocks)  # (rounds, block)
    draws = np.random.default_rng(0).integers(0, len(samples), (500, len(samples)))
    tails = np.percentile(samples[draws].reshape(len(draws), -1), (90, 99), axis=1)  # (2, draws)
    bounds = np.percentile(tails, (2.5, 97.5), axis=1).T
    return [(round(float(low), DIGITS), round(float(high), DIGITS)) for low, high in bounds]


def _width(blocks: list[Milliseconds]) -> float:
    """Half the 95% interval of the median, as a share of it, if the rounds' medians were normally distributed: quick to compute."""
    medians = np.array([np.median(b) for b in blocks])
    return float(1.96 * 1.25 * medians.std(ddof=1) / math.sqrt(len(medians)) / np.median(medians))
