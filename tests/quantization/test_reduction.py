"""Which blocks are left out: the cheapest that save enough, measured as whole files, and nothing where the budget is met."""

from pathlib import Path

import numpy as np
import pytest
import torch
from contexts import context_of
from networks import SIZE, trained

from edgeeff import Budget, backends
from edgeeff.data.images import ImageSet, PixelFile
from edgeeff.data.preprocess import Preprocess
from edgeeff.measurement.benchmark import Metrics
from edgeeff.measurement.latency import Latency
from edgeeff.quantization.ladder import best, climb, integer_forms
from edgeeff.quantization.reduction import BlockChoice, choose, cuts, recovered_without, reduced_context, timings
from edgeeff.quantization.strategies import recovered

LOSSES = {"blocks.1.1": 0.3, "blocks.2.1": 0.1, "blocks.2.2": 0.2, "blocks.3.1": 0.5}
SAVES = {"blocks.1.1": 3.0, "blocks.2.1": 1.0, "blocks.2.2": 1.0, "blocks.3.1": 0.5}


def test_no_other_combination_saves_more_at_less_loss() -> None:
    found = cuts(LOSSES, SAVES)
    assert [cut.blocks for cut in found] == [
        (),
        ("blocks.2.1",),
        ("blocks.1.1",),  # saves more than both of stage 2, for the same loss
        ("blocks.1.1", "blocks.2.1"),
        ("blocks.1.1", "blocks.2.1", "blocks.2.2"),
        ("blocks.1.1", "blocks.2.1", "blocks.2.2", "blocks.3.1"),
    ]
    assert [cut.saves_ms for cut in found] == pytest.approx([0, 1, 3, 4, 5, 5.5])
    assert [cut.loss for cut in found] == pytest.approx([0, 0.1, 0.3, 0.4, 0.6, 1.1])


def test_the_cheapest_blocks_of_a_stage_go_first() -> None:
    assert ("blocks.2.2",) not in [cut.blocks for cut in cuts(LOSSES, SAVES)]
    dear_first = LOSSES | {"blocks.2.1": 0.25}
    assert [cut.blocks for cut in cuts(dear_first, SAVES)][1] == ("blocks.2.2",)


def test_blocks_that_save_nothing_stay() -> None:
    assert [cut.blocks for cut in cuts({"blocks.1.1": 0.1}, {"blocks.1.1": 0.0})] == [()]


class Timed:
    """Measures nothing: a network takes 10 ms less what its blocks save, and more blocks save less than the sum of each."""

    def __init__(self, additive: float = 1.0) -> None:
        self.additive = additive
        self.asked: list[list[tuple[str, ...]]] = []

    def __call__(self, every) -> dict[tuple[str, ...], Metrics]:
        self.asked.append(list(every))
        return {blocks: Metrics(self.latency(blocks), {}) for blocks in every}

    def latency(self, blocks: tuple[str, ...]) -> Latency:
        saved = sum(SAVES[name] for name in blocks)
        p50 = 10 - (saved if len(blocks) < 2 else self.additive * saved)
        return Latency(p50, p50, p50, (p50, p50), (p50,))


def test_nothing_is_left_out_where_the_budget_is_met_or_names_no_latency() -> None:
    timed = Timed()
    assert choose(Budget(latency_ms=10), LOSSES, timed) == BlockChoice(reason="INT8 needs 10.00 ms, so no blocks are left out.")
    assert choose(Budget(gflops=1), LOSSES, timed) == BlockChoice()
    assert choose(Budget(latency_ms=1), {}, timed) == BlockChoice(reason="No block can be left out: none has a skip.")
    (asked,) = timed.asked  # a block of each stage
    assert set(asked) == {(), ("blocks.1.1",), ("blocks.2.1",), ("blocks.3.1",)}


def test_as_little_is_left_out_as_the_budget_needs() -> None:
    assert choose(Budget(latency_ms=9), LOSSES, Timed()).blocks == ("blocks.2.1",)
    assert choose(Budget(latency_ms=7.5), LOSSES, Timed()).blocks == ("blocks.1.1",)
    choice = choose(Budget(latency_ms=6), LOSSES, Timed())
    assert choice.blocks == ("blocks.1.1", "blocks.2.1")
    assert choice.reason == "INT8 needs 10.00 ms, 6 are allowed; without blocks 1.1, 2.1 it is 6.00 ms"


def test_whole_files_decide_where_savings_do_not_add_up() -> None:
    assert choose(Budget(latency_ms=6), LOSSES, Timed(additive=0.85)).blocks == ("blocks.1.1", "blocks.2.1", "blocks.2.2")


def test_few_combinations_are_measured_of_many() -> None:
    losses = {f"blocks.{stage}.{i}": 0.1 * i for stage in range(5) for i in range(1, 6)}
    asked = []

    def time(every):
        asked.extend(every)
        return {blocks: Metrics(Latency(p50, p50, p50, (p50, p50), (p50,)), {}) for blocks in every for p50 in [30 - len(blocks)]}

    choice = choose(Budget(latency_ms=19), losses, time)
    assert len(choice.blocks) == 11
    assert len(asked) <= 1 + 5 + 1 + 5  # the whole one, one of each stage, the smallest, and halving 26


def test_a_budget_that_no_blocks_buy_back_says_what_they_save() -> None:
    assert choose(Budget(latency_ms=4), LOSSES, Timed()) == BlockChoice(
        reason="INT8 needs 10.00 ms, 4 are allowed, and with every block out that saves time it needs 4.50 ms."
    )


@pytest.fixture(scope="module")
def pixels(digits: Path) -> PixelFile:
    return PixelFile(ImageSet.open(digits / "train").draw(64), Preprocess(SIZE, SIZE, (127.0,) * 3, (128.0,) * 3))


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_a_network_without_blocks_becomes_an_int8_file_that_says_so(pixels: PixelFile, tmp_path: Path) -> None:
    context, network = context_of("host-cpu", pixels, trained("b0", classes=10, resolution=SIZE), tmp_path, agreement=0)
    made = recovered_without(context, network, network, ("blocks.2.1", "blocks.5.3"))
    assert len(list(made.model.variant.blocks())) == 14
    aside = reduced_context(context, made)
    form = integer_forms(aside, best(climb(aside, made)))[0]
    assert form.removed_blocks == ("blocks.2.1", "blocks.5.3")
    assert (form.name, form.report.step) == ("int8 (2 blocks out)", "int8, 2 blocks out")
    assert np.isfinite(backends.get("openvino").load(form.file, precision=form.precision)(pixels.rows(0, 4))).all()
    again = recovered_without(context, network, network, ("blocks.2.1", "blocks.5.3"))  # from the cache
    for a, b in zip(made.model.state_dict().values(), again.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
def test_files_without_blocks_are_timed_in_one_run(pixels: PixelFile, tmp_path: Path) -> None:
    context, network = context_of("host-cpu", pixels, trained("b0", classes=10, resolution=SIZE), tmp_path, agreement=0)
    timed = timings(context, network, [(), ("blocks.2.1",)])
    assert all(metrics.latency.p50 > 0 for metrics in timed.values())
    assert list(timed) == [(), ("blocks.2.1",)]


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_a_cache_gives_each_activation_its_own_weights(pixels: PixelFile, tmp_path: Path) -> None:
    """--activation is no input of the cache, so that a fit with another one goes on from what was done."""
    context, network = context_of("host-cpu", pixels, trained("b0", classes=10, resolution=SIZE), tmp_path, agreement=0)
    swish = recovered_without(context, network, network, ("blocks.5.3",))
    hardswish = recovered_without(context, network, recovered(context, network, "hardswish"), ("blocks.5.3",))
    assert [made.activation for made in (swish, hardswish)] == ["silu", "hardswish"]
