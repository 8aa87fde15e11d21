"""A device that a model is made for. Targets are YAML files: facts and a default budget, nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from . import backends, config
from .budget import Budget
from .errors import BadInput
from .measurement.system_state import device
from .network import activations
from .network.activations import Activation
from .precision import Precision

MOST_THREADS = 1024


@dataclass(frozen=True)
class Target:
    """One device: the backend that runs there, the precisions to try, and where its facts come from.

    `cpu` is a part of the processor's name, or the board's; empty where the target is whatever machine is at hand.
    `scheme`: symmetric means signed INT8 with zero point 0 everywhere, as Q/DQ pairs. `activation`: its stand-in for Swish.
    `tensorrt` has the version of each JetPack; `refused` says why a device cannot be a target, and what can instead.
    """

    name: str
    description: str
    backend: str = ""
    precisions: tuple[Precision, ...] = ()
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
        """A target by its name in targets/, or from the path of a YAML file; raises BadInput with the file and the key."""
        target = config.read("targets", "target", name, cls)
        if target.refused:
            raise BadInput(f"target {target.name}: {target.refused}")
        try:
            target._check()
        except BadInput as error:
            raise BadInput(f"{name}: {error}") from error
        return target

    def _check(self) -> None:
        """Refuses what no field's type tells."""
        if self.backend not in backends.names():
            raise BadInput(f"unknown backend {self.backend!r}. Expected one of {', '.join(backends.names())}.")
        offered = backends.get(self.backend).PRECISIONS
        if not self.precisions or not set(self.precisions) <= set(offered):
            raise BadInput(f"precisions: expected a list of {', '.join(map(str, offered))}.")
        if not 0 <= self.threads <= MOST_THREADS:
            raise BadInput(f"threads {self.threads}: expected a whole number up to {MOST_THREADS}, 0 for all cores.")
        for key, version in self.tensorrt.items():
            if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,4})*", version):
                raise BadInput(f"tensorrt: {key}: {version!r}: expected a version, like 10.3.0.")
        Budget(latency_ms=self.latency_ms)
        if self.scheme == "asymmetric" and self.backend != "openvino":
            raise BadInput("scheme 'asymmetric': expected symmetric, or with openvino asymmetric.")
        if self.activation is not None:
            activations.check(self.activation, activations.SWAPS)

    @property
    def runtime(self) -> backends.Backend:
        """What runs the target's files where they are judged."""
        return backends.get(self.judge)

    @property
    def judge(self) -> str:
        return backends.get(self.backend).JUDGE

    @property
    def compiles_on_device(self) -> bool:
        """Whether the device compiles for itself: then its graphs are judged here, and its files are made and timed there."""
        return self.judge != self.backend

    @property
    def here(self) -> bool:
        """Whether this machine is the device."""
        return not backends.get(self.backend).available() and self.cpu in device().cpu

    @property
    def oldest_tensorrt(self) -> tuple[int, ...]:
        """The oldest version that any JetPack of the device brings."""
        return min((tuple(int(n) for n in v.split(".")) for v in self.tensorrt.values()), default=(10, 3))

    def budget(self, asked: Budget) -> Budget:
        """What is asked, or where that is nothing, the device's own latency."""
        return asked if asked.limits else Budget(latency_ms=self.latency_ms, percentile=asked.percentile)

    def usable(self) -> list[Precision]:
        """The target's precisions that this machine, or the device itself, computes in."""
        usable = [p for p in self.precisions if backends.get(self.backend).supported(p)]
        if not usable:
            raise BadInput(f"target {self.name}: this machine computes in none of {', '.join(map(str, self.precisions))}.")
        return usable


def all_targets() -> list[Target]:
    """Every device that can be a target."""
    return [Target.load(name) for name in config.names("targets")]
