"""What a model costs where it runs, measured so that two numbers of one run can be compared.

Candidates run in turn, a block each, round after round: a drift of the machine meets all of them. The first runs of a block are
cold (another model was in the caches) and do not count. Rounds go on until every interval is narrow, or time is up. A run that
something disturbed is repeated once; what is disturbed again is said so, and is no measurement.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .. import backends
from ..bundle import Bundle
from ..data.images import Pixels, Predict, noise
from ..errors import BadInput, EdgeeffError, ToolMissing
from ..progress import SILENT, Progress
from ..target import LIMITS, Budget
from . import jetson as board
from .jetson import ROOT
from .system_state import Conditions, device, disturbed, look, rapl

Run = Callable[[], object]  # one inference

ROUNDS = 8  # at least
NARROW = 0.03  # half the 95% interval, as a share of the median
SECONDS = 1.0  # for a candidate, beyond the least number of rounds
BLOCK = 30
COLD = 3
BLOCK_SECONDS = 0.5  # a slow model runs shorter blocks, of at least 5
SUSTAINED = 3.0  # seconds over which frames and joules are counted
BINS = 30  # of the histogram
COSTS: dict[str, Callable[..., Any]] = {"size_mb": max, "fps": min, "memory_mb": max, "energy_mj": max}  # and which is worst


@dataclass(frozen=True)
class Measurement:
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

    def surely(self, percentile: int) -> float:
        """The interval's upper end: what a budget is held against."""
        return max(self.at(percentile), {50: self.ci, 90: self.ci90, 99: self.ci99}[percentile][1])

    def to_json(self) -> dict[str, Any]:
        return {k: [round(x, 4) for x in v] if isinstance(v, tuple) else round(v, 4) for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Measurement:
        facts: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**facts)


@dataclass(frozen=True)
class Timing:
    """Latencies of one run, the machine before and after, and why it is no measurement (nothing: it is one)."""

    latencies: dict[str, Measurement]
    before: Conditions
    after: Conditions
    disturbed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Figures:
    """What one form was measured to cost; None was not asked for. Energy is that of one image.

    Of several machines these are the slowest one's latency and the worst of all else; `hosts` has each one's latency.
    """

    latency: Measurement
    size_mb: float
    fps: float | None = None
    memory_mb: float | None = None
    energy_mj: float | None = None
    hosts: Mapping[str, Measurement] = field(default_factory=dict)

    def surely(self, percentile: int) -> float:
        """What a latency budget is held against, on every machine."""
        return max(latency.surely(percentile) for latency in (self.latency, *self.hosts.values()))

    def over(self, budget: Budget) -> list[str]:
        """The constraints it breaks, with its figures. Latency breaks its own where the interval's upper end does."""
        broken = []
        if budget.latency_ms and (figure := self.surely(budget.percentile)) > budget.latency_ms:
            broken.append(f"p{budget.percentile} {self.latency.at(budget.percentile):.2f} ms (at most {figure:.2f})")
        if budget.fps and (self.fps or 0) < budget.fps:
            broken.append(f"{self.fps or 0:.1f} frames per second")
        for name in ("size_mb", "memory_mb", "energy_mj"):
            limit, figure = getattr(budget, name), getattr(self, name)
            if limit and (figure is None or figure > limit):
                broken.append(f"{figure or 0:.1f} {LIMITS[name]}")
        return broken

    def share(self, budget: Budget) -> float:
        """How much of the scarcest thing in the budget it needs: above 1, it does not fit."""
        shares = [self.surely(budget.percentile) / budget.latency_ms] if budget.latency_ms else []
        shares += [budget.fps / max(self.fps or 0.0, 1e-9)] if budget.fps else []
        named = ((getattr(self, name), getattr(budget, name)) for name in ("size_mb", "memory_mb", "energy_mj"))
        return max([*shares, *((figure or math.inf) / limit for figure, limit in named if limit)], default=0.0)

    def to_json(self) -> dict[str, Any]:
        rounded = {name: (value := getattr(self, name)) and round(value, 3) for name in COSTS}
        hosts = [{"host": name, **latency.to_json()} for name, latency in self.hosts.items()]
        return {"latency_ms": self.latency.to_json(), **rounded, **({"hosts": hosts} if hosts else {})}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Figures:
        hosts = {
            entry["host"]: Measurement.from_json({k: v for k, v in entry.items() if k != "host"}) for entry in data.get("hosts", ())
        }
        return cls(Measurement.from_json(data["latency_ms"]), **{k: data[k] for k in COSTS}, hosts=hosts)

    @classmethod
    def of(cls, machines: Mapping[str, Figures], slowest: str) -> Figures:
        """Those of several machines as one."""
        every = list(machines.values())
        worst = {name: pick(getattr(f, name) for f in every) for name, pick in COSTS.items() if getattr(every[0], name) is not None}
        return cls(machines[slowest].latency, **worst, hosts={name: f.latency for name, f in machines.items()})


@dataclass(frozen=True)
class Compiled:
    """A file as a runtime is to run it, on photos of so many pixels square."""

    runtime: str
    file: Path
    precision: str
    resolution: int

    def load(self, *, threads: int = 0, throughput: bool = False) -> Predict:
        return backends.get(self.runtime).load(self.file, precision=self.precision, threads=threads, throughput=throughput)

    def compiled(self, folder: Path) -> Compiled:
        """Itself, or where it is a graph that its runtime has yet to compile, what that makes of it in a new folder."""
        backend = backends.get(self.runtime)
        if self.file.suffix != ".onnx" or Path(backend.MODEL).suffix == ".onnx":
            return self
        folder.mkdir()
        return replace(self, file=backend.compile(self.file, folder))

    @property
    def photo(self) -> Pixels:
        """Noise will do: what is in a picture does not matter to latency."""
        return noise(self.resolution)

    @property
    def size_mb(self) -> float:
        return sum(f.stat().st_size for f in backends.get(self.runtime).files(self.file)) / 1e6


REQUEST = "request.json"


@dataclass(frozen=True)
class Request:
    """What to measure: all that `budget` asks about each form, on `threads` cores (0: all), in `rounds` blocks or more."""

    forms: Mapping[str, Compiled]
    budget: Budget = field(default_factory=Budget)
    threads: int = 0
    rounds: int = ROUNDS

    def write(self, folder: Path) -> None:
        """Write it, and the files it is about, for another machine."""
        forms = {}
        for i, (name, form) in enumerate(self.forms.items()):
            (folder / str(i)).mkdir()
            files = [form.file] if form.file.suffix == ".onnx" else backends.get(form.runtime).files(form.file)
            for file in files:
                shutil.copy(file, folder / str(i))
            forms[name] = {**vars(form), "file": f"{i}/{form.file.name}"}
        facts = {"forms": forms, "budget": asdict(self.budget), "threads": self.threads, "rounds": self.rounds}
        (folder / REQUEST).write_text(json.dumps(facts, indent=1))

    @classmethod
    def read(cls, folder: Path) -> Request:
        try:
            facts = json.loads((folder / REQUEST).read_text())
            forms = {name: Compiled(**{**form, "file": folder / form["file"]}) for name, form in facts["forms"].items()}
            return cls(**{**facts, "forms": forms, "budget": Budget(**facts["budget"])})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadInput(f"{folder}: not a request to measure ({error!r}).") from error


@dataclass(frozen=True)
class Costs:
    """Figures by form, the machine before and after, and why they are no measurement (nothing: they are)."""

    figures: dict[str, Figures]
    conditions: list[dict[str, Any]]
    disturbed: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        figures = {name: f.to_json() for name, f in self.figures.items()}
        return {"figures": figures, "conditions": self.conditions, "disturbed": list(self.disturbed)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Costs:
        figures = {name: Figures.from_json(f) for name, f in data["figures"].items()}
        return cls(figures, data["conditions"], tuple(data["disturbed"]))


class Machine(Protocol):
    """Where models run: here, or on the hosts that have `names`."""

    names: Sequence[str]

    def facts(self, runtime: str) -> dict[str, Any]:
        """`device`, the runtime's `version`, and the `precisions` it computes in there."""

    def runs(self, runtime: str) -> bool:
        """Whether files of that runtime can be measured there."""

    def costs(self, request: Request, progress: Progress = SILENT) -> Costs:
        """What the request asks; graphs are compiled there first."""

    def verify(self, bundle: Path) -> None:
        """Raises BadInput where its golden photos get other answers there than they got here, or others as frames."""


class Here:
    """This machine."""

    names: Sequence[str] = ()

    def facts(self, runtime: str) -> dict[str, Any]:
        backend = backends.get(runtime)
        if missing := backend.available():
            raise ToolMissing(missing)
        supported = [p for p in backend.PRECISIONS if backend.supported(p)]
        return {"device": device(), "version": backend.version(), "precisions": supported}

    def runs(self, runtime: str) -> bool:
        return backends.get(runtime).available() is None

    def costs(self, request: Request, progress: Progress = SILENT) -> Costs:
        if request.budget.energy_mj and not can_measure_energy():
            raise BadInput(
                "a budget in mJ needs a power sensor: a Jetson's rails, or RAPL, which only root may read. None can be read here."
            )
        budget, threads = request.budget, request.threads
        with tempfile.TemporaryDirectory(prefix="edgeeff-") as temporary:
            ready = {name: form.compiled(Path(temporary) / str(i)) for i, (name, form) in enumerate(request.forms.items())}
            runs = {name: partial(form.load(threads=threads), form.photo) for name, form in ready.items()}
            timing = measure(runs, rounds=request.rounds, progress=progress)
            figures = {}
            for name, form in ready.items():
                figures[name] = Figures(
                    latency=timing.latencies[name],
                    size_mb=form.size_mb,
                    fps=frames_per_second(form.load(throughput=True, threads=threads), form.photo) if budget.fps else None,
                    memory_mb=peak_memory(form, threads) if budget.memory_mb else None,
                    energy_mj=energy(runs[name]) if budget.energy_mj else None,
                )
        return Costs(figures, [timing.before.to_json(), timing.after.to_json()], timing.disturbed)

    def verify(self, bundle: Path) -> None:
        Bundle.open(bundle).verify()


HERE = Here()


def answer(backend: str, folder: Path | None, progress: Progress = SILENT) -> dict[str, Any]:
    """This machine's facts, and what the request in a folder asks, if there is one."""
    facts = HERE.facts(backend)
    return facts if folder is None else {**facts, **HERE.costs(Request.read(folder), progress).to_json()}


def measure(
    candidates: Mapping[str, Run],
    *,
    rounds: int = ROUNDS,
    narrow: float = NARROW,
    seconds: float = SECONDS,
    look: Callable[[], Conditions] = look,
    progress: Progress = SILENT,
) -> Timing:
    """Time each candidate in interleaved blocks, `rounds` or more of each."""
    first = {name: float(_block(run, 1)[0]) for name, run in candidates.items()}
    for again in (False, True):
        before = look()
        blocks = _interleaved(candidates, rounds, narrow, seconds, progress)
        after = look()
        reasons = disturbed(before, after)
        if reasons and not again:
            progress.say(f"not a measurement, so once more: {'; '.join(reasons)}")
        else:
            break
    return Timing({name: _summary(blocks[name], first[name]) for name in candidates}, before, after, tuple(reasons))


def _interleaved(
    candidates: Mapping[str, Run], rounds: int, narrow: float, seconds: float, progress: Progress
) -> dict[str, list[NDArray[np.float64]]]:
    names = list(candidates)
    sizes = {name: max(5, min(BLOCK, int(BLOCK_SECONDS * 1000 / _warm(candidates[name])))) for name in names}
    blocks: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}

    def one_round(turn: int) -> None:
        for i in range(len(names)):
            name = names[(i + turn) % len(names)]  # no candidate always follows the same one
            blocks[name].append(_block(candidates[name], sizes[name] + COLD)[COLD:])

    for turn in progress.track(range(rounds), "measure latency", rounds):
        one_round(turn)
    deadline = time.monotonic() + seconds * len(names)
    while time.monotonic() < deadline and any(_width(b) > narrow for b in blocks.values()):
        rounds += 1
        one_round(rounds)
    return blocks


def ratio(slow: Measurement, fast: Measurement) -> tuple[float, tuple[float, float]]:
    """How many times faster, and its 95% interval, from the rounds in which both ran."""
    ratios = np.array(slow.rounds) / np.array(fast.rounds)
    return float(np.median(ratios)), _interval(ratios)


def frames_per_second(run: Predict, image: Pixels, seconds: float = SUSTAINED) -> float:
    """What a model loaded for throughput sustains: images a second, all cores busy."""
    images = np.repeat(image, 32, axis=0)
    run(images)
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        run(images)
        done += len(images)
    return done / (time.perf_counter() - start)


def peak_memory(form: Compiled, threads: int = 0) -> float:
    """Megabytes (10⁶) that a process of its own needs at most to load a file and run it: interpreter and runtime included."""
    request = [form.runtime, str(form.file), form.precision, str(threads), str(form.resolution)]
    done = subprocess.run([sys.executable, "-m", __spec__.name, *request], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise EdgeeffError(f"{form.file}: cannot be run to measure its memory: {done.stderr.strip().splitlines()[-1:]}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def _peak_memory(runtime: str, file: str, precision: str, threads: str, resolution: str) -> float:
    form = Compiled(runtime, Path(file), precision, int(resolution))
    _block(partial(form.load(threads=int(threads)), form.photo), 10)
    status = Path("/proc/self/status").read_text()  # not ru_maxrss, which begins at what the parent process had
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024 / 1e6


def energy(run: Run, seconds: float = SUSTAINED, root: Path = ROOT) -> float | None:
    """Millijoules of one image, of the whole package or module, what it draws at rest included; None without a sensor."""
    before, watts, count = rapl(root), [], 0
    start = read = time.perf_counter()
    while time.perf_counter() - start < seconds:
        run()
        count += 1
        if before is None and time.perf_counter() - read > 0.05:
            read = time.perf_counter()
            watts.append(board.total_power(root))
    elapsed, after = time.perf_counter() - start, rapl(root)
    if before is not None and after is not None:
        return 1000 * (after - before) / count
    drawn = [w for w in watts if w is not None]
    return 1000 * float(np.mean(drawn)) * elapsed / count if drawn else None


def can_measure_energy(root: Path = ROOT) -> bool:
    return rapl(root) is not None or board.total_power(root) is not None


def _warm(run: Run) -> float:
    """Milliseconds of a warm run; also lets the runtime allocate what it needs."""
    _block(run, 3)
    return float(np.median(_block(run, 3)))


def _block(run: Run, count: int) -> NDArray[np.float64]:
    times = np.empty(count)
    for i in range(count):
        start = time.perf_counter()
        run()
        times[i] = time.perf_counter() - start
    return times * 1000


def _summary(blocks: list[NDArray[np.float64]], first: float) -> Measurement:
    samples = np.concatenate(blocks)
    p50, p90, p99 = (float(p) for p in np.percentile(samples, (50, 90, 99)))
    medians = np.array([np.median(b) for b in blocks])
    ci90, ci99 = _tails(blocks)
    rounds = tuple(float(m) for m in medians)
    return Measurement(p50, p90, p99, _interval(medians), rounds, ci90, ci99, first, _histogram(samples))


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


def _tails(blocks: list[NDArray[np.float64]]) -> list[tuple[float, float]]:
    """95% bootstrap intervals of p90 and p99, whole rounds drawn."""
    samples = np.array(blocks)  # (rounds, block)
    draws = np.random.default_rng(0).integers(0, len(samples), (500, len(samples)))
    tails = np.percentile(samples[draws].reshape(len(draws), -1), (90, 99), axis=1)  # (2, draws)
    return [(float(low), float(high)) for low, high in np.percentile(tails, (2.5, 97.5), axis=1).T]


def _width(blocks: list[NDArray[np.float64]]) -> float:
    """Half the 95% interval of the median, as a share of it, were the rounds' medians normally distributed: quick to say."""
    medians = np.array([np.median(b) for b in blocks])
    return float(1.96 * 1.25 * medians.std(ddof=1) / math.sqrt(len(medians)) / np.median(medians))


if __name__ == "__main__":
    print(json.dumps(_peak_memory(*sys.argv[1:])))
