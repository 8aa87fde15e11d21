"""Latency of a network on a device that is not at hand, predicted from networks that were measured there.

A network's latency is modelled as a sum over its layers: how much each computes, times what that costs on the device. Six costs are
fitted to the measured networks by least squares; the stated error is that of predicting each network from all the others. A
prediction is never a measurement: whatever shows one must say so, and give its interval.
"""

from __future__ import annotations

import datetime
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import config
from ..errors import BadInput
from ..files import user_path, write_whole
from ..network.architecture import SqueezeExciteSpec, Variant
from ..records import dump_json, read_json, to_json
from .candidates import FormKey

UNITS = ("pointwise GMACs", "depthwise GMACs", "dense GMACs", "M activations", "M gated activations", "M weights")


@functools.cache
def work(v: Variant) -> NDArray[np.float64]:
    """What a network computes without its classifier: `(6,)`, in UNITS. Gated are what squeeze-and-excitation multiplies."""
    amounts = dict.fromkeys(UNITS, 0)
    for layer in v.layers():
        if isinstance(layer, SqueezeExciteSpec):
            amounts["M gated activations"] += layer.channels * layer.size**2
            amounts["M weights"] += sum(conv.weights for conv in layer.convs)
            continue
        amounts[f"{layer.kind} GMACs"] += layer.macs
        amounts["M activations"] += layer.activations
        if layer.kind != "depthwise" and layer != v.stem_conv:  # these have too few weights for reading them to take time
            amounts["M weights"] += layer.weights
    return np.array([amount / (1e9 if unit.endswith("GMACs") else 1e6) for unit, amount in amounts.items()])


@dataclass(frozen=True)
class LatencyModel:
    """Milliseconds for one unit of each of UNITS.

    `errors` are the relative errors of networks left out of the fit, by network; `median` and `worst` are those of their sizes.
    """

    costs: tuple[float, ...]
    median: float = math.inf
    worst: float = math.inf
    errors: Mapping[str, float] = field(default_factory=dict)

    def shape(self, v: Variant) -> float:
        """Predicted milliseconds."""
        return float(work(v) @ np.array(self.costs))

    def predict(self, v: Variant) -> tuple[float, tuple[float, float]]:
        """Predicted milliseconds, and their interval: plus or minus the worst relative error."""
        milliseconds = self.shape(v)
        return milliseconds, (milliseconds * (1 - self.worst), milliseconds * (1 + self.worst))

    @classmethod
    def fit(cls, measured: Mapping[Variant, float]) -> LatencyModel:
        """The model that fits median latencies in milliseconds. Raises BadInput for fewer than two networks for each cost."""
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
    """Non-negative costs with the least sum of squared relative errors."""
    from scipy.optimize import nnls

    costs: NDArray[np.float64] = nnls(units / times[:, None], np.ones(len(times)))[0]
    return costs


PRIOR = LatencyModel((1.06, 1.09, 1.04, 0.0, 0.75, 0.28))
"""INT8 on a 2-core AMD EPYC. A search on any device starts from its proportions."""


@dataclass(frozen=True)
class _FormModel:
    form: FormKey
    model: LatencyModel


@dataclass(frozen=True)
class _File:
    """What a target's .latency.json holds: models by form, and the device, versions and date that they belong to."""

    units: tuple[str, ...]
    models: tuple[_FormModel, ...]
    conditions: Any = None
    date: str = ""


def write(file: Path, models: Mapping[FormKey, LatencyModel], conditions: object) -> None:
    """Write the models by form, with the conditions under which they were measured."""
    forms = tuple(_FormModel(form, model) for form, model in models.items())
    content = _File(UNITS, forms, to_json(conditions), datetime.date.today().isoformat())
    with user_path(file, "written"):
        write_whole(file, dump_json(content).encode())


def path(target: str) -> Path:
    """Where a target's models are stored: beside its own file."""
    return config.folder("targets") / f"{target}.latency.json"


def read(target: str) -> dict[FormKey, LatencyModel]:
    """The models beside a target's file, by form; empty without such a file. Raises BadInput for one that does not fit."""
    file = path(target)
    if not file.is_file():
        return {}
    try:
        content = read_json(file, _File)
        if content.units != UNITS:
            raise BadInput(f"its units are {', '.join(content.units) or 'none'}")
        for each in content.models:
            m = each.model
            if len(m.costs) != len(UNITS) or not all(0 <= x < math.inf for x in (*m.costs, m.median, m.worst)):
                raise BadInput(f"{each.form} needs {len(UNITS)} costs and two errors, none below 0")
    except BadInput as error:
        raise BadInput(f"{file}: not a latency model of this version ({error}). Make it again: edgeeff profile.") from error
    return {each.form: each.model for each in content.models}
