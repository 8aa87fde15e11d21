"""Latencies of networks on a device that is not at hand, from its latency model."""

from __future__ import annotations

from ..errors import BadInput
from ..measurement.benchmark import Metrics
from ..measurement.latency import Latency
from ..measurement.system_state import device
from ..network.architecture import Variant
from . import latency_model
from .candidates import Candidate, FormMetrics, Search


class LatencyPredictor:
    """Stands in for measuring; raises BadInput where the device has no model, or the budget asks for what a model cannot tell."""

    def __init__(self, search: Search) -> None:
        target, budget = search.target, search.budget
        models = latency_model.read(target.name)
        self.models = {form: model for form, model in models.items() if form.activation in search.activations}
        if not self.models:
            raise BadInput(
                f"{target.name} is not this machine ({device().cpu}), and no latency model of it lies beside its target file: "
                "measure there by --on USER@HOST, "
                f"make the model there by edgeeff profile --target {target.name}, or give --gflops or --mparams."
            )
        if budget.percentile != 50 or set(budget.limits) - {"latency_ms", "gflops", "mparams"}:
            raise BadInput(
                f"without {target.name} at hand only the median latency can be predicted: give --latency alone, or --on."
            )
        self.classes = search.classes
        self.known: dict[Variant, Candidate] = {}

    def time(self, v: Variant) -> Candidate:
        """The network with predicted latencies, and the interval by the worst error of networks left out of the model."""
        forms = []
        for form, model in self.models.items():
            p50, interval = model.predict(v)
            forms.append(FormMetrics(form, Metrics(Latency(p50, p50, p50, interval, ()), {"size_mb": 0.0})))
        fastest_first = tuple(sorted(forms, key=lambda f: f.metrics.latency.p50))
        self.known[v] = Candidate(v, self.classes, fastest_first, predicted=True)
        return self.known[v]

    def forget(self) -> bool:
        return False
