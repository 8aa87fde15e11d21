"""What is measured of each source while its frames are labelled, and the summary of it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import msgspec
import numpy as np

from .result import Result

PARTS = ("waiting for the model", "inference", "output")  # what the end-to-end latency is the sum of


@dataclass(frozen=True)
class LatencyPercentiles:
    """Milliseconds; None where nothing was measured."""

    p50: float | None
    p90: float | None
    p99: float | None


@dataclass(frozen=True)
class SourceSummary:
    """One source until now. `parts_ms` has PARTS as its keys; `outages` and `silent_s` (since the last frame) are seconds; `drift`
    says what has drifted by how much."""

    source: str
    frames: int
    labels: int
    dropped: int
    unreadable: int
    fps: float
    age_ms: LatencyPercentiles
    parts_ms: dict[str, LatencyPercentiles]
    outages: tuple[float, ...]
    silent_s: float
    error: str | None
    drift: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if tuple(self.parts_ms) != PARTS:
            raise ValueError(f"parts_ms: expected {', '.join(PARTS)}")


@dataclass(frozen=True)
class CameraSummary:
    """All sources until now, the seconds since the start, and the device's temperature in °C where it has a sensor."""

    sources: tuple[SourceSummary, ...]
    seconds: float
    temperature: float | None

    def to_json(self) -> dict[str, object]:
        return dict(msgspec.to_builtins(self))

    @staticmethod
    def from_json(data: object) -> CameraSummary:
        """Raises msgspec.ValidationError, which names the field, for data of another form."""
        return msgspec.convert(data, CameraSummary)


class LatencyHistogram:
    """Percentiles of any number of latencies, in constant memory and with an error of 1%: its bins are of equal ratio."""

    EDGES = np.geomspace(1e-3, 1e7, 2315)  # milliseconds; neighbours differ by 1%

    def __init__(self) -> None:
        self._counts = np.zeros(len(self.EDGES) + 1, np.int64)
        self.sum = 0.0  # milliseconds

    @property
    def count(self) -> int:
        return int(self._counts.sum())

    def add(self, milliseconds: float) -> None:
        self.sum += milliseconds
        self._counts[np.searchsorted(self.EDGES, milliseconds)] += 1

    def percentile(self, percent: float) -> float | None:
        """The latency in milliseconds that this percentage does not exceed; None before the first one."""
        if not self._counts.any():
            return None
        rank = math.ceil(percent / 100 * self._counts.sum())
        return float(self.EDGES[min(int(np.searchsorted(self._counts.cumsum(), rank)), len(self.EDGES) - 1)])

    def percentiles(self) -> LatencyPercentiles:
        """To a microsecond."""
        p50, p90, p99 = (None if (ms := self.percentile(p)) is None else round(ms, 3) for p in (50, 90, 99))
        return LatencyPercentiles(p50, p90, p99)


class SourceStats:
    """End-to-end latencies of one source's labels, the parts of each, and how many frames had which label."""

    def __init__(self) -> None:
        self.labels = 0
        self.by_label = Counter[str]()
        self.age = LatencyHistogram()
        self.parts = {name: LatencyHistogram() for name in PARTS}

    def add(self, result: Result, age_ms: float) -> None:
        """Counts a label that is `age_ms` old now that every sink has it."""
        self.age.add(age_ms)
        if result.label is not None:
            self.by_label[result.label] += 1
        times = (result.waited_ms, result.inference_ms, age_ms - result.waited_ms - result.inference_ms)
        for part, milliseconds in zip(self.parts.values(), times, strict=True):
            part.add(milliseconds)
