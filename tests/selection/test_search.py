import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgeeff import BadInput, Budget, BudgetNotMet, Precision, Target
from edgeeff.machine import LOCAL, LocalMachine
from edgeeff.measurement.benchmark import BenchmarkResult, CompiledModel, Metrics
from edgeeff.measurement.latency import Latency
from edgeeff.network.variants import VARIANTS, expected_top1, variant
from edgeeff.progress import SILENT
from edgeeff.selection import latency_model, search
from edgeeff.selection.candidates import Candidate, FormKey, FormMetrics, Search, activations
from edgeeff.selection.latency_model import PRIOR, LatencyModel
from edgeeff.selection.profiler import Profiler
from edgeeff.selection.search import Choice, profile

HOST = Target.load("host-cpu")


BF16, INT8 = FormKey(Precision.BF16), FormKey(Precision.INT8)


def pick(target: Target, budget: Budget, variants, classes: int = 1000, *, exhaustive=False, on=LOCAL, memory=None) -> Choice:
    asked = Search(target, budget, tuple(variants), classes, exhaustive=exhaustive)
    return search.pick(asked, machine=on, memory=memory)


def exactly(milliseconds: float) -> Latency:
    return Latency(*[milliseconds] * 3, (milliseconds,) * 2, (milliseconds,))


def metrics(milliseconds: float, size_mb: float = 1.0) -> Metrics:
    return Metrics(exactly(milliseconds), {"size_mb": size_mb})


class Computed(Profiler):
    """Latency from a formula instead of a clock: the search is what is tested."""

    calls: list[str] = []

    def _remembered(self, v):
        return None

    def _measured(self, v):
        self.calls.append(v.name)
        offset = {"b": 2.0, "lite": 0.5, "v2": 1.0}[v.series]
        milliseconds, size = offset + 8 * v.cost().flops / 1e9, v.cost().params / 1e6
        fast, slow = metrics(milliseconds, 4 * size), metrics(2 * milliseconds, size)
        return Candidate(v, self.search.classes, (FormMetrics(BF16, fast), FormMetrics(INT8, slow)))


@pytest.fixture
def stopwatch(monkeypatch: pytest.MonkeyPatch) -> type[Computed]:
    monkeypatch.setattr("edgeeff.selection.search.Profiler", Computed)
    Computed.calls = []
    return Computed


@pytest.mark.parametrize("latency", [4, 5, 7.9, 12, 20, 40, 100, 1000])
def test_the_search_names_what_timing_all_names_and_times_fewer(stopwatch, tmp_path: Path, latency: float) -> None:
    family = list(VARIANTS.values())
    searched = pick(HOST, Budget(latency_ms=latency), family, memory=tmp_path / "m")
    count = len(stopwatch.calls)
    complete = pick(HOST, Budget(latency_ms=latency), family, exhaustive=True, memory=tmp_path / "m")
    assert searched.chosen.variant == complete.chosen.variant
    assert count <= 7
    assert len(stopwatch.calls) - count == 20


@pytest.mark.parametrize("budget", [Budget(latency_ms=5, gflops=0.01), Budget(size_mb=5, mparams=1)])
def test_a_budget_of_size_that_none_meets_is_refused_before_anything_is_timed(stopwatch, tmp_path: Path, budget: Budget) -> None:
    with pytest.raises(BudgetNotMet, match="no variant fits .* needs"):
        pick(HOST, budget, list(VARIANTS.values()), exhaustive=True, memory=tmp_path / "m")
    assert stopwatch.calls == []


def test_the_chosen_one_is_the_most_accurate_that_fits(stopwatch, tmp_path: Path) -> None:
    choice = pick(HOST, Budget(latency_ms=12), list(VARIANTS.values()), exhaustive=True, memory=tmp_path / "m")
    fitting = [c for c in choice.table if c.forms[0].metrics.latency.ci[1] <= 12]
    assert choice.chosen.variant == max((c.variant for c in fitting), key=expected_top1)


def test_static_budgets_need_no_clock(stopwatch, tmp_path: Path) -> None:
    choice = pick(HOST, Budget(gflops=0.7), list(VARIANTS.values()), memory=tmp_path / "m")
    assert choice.chosen.variant.name == "b1"  # 0.687 GFLOPs and 79.1%; V2-B0 needs 0.718
    assert stopwatch.calls == []


def test_a_static_limit_is_held_beside_latency(stopwatch, tmp_path: Path) -> None:
    choice = pick(HOST, Budget(latency_ms=1000, mparams=10), list(VARIANTS.values()), memory=tmp_path / "m")
    assert choice.chosen.mparams <= 10


def test_no_variant_fits_and_the_message_says_what_would(stopwatch, tmp_path: Path) -> None:
    with pytest.raises(BudgetNotMet, match=r"no variant fits p50 ≤ 1 ms\. The smallest: lite0 at 224 px needs p50 3\.58 ms"):
        pick(HOST, Budget(latency_ms=1), list(VARIANTS.values()), memory=tmp_path / "m")


def test_a_measurement_is_remembered_for_its_conditions_alone(tmp_path: Path) -> None:
    memory, small = tmp_path / "memory.json", variant("lite0").at(32)
    known = Candidate(small, 10, (FormMetrics(INT8, Metrics(Latency(1.0, 1.1, 1.2, (0.9, 1.1), (1.0, 1.0)), {"size_mb": 3.5})),))

    def again(target: Target = HOST, classes: int = 10, **limits: float) -> Profiler:
        return Profiler(Search(target, Budget(**limits), (small,), classes), LOCAL, memory, SILENT)

    again()._remember(small, known)
    assert again()._remembered(small) == known
    assert again(classes=12)._remembered(small) is None
    assert again()._remembered(small.at(64)) is None
    assert again(fps=30)._remembered(small) is None  # that was not measured then
    assert again(Target.load("host-cpu-1core"))._remembered(small) is None


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_a_damaged_memory_is_measured_again(tmp_path: Path) -> None:
    memory = tmp_path / "memory.json"
    memory.write_text("{half")
    chosen = pick(HOST, Budget(latency_ms=1000), [variant("lite0").at(32)], classes=10, memory=memory).chosen
    assert chosen.forms
    assert {f.form.precision for f in chosen.forms} <= set(HOST.precisions)


@pytest.mark.parametrize("edited", [None, 7, {}, {"forms": 3, "yardstick": None}, {"forms": [], "yardstick": None}])
def test_an_entry_changed_by_hand_is_measured_again(tmp_path: Path, edited: object) -> None:
    small, memory = variant("lite0").at(32), tmp_path / "memory.json"
    stopwatch = Profiler(Search(HOST, Budget(), (small,), 10), LOCAL, memory, SILENT)
    memory.write_text(json.dumps({stopwatch._key(small): edited}))
    assert stopwatch._remembered(small) is None


def test_a_form_must_meet_latency_and_size_together(stopwatch, tmp_path: Path) -> None:
    b0 = variant("b0")  # bf16: 5.1 ms and 21 MB; int8: 10.2 ms and 5.3 MB
    assert pick(HOST, Budget(latency_ms=11, size_mb=6), [b0], memory=tmp_path / "m").chosen.variant == b0
    with pytest.raises(BudgetNotMet):
        pick(HOST, Budget(latency_ms=6, size_mb=6), [b0], memory=tmp_path / "m")


def test_resolutions_are_candidates_too(stopwatch, tmp_path: Path) -> None:
    grid = [v.at(px) for v in VARIANTS.values() for px in (128, 160, 192, 224, 256, 300, 380)]
    for latency in (3, 4, 6, 10, 25, 60):
        searched = pick(HOST, Budget(latency_ms=latency), grid, memory=tmp_path / "m")
        count = len(stopwatch.calls)
        complete = pick(HOST, Budget(latency_ms=latency), grid, exhaustive=True, memory=tmp_path / "m")
        assert expected_top1(searched.chosen.variant) == expected_top1(complete.chosen.variant)
        assert count < len(grid) / 3
        stopwatch.calls.clear()


def test_any_combination_of_limits_is_searched_alike(stopwatch, tmp_path: Path) -> None:
    family = list(VARIANTS.values())
    for budget in (Budget(latency_ms=12, size_mb=30), Budget(size_mb=9), Budget(latency_ms=30, gflops=2, mparams=13)):
        searched, complete = (pick(HOST, budget, family, exhaustive=all_, memory=tmp_path / "m") for all_ in (False, True))
        assert searched.chosen.variant == complete.chosen.variant


def test_the_frontier_has_what_nothing_beats(stopwatch, tmp_path: Path) -> None:
    choice = pick(HOST, Budget(latency_ms=1000), list(VARIANTS.values()), exhaustive=True, memory=tmp_path / "m")
    points = [(c.accuracy, c.forms[0].metrics.latency.p50) for c in choice.table]
    frontier = [(c.accuracy, c.forms[0].metrics.latency.p50) for c in choice.frontier]
    beaten = [p for p in points if any(q[0] >= p[0] and q[1] < p[1] for q in points)]
    assert set(frontier) == set(points) - set(beaten)
    assert frontier == sorted(frontier)


def test_a_device_that_is_not_at_hand_is_predicted_or_refused(monkeypatch, tmp_path: Path) -> None:
    away = replace(HOST, name="away", cpu="No Such Processor")
    family = list(VARIANTS.values())
    with pytest.raises(BadInput, match="away is not this machine .* and no latency model of it"):
        pick(away, Budget(latency_ms=5), family)
    learnt = LatencyModel.fit({v: PRIOR.shape(v) for v in family})
    assert learnt.worst < 1e-6  # its own kind of function, without noise
    monkeypatch.setattr("edgeeff.config.folder", lambda kind: tmp_path)
    latency_model.write(tmp_path / "away.latency.json", {INT8: replace(learnt, worst=0.1)}, None)
    choice = pick(away, Budget(latency_ms=5), family)
    assert choice.chosen.predicted
    assert choice.chosen.forms[0].metrics.latency.ci[1] <= 5 < 1.1 * max(PRIOR.shape(v) for v in family)
    with pytest.raises(BadInput, match="only the median latency can be predicted"):
        pick(away, Budget(latency_ms=5, percentile=90), family)
    good = json.loads((tmp_path / "away.latency.json").read_text())
    (entry,) = good["models"]

    def with_costs(*costs: object) -> dict:
        return {**good, "models": [{**entry, "model": {**entry["model"], "costs": costs}}]}

    for edited in (
        {"units": []},
        [],
        with_costs("much", 1, 1, 1, 1, 1),
        with_costs(-1, 1, 1, 1, 1, 1),
        with_costs(1, 1),
    ):
        (tmp_path / "away.latency.json").write_text(json.dumps(edited))
        with pytest.raises(BadInput, match="not a latency model of this version"):
            pick(away, Budget(latency_ms=5), family)


@pytest.mark.slow
def test_noise_is_said_and_not_remembered(monkeypatch, tmp_path: Path) -> None:
    class Noisy(LocalMachine):
        def benchmark(self, request, progress):
            return BenchmarkResult({name: metrics(1.0) for name in request.models}, (), ("other programs used 1.0 of 2 cores",))

    choice = pick(HOST, Budget(latency_ms=5), [variant("lite0").at(32)], classes=10, on=Noisy(), memory=tmp_path / "m")
    assert choice.noise == ("other programs used 1.0 of 2 cores",)
    assert not (tmp_path / "m").exists()
    with pytest.raises(BudgetNotMet, match="That was not a sound measurement: other programs used 1.0 of 2 cores. Repeat"):
        pick(HOST, Budget(latency_ms=0.5), [variant("lite0").at(32)], classes=10, on=Noisy(), memory=tmp_path / "m")


def test_no_network_is_refused_by_a_measurement_of_an_earlier_run(monkeypatch, tmp_path: Path) -> None:
    class Busy(LocalMachine):
        milliseconds = 6.0

        def benchmark(self, request, progress):
            return BenchmarkResult({name: metrics(self.milliseconds) for name in request.models}, ())

    monkeypatch.setattr(Profiler, "built", lambda self, v, folder: {INT8: None})
    machine, small, memory = Busy(), [variant("lite0").at(32)], tmp_path / "m"
    for milliseconds, chosen in ((6.0, False), (4.0, False), (2.0, True)):
        machine.milliseconds = milliseconds
        if chosen:
            assert pick(HOST, Budget(latency_ms=3), small, on=machine, memory=memory).chosen.variant == small[0]
        else:
            with pytest.raises(BudgetNotMet, match=f"needs p50 {milliseconds:.2f} ms"):
                pick(HOST, Budget(latency_ms=3), small, on=machine, memory=memory)
    machine.milliseconds = 6.0  # what fits is remembered still
    assert pick(HOST, Budget(latency_ms=3), small, on=machine, memory=memory).chosen.forms[0].metrics == metrics(2.0)


def test_a_profile_is_not_misled_by_a_machine_that_drifts(monkeypatch, tmp_path: Path) -> None:
    class Drifting(LocalMachine):
        pace, runs = 1.0, 0

        def benchmark(self, request, progress):
            self.pace *= 1.05
            self.runs += 1
            if self.runs == 7:  # something slows the yardstick alone
                shapes = {name: PRIOR.shape(variant(model.file.name)) * (1 + int(name)) for name, model in request.models.items()}
                return BenchmarkResult({name: metrics(shape) for name, shape in shapes.items()}, ())
            shapes = {name: PRIOR.shape(variant(model.file.name)) for name, model in request.models.items()}
            return BenchmarkResult({name: metrics(self.pace * shape) for name, shape in shapes.items()}, ())

    def built(self, v, folder):
        return {INT8: CompiledModel("openvino", Path(v.name), Precision.INT8, v.resolution)}

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(Profiler, "built", built)
    for _ in range(2):  # the second time remembered
        every = Search(HOST, Budget(), tuple(VARIANTS.values()), activations=activations(HOST, "auto"))
        models = profile(every, tmp_path / "latency.json", machine=Drifting())
        assert models[INT8].worst < 1e-3


def test_a_swap_that_is_asked_for_is_timed_whatever_the_target_prefers() -> None:
    plain = replace(HOST, activation=None)
    assert [activations(plain, asked) for asked in (None, "keep", "auto", "relu")] == [(None,), (None,), (None,), ("relu",)]
    assert activations(HOST, "auto") == (None, "hardswish")
