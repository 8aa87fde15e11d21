"""A device and what may be spent on it. Targets are YAML files: facts and a default budget, nothing else."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

from . import backends
from . import config as settings
from .errors import BadInput
from .measurement.system_state import device
from .network.variants import Activation

PERCENTILES = (50, 90, 99)
LIMITS = {
    "latency_ms": "ms",
    "fps": "frames per second",
    "gflops": "GFLOPs",
    "mparams": "M parameters",
    "size_mb": "MB",
    "memory_mb": "MB of memory",
    "energy_mj": "mJ an image",
}


@dataclass(frozen=True)
class Budget:
    """What a model may cost; None leaves a quantity free. Latency is of one image, at the named percentile.

    `fps` is the least number of frames a second, many in flight; memory is a process's peak; energy is of one image.
    """

    latency_ms: float | None = None
    percentile: int = 50
    gflops: float | None = None
    mparams: float | None = None
    size_mb: float | None = None
    fps: float | None = None
    memory_mb: float | None = None
    energy_mj: float | None = None

    def __post_init__(self) -> None:
        for name in LIMITS:
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise BadInput(f"budget: {name} {value}: expected a number above 0.")
        if self.percentile not in PERCENTILES:
            raise BadInput(f"budget: percentile {self.percentile}: expected 50, 90 or 99.")

    @property
    def empty(self) -> bool:
        return not any(getattr(self, name) for name in LIMITS)

    @property
    def measured(self) -> bool:
        """Whether it limits what only a clock, or a compiled file, can tell."""
        return any(getattr(self, name) for name in LIMITS if name not in ("gflops", "mparams"))

    def __str__(self) -> str:
        signs = {"latency_ms": f"p{self.percentile} ≤", "fps": "≥"}
        parts = [f"{signs.get(name, '≤')} {getattr(self, name):g} {unit}" for name, unit in LIMITS.items() if getattr(self, name)]
        return ", ".join(parts) or "no budget"


@dataclass(frozen=True)
class Target:
    """One device: the backend that runs there, the precisions to try, and where its facts come from.

    `cpu` is a regular expression for the processor's name, or the board's, where the target is not simply the machine at hand.
    `scheme`: symmetric means signed INT8 with zero point 0 everywhere, as Q/DQ pairs. `activation`: its stand-in for Swish.
    `tensorrt` has the version of each JetPack; `refused` says why a device cannot be a target, and what can instead.
    """

    name: str
    description: str
    backend: str
    precisions: tuple[str, ...]
    threads: int = 0
    cpu: str = ""
    latency_ms: float | None = None
    scheme: Literal["asymmetric", "symmetric"] = "asymmetric"
    activation: Activation | None = None
    compute_capability: str = ""
    memory_gb: int | None = None
    dla_cores: int = 0
    power_modes: tuple[str, ...] = ()
    tensorrt: Mapping[str, str] = field(default_factory=dict)
    refused: str = ""
    sources: tuple[str, ...] = ()

    @classmethod
    def load(cls, name: str | Path) -> Target:
        """A target by its name in targets/, or from the path of a YAML file."""
        known = [f.name for f in fields(cls) if f.name != "name"]
        path, data = settings.read("targets", "target", name, known, ("description",))
        if data.get("refused"):
            raise BadInput(f"target {path.stem}: {data['refused']}")
        settings.require(path, data, ("backend", "precisions"))
        if data["backend"] not in backends.names():
            raise BadInput(f"{path}: unknown backend {data['backend']!r}. Expected one of {', '.join(backends.names())}.")
        backend = backends.get(data["backend"])
        precisions = tuple(map(str, data["precisions"])) if isinstance(data["precisions"], list) else ()
        if not precisions or not set(precisions) <= set(backend.PRECISIONS):
            raise BadInput(f"{path}: precisions {data['precisions']!r}: expected a list of {', '.join(backend.PRECISIONS)}.")
        threads, latency = data.get("threads", 0), data.get("latency_ms")
        if not isinstance(threads, int) or threads < 0:
            raise BadInput(f"{path}: threads {threads!r}: expected a whole number, 0 for all cores.")
        try:
            Budget(latency_ms=latency)
        except (BadInput, TypeError) as error:
            raise BadInput(f"{path}: {error}") from error
        scheme, activation = data.get("scheme", "asymmetric"), data.get("activation")
        if scheme not in ("asymmetric", "symmetric") or (scheme == "asymmetric" and data["backend"] != "openvino"):
            raise BadInput(f"{path}: scheme {scheme!r}: expected symmetric, or with openvino asymmetric.")
        if activation not in (None, "hardswish", "relu6", "relu"):
            raise BadInput(f"{path}: activation {activation!r}: expected hardswish, relu6 or relu, or none.")
        for key in ("sources", "power_modes"):
            if not isinstance(data.get(key, []), list):
                raise BadInput(f"{path}: {key} {data[key]!r}: expected a list.")
        if not isinstance(data.get("tensorrt", {}), dict):
            raise BadInput(f"{path}: tensorrt {data['tensorrt']!r}: expected a version for each JetPack.")
        return cls(
            name=path.stem,
            description=str(data["description"]),
            backend=data["backend"],
            precisions=precisions,
            threads=threads,
            cpu=str(data.get("cpu", "")),
            latency_ms=latency,
            scheme=scheme,
            activation=activation,
            compute_capability=str(data.get("compute_capability", "")),
            memory_gb=data.get("memory_gb"),
            dla_cores=data.get("dla_cores", 0),
            power_modes=tuple(map(str, data.get("power_modes", []))),
            tensorrt={str(k): str(v) for k, v in data.get("tensorrt", {}).items()},
            sources=tuple(map(str, data.get("sources", []))),
        )

    @property
    def runtime(self) -> backends.Backend:
        """What runs the target's files where they are judged."""
        return backends.get(self.judge)

    @property
    def judge(self) -> str:
        return backends.get(self.backend).JUDGE

    @property
    def elsewhere(self) -> bool:
        """Whether the device compiles for itself: then its graphs are judged here, and its files are made and timed there."""
        return self.judge != self.backend

    @property
    def here(self) -> bool:
        """Whether this machine is the device."""
        if backends.get(self.backend).available():
            return False
        return bool(re.search(self.cpu, device()["cpu"]))

    @property
    def oldest_tensorrt(self) -> tuple[int, ...]:
        """The oldest version that any JetPack of the device brings."""
        return min((tuple(int(n) for n in v.split(".")) for v in self.tensorrt.values()), default=(10, 3))

    def budget(self, asked: Budget) -> Budget:
        """What is asked, or where that is nothing, the device's own latency."""
        return replace(asked, latency_ms=self.latency_ms) if asked.empty else asked

    def usable(self) -> list[str]:
        """The target's precisions that this machine, or the device itself, computes in."""
        usable = [p for p in self.precisions if backends.get(self.backend).supported(p)]
        if not usable:
            raise BadInput(f"target {self.name}: this machine computes in none of {', '.join(self.precisions)}.")
        return usable


def all_targets() -> list[Target]:
    """Every device that can be a target."""
    files = sorted(settings.folder("targets").glob("*.yaml"))
    return [Target.load(p) for p in files if not settings.parse(p).get("refused")]
