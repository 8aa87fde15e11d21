"""Several hosts at once: one machine to measure on, or a verb that runs on each."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from ..errors import EdgeeffError, error_for, exit_code
from ..machine import Machine, MachineFacts
from ..measurement.benchmark import BenchmarkRequest, BenchmarkResult, Metrics
from ..progress import SILENT, Progress
from . import ssh
from .host import Host, Json

S = TypeVar("S")
T = TypeVar("T")


class Fleet:
    """Several hosts as one machine that is as slow as the slowest of them, so that what fits it fits each."""

    def __init__(self, hosts: Sequence[Host], stop: threading.Event) -> None:
        self.hosts, self.stop = {host.name: host for host in hosts}, stop
        self.names = tuple(self.hosts)

    def facts(self, runtime: str) -> MachineFacts:
        """Those of the first host, with `device.hosts` of all, and the precisions that all compute in."""
        each = self._each(lambda host: host.facts(runtime))
        first = next(iter(each.values()))
        return MachineFacts(
            device=replace(first.device, hosts={name: facts.device for name, facts in each.items()}),
            version=", ".join(dict.fromkeys(facts.version for facts in each.values())),
            precisions=tuple(p for p in first.precisions if all(p in facts.precisions for facts in each.values())),
        )

    def can_run(self, runtime: str) -> bool:
        return all(host.can_run(runtime) for host in self.hosts.values())

    def benchmark(self, request: BenchmarkRequest, progress: Progress = SILENT) -> BenchmarkResult:
        """Measured on all hosts at the same time.

        Latencies are those of the host whose fastest form is slowest: of one host, so that they can be compared.
        """
        each = self._each(lambda host: host.benchmark(request, progress))
        slowest = max(each, key=lambda name: min(m.latency.p50 for m in each[name].metrics.values()))
        metrics = {
            model: Metrics.of({name: result.metrics[model] for name, result in each.items()}, slowest) for model in request.models
        }
        states = tuple(state for result in each.values() for state in result.states)
        noise = tuple(f"{name}: {reason}" for name, result in each.items() for reason in result.noise)
        return BenchmarkResult(metrics, states, noise)

    def verify(self, bundle: Path) -> None:
        self._each(lambda host: host.verify(bundle))

    def _each(self, ask: Callable[[Host], T]) -> dict[str, T]:
        return dict(zip(self.hosts, _in_parallel(ask, list(self.hosts.values()), self.stop), strict=True))


@contextlib.contextmanager
def machine(names: Sequence[str], backend: str, progress: Progress = SILENT) -> Iterator[Machine]:
    """The hosts to measure on, one or several."""
    names = list(dict.fromkeys(names))
    ssh.check(names)
    stop = threading.Event()
    with contextlib.ExitStack() as stack:
        hosts = [stack.enter_context(Host.connect(name, backend, progress, stop)) for name in names]
        yield hosts[0] if len(hosts) == 1 else Fleet(hosts, stop)


def _in_parallel(work: Callable[[S], T], items: Sequence[S], stop: threading.Event) -> list[T]:
    """What `work` returns for each item, in order; the first failure is raised, and sets `stop` for the others."""
    with ThreadPoolExecutor(len(items)) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            for done in as_completed(futures):
                done.result()
        except BaseException:
            stop.set()
            raise
    return [future.result() for future in futures]


@dataclass(frozen=True)
class Accuracy:
    """Of a file, in percent; `drop` is in percentage points."""

    top1: float
    images: int
    drop: float | None = None


@dataclass(frozen=True)
class Timing:
    """Of one photo, in milliseconds; `ci` is the 95% interval of the median."""

    p50: float
    p90: float
    ci: tuple[float, float]


@dataclass(frozen=True)
class EngineFigures:
    """What a host measured of an engine that it built."""

    precision: str
    accuracy: Accuracy | None = None
    latency_ms: Timing | None = None


@dataclass(frozen=True)
class Figures:
    """What is shown of the JSON of a verb that ran on a host: the file's precision, and what was measured."""

    precision: str
    top1: float | None = None
    images: int = 0
    drop: float | None = None
    latency_ms: Timing | None = None
    engines: tuple[EngineFigures, ...] = ()
    verdict: str = ""

    @property
    def accuracy(self) -> Accuracy | None:
        """That of the verb, or of the engine that ships."""
        return self._engine.accuracy if self.top1 is None else Accuracy(self.top1, self.images, self.drop)

    @property
    def timing(self) -> Timing | None:
        """That of the verb, or of the engine that ships."""
        return self.latency_ms or self._engine.latency_ms

    @property
    def _engine(self) -> EngineFigures:
        return next((engine for engine in self.engines if engine.precision == self.precision), EngineFigures(self.precision))


@dataclass(frozen=True)
class HostAnswer:
    """The JSON of a verb that ran on a host; where it failed, what there is of it, the error and its exit code."""

    host: str
    result: Json
    error: str | None = None
    exit_code: int = 0

    def to_json(self) -> Json:
        failed = {} if self.error is None else {"error": self.error, "exit_code": self.exit_code}
        return {"host": self.host, **self.result, **failed}


def on_each(
    names: Sequence[str],
    backend: str,
    work: Callable[[Host], Json],
    progress: Progress = SILENT,
    stop: threading.Event | None = None,
) -> list[HostAnswer]:
    """What `work` returns for each host, all at the same time."""
    names = list(dict.fromkeys(names))
    ssh.check(names)
    stop = stop or threading.Event()

    def one(name: str) -> HostAnswer:
        try:
            with Host.connect(name, backend, progress, stop) as host:
                return HostAnswer(name, work(host))
        except EdgeeffError as error:
            if len(names) > 1:
                progress.say(str(error))
            result = error.result if isinstance(error.result, dict) else {}
            return HostAnswer(name, result, str(error).removeprefix(f"{name}: "), exit_code(error))

    return _in_parallel(one, names, stop)


def failure(answers: Sequence[HostAnswer]) -> EdgeeffError | None:
    """What a command ends with after a fleet: the first failure, or None."""
    failed = [a for a in answers if a.error is not None]
    if not failed:
        return None
    line = f"{failed[0].host}: {failed[0].error}"
    if len(answers) > 1:
        line = f"{len(failed)} of {len(answers)} hosts failed. {line}"
    return error_for(failed[0].exit_code)(line)
