from pathlib import Path

import pytest

from edgeeff import Budget, BudgetNotMet, Target
from edgeeff.bench import Measurement
from edgeeff.pick import Candidate, Stopwatch, Timed, pick
from edgeeff.progress import SILENT
from edgeeff.variants import VARIANTS, expected_top1, variant

HOST = Target.load("host-cpu")


class Computed(Stopwatch):
    """Latency from a formula instead of a clock: the search is what is tested."""

    calls: list[str] = []

    def _remembered(self, v):
        return None

    def _measured(self, v):
        self.calls.append(v.name)
        offset = {"b": 2.0, "lite": 0.5, "v2": 1.0}[v.series]
        milliseconds = offset + 8 * v.cost().flops / 1e9
        latency = Measurement(*[milliseconds] * 3, (milliseconds,) * 2, (milliseconds,))
        slower = Measurement(*[2 * milliseconds] * 3, (2 * milliseconds,) * 2, (2 * milliseconds,))
        size = v.cost().params / 1e6
        return Candidate(v, self.classes, (Timed("bf16", latency, 4 * size), Timed("int8", slower, size)))


@pytest.fixture
def stopwatch(monkeypatch: pytest.MonkeyPatch) -> type[Computed]:
    monkeypatch.setattr("edgeeff.pick.Stopwatch", Computed)
    Computed.calls = []
    return Computed


@pytest.mark.parametrize("latency", [4, 5, 7.9, 12, 20, 40, 100, 1000])
def test_the_search_names_what_timing_all_names_and_times_fewer(stopwatch, tmp_path: Path, latency: float) -> None:
    family = list(VARIANTS.values())
    searched = pick(HOST, Budget(latency_ms=latency), family, memory=tmp_path / "m")
    count = len(stopwatch.calls)
    complete = pick(HOST, Budget(latency_ms=latency), family, exhaustive=True, memory=tmp_path / "m")
    assert searched.chosen.variant == complete.chosen.variant
    assert count <= 10 < len(stopwatch.calls) - count == 20


def test_the_chosen_one_is_the_most_accurate_that_fits(stopwatch, tmp_path: Path) -> None:
    choice = pick(HOST, Budget(latency_ms=12), list(VARIANTS.values()), exhaustive=True, memory=tmp_path / "m")
    fitting = [c for c in choice.table if c.forms[0].latency.ci[1] <= 12]
    assert choice.chosen.variant == max((c.variant for c in fitting), key=expected_top1)
    assert choice.fitting[0] == choice.chosen


def test_static_budgets_need_no_clock(stopwatch, tmp_path: Path) -> None:
    choice = pick(HOST, Budget(gflops=0.7), list(VARIANTS.values()), memory=tmp_path / "m")
    assert choice.chosen.variant.name == "b1"  # 0.687 GFLOPs and 79.1%; V2-B0 needs 0.718
    assert stopwatch.calls == []


def test_a_static_limit_is_held_beside_latency(stopwatch, tmp_path: Path) -> None:
    choice = pick(HOST, Budget(latency_ms=1000, mparams=10), list(VARIANTS.values()), memory=tmp_path / "m")
    assert choice.chosen.mparams <= 10


def test_no_variant_fits_and_the_message_says_what_would(stopwatch, tmp_path: Path) -> None:
    with pytest.raises(BudgetNotMet, match=r"no variant fits p50 ≤ 1 ms: the smallest, lite0 at 224 px, needs p50 3\.58 ms"):
        pick(HOST, Budget(latency_ms=1), list(VARIANTS.values()), memory=tmp_path / "m")


def test_a_measurement_is_remembered_for_its_conditions_alone(tmp_path: Path) -> None:
    memory, small = tmp_path / "memory.json", variant("lite0").at(32)
    known = Candidate(small, 10, (Timed("int8", Measurement(1.0, 1.1, 1.2, (0.9, 1.1), (1.0, 1.0)), 3.5),))
    Stopwatch(HOST, 10, memory, SILENT)._remember(small, known)
    assert Stopwatch(HOST, 10, memory, SILENT)._remembered(small) == known
    assert Stopwatch(HOST, 12, memory, SILENT)._remembered(small) is None
    assert Stopwatch(HOST, 10, memory, SILENT)._remembered(small.at(64)) is None
    assert Stopwatch(Target.load("host-cpu-1core"), 10, memory, SILENT)._remembered(small) is None


def test_a_damaged_memory_is_measured_again(tmp_path: Path) -> None:
    memory = tmp_path / "memory.json"
    memory.write_text("{half")
    chosen = pick(HOST, Budget(latency_ms=1000), [variant("lite0").at(32)], classes=10, memory=memory).chosen
    assert chosen.forms
    assert {f.precision for f in chosen.forms} <= set(HOST.precisions)


def test_a_form_must_meet_latency_and_size_together(stopwatch, tmp_path: Path) -> None:
    b0 = variant("b0")  # bf16: 5.1 ms and 21 MB; int8: 10.2 ms and 5.3 MB
    assert pick(HOST, Budget(latency_ms=11, size_mb=6), [b0], memory=tmp_path / "m").chosen.variant == b0
    with pytest.raises(BudgetNotMet):
        pick(HOST, Budget(latency_ms=6, size_mb=6), [b0], memory=tmp_path / "m")
