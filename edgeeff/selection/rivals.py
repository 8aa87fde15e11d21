"""Published networks outside of the family that would be more accurate within the budget, by figures of another machine.

They were measured with OpenVINO beside networks of the family (`rivals.json`, which `benchmarks/frontier.py` measures). A latency
model of the family there tells what a network would take there that was measured here: how many times as long it took here is
what the others' latencies are scaled by. So they are predictions, and say nothing of the accuracy in INT8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median

from ..errors import BadInput
from ..network.architecture import Variant
from ..network.variants import expected_top1, variant
from ..precision import Precision
from ..records import read_json
from .candidates import Candidate, Search
from .latency_model import LatencyModel

FILE = Path(__file__).with_name("rivals.json")
KNOWN = ("latency_ms", "gflops", "mparams", "size_mb")
"""The kinds of cost that are known of them."""


@dataclass(frozen=True)
class PublishedForm:
    """A network in one precision: the median milliseconds there, and the megabytes of its files."""

    p50: float
    size_mb: float


@dataclass(frozen=True)
class PublishedNetwork:
    """A network as timm names it, with the published ImageNet top-1 in percent of its `weights`, and where that stands.

    `variant` is its name in the family; empty outside of it.
    """

    network: str
    resolution: int
    weights: str
    top1: float
    source: str
    mparams: float
    gmacs: float
    variant: str
    forms: Mapping[Precision, PublishedForm]

    @property
    def in_family(self) -> Variant:
        return variant(self.variant).at(self.resolution)


@dataclass(frozen=True)
class PublishedNetworks:
    """What was measured, and on which processor, when."""

    processor: str
    date: str
    backend: str
    networks: tuple[PublishedNetwork, ...]

    def top1(self, v: Variant) -> float:
        """What the best weights that were published of a network of the family reach."""
        return next((n.top1 for n in self.networks if n.variant and n.in_family == v), expected_top1(v))

    def model(self, precision: Precision) -> LatencyModel:
        """That of the family there."""
        return LatencyModel.fit({n.in_family: n.forms[precision].p50 for n in self.networks if n.variant and precision in n.forms})


@cache
def published() -> PublishedNetworks:
    return read_json(FILE, PublishedNetworks)


@dataclass(frozen=True)
class Rival:
    """A network outside of the family in the precision in which it should be fastest. `milliseconds` and their interval are a
    prediction, None where the budget has no latency."""

    network: PublishedNetwork
    precision: Precision
    milliseconds: float | None = None
    interval: tuple[float, float] | None = None

    def to_json(self) -> dict[str, object]:
        n = self.network
        facts = {"network": n.network, "resolution": n.resolution, "weights": n.weights, "top1": n.top1, "source": n.source}
        predicted = {"predicted_ms": self.milliseconds, "interval": self.interval, "size_mb": n.forms[self.precision].size_mb}
        return {**facts, "precision": str(self.precision), **predicted}


@dataclass(frozen=True)
class Rivals:
    """Those that should be more accurate than `top1`, the published one of the chosen network, and fit; the most accurate first."""

    top1: float
    found: tuple[Rival, ...]


def require(search: Search) -> None:
    """Raises BadInput where what was measured elsewhere says nothing of the device, or of the kinds of cost that are limited."""
    target, known = search.target, published()
    if target.backend != known.backend:
        raise BadInput(f"--rivals: {target.name} runs {target.backend}; others were measured in {known.backend} alone.")
    if unknown := [name for name in search.budget.limits if name not in KNOWN]:
        raise BadInput(f"--rivals: {', '.join(unknown)} of other networks is not known. Limit {', '.join(KNOWN)} alone.")
    if search.budget.latency_ms and None not in search.activations:
        raise BadInput("--rivals: latencies are scaled by networks with their own activation. Give --activation keep or auto.")


def within(search: Search, chosen: Candidate, measured: Sequence[Candidate]) -> Rivals:
    """The rivals of a choice, by what was measured, or predicted, of networks of the family on the device."""
    known = published()
    than, speeds = known.top1(chosen.variant), _speeds(search, measured)
    others = [n for n in known.networks if not n.variant and n.top1 > than]
    found = [rival for n in others if (rival := _fastest(n, search, speeds))]
    return Rivals(than, tuple(sorted(found, key=lambda rival: -rival.network.top1)))


@dataclass(frozen=True)
class _Speed:
    """How many times as long a precision takes here as there, and the worst relative error of the latency model there."""

    times: float
    error: float


def _speeds(search: Search, measured: Sequence[Candidate]) -> dict[Precision, _Speed]:
    """Of the precisions in which something was measured both here and there."""
    known, ratios = published(), dict[Precision, list[float]]()
    models = {p: known.model(p) for p in known.networks[0].forms}
    for candidate in measured:
        for form in candidate.forms:
            if form.form.activation is None and (model := models.get(form.form.precision)):
                here = form.metrics.latency.at(search.budget.percentile)
                ratios.setdefault(form.form.precision, []).append(here / model.shape(candidate.variant))
    return {p: _Speed(median(each), models[p].worst) for p, each in ratios.items()}


def _fastest(network: PublishedNetwork, search: Search, speeds: Mapping[Precision, _Speed]) -> Rival | None:
    """The network in that precision of the target's which fits and should be fastest; None where none fits."""
    fitting = []
    for precision in search.target.precisions:
        form, speed = network.forms.get(precision), speeds.get(precision)
        if form is None or (speed is None and search.budget.latency_ms):
            continue
        rival = Rival(network, precision)
        if speed:
            ms = form.p50 * speed.times
            rival = Rival(network, precision, ms, (ms * (1 - speed.error), ms * (1 + speed.error)))
        figures = {"latency_ms": rival.milliseconds, "gflops": network.gmacs, "mparams": network.mparams, "size_mb": form.size_mb}
        if not search.budget.over(figures):
            fitting.append(rival)
    return min(fitting, key=lambda rival: rival.milliseconds or network.forms[rival.precision].p50, default=None)
