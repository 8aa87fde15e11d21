"""Latency of a network on a device that is not at hand, block by block, from networks that were measured there.

A network's latency is the sum of its blocks', and a block's a sum of what it does times what each of that costs on the device.
Six costs are fitted to the networks measured; the error stated is that of leaving each out in turn. A prediction is never a
measurement: whoever shows one says so, with its interval.
"""

from __future__ import annotations

import datetime
import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import config as settings
from ..errors import BadInput
from ..files import write_whole
from ..network.variants import Variant

UNITS = ("pointwise GMACs", "depthwise GMACs", "dense GMACs", "M activations", "M gated activations", "M weights")


@functools.cache
def work(v: Variant) -> NDArray[np.float64]:
    """What a network does, in UNITS, summed over its blocks, stem and head."""
    pointwise = depthwise = dense = activations = gated = weights = 0
    size = math.ceil(v.resolution / 2)
    dense += 27 * v.stem * size**2
    activations += v.stem * size**2
    for b in v.blocks():
        before, after = size**2, math.ceil(b.size / b.stride) ** 2
        size = math.ceil(b.size / b.stride)
        if b.kind == "conv":
            dense += b.inputs * b.outputs * b.kernel**2 * after
            activations += b.outputs * after
            weights += b.inputs * b.outputs * b.kernel**2
            continue
        if b.kind == "fused":
            dense += b.inputs * b.expanded * b.kernel**2 * after
            weights += b.inputs * b.expanded * b.kernel**2
        else:
            if b.kind == "mbconv":
                pointwise += b.inputs * b.expanded * before
                activations += b.expanded * before
                weights += b.inputs * b.expanded
            depthwise += b.expanded * b.kernel**2 * after
            gated += b.expanded * after if b.squeezed else 0
            weights += 2 * b.expanded * b.squeezed
        pointwise += b.expanded * b.outputs * after
        activations += (b.expanded + b.outputs) * after
        weights += b.expanded * b.outputs
    pointwise += v.stages[-1].channels * v.head * size**2
    activations += v.head * size**2
    weights += v.stages[-1].channels * v.head
    return np.array([pointwise / 1e9, depthwise / 1e9, dense / 1e9, activations / 1e6, gated / 1e6, weights / 1e6])


@dataclass(frozen=True)
class LatencyModel:
    """Milliseconds for a unit of each kind of work. `median` and `worst` are errors of networks left out of the fit, as shares."""

    costs: tuple[float, ...]
    median: float = math.inf
    worst: float = math.inf
    errors: Mapping[str, float] = field(default_factory=dict)

    def shape(self, v: Variant) -> float:
        """Milliseconds that a network should take."""
        return float(work(v) @ np.array(self.costs))

    def predict(self, v: Variant) -> tuple[float, tuple[float, float]]:
        """Milliseconds, and the interval by the worst error of networks left out."""
        milliseconds = self.shape(v)
        return milliseconds, (milliseconds * (1 - self.worst), milliseconds * (1 + self.worst))

    @classmethod
    def fit(cls, measured: Mapping[Variant, float]) -> LatencyModel:
        """Costs that explain the medians measured, with the error of leaving each network out."""
        if len(measured) < 2 * len(UNITS):
            raise BadInput(
                f"{len(measured)} networks are too few to learn {len(UNITS)} costs from: measure {2 * len(UNITS)} or more."
            )
        networks = list(measured)
        units, times = np.array([work(v) for v in networks]), np.array([measured[v] for v in networks])
        errors = {}
        for i, v in enumerate(networks):
            others = np.arange(len(networks)) != i
            errors[f"{v.name} at {v.resolution}"] = float(units[i] @ _least_squares(units[others], times[others]) / times[i] - 1)
        sizes = np.abs(list(errors.values()))
        return cls(tuple(map(float, _least_squares(units, times))), float(np.median(sizes)), float(sizes.max()), errors)


def _least_squares(units: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Costs, none negative, of least relative error."""
    from scipy.optimize import nnls

    costs: NDArray[np.float64] = nnls(units / times[:, None], np.ones(len(times)))[0]
    return costs


PRIOR = LatencyModel((1.06, 1.09, 1.04, 0.0, 0.75, 0.28))
"""Of INT8 on a 2-core AMD EPYC: its proportions tell a search where to begin, on whatever device."""


def write(file: Path, models: Mapping[str, LatencyModel], facts: Mapping[str, Any]) -> None:
    """Models by form, with the device and versions they belong to."""
    forms = {name: {"costs": m.costs, "median": m.median, "worst": m.worst, "errors": m.errors} for name, m in models.items()}
    data = {"units": UNITS, "forms": forms, **facts, "date": datetime.date.today().isoformat()}
    write_whole(file, (json.dumps(data, indent=1) + "\n").encode())


def path(target: str) -> Path:
    """Where a target's models lie: beside its own file."""
    return settings.folder("targets") / f"{target}.latency.json"


def read(target: str) -> dict[str, LatencyModel]:
    """The models beside a target's file, by form; empty where there is no such file."""
    file = path(target)
    if not file.is_file():
        return {}
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if tuple(data["units"]) != UNITS:
            raise ValueError(f"it has units {data['units']}")
        models = {}
        for name, f in data["forms"].items():
            *costs, median, worst = map(float, [*f["costs"], f["median"], f["worst"]])
            if len(costs) != len(UNITS) or not all(x >= 0 for x in (*costs, median, worst)):
                raise ValueError(f"{name} needs {len(UNITS)} costs and two errors, none below 0")
            models[name] = LatencyModel(tuple(costs), median, worst, f["errors"])
        return models
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{file}: not a latency model of this version ({error!r}). Make it again: edgeeff profile.") from error
