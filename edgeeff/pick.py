"""The largest variant within a budget, from measurements on this machine.

Weights do not matter to latency, so candidates are built with random ones. Within a series (B, Lite, V2) latency grows with
multiply-adds, so each series is bisected; a series is not searched where it could not beat what another already gave.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from .bench import Measurement, device, measure
from .errors import BudgetNotMet
from .progress import SILENT, Progress
from .report import milliseconds
from .target import Budget, Target
from .variants import Variant, expected_top1
from .workspace import write_whole


@dataclass(frozen=True)
class Timed:
    """One precision of a candidate."""

    precision: str
    latency: Measurement
    size_mb: float

    def over(self, budget: Budget) -> list[str]:
        """The constraints it breaks, with its figures."""
        # For the median the interval's upper end counts: the file that ships is measured again, and has to pass then.
        figure = self.latency.ci[1] if budget.percentile == 50 else self.latency.at(budget.percentile)
        broken = []
        if budget.latency_ms and figure > budget.latency_ms:
            broken.append(f"p{budget.percentile} {milliseconds(figure)}")
        if budget.size_mb and self.size_mb > budget.size_mb:
            broken.append(f"{self.size_mb:.1f} MB")
        return broken


@dataclass(frozen=True)
class Candidate:
    """A variant with what is known of it here: `forms`, fastest first, are empty where the search did not need them."""

    variant: Variant
    classes: int
    forms: tuple[Timed, ...] = ()

    @property
    def gflops(self) -> float:
        return self.variant.cost(self.classes).flops / 1e9

    @property
    def mparams(self) -> float:
        return self.variant.cost(self.classes).params / 1e6

    def over(self, budget: Budget) -> list[str]:
        """The constraints it breaks, with its figures: those of its form that breaks the fewest."""
        broken = []
        if budget.gflops and self.gflops > budget.gflops:
            broken.append(f"{self.gflops:.2f} GFLOPs")
        if budget.mparams and self.mparams > budget.mparams:
            broken.append(f"{self.mparams:.2f} M parameters")
        return broken + min((form.over(budget) for form in self.forms), key=len, default=[])

    def to_json(self) -> dict[str, Any]:
        fastest = self.forms[0] if self.forms else None
        return {
            "variant": self.variant.name,
            "resolution": self.variant.resolution,
            "top1": expected_top1(self.variant),
            "gflops": round(self.gflops, 4),
            "mparams": round(self.mparams, 4),
            "precision": fastest.precision if fastest else None,
            "latency_ms": fastest.latency.to_json() if fastest else None,
            "size_mb": fastest.size_mb if fastest else None,
        }


@dataclass(frozen=True)
class Choice:
    """`fitting`: measured candidates within the budget, largest first; `table`: every candidate, smallest first."""

    fitting: tuple[Candidate, ...]
    table: tuple[Candidate, ...]

    @property
    def chosen(self) -> Candidate:
        return self.fitting[0]


def pick(
    target: Target,
    budget: Budget,
    variants: list[Variant],
    *,
    classes: int = 1000,
    exhaustive: bool = False,
    memory: Path | None = None,
    progress: Progress = SILENT,
) -> Choice:
    """Choose the largest of `variants` on `target` that fits `budget`; `exhaustive` times every one instead of searching.

    Raises BudgetNotMet, with the smallest one's figure, when none fits.
    """
    stopwatch = Stopwatch(target, classes, memory or cache_folder() / "measurements.json", progress)
    measured = budget.latency_ms is not None or budget.size_mb is not None
    series: dict[str, list[Variant]] = {}
    for v in sorted(variants, key=lambda v: v.cost().flops):
        series.setdefault(v.series, []).append(v)

    def fits(v: Variant) -> bool:
        if Candidate(v, classes).over(budget):
            return False
        return not measured or not stopwatch.time(v).over(budget)

    best: Variant | None = None
    for members in sorted(series.values(), key=lambda vs: vs[0].cost().flops):
        if exhaustive:
            winner = max((v for v in members if fits(v)), key=expected_top1, default=None)
        else:
            floor = expected_top1(best) if best else -np.inf
            winner = _largest(members, fits, next((i for i, v in enumerate(members) if expected_top1(v) > floor), len(members)))
        if winner and (best is None or expected_top1(winner) > expected_top1(best)):
            best = winner
    table = tuple(stopwatch.known.get(v.name, Candidate(v, classes)) for v in sorted(variants, key=expected_top1))
    if best is None:
        raise BudgetNotMet(_refusal(table, budget, stopwatch, measured))
    fitting = [
        c for c in table if not c.over(budget) and (c.forms or not measured) and expected_top1(c.variant) <= expected_top1(best)
    ]
    return Choice(tuple(reversed(fitting)), table)


def _largest(members: list[Variant], fits: Any, first: int) -> Variant | None:
    """The last member that fits, among those from `first` on, by bisection: cost grows along the list."""
    low, high = first - 1, len(members)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(members[middle]) else (low, middle)
    return members[low] if low >= first else None


def _refusal(table: tuple[Candidate, ...], budget: Budget, stopwatch: Stopwatch, measured: bool) -> str:
    smallest = min((c.variant for c in table), key=lambda v: v.cost().flops)
    candidate = stopwatch.time(smallest) if measured else Candidate(smallest, stopwatch.classes)
    return (
        f"no variant fits {budget}: the smallest, {smallest.name} at {smallest.resolution} px, needs "
        f"{' and '.join(candidate.over(budget))}. That budget, or a lower --resolution, would do."
    )


class Stopwatch:
    """Builds and times a variant in every precision of the target, and remembers the result.

    A measurement is remembered by device, versions, variant, resolution, classes and threads.
    """

    def __init__(self, target: Target, classes: int, memory: Path, progress: Progress) -> None:
        self.target, self.classes, self.memory, self.progress = target, classes, memory, progress
        self.known: dict[str, Candidate] = {}
        self.conditions = {"device": device(), target.backend: target.runtime.version()}
        self.conditions |= {name: version(name) for name in ("nncf", "edgeeff")}

    def time(self, v: Variant) -> Candidate:
        if v.name not in self.known:
            self.known[v.name] = self._remembered(v) or self._measured(v)
        return self.known[v.name]

    def _key(self, v: Variant) -> str:
        facts = [self.conditions, self.target.threads, self.target.precisions, repr(v), self.classes]
        return f"{v.name}-{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]}"

    def _remembered(self, v: Variant) -> Candidate | None:
        entry = _read(self.memory).get(self._key(v))
        if entry is None:
            return None
        forms = [Timed(f["precision"], Measurement.from_json(f["latency_ms"]), f["size_mb"]) for f in entry["forms"]]
        return Candidate(v, self.classes, tuple(forms))

    def _measured(self, v: Variant) -> Candidate:
        from .export import to_onnx
        from .images import Preprocess
        from .model import create
        from .quantize import quantize_for_timing

        self.progress.say(f"time {v.name} at {v.resolution} px")
        backend, preprocess = self.target.runtime, Preprocess.standard(v.resolution, v.mean, v.std)
        image = np.random.default_rng(0).integers(0, 256, (1, v.resolution, v.resolution, 3), np.uint8)
        with tempfile.TemporaryDirectory(prefix="edgeeff-") as temporary:
            folders = {kind: Path(temporary) / kind for kind in ("float", "int8")}
            for folder in folders.values():
                folder.mkdir()
            onnx = to_onnx(create(v, classes=self.classes), preprocess, Path(temporary) / "model.onnx")
            plain = backend.compile(onnx, folders["float"])
            integer = quantize_for_timing(plain, image, folders["int8"])
            files = {p: integer if p.startswith("int8") else plain for p in self.target.usable()}
            loaded = {p: backend.load(f, precision=p, threads=self.target.threads) for p, f in files.items()}
            timed = measure(loaded, image, progress=self.progress)
            sizes = {p: round(sum(file.stat().st_size for file in backend.files(f)) / 1e6, 3) for p, f in files.items()}
        forms = sorted((Timed(p, latency, sizes[p]) for p, latency in timed.items()), key=lambda form: form.latency.p50)
        candidate = Candidate(v, self.classes, tuple(forms))
        if forms[0].latency.p90 < 2 * forms[0].latency.p50:  # otherwise something disturbed the run: not worth remembering
            self._remember(v, candidate)
        return candidate

    def _remember(self, v: Variant, candidate: Candidate) -> None:
        forms = [{"precision": f.precision, "latency_ms": f.latency.to_json(), "size_mb": f.size_mb} for f in candidate.forms]
        entry = {"variant": v.name, "resolution": v.resolution, "forms": forms, "conditions": self.conditions}
        try:
            self.memory.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.memory, json.dumps({**_read(self.memory), self._key(v): entry}, indent=1).encode())
        except OSError as error:
            self.progress.say(f"{self.memory}: cannot be written ({error.strerror}): the measurement is not remembered")


def _read(memory: Path) -> dict[str, Any]:
    try:
        entries = json.loads(memory.read_text())
    except (OSError, ValueError):
        return {}  # nothing remembered, or nothing usable: measured again
    return entries if isinstance(entries, dict) else {}


def cache_folder() -> Path:
    """Where measurements are remembered: $XDG_CACHE_HOME/edgeeff, by default ~/.cache/edgeeff."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeeff"
