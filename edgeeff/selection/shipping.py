"""Which file ships: the one decision, for a device at hand, for graphs that go to another, and for engines built on that.

The fastest that passes the accuracy gate and meets the budget. Where latency is not known here, the first that passes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..budget import Budget
from ..errors import AccuracyGateFailed, BudgetNotMet
from ..measurement.benchmark import Metrics
from ..precision import Precision


@dataclass(frozen=True)
class Offer:
    """A file that may ship. `loss` is its loss of accuracy, `refusal` what the gate says where it fails; without `metrics` its
    latency is not known here. A `reference` is there to compare with, and never ships, nor does a file of infinite loss."""

    precision: Precision
    passed: bool
    loss: float
    refusal: str = ""
    metrics: Metrics | None = None
    reference: bool = False

    def over(self, budget: Budget) -> list[str]:
        return self.metrics.over(budget) if self.metrics else []

    def latency_ms(self, percentile: int) -> float:
        return self.metrics.latency.at(percentile) if self.metrics else 0.0


@dataclass(frozen=True)
class Terms:
    """What a file has to meet. `subject` and `advice` are for the message where none does; `accept` ships what fails the gate."""

    subject: str
    budget: Budget
    advice: str
    accept: bool = False


def decide(offers: Sequence[Offer], terms: Terms) -> int:
    """The index of the offer that ships.

    With `accept`, where none within the budget passes the gate, the one of them that loses least. Raises AccuracyGateFailed where
    all within the budget fail the gate, BudgetNotMet where none that passes is within the budget.
    """
    budget, percentile = terms.budget, terms.budget.percentile
    own = [i for i, offer in enumerate(offers) if not offer.reference]
    passed = [i for i in own if offers[i].passed]
    if fitting := [i for i in passed if not offers[i].over(budget)]:
        return min(fitting, key=lambda i: offers[i].latency_ms(percentile))
    fastest = offers[min(passed or own, key=lambda i: offers[i].latency_ms(percentile))]
    if tempting := [i for i in own if not offers[i].over(budget)]:
        nearest = min(tempting, key=lambda i: offers[i].loss)
        usable = math.isfinite(offers[nearest].loss)
        if terms.accept and usable:
            return nearest
        within = f" meets {budget}" if budget.limits else " passes it"
        best = f": the fastest needs {' and '.join(fastest.over(budget))}" if passed and fastest.metrics else ""
        accept = " --accept ships it all the same." if usable else ""
        raise AccuracyGateFailed(f"{terms.subject}: {offers[nearest].refusal} No form within the gate{within}{best}.{accept}")
    assert fastest.metrics is not None  # otherwise nothing could be over the budget
    rounds = fastest.metrics.latency.rounds
    raise BudgetNotMet(
        f"{terms.subject} does not meet {budget}: {fastest.precision} needs {' and '.join(fastest.over(budget))} here "
        f"(blocks from {min(rounds):.2f} to {max(rounds):.2f} ms). {terms.advice}"
    )
