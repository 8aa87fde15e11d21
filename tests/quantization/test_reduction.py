"""How a network is made smaller: the cheapest reductions that save enough, as whole files, and nothing where the budget is met."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from contexts import context_of
from networks import SIZE, trained

from edgeeff import Budget, backends
from edgeeff.data.images import ImageSet, PixelFile
from edgeeff.data.preprocess import Preprocess
from edgeeff.measurement.accuracy import Gate
from edgeeff.measurement.benchmark import Metrics
from edgeeff.measurement.latency import Latency
from edgeeff.network.model import EfficientNet, predict
from edgeeff.network.reduce import Part, Reduction, reduced, removable, resolutions
from edgeeff.network.variants import variant
from edgeeff.precision import Precision
from edgeeff.progress import Progress
from edgeeff.quantization.ladder import Candidates, _onnx_form, _with_smaller, best, climb, float_forms, integer_forms, quantize
from edgeeff.quantization.reduction import (
    Cut,
    Option,
    Plan,
    cuts,
    find_last,
    nearly_fastest,
    planned,
    recovered_as,
    savings,
    timings,
)
from edgeeff.quantization.strategies import recovered

B0 = variant("b0")
OWN = B0.resolution
NONE = Reduction(OWN)
OPTIONS: list[Option] = [*resolutions(B0), *removable(B0)]
PARTS = {part.name: part for part in removable(B0)}
LOSSES = {"blocks.1.1": 0.3, "blocks.2.1": 0.1, "blocks.3.1": 0.2, "blocks.3.2": 0.5}
SAVES = {"blocks.1.1": 3.0, "blocks.2.1": 1.0, "blocks.3.1": 1.0, "blocks.3.2": 1.0}
WHOLE = 10.0  # ms
PREPROCESS = Preprocess(SIZE, SIZE, (127.0,) * 3, (128.0,) * 3)


def keyed(figures: dict[str, float]) -> dict[Option, float]:
    return {PARTS[name]: value for name, value in figures.items()}


def found_cuts(losses: dict[str, float], saves: dict[str, float]) -> list[Cut]:
    return cuts(NONE, WHOLE, keyed(losses), keyed(saves))


def test_no_other_combination_saves_more_at_less_loss() -> None:
    found = found_cuts(LOSSES, SAVES)
    assert [cut.to.parts for cut in found] == [
        (),
        ("blocks.2.1",),
        ("blocks.1.1",),  # saves more than stages 2 and 3.1, for the same loss
        ("blocks.1.1", "blocks.2.1"),
        ("blocks.1.1", "blocks.2.1", "blocks.3.1"),
        ("blocks.1.1", "blocks.2.1", "blocks.3.1", "blocks.3.2"),
    ]
    assert [cut.saves_ms for cut in found] == pytest.approx([0, 1, 3, 4, 5, 6])
    assert [cut.loss for cut in found] == pytest.approx([0, 0.1, 0.3, 0.4, 0.6, 1.1])


def test_of_a_block_its_gate_goes_or_all_of_it() -> None:
    losses, saves = {"blocks.1.1.se": 0.1, "blocks.1.1": 0.3}, {"blocks.1.1.se": 1.0, "blocks.1.1": 3.0}
    assert [cut.to.parts for cut in found_cuts(losses, saves)] == [(), ("blocks.1.1.se",), ("blocks.1.1",)]


def test_what_saves_nothing_stays() -> None:
    assert [cut.to for cut in found_cuts({"blocks.1.1": 0.1}, {"blocks.1.1": 0.0})] == [NONE]


def test_a_part_saves_less_at_a_lower_resolution() -> None:
    block = PARTS["blocks.1.1"]
    found = cuts(NONE, WHOLE, {192: 0.2, block: 0.3}, {192: 2.0, block: 3.0})
    both = next(cut for cut in found if cut.to == Reduction(192, ("blocks.1.1",)))
    assert both.saves_ms == pytest.approx(2 + 0.8 * 3)
    assert both.loss == pytest.approx(0.5)
    assert [cut.to for cut in found] == [NONE, Reduction(192), Reduction(OWN, ("blocks.1.1",)), both.to]


def test_many_combinations_are_thinned_to_a_short_frontier() -> None:
    chance = np.random.default_rng(0)
    big = {part: value for part, value in zip(removable(variant("b7")), chance.uniform(0.1, 1, 200), strict=False)}
    found = cuts(Reduction(600), 100.0, big, dict(zip(big, chance.uniform(0.1, 1, 200), strict=False)))
    assert 50 < len(found) <= 70
    assert [cut.loss for cut in found] == sorted(cut.loss for cut in found)
    assert [cut.saves_ms for cut in found] == sorted(cut.saves_ms for cut in found)


class Timed:
    """Measures nothing: a network takes 10 ms less what its parts save, and more parts save less than the sum of each."""

    def __init__(self, additive: float = 1.0) -> None:
        self.additive = additive
        self.asked: list[Reduction] = []

    def __call__(self, every: Sequence[Reduction]) -> dict[Reduction, Metrics]:
        self.asked += every
        return {to: Metrics(self.latency(to), {}) for to in every}

    def latency(self, to: Reduction) -> Latency:
        saved = sum(SAVES.get(name, 0.0) for name in to.parts) * (1 if len(to.parts) < 3 else self.additive)
        p50 = (WHOLE - saved) * (to.resolution / OWN) ** 2
        return Latency(p50, p50, p50, (p50, p50), (p50,))


def estimate(options: Sequence[Option]) -> dict[Option, float]:
    """A lower resolution costs more than everything else, and parts that no test speaks of as much."""
    return {o: LOSSES.get(o.name, 9.0) if isinstance(o, Part) else 99.0 for o in options}


def plan_for(budget: Budget, timed: Timed) -> Plan:
    return planned(budget, NONE, OPTIONS, estimate, timed, (Precision.INT8,))


def test_a_network_within_the_budget_stays_as_it_is() -> None:
    def never(options):
        raise AssertionError("nothing is estimated")

    timed = Timed()
    made = planned(Budget(latency_ms=10), NONE, OPTIONS, never, timed, (Precision.INT8,))
    assert made == Plan((Precision.INT8,), reason="In int8 it needs 10.00 ms, so the network stays as it is.")
    assert timed.asked == [NONE]


def test_parts_of_one_kind_and_stage_are_timed_together() -> None:
    timed = Timed()
    whole, saves = savings(NONE, OPTIONS, timed)
    assert whole == WHOLE
    assert saves[PARTS["blocks.1.1"]] == pytest.approx(3)
    assert saves[PARTS["blocks.3.1"]] == saves[PARTS["blocks.3.2"]] == pytest.approx(1)
    assert saves[192] == pytest.approx(WHOLE * (1 - (192 / 224) ** 2))
    assert len(timed.asked) == 1 + 3 + 5 + 7  # as it is, lower resolutions, stages with blocks to leave out, those with gates


def test_as_little_is_left_out_as_the_budget_needs() -> None:
    assert plan_for(Budget(latency_ms=9), Timed()).reductions == (Reduction(OWN, ("blocks.2.1",)),)
    assert plan_for(Budget(latency_ms=7.5), Timed()).reductions == (Reduction(OWN, ("blocks.1.1",)),)
    made = plan_for(Budget(latency_ms=6), Timed())
    assert made.reductions == (Reduction(OWN, ("blocks.1.1", "blocks.2.1")),)
    assert made.reason == "In int8 it needs 10.00 ms, 6 are allowed; at 224 px without 1.1, 2.1 it is 6.00 ms."
    records = {record.name: record for record in made.options}
    assert set(records) == {*PARTS, "192 px", "160 px", "144 px"}
    assert (records["blocks.2.1"].saves_ms, records["blocks.2.1"].loss) == pytest.approx((1, 0.1))


def test_whole_files_decide_where_savings_do_not_add_up() -> None:
    (to,) = plan_for(Budget(latency_ms=5.2), Timed(additive=0.85)).reductions
    assert Timed(additive=0.85).latency(to).p50 <= 5.2
    (easier,) = plan_for(Budget(latency_ms=5.2), Timed()).reductions
    assert set(easier.parts) < set(to.parts)


def test_few_reductions_are_measured_of_many() -> None:
    timed = Timed()
    plan_for(Budget(latency_ms=5), timed)
    assert len(timed.asked) <= 1 + (1 + 3 + 5 + 7) + 1 + 7  # as it is, an option of each kind, the smallest, and halving


def test_what_makes_the_answers_no_numbers_is_never_chosen() -> None:
    def broken(options: Sequence[Option]) -> dict[Option, float]:
        return {o: math.inf if isinstance(o, Part) and o.name == "blocks.2.1" else loss for o, loss in estimate(options).items()}

    made = planned(Budget(latency_ms=9), NONE, OPTIONS, broken, Timed(), (Precision.INT8,))
    assert made.reductions == (Reduction(OWN, ("blocks.3.1",)),)
    assert "blocks.2.1" not in {record.name for record in made.options}


def test_a_budget_that_nothing_buys_back_says_what_the_smallest_needs() -> None:
    made = plan_for(Budget(latency_ms=0.5), Timed())
    assert made.reductions == ()
    assert made.reason.startswith(
        "In int8 it needs 10.00 ms, 0.5 are allowed, and the smallest that the network can be made needs "
    )


def test_without_a_latency_budget_it_becomes_smaller_step_by_step() -> None:
    made = plan_for(Budget(gflops=1), Timed())
    latencies = [Timed().latency(to).p50 for to in made.reductions]
    assert latencies[:3] == pytest.approx([9, 7, 6])  # saves 10%, from 15 to 30%, and 40%
    assert latencies[-1] <= 3 < latencies[-2]


def test_a_round_in_which_all_was_slow_makes_no_part_worth_more() -> None:
    def timed(every: Sequence[Reduction]) -> dict[Reduction, Metrics]:
        found = {}
        for to in every:
            rounds = (10.0, 12.0, 14.0) if to == NONE else (9.0, 10.8, 12.6)
            p50 = 14.0 if to == NONE else 9.0  # of all runs, which a slow round may pull to either side
            found[to] = Metrics(Latency(p50, p50, p50, (p50, p50), rounds), {})
        return found

    whole, saves = savings(NONE, [PARTS["blocks.1.1"]], timed)
    assert saves[PARTS["blocks.1.1"]] == pytest.approx(0.1 * whole)


def test_a_precision_is_nearly_the_fastest_unless_it_is_clearly_slower() -> None:
    def latency(*rounds: float) -> Latency:
        p50 = float(np.median(rounds))
        return Latency(p50, p50, p50, (p50, p50), rounds)

    timed = {
        Precision.FLOAT32: latency(14, 16, 15),
        Precision.BF16: latency(9.2, 11.2, 10.2),
        Precision.INT8: latency(9.0, 11.0, 10.0),
        Precision.INT8_BF16: latency(8.0, 14.0, 10.1),  # it is not sure that this is slower
    }
    assert nearly_fastest(timed) == (Precision.INT8, Precision.INT8_BF16, Precision.BF16)
    assert nearly_fastest({Precision.INT8: latency(9, 11)}) == (Precision.INT8,)


@pytest.mark.parametrize(
    ("furthest", "tried"),
    [(-1, [3, 1, 0]), (0, [3, 1, 0]), (1, [3, 1, 2]), (2, [3, 1, 2]), (3, [3, 5, 4]), (5, [3, 5, 6]), (6, [3, 5, 6])],
)
def test_the_last_smaller_network_that_passes_is_found_by_halving(furthest: int, tried: list[int]) -> None:
    reductions, asked = [Reduction(side) for side in range(7)], []

    def passes(to: Reduction) -> bool:
        asked.append(to.resolution)
        return to.resolution <= furthest

    find_last(reductions, passes)
    assert asked == tried
    asked.clear()
    find_last(reductions[:1], passes)
    find_last([], passes)
    assert asked == [0]


@pytest.fixture(scope="module")
def pixels(digits: Path) -> PixelFile:
    return PixelFile(ImageSet.open(digits / "train").draw(64), PREPROCESS)


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_a_smaller_network_becomes_an_int8_file_that_says_so(pixels: PixelFile, tmp_path: Path) -> None:
    context, network = context_of("host-cpu", pixels, trained("b0", classes=10, resolution=SIZE), tmp_path, agreement=0)
    to = Reduction(32, ("blocks.2.1", "blocks.5.2.se", "blocks.5.3"))
    aside, made = recovered_as(context, network, [network], to)
    assert len(list(made.model.variant.blocks())) == 14
    form = integer_forms(aside, best(climb(aside, made)))[0]
    assert form.left_out == to.parts
    assert form.preprocess == PREPROCESS.at(32)
    assert (form.name, form.report.step) == ("int8 (3 parts out)", "int8, 32 px, 3 parts out")
    images = PixelFile(pixels.images, form.preprocess).rows(0, 4)
    assert images.shape == (4, 32, 32, 3)
    assert np.isfinite(backends.get("openvino").load(form.file, precision=form.precision)(images)).all()
    again = recovered_as(context, network, [network], to)[1]  # from the cache
    for a, b in zip(made.model.state_dict().values(), again.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_it_goes_on_from_the_last_smaller_network_that_has_all_of_its_parts(pixels: PixelFile, tmp_path: Path) -> None:
    context, network = context_of("host-cpu", pixels, trained("b0", classes=10, resolution=SIZE), tmp_path, agreement=0)
    first, second = Reduction(SIZE, ("blocks.5.1", "blocks.5.2.se")), Reduction(SIZE, ("blocks.5.1", "blocks.5.2", "blocks.2.1"))
    smaller = recovered_as(context, network, [network], first)[1]
    scratch = recovered_as(context, network, [network], second)[1]
    further = recovered_as(context, network, [network, smaller], second)[1]
    other = recovered_as(context, network, [network, smaller], Reduction(SIZE, ("blocks.2.1",)))[1]
    assert scratch.model.variant == further.model.variant
    assert (further.left_out, other.left_out) == (second.parts, ("blocks.2.1",))
    begun = reduced(smaller.model, Reduction(SIZE, ("blocks.2.1", "blocks.5.1")))  # 5.2 is 5.1 by now

    def apart(a: EfficientNet, b: EfficientNet) -> float:
        return sum(float((x - y).detach().square().sum()) for x, y in zip(a.parameters(), b.parameters(), strict=True))

    assert 0 < apart(further.model, begun) < apart(scratch.model, begun)


class StopAfter(Progress):
    """Ctrl-C after a number of steps that are reported; `steps` counts them."""

    def __init__(self, last: float = math.inf) -> None:
        self.last, self.steps = last, 0

    def say(self, line: str) -> None:
        self.steps += 1
        if self.steps > self.last:
            raise KeyboardInterrupt

    def track(self, items, label: str, total: int):
        for item in items:
            self.say(label)
            yield item


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_interrupted_anywhere_it_ends_as_the_same_file(pixels: PixelFile, tmp_path: Path) -> None:
    to, model = Reduction(32, ("blocks.2.1", "blocks.5.2.se")), trained("b0", classes=10, resolution=SIZE)

    def make(folder: Path, progress: Progress) -> bytes:
        folder.mkdir(exist_ok=True)
        context, network = context_of("host-cpu", pixels, model, folder, agreement=0)
        aside, made = recovered_as(replace(context, progress=progress), network, [network], to)
        file = integer_forms(aside, best(climb(aside, made)))[0].file
        return b"".join(part.read_bytes() for part in backends.get("openvino").files(file) if part.suffix == ".bin")

    whole = StopAfter()
    expected = make(tmp_path / "undisturbed", whole)
    for share in (0.2, 0.4, 0.6, 0.8):
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "interrupted", StopAfter(share * whole.steps / 2))
    assert make(tmp_path / "interrupted", StopAfter()) == expected


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_photos_that_are_all_alike_do_no_harm(pixels: PixelFile, tmp_path: Path) -> None:
    context, network = context_of("host-cpu", pixels, trained("b0", classes=10, resolution=SIZE), tmp_path, agreement=0)
    alike = replace(context.photos, learning=pixels.images.take([0] * 32))
    made = recovered_as(replace(context, photos=alike), network, [network], Reduction(32, ("blocks.2.1",)))[1]
    assert all(torch.isfinite(value).all() for value in made.model.state_dict().values())


@pytest.mark.slow
def test_smaller_networks_are_timed_in_one_run(pixels: PixelFile, tmp_path: Path) -> None:
    context, network = context_of("host-cpu", pixels, trained("b0", classes=10, resolution=SIZE), tmp_path, agreement=0)
    asked = [Reduction(SIZE), Reduction(SIZE, ("blocks.2.1", "blocks.4.1.se")), Reduction(32)]
    timed = timings(context, network, [Precision.INT8, Precision.FLOAT32], asked)
    assert list(timed) == [Precision.INT8, Precision.FLOAT32]
    for costs in timed.values():
        assert list(costs) == asked
        assert all(metrics.latency.p50 > 0 for metrics in costs.values())


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_where_int8_does_not_pass_the_float_network_becomes_smaller(pixels: PixelFile, tmp_path: Path) -> None:
    context, network = context_of("host-cpu", pixels, trained("phi-6", classes=10, resolution=SIZE), tmp_path, agreement=0)
    context = replace(context, job=replace(context.job, adapt="auto", activation="keep"))
    missed = replace(context.gate.reports[0], passed=False)
    whole = Candidates(
        (
            *float_forms(context, network),
            replace(_onnx_form(context, network, missed), precision=Precision.INT8, runtime="openvino"),
        ),
        (),
    )
    found = _with_smaller(context, network, network, whole)
    smaller = [form for form in found.forms if form.preprocess.resolution < SIZE or form.left_out]
    assert smaller
    assert not any(form.precision.quantized for form in smaller)
    assert found.attempts == ()
    assert re.match(r"In (float32|bf16) it needs [\d.]+ ms; 1 smaller networks are possible\.", found.notes[-1])


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_the_portable_file_is_never_the_precision_of_smaller_networks(pixels: PixelFile, tmp_path: Path) -> None:
    """Where ONNX Runtime judges for TensorRT, it may well be the fastest here."""
    context, network = context_of("tensorrt-qdq", pixels, trained("phi-6", classes=10, resolution=SIZE), tmp_path, agreement=0)
    portable = _onnx_form(context, network, context.gate.reports[0])
    found = _with_smaller(context, network, network, Candidates((portable,), ()))
    assert {form.precision for form in found.forms[1:]} == {Precision.INT8}


def integers(found: Candidates) -> Candidates:
    """Those in INT8 alone, so that smaller networks are made in that."""
    return replace(found, forms=tuple(form for form in found.forms if form.precision.quantized))


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_a_smaller_network_whose_file_is_refused_is_one_that_misses(
    pixels: PixelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, network = context_of("host-cpu", pixels, trained("phi-6", classes=10, resolution=SIZE), tmp_path, agreement=0)
    integer = integers(quantize(context, network, context.gate.reports[0]))
    monkeypatch.setattr("edgeeff.quantization.strategies.TOLERANCE", 0.0)
    found = _with_smaller(context, network, network, integer)
    assert (found.forms, found.attempts) == (integer.forms, integer.attempts)
    refused = r"Made smaller, at \d+ px.*, it was refused: ranges chosen per layer: the logits of the compiled file differ"
    assert re.match(refused, found.notes[-1])
    monkeypatch.setattr("edgeeff.quantization.reduction.nearly_fastest", lambda latencies: (Precision.INT8, Precision.FLOAT32))
    other = replace(context, cache=context.cache.within("nearly-as-fast"))
    found = _with_smaller(other, network, network, integer)
    smaller = found.forms[len(integer.forms) :]
    assert {form.precision for form in smaller} == {Precision.FLOAT32}
    assert all(form.report.passed for form in smaller)
    assert re.match(refused, found.notes[-1])


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_a_smaller_network_has_to_be_expected_to_pass_on_other_photos_too(
    pixels: PixelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, network = context_of("host-cpu", pixels, trained("phi-6", classes=10, resolution=SIZE), tmp_path, agreement=0)
    gate = Gate(pixels, max_drop=100)
    context = replace(context, gate=gate)
    integer = integers(quantize(context, network, gate.judge("float", predict(network.model, PREPROCESS))))
    for expected, passes in ((101.0, False), (100.0, True)):
        monkeypatch.setattr("edgeeff.quantization.ladder.expected_drop", lambda gate, exact, points=expected: lambda said: points)
        found = _with_smaller(context, network, network, integer)
        smaller = found.forms[len(integer.forms) :]
        assert smaller
        assert {form.report.passed for form in smaller} == {passes}
        assert ("but on others 101.00 > 100 allowed are expected" in found.notes[-1]) is not passes


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_a_cache_gives_each_activation_its_own_weights(pixels: PixelFile, tmp_path: Path) -> None:
    """--activation is no input of the cache, so that a fit with another one goes on from what was done."""
    context, network = context_of("host-cpu", pixels, trained("b0", classes=10, resolution=SIZE), tmp_path, agreement=0)
    to = Reduction(SIZE, ("blocks.5.3",))
    swish = recovered_as(context, network, [network], to)[1]
    hardswish = recovered_as(context, network, [recovered(context, network, "hardswish")], to)[1]
    assert [made.activation for made in (swish, hardswish)] == ["silu", "hardswish"]


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_when_the_time_is_up_it_stays_as_it_is_and_says_so(pixels: PixelFile, tmp_path: Path) -> None:
    model = trained("phi-6", classes=10, resolution=SIZE)
    context, network = context_of("host-cpu", pixels, model, tmp_path, agreement=0, seconds=0)
    context = replace(context, job=replace(context.job, adapt="auto", activation="keep"))
    found = quantize(context, network, context.gate.reports[0])
    assert not any(form.left_out for form in found.forms)
    assert "It was not made smaller any further: not tried: training needs at least 20 seconds" in found.notes[-1]
    assert {record.name for record in found.reductions} == {
        *(part.name for part in removable(model.variant)),
        *(f"{px} px" for px in resolutions(model.variant)),
    }
