"""Networks outside of the family: which of them should fit and be more accurate, from what was measured of the family."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgeeff import BadInput, Budget, Precision, Target
from edgeeff.measurement.benchmark import Metrics
from edgeeff.measurement.latency import Latency
from edgeeff.network.variants import variant
from edgeeff.selection.candidates import Candidate, FormKey, FormMetrics, Search
from edgeeff.selection.rivals import Rivals, published, within
from edgeeff.selection.search import pick

HOST = Target.load("host-cpu")


def slower(times: float, *names: str) -> list[Candidate]:
    """Networks of the family on a device that takes that many times as long as the model of the one with the figures says."""
    candidates = []
    for name in names:
        v, forms = variant(name), []
        for precision in (Precision.FLOAT32, Precision.INT8):
            p50 = times * published().model(precision).shape(v)
            latency = Latency(p50, 1.1 * p50, 1.2 * p50, (p50, p50), (p50,))
            forms.append(FormMetrics(FormKey(precision), Metrics(latency, {"size_mb": 5.0})))
        candidates.append(Candidate(v, 1000, tuple(forms)))
    return candidates


def rivals(budget: Budget, candidates: list[Candidate], target: Target = HOST) -> Rivals:
    return within(Search(target, budget, ()), candidates[0], candidates)


def test_latencies_are_scaled_by_what_the_family_takes_here() -> None:
    fast, slow = (rivals(Budget(latency_ms=1000), slower(times, "b0", "lite0")).found for times in (1, 3))
    assert [r.network.network for r in fast] == [r.network.network for r in slow]
    for one, other in zip(fast, slow, strict=True):
        assert one.milliseconds == pytest.approx(one.network.forms[one.precision].p50)
        assert other.milliseconds == pytest.approx(3 * one.milliseconds)
        assert one.interval[0] < one.milliseconds < one.interval[1]
    higher = rivals(Budget(latency_ms=1000, percentile=90), slower(1, "b0", "lite0")).found
    assert [r.milliseconds for r in higher] == pytest.approx([1.1 * r.milliseconds for r in fast])


def test_those_that_are_named_fit_and_are_more_accurate_than_the_best_weights_of_the_chosen_one() -> None:
    known, times = published(), 2.0
    outside = [n for n in known.networks if not n.variant]
    limit = times * sorted(n.forms[Precision.FLOAT32].p50 for n in outside)[len(outside) // 2]
    found = rivals(Budget(latency_ms=limit), slower(times, "b0"))
    assert found.top1 == next(n.top1 for n in known.networks if n.variant == "b0")
    assert 0 < len(found.found) < len(outside)
    for n in outside:
        fits = times * min(form.p50 for form in n.forms.values()) <= limit
        assert (n in [r.network for r in found.found]) == (fits and n.top1 > found.top1)
    assert [r.network.top1 for r in found.found] == sorted((r.network.top1 for r in found.found), reverse=True)


def test_the_precision_named_is_one_of_the_device() -> None:
    plain = replace(HOST, precisions=(Precision.FLOAT32,))
    assert {r.precision for r in rivals(Budget(latency_ms=1000), slower(1, "b0"), plain).found} == {Precision.FLOAT32}


def test_other_limits_hold_too() -> None:
    everything = rivals(Budget(latency_ms=1000), slower(1, "b0")).found
    small = rivals(Budget(latency_ms=1000, mparams=8, size_mb=7), slower(1, "b0")).found
    assert 0 < len(small) < len(everything)
    assert all(r.network.mparams <= 8 and r.network.forms[r.precision].size_mb <= 7 for r in small)
    no_clock = rivals(Budget(gflops=1), [Candidate(variant("b0"), 1000)]).found
    assert no_clock
    assert all(r.milliseconds is None and r.network.gmacs <= 1 for r in no_clock)


@pytest.mark.parametrize(
    ("target", "budget", "activation", "reason"),
    [
        ("jetson-orin-nano-8gb", Budget(latency_ms=10), None, "runs tensorrt"),
        ("host-cpu", Budget(latency_ms=10, memory_mb=100), None, "memory_mb of other networks is not known"),
        ("host-cpu", Budget(latency_ms=10), "relu6", "with their own activation"),
    ],
)
def test_what_cannot_be_told_is_refused_before_anything_is_timed(target, budget, activation, reason, tmp_path: Path) -> None:
    search = Search(Target.load(target), budget, (variant("b0"),), activations=(activation,), rivals=True)
    with pytest.raises(BadInput, match=reason):
        pick(search, memory=tmp_path / "memory.json")
    assert not (tmp_path / "memory.json").exists()


def test_every_figure_has_a_source() -> None:
    known = published()
    assert len(known.networks) >= 15
    assert all(n.source and n.forms and 50 < n.top1 < 90 for n in known.networks)
    assert all(n.in_family.cost().params / 1e6 == pytest.approx(n.mparams, rel=0.01) for n in known.networks if n.variant)


@pytest.mark.slow
def test_the_command_names_them(run) -> None:
    done = run("pick", "--target", "host-cpu", "--gflops", 0.5, "--rivals")
    assert done.returncode == 0, done.stderr
    assert "should be more accurate within ≤ 0.5 GMACs" in done.stdout
    answer = json.loads(run("pick", "--target", "host-cpu", "--gflops", 0.5, "--rivals", "--json").stdout)
    assert all(r["top1"] > 77 and r["source"] for r in answer["rivals"])
    assert json.loads(run("pick", "--target", "host-cpu", "--gflops", 0.5, "--json").stdout)["rivals"] is None
    none = run("pick", "--target", "host-cpu", "--gflops", 30, "--rivals").stdout
    assert "None of" in none
