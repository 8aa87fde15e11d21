"""The largest network within a budget, from measurements on the device itself.

Weights do not matter to what a network costs, so candidates have random ones. Within a series (B, Lite, V2) a network with no fewer
parameters and no lower resolution costs no less. So one measurement decides many candidates: what fits rules out all that promise
less, what does not fit all that are larger. The answer is that of measuring every one.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, cast

from ..errors import BadInput, BudgetNotMet, Disturbed
from ..files import cache_folder, write_whole
from ..measurement.latency import HERE, Compiled, Figures, Machine, Measurement, Request
from ..measurement.system_state import device
from ..network.variants import Activation, Variant, expected_top1, variant
from ..progress import SILENT, Progress
from ..target import Budget, Target
from . import latency_model as predict
from .latency_model import PRIOR, LatencyModel

Accuracy = Callable[[Variant], float]
Forms = dict[tuple[str, Activation | None], Compiled]  # by precision and activation
YARDSTICK = "b0"  # what the machine's drift is told by while a latency model is measured
APART = 1.05  # times: what two measurements for a latency model may differ by


@dataclass(frozen=True)
class Timed:
    """One precision of a candidate; another activation than its own where one is named."""

    precision: str
    figures: Figures
    activation: Activation | None = None

    @property
    def label(self) -> str:
        return f"{self.precision}, {self.activation}" if self.activation else self.precision


@dataclass(frozen=True)
class Candidate:
    """A network with what is known of it: `forms`, fastest first, are empty where the search did not need them.

    `disturbed` says why they are no measurement; `predicted`, that they are computed from other networks on that device. `accuracy`
    is what it was ranked by, `yardstick` the milliseconds of the network that ran in turn with it, if one did.
    """

    variant: Variant
    classes: int
    forms: tuple[Timed, ...] = ()
    disturbed: tuple[str, ...] = ()
    predicted: bool = False
    accuracy: float | None = None
    yardstick: float | None = None

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
        return broken + min((form.figures.over(budget) for form in self.forms), key=len, default=[])

    def require(self, budget: Budget) -> None:
        """Raises BudgetNotMet where it is over."""
        if broken := self.over(budget):
            v = self.variant
            raise BudgetNotMet(f"{v.name} at {v.resolution} px needs {' and '.join(broken)}; the budget is {budget}.")

    def share(self, budget: Budget) -> float:
        """How much of the scarcest thing in the budget its best form needs."""
        return min((form.figures.share(budget) for form in self.forms), default=0.0)

    def to_json(self) -> dict[str, Any]:
        fastest = self.forms[0] if self.forms else None
        return {
            "variant": self.variant.name,
            "resolution": self.variant.resolution,
            "accuracy": None if self.accuracy is None else round(self.accuracy, 2),
            "gflops": round(self.gflops, 4),
            "mparams": round(self.mparams, 4),
            "precision": fastest.precision if fastest else None,
            "activation": fastest.activation if fastest else None,
            "latency_ms": fastest.figures.latency.to_json() if fastest else None,
            "size_mb": fastest.figures.size_mb if fastest else None,
            "forms": [{"precision": f.precision, "activation": f.activation, **f.figures.to_json()} for f in self.forms],
            "disturbed": list(self.disturbed),
            "predicted": self.predicted,
        }


@dataclass(frozen=True)
class Choice:
    """`table` has every candidate, smallest first; `frontier` those that no other one beats in both accuracy and latency."""

    chosen: Candidate
    table: tuple[Candidate, ...]

    @property
    def frontier(self) -> tuple[Candidate, ...]:
        best, kept = math.inf, []
        for c in reversed([c for c in self.table if c.forms]):  # the most accurate first
            if c.forms[0].figures.latency.p50 < best:
                best = c.forms[0].figures.latency.p50
                kept.append(c)
        return tuple(reversed(kept))

    @property
    def disturbed(self) -> tuple[str, ...]:
        """Why the choice rests on what is no measurement."""
        return tuple(dict.fromkeys(reason for c in self.table for reason in c.disturbed))


def pick(
    target: Target,
    budget: Budget,
    variants: Sequence[Variant],
    classes: int = 1000,
    accuracy: Accuracy = expected_top1,
    *,
    activations: Sequence[Activation | None] = (None,),
    exhaustive: bool = False,
    on: Machine = HERE,
    memory: Path | None = None,
    progress: Progress = SILENT,
) -> Choice:
    """Choose the largest of `variants` on `target` that fits `budget`; `exhaustive` measures every one instead of searching.

    "Largest" is of highest `accuracy`. Networks are timed with each of `activations`, None being their own. Raises BudgetNotMet,
    with the smallest one's figures and what binds, when none fits.
    """
    memory = memory or cache_folder() / "measurements.json"
    if all(Candidate(v, classes).over(budget) for v in variants):  # of what no measurement can change
        raise BudgetNotMet(_refusal([Candidate(v, classes) for v in variants], budget))
    stopwatch: Stopwatch | Oracle = Stopwatch(target, classes, budget, activations, on, memory, progress)
    if budget.measured and on is HERE and not target.here:
        stopwatch = Oracle.of(target, classes, budget, activations)
    if exhaustive:
        for v in sorted(variants, key=accuracy):
            stopwatch.time(v)
    best = largest(variants, budget, stopwatch, accuracy)
    table = tuple(
        replace(stopwatch.known.get(v, Candidate(v, classes)), accuracy=accuracy(v)) for v in sorted(variants, key=accuracy)
    )
    if best is None:
        candidates = [c for c in table if not Candidate(c.variant, classes).over(budget)]
        smallest = min((c.variant for c in candidates), key=PRIOR.shape)
        raise BudgetNotMet(_refusal([stopwatch.time(smallest)], budget))
    return Choice(next(c for c in table if c.variant == best), table)


def activations(target: Target, asked: str | None) -> tuple[Activation | None, ...]:
    """What to time networks with, by the name of --activation: their own (None), another, or where that is to be weighed, both."""
    if asked == "auto":
        return (None, target.activation) if target.activation else (None,)
    return (None if asked in (None, "keep") else cast(Activation, asked),)


def profile(
    target: Target,
    variants: Sequence[Variant],
    *,
    path: Path,
    classes: int = 1000,
    on: Machine = HERE,
    progress: Progress = SILENT,
) -> dict[str, LatencyModel]:
    """Measure every variant, in each form, and write what explains their latencies.

    Meanwhile the machine drifts, so another network runs in turn with each, and latencies are taken in terms of its own. Each is
    measured twice, in two passes over all; where the two are APART, a third decides.
    """
    yardsticks: list[float] = []
    relative: dict[str, dict[Variant, list[float]]] = {}
    for turn in (1, 2, 3):
        memory = cache_folder() / f"profile-{turn}.json"
        stopwatch = Stopwatch(target, classes, Budget(), activations(target, "auto"), on, memory, progress)
        if turn == 3:
            variants = [v for v in variants if any(max(each[v]) > APART * min(each[v]) for each in relative.values() if v in each)]
        if not variants:
            break
        with tempfile.TemporaryDirectory(prefix="edgeeff-") as folder:
            stopwatch.yardstick = next(iter(stopwatch.built(variant(YARDSTICK), Path(folder)).values()))
            for v in variants:
                candidate = stopwatch.time(v)
                if candidate.disturbed or not candidate.yardstick:
                    raise Disturbed(f"{v.name}: {'; '.join(candidate.disturbed)}. A latency model needs an idle machine.")
                yardsticks.append(candidate.yardstick)
                for form in candidate.forms:
                    shares = relative.setdefault(f"{form.precision} {form.activation}", {}).setdefault(v, [])
                    shares.append(form.figures.latency.p50 / candidate.yardstick)
    usual = median(yardsticks)
    models = {form: LatencyModel.fit({v: usual * median(shares) for v, shares in each.items()}) for form, each in relative.items()}
    predict.write(path, models, stopwatch.conditions)
    return models


def largest(
    variants: Sequence[Variant], budget: Budget, stopwatch: Stopwatch | Oracle, accuracy: Accuracy = expected_top1
) -> Variant | None:
    """The one of highest expected accuracy that fits, found with few measurements."""
    best: Variant | None = None
    undecided = [v for v in variants if not Candidate(v, stopwatch.classes).over(budget)]
    while undecided:
        v = _telling(undecided, budget, stopwatch, accuracy) if budget.measured else max(undecided, key=accuracy)
        if budget.measured and stopwatch.time(v).over(budget):
            undecided = [u for u in undecided if not grows(v, u)]
        else:
            best, undecided = v, [u for u in undecided if accuracy(u) > accuracy(v)]
    return best


def grows(a: Variant, b: Variant) -> bool:
    """Whether `b` costs no less than `a`, whatever the device."""
    return a.series == b.series and a.cost().params <= b.cost().params and a.resolution <= b.resolution


def _telling(undecided: list[Variant], budget: Budget, stopwatch: Stopwatch | Oracle, accuracy: Accuracy) -> Variant:
    """What to measure next: the most accurate that should fit, or where none should, the smallest, which would rule out most."""
    shapes = {v: PRIOR.shape(v) for v in undecided}
    if not stopwatch.known:
        return sorted(undecided, key=lambda v: shapes[v])[len(undecided) // 2]
    known = [(k.series, PRIOR.shape(k), c.share(budget)) for k, c in stopwatch.known.items()]
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
    v = smallest.variant
    return (
        f"no variant fits {budget}: the smallest, {v.name} at {v.resolution} px, needs "
        f"{' and '.join(smallest.over(budget))}. That budget, or a lower --resolution, would do."
    )


class Stopwatch:
    """Builds and measures a network in every form the target takes, and remembers the result.

    What is remembered belongs to a device, versions, variant, resolution, classes, activations and threads.
    """

    def __init__(
        self,
        target: Target,
        classes: int,
        budget: Budget,
        activations: Sequence[Activation | None],
        machine: Machine,
        memory: Path,
        progress: Progress,
    ) -> None:
        self.target, self.classes, self.budget, self.activations = target, classes, budget, activations
        self.machine, self.memory, self.progress = machine, memory, progress
        self.yardstick: Compiled | None = None
        self.known: dict[Variant, Candidate] = {}
        self._conditions: dict[str, Any] = {}

    @property
    def conditions(self) -> dict[str, Any]:
        """What a measurement depends on beside the network; asked of the machine once, when first needed."""
        if not self._conditions:
            facts = self.machine.facts(self.target.backend)
            self._conditions = facts | {name: version(name) for name in ("nncf", "edgeeff")} | {"format": 3}
        return self._conditions

    def time(self, v: Variant) -> Candidate:
        if v not in self.known:
            self.known[v] = self._remembered(v) or self._measured(v)
        return self.known[v]

    def _key(self, v: Variant) -> str:
        facts = [self.conditions, self.target.threads, self.target.precisions, self.activations, repr(v), self.classes]
        return f"{v.name}-{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]}"

    def _remembered(self, v: Variant) -> Candidate | None:
        entry: Any = _read(self.memory).get(self._key(v))
        try:
            forms = tuple(Timed(f["precision"], Figures.from_json(f), f["activation"]) for f in entry["forms"])
            yardstick = entry["yardstick"]
        except (KeyError, TypeError):
            return None  # nothing remembered, or changed by hand: measured again
        asked = [name for name in ("fps", "memory_mb", "energy_mj") if getattr(self.budget, name)]
        complete = all(getattr(form.figures, name) is not None for form in forms for name in asked)
        complete = complete and bool(forms) and bool(yardstick or not self.yardstick)
        return Candidate(v, self.classes, forms, yardstick=yardstick) if complete else None

    def _measured(self, v: Variant) -> Candidate:
        self.progress.say(f"time {v.name} at {v.resolution} px")
        beside: Forms = {(YARDSTICK, None): self.yardstick} if self.yardstick else {}
        with tempfile.TemporaryDirectory(prefix="edgeeff-") as folder:
            forms = {**self.built(v, Path(folder)), **beside}
            request = Request({str(i): form for i, form in enumerate(forms.values())}, self.budget, self.target.threads)
            costs = self.machine.costs(request, self.progress)
        figures = dict(zip(forms, costs.figures.values(), strict=True))
        yardstick = figures.pop((YARDSTICK, None)).latency.p50 if beside else None
        timed = [Timed(precision, f, activation) for (precision, activation), f in figures.items()]
        fastest_first = sorted(timed, key=lambda form: form.figures.latency.p50)
        candidate = Candidate(v, self.classes, tuple(fastest_first), costs.disturbed, yardstick=yardstick)
        if not costs.disturbed:
            self._remember(v, candidate)
        return candidate

    def built(self, v: Variant, folder: Path) -> Forms:
        """Every form that the machine can run."""
        from ..quantization.random_weights import prototypes

        forms: Forms = {}
        for activation in self.activations:
            (folder / str(activation)).mkdir()
            for precision, file in prototypes(v, self.classes, self.target, activation, folder / str(activation)).items():
                if precision in self.conditions["precisions"]:
                    forms[precision, activation] = Compiled(self.target.backend, file, precision, v.resolution)
        return forms

    def _remember(self, v: Variant, candidate: Candidate) -> None:
        entry = {
            "variant": v.name,
            "resolution": v.resolution,
            "forms": candidate.to_json()["forms"],
            "yardstick": candidate.yardstick,
            "conditions": self.conditions,
        }
        try:
            self.memory.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.memory, json.dumps({**_read(self.memory), self._key(v): entry}, indent=1).encode())
        except OSError as error:
            self.progress.say(f"{self.memory}: cannot be written ({error.strerror}): the measurement is not remembered")


class Oracle:
    """Stands in for the stopwatch where the device is not at hand: predicts from what was measured there before."""

    def __init__(self, models: Mapping[str, LatencyModel], classes: int) -> None:
        self.models, self.classes = models, classes
        self.known: dict[Variant, Candidate] = {}

    @classmethod
    def of(cls, target: Target, classes: int, budget: Budget, activations: Sequence[Activation | None]) -> Oracle:
        models = {
            form: model for form, model in (predict.read(target.name) or {}).items() if form.split(" ")[1] in map(str, activations)
        }
        if not models:
            raise BadInput(
                f"{target.name} is not this machine ({device()['cpu']}), and no latency model of it lies beside its target file: "
                "measure there by --on USER@HOST, "
                f"make the model there by edgeeff profile --target {target.name}, or give --gflops or --mparams."
            )
        if budget.percentile != 50 or budget.fps or budget.size_mb or budget.memory_mb or budget.energy_mj:
            raise BadInput(
                f"without {target.name} at hand only the median latency can be predicted: give --latency alone, or --on."
            )
        return cls(models, classes)

    def time(self, v: Variant) -> Candidate:
        forms = []
        for form, model in self.models.items():
            precision, activation = form.split(" ")
            p50, interval = model.predict(v)
            figures = Figures(Measurement(p50, p50, p50, interval, ()), 0.0)
            forms.append(Timed(precision, figures, None if activation == "None" else cast(Activation, activation)))
        self.known[v] = Candidate(v, self.classes, tuple(sorted(forms, key=lambda f: f.figures.latency.p50)), predicted=True)
        return self.known[v]


def _read(memory: Path) -> dict[str, Any]:
    try:
        entries = json.loads(memory.read_text())
    except (OSError, ValueError):
        return {}  # nothing remembered, or nothing usable: measured again
    return entries if isinstance(entries, dict) else {}
