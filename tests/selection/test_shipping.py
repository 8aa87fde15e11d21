"""Which form ships: the fastest that passes within the budget, and what is said where there is none."""

import math

import pytest

from edgeeff import Budget
from edgeeff.errors import AccuracyGateFailed, BudgetNotMet
from edgeeff.measurement.benchmark import Metrics
from edgeeff.measurement.latency import Latency
from edgeeff.precision import Precision
from edgeeff.selection.shipping import Offer, Terms, decide


def offer(ms: float, *, passed: bool = True, loss: float = 0.0, reference: bool = False) -> Offer:
    refusal = "" if passed else f"int8: drop {loss:.2f} points > 0.5 allowed."
    return Offer(Precision.INT8, passed, loss, refusal, Metrics(Latency(ms, ms, ms, (ms, ms), (ms,)), {}), reference)


def terms(ms: float | None, *, accept: bool = False) -> Terms:
    return Terms("V2-B0", Budget(latency_ms=ms), "Raise the budget.", accept)


def test_the_fastest_that_passes_ships() -> None:
    offers = [offer(5), offer(3), offer(1, passed=False, loss=2), offer(0.5, reference=True)]
    assert decide(offers, terms(None)) == decide(offers, terms(4)) == 1


def test_where_only_what_fails_the_gate_is_fast_enough_the_fastest_that_passes_is_named() -> None:
    offers = [offer(5), offer(3), offer(1, passed=False, loss=2), offer(0.9, passed=False, loss=4)]
    with pytest.raises(AccuracyGateFailed) as refused:
        decide(offers, terms(2))
    assert str(refused.value) == (
        "V2-B0: int8: drop 2.00 points > 0.5 allowed. No form within the gate meets p50 ≤ 2 ms: the fastest needs p50 3.00 ms "
        "(at most 3.00). --accept ships it all the same."
    )
    assert decide(offers, terms(2, accept=True)) == 2


def test_where_nothing_is_fast_enough_the_budget_is_not_met() -> None:
    with pytest.raises(BudgetNotMet, match=r"V2-B0 does not meet p50 ≤ 2 ms: int8 needs p50 3.00 ms"):
        decide([offer(5), offer(3)], terms(2))


def test_where_nothing_passes_the_least_loss_is_named() -> None:
    with pytest.raises(AccuracyGateFailed, match=r"drop 2.00 points > 0.5 allowed. No form within the gate passes it. --accept"):
        decide([offer(5, passed=False, loss=4), offer(3, passed=False, loss=2)], terms(None))


def test_what_answers_with_no_numbers_never_ships() -> None:
    broken = offer(1, passed=False, loss=math.inf)
    assert decide([offer(5, passed=False, loss=90), broken], terms(None, accept=True)) == 0
    with pytest.raises(AccuracyGateFailed) as refused:
        decide([broken, offer(5)], terms(2, accept=True))
    assert "--accept" not in str(refused.value)
