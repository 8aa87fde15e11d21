"""What a model may cost on a device: limits on the kinds of cost in one table."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .errors import BadInput, suggestion

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Kind:
    """A kind of cost. `known` says what it takes to know it: the network alone, its compiled file, or a device that runs it.

    `direction`: a budget is the most that a network may need, or the least that it has to give. `decimals` are those shown.
    """

    unit: str
    known: Literal["network", "file", "device"]
    help: str
    direction: Literal["at most", "at least"] = "at most"
    decimals: int = 1
    option: str = ""
    metavar: str | None = None

    def flag(self, name: str) -> str:
        return self.option or f"--{name.replace('_', '-')}"

    def broken(self, figure: float, limit: float) -> bool:
        return figure < limit if self.direction == "at least" else figure > limit

    def share(self, figure: float, limit: float) -> float:
        """How much of the limit a figure needs: above 1, it breaks it."""
        return limit / max(figure, 1e-9) if self.direction == "at least" else figure / limit

    def worst(self, figures: list[float]) -> float:
        return min(figures) if self.direction == "at least" else max(figures)


KINDS: dict[str, Kind] = {
    "latency_ms": Kind(
        "ms",
        "device",
        "milliseconds for one photo (default: the target's, when no budget is given)",
        decimals=2,
        option="--latency",
        metavar="MS",
    ),
    "fps": Kind("frames per second", "device", "frames a second, at least, with many in flight", "at least"),
    "gflops": Kind("GMACs", "network", "billions of multiply-adds (GMACs), which many call FLOPs", decimals=2),
    "mparams": Kind("M parameters", "network", "millions of parameters", decimals=2),
    "size_mb": Kind("MB", "file", "megabytes of the compiled file"),
    "memory_mb": Kind("MB of memory", "device", "megabytes that a process needs at most to load and run it"),
    "energy_mj": Kind("mJ an image", "device", "millijoules for one photo, where the device has a power sensor"),
}
"""Every kind by its name. What measures a kind is in `measurement.benchmark.PROBES`; latency has a clock of its own."""


class Budget:
    """Limits by kind; a kind without one is free. Latency is of one photo, at the named percentile."""

    def __init__(self, /, *, percentile: int = 50, **limits: float | None) -> None:
        """Raises BadInput for a kind that is not in the table, and for a limit that is no number above 0."""
        for name, limit in limits.items():
            if name not in KINDS:
                raise BadInput(f"budget: unknown kind {name!r}.{suggestion(name, KINDS)} Expected one of {', '.join(KINDS)}.")
            number = isinstance(limit, (int, float)) and not isinstance(limit, bool) and 0 < limit <= sys.float_info.max
            if limit is not None and not number:
                raise BadInput(f"budget: {name} {limit!r:.40}: expected a number above 0.")
        if percentile not in PERCENTILES:
            raise BadInput(f"budget: percentile {percentile!r}: expected {', '.join(map(str, PERCENTILES))}.")
        self.percentile = percentile
        self.limits: Mapping[str, float] = {name: float(limit) for name in KINDS if (limit := limits.get(name)) is not None}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Budget) and (self.limits, self.percentile) == (other.limits, other.percentile)

    def __hash__(self) -> int:
        return hash((tuple(self.limits.items()), self.percentile))

    def __repr__(self) -> str:
        return f"Budget({', '.join(f'{k}={v!r}' for k, v in {**self.limits, 'percentile': self.percentile}.items())})"

    def __str__(self) -> str:
        parts = []
        for name, limit in self.limits.items():
            sign = "≥" if KINDS[name].direction == "at least" else "≤"
            percentile = f"p{self.percentile} " if name == "latency_ms" else ""
            parts.append(f"{percentile}{sign} {limit:g} {KINDS[name].unit}")
        return ", ".join(parts) or "no budget"

    @property
    def latency_ms(self) -> float | None:
        return self.limits.get("latency_ms")

    @property
    def measured(self) -> bool:
        """Whether it limits what only a clock, or a compiled file, can tell."""
        return any(KINDS[name].known != "network" for name in self.limits)

    def over(self, figures: Mapping[str, float | None]) -> list[str]:
        """The limits that figures break, with each figure, of the kinds that `figures` has. None breaks its limit."""
        broken = []
        for name, limit in self.limits.items():
            if name not in figures:
                continue
            kind, figure = KINDS[name], figures[name]
            if figure is None or kind.broken(figure, limit):
                broken.append(f"{figure or 0:.{kind.decimals}f} {kind.unit}")
        return broken

    def share(self, figures: Mapping[str, float | None]) -> float:
        """How much of the scarcest kind figures need: above 1, they do not fit."""
        shares = []
        for name, limit in self.limits.items():
            if name in figures:
                figure = figures[name]
                shares.append(math.inf if figure is None else KINDS[name].share(figure, limit))
        return max(shares, default=0.0)

    def to_json(self) -> dict[str, float | None]:
        return {**{name: self.limits.get(name) for name in KINDS}, "percentile": self.percentile}

    @classmethod
    def from_json(cls, data: Any) -> Budget:
        if not isinstance(data, dict):
            raise BadInput("budget: expected an object with limits by kind.")
        return cls(**data)
