"""What a compiled file costs on this machine: its latency, and whatever else a budget limits."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import backends
from ..budget import KINDS, Budget
from ..data.images import Pixels, Predict, noise
from ..errors import BadInput, EdgeeffError
from ..files import temporary_folder
from ..precision import Precision
from ..progress import SILENT, Progress
from ..records import dump_json, from_json, read_json, to_json
from ..sysfs import ROOT
from . import jetson
from .latency import ROUNDS, Latency, Run, measure
from .system_state import SystemState, rapl

SUSTAINED = 3.0  # seconds over which frames and joules are counted
REQUEST = "request.json"


class Metrics:
    """What one form of a model was measured to cost, by kind; None where that was not asked for.

    Of several machines these are the slowest one's latency and the worst of all else; `hosts` has each one's latency.
    """

    def __init__(self, latency: Latency, costs: Mapping[str, float | None], hosts: Mapping[str, Latency] | None = None) -> None:
        self.latency, self.hosts = latency, dict(hosts or {})
        kinds = (name for name, kind in KINDS.items() if kind.known != "network" and name != "latency_ms")
        self.costs: Mapping[str, float | None] = {name: costs.get(name) for name in kinds}

    def __eq__(self, other: object) -> bool:
        mine = (self.latency, self.costs, self.hosts)
        return isinstance(other, Metrics) and mine == (other.latency, other.costs, other.hosts)

    def __repr__(self) -> str:
        return f"Metrics({self.latency}, {self.costs}, {self.hosts})"

    def upper_bound(self, percentile: int) -> float:
        """The latency that a budget is compared with, in milliseconds: the interval's upper end, on every machine."""
        return max(latency.upper_bound(percentile) for latency in (self.latency, *self.hosts.values()))

    def over(self, budget: Budget) -> list[str]:
        """The limits it breaks, with its figures. Latency breaks its own where the interval's upper end does."""
        figure, p = self.upper_bound(budget.percentile), budget.percentile
        slow = budget.latency_ms is not None and figure > budget.latency_ms
        return [f"p{p} {self.latency.at(p):.2f} ms (at most {figure:.2f})"] * slow + budget.over(self.costs)

    def share(self, budget: Budget) -> float:
        """How much of the scarcest thing in the budget it needs: above 1, it does not fit."""
        return budget.share({"latency_ms": self.upper_bound(budget.percentile), **self.costs})

    def to_json(self) -> dict[str, object]:
        costs = {name: cost and round(cost, 3) for name, cost in self.costs.items()}
        hosts = [{"host": name, **to_json(latency)} for name, latency in self.hosts.items()]
        return {"latency_ms": to_json(self.latency), **costs, **({"hosts": hosts} if hosts else {})}

    @classmethod
    def from_json(cls, data: Any) -> Metrics:
        flat = from_json(data, dict[str, Any], "metrics")
        costs: dict[str, float | None] = {}
        for name in KINDS:
            if name != "latency_ms":
                costs |= from_json({name: flat.get(name)}, dict[str, float | None], name)
        hosts = {}
        for row in from_json(flat.get("hosts", []), list[dict[str, Any]], "hosts"):
            hosts[from_json(row.get("host"), str, "hosts")] = from_json(row, Latency, "hosts")
        return cls(from_json(flat.get("latency_ms"), Latency, "latency_ms"), costs, hosts)

    @classmethod
    def of(cls, machines: Mapping[str, Metrics], slowest: str) -> Metrics:
        """Those of several machines as one."""
        costs: dict[str, float | None] = {}
        for name in machines[slowest].costs:
            figures = [m.costs[name] for m in machines.values()]
            known = [figure for figure in figures if figure is not None]
            costs[name] = KINDS[name].worst(known) if len(known) == len(figures) else None
        return cls(machines[slowest].latency, costs, {name: m.latency for name, m in machines.items()})


@dataclass(frozen=True)
class CompiledModel:
    """A file as a runtime is to run it, on photos of so many pixels square; `graph`: the runtime has yet to compile it."""

    runtime: str
    file: Path
    precision: Precision
    resolution: int
    graph: bool = False

    def load(self, *, threads: int = 0, throughput: bool = False) -> Predict:
        return backends.get(self.runtime).load(self.file, precision=self.precision, threads=threads, throughput=throughput)

    def compiled(self, folder: Path) -> CompiledModel:
        """Itself, or what its runtime makes of a graph in a new folder."""
        if not self.graph:
            return self
        folder.mkdir()
        return replace(self, file=backends.get(self.runtime).compile(self.file, folder), graph=False)

    @property
    def files(self) -> list[Path]:
        return [self.file] if self.graph else backends.get(self.runtime).files(self.file)

    @property
    def photo(self) -> Pixels:
        """Random pixels: what is in a picture does not matter to latency."""
        return noise(self.resolution)

    @property
    def size_mb(self) -> float:
        return sum(f.stat().st_size for f in self.files) / 1e6


@dataclass(frozen=True)
class BenchmarkRequest:
    """What to measure: all that `budget` limits for each model, on `threads` cores (0: all), in `rounds` blocks or more."""

    models: Mapping[str, CompiledModel]
    budget: Budget = field(default_factory=Budget)
    threads: int = 0
    rounds: int = ROUNDS

    def write(self, folder: Path) -> None:
        """Write it, and the files it is about, for another machine."""
        sent = {}
        for i, (name, model) in enumerate(self.models.items()):
            (folder / str(i)).mkdir()
            for file in model.files:
                shutil.copy(file, folder / str(i))
            sent[name] = replace(model, file=Path(str(i)) / model.file.name)
        (folder / REQUEST).write_text(dump_json(replace(self, models=sent)))

    @classmethod
    def read(cls, folder: Path) -> BenchmarkRequest:
        try:
            request = read_json(folder / REQUEST, cls)
        except BadInput as error:
            raise BadInput(f"{folder}: not a request to measure: {error}") from error
        return replace(request, models={n: replace(m, file=folder / m.file) for n, m in request.models.items()})


@dataclass(frozen=True)
class BenchmarkResult:
    """Metrics by model, the machine before and after, and why they cannot be relied on (empty: they can)."""

    metrics: Mapping[str, Metrics]
    states: tuple[SystemState, ...]
    noise: tuple[str, ...] = ()


def benchmark(request: BenchmarkRequest, progress: Progress = SILENT) -> BenchmarkResult:
    """Measure what a request asks for, on this machine; graphs are compiled first."""
    if "energy_mj" in request.budget.limits and not can_measure_energy():
        raise BadInput(
            "a budget in mJ needs a power sensor: a Jetson's rails, or RAPL, which only root may read. None can be read here."
        )
    with temporary_folder() as folder:
        ready = {name: model.compiled(folder / str(i)) for i, (name, model) in enumerate(request.models.items())}
        runs = {name: partial(model.load(threads=request.threads), model.photo) for name, model in ready.items()}
        timed = measure(runs, rounds=request.rounds, progress=progress)
        asked = [name for name, kind in KINDS.items() if kind.known == "file" or name in request.budget.limits]
        metrics = {}
        for name, model in ready.items():
            costs = {kind: PROBES[kind](model, request.threads) for kind in asked if kind in PROBES}
            metrics[name] = Metrics(timed.latencies[name], costs)
    return BenchmarkResult(metrics, (timed.before.state, timed.after.state), timed.noise)


def frames_per_second(model: CompiledModel, threads: int = 0, seconds: float = SUSTAINED) -> float:
    """What a model loaded for throughput sustains: images a second, all cores busy."""
    run, images = model.load(throughput=True, threads=threads), np.repeat(model.photo, 32, axis=0)
    run(images)
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        run(images)
        done += len(images)
    return done / (time.perf_counter() - start)


def peak_memory(model: CompiledModel, threads: int = 0) -> float:
    """Megabytes (10⁶) that a process of its own needs at most to load a file and run it: interpreter and runtime included."""
    request = [model.runtime, str(model.file), str(model.precision), str(threads), str(model.resolution)]
    done = subprocess.run([sys.executable, "-m", __spec__.name, *request], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise EdgeeffError(f"{model.file}: cannot be run to measure its memory: {done.stderr.strip().splitlines()[-1:]}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def _peak_memory(runtime: str, file: str, precision: str, threads: str, resolution: str) -> float:
    model = CompiledModel(runtime, Path(file), Precision(precision), int(resolution))
    run = partial(model.load(threads=int(threads)), model.photo)
    for _ in range(10):
        run()
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
            watts.append(jetson.total_power(root))
    elapsed, after = time.perf_counter() - start, rapl(root)
    if before is not None and after is not None:
        return 1000 * (after - before) / count
    drawn = [w for w in watts if w is not None]
    return 1000 * float(np.mean(drawn)) * elapsed / count if drawn else None


def can_measure_energy(root: Path = ROOT) -> bool:
    return rapl(root) is not None or jetson.total_power(root) is not None


PROBES: dict[str, Callable[[CompiledModel, int], float | None]] = {
    "fps": frames_per_second,
    "size_mb": lambda model, threads: model.size_mb,
    "memory_mb": peak_memory,
    "energy_mj": lambda model, threads: energy(partial(model.load(threads=threads), model.photo)),
}
"""What measures each kind of cost, of a model on so many threads."""


if __name__ == "__main__":
    print(json.dumps(_peak_memory(*sys.argv[1:])))
