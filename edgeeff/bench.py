"""Latency, measured so that two numbers of one run can be compared.

Candidates run in turn, a block each, round after round: a drift of the machine meets all of them. The first runs of a block are
cold (another model was in the caches) and do not count.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .images import Pixels, Predict
from .progress import SILENT, Progress

ROUNDS = 8
BLOCK = 30
COLD = 3
BLOCK_SECONDS = 0.5  # a slow model runs shorter blocks, of at least 5
BINS = 30  # of the histogram


@dataclass(frozen=True)
class Measurement:
    """Milliseconds for one image. `ci` is the 95% interval of the median, `rounds` the median of each block.

    `histogram`: where its bins begin and end, the number of runs in each of the equal bins, and of those above.
    """

    p50: float
    p90: float
    p99: float
    ci: tuple[float, float]
    rounds: tuple[float, ...]
    histogram: tuple[float, ...] = ()

    def at(self, percentile: int) -> float:
        return {50: self.p50, 90: self.p90, 99: self.p99}[percentile]

    def to_json(self) -> dict[str, Any]:
        return {k: [round(x, 4) for x in v] if isinstance(v, tuple) else round(v, 4) for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Measurement:
        rest = (tuple(data["ci"]), tuple(data["rounds"]), tuple(data.get("histogram", ())))
        return cls(data["p50"], data["p90"], data["p99"], *rest)


def measure(
    candidates: Mapping[str, Predict], image: Pixels, *, rounds: int = ROUNDS, progress: Progress = SILENT
) -> dict[str, Measurement]:
    """Time each candidate on one `(1, H, W, 3)` image in interleaved blocks."""
    names = list(candidates)
    sizes = {name: max(5, min(BLOCK, int(BLOCK_SECONDS * 1000 / _warm(candidates[name], image)))) for name in names}
    blocks: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    for turn in progress.track(range(rounds), "measure latency", rounds):
        for i in range(len(names)):
            name = names[(i + turn) % len(names)]  # no candidate always follows the same one
            blocks[name].append(_block(candidates[name], image, sizes[name] + COLD)[COLD:])
    return {name: _summary(blocks[name]) for name in names}


def ratio(slow: Measurement, fast: Measurement) -> tuple[float, tuple[float, float]]:
    """How many times faster, and its 95% interval, from the rounds in which both ran."""
    ratios = np.array(slow.rounds) / np.array(fast.rounds)
    return float(np.median(ratios)), _interval(ratios)


def _warm(predict: Predict, image: Pixels) -> float:
    """Milliseconds of a warm run; also lets the runtime allocate what it needs."""
    _block(predict, image, 3)
    return float(np.median(_block(predict, image, 3)))


def _block(predict: Predict, image: Pixels, count: int) -> NDArray[np.float64]:
    times = np.empty(count)
    for i in range(count):
        start = time.perf_counter()
        predict(image)
        times[i] = time.perf_counter() - start
    return times * 1000


def _summary(blocks: list[NDArray[np.float64]]) -> Measurement:
    samples = np.concatenate(blocks)
    p50, p90, p99 = np.percentile(samples, (50, 90, 99))
    medians = np.array([np.median(b) for b in blocks])
    rounds = tuple(float(m) for m in medians)
    return Measurement(float(p50), float(p90), float(p99), _interval(medians), rounds, _histogram(samples))


def _histogram(samples: NDArray[np.float64]) -> tuple[float, ...]:
    """From the shortest run to three quartile distances above the upper quartile, or p99: a tail would squeeze the rest."""
    low, lower, upper, high = np.percentile(samples, (0, 25, 75, 99))
    high = min(high, upper + 3 * (upper - lower))
    counts = np.histogram(samples, BINS, (low, high))[0]
    return (float(low), float(high), *map(int, counts), int((samples > high).sum()))


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """95% bootstrap interval of the median, over rounds: samples within a block are not independent."""
    draws = np.random.default_rng(0).choice(values, (2000, len(values)))
    low, high = np.percentile(np.median(draws, axis=1), (2.5, 97.5))
    return float(low), float(high)


def device() -> dict[str, Any]:
    """What tells one CPU from another: model, cores, and the instructions that decide which precision pays."""
    fields: dict[str, str] = {}
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        pairs = (line.split(":", 1) for line in cpuinfo.read_text().split("\n\n")[0].splitlines() if ":" in line)
        fields = {key.strip(): value.strip() for key, value in pairs}
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    useful = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm", "bf16")
    return {
        "machine": platform.machine(),
        "cpu": fields.get("model name", platform.processor() or "unknown"),
        "family": f"{fields.get('cpu family', '')}/{fields.get('model', '')}".strip("/"),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "flags": [f for f in useful if f in flags],
        "os": platform.system(),
    }
