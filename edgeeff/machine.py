"""Where models are measured: this machine, or others that offer the same (`remote`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from . import backends
from .bundle import Bundle
from .errors import ToolMissing
from .measurement.benchmark import BenchmarkRequest, BenchmarkResult, benchmark
from .measurement.system_state import Device, device
from .precision import Precision
from .progress import SILENT, Progress


@dataclass(frozen=True)
class MachineFacts:
    """What a machine is, the version of a runtime there, and the precisions that it computes in."""

    device: Device
    version: str
    precisions: tuple[Precision, ...]


class Machine(Protocol):
    """Where models run."""

    @property
    def names(self) -> Sequence[str]:
        """Those of the hosts; this machine has none."""

    def facts(self, runtime: str) -> MachineFacts:
        """What the machine is to a runtime."""

    def can_run(self, runtime: str) -> bool:
        """Whether files of that runtime can be measured there."""

    def benchmark(self, request: BenchmarkRequest, progress: Progress = SILENT) -> BenchmarkResult:
        """Measure what the request asks for; graphs are compiled there first."""

    def verify(self, bundle: Path) -> None:
        """Raises BadInput where its golden photos get other logits there than they got here, or others as frames."""


class LocalMachine:
    """This machine."""

    names: Sequence[str] = ()

    def facts(self, runtime: str) -> MachineFacts:
        backend = backends.get(runtime)
        if missing := backend.available():
            raise ToolMissing(missing)
        return MachineFacts(device(), backend.version(), tuple(p for p in backend.PRECISIONS if backend.supported(p)))

    def can_run(self, runtime: str) -> bool:
        return backends.get(runtime).available() is None

    def benchmark(self, request: BenchmarkRequest, progress: Progress = SILENT) -> BenchmarkResult:
        return benchmark(request, progress)

    def verify(self, bundle: Path) -> None:
        Bundle.open(bundle).verify()


LOCAL = LocalMachine()
