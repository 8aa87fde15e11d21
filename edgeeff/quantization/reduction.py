"""Fewer blocks, where INT8 misses the latency budget: those that buy most on the device at the least loss, left out together.

What a block costs in latency is measured with files in INT8, each without one block; its loss is estimated on the photos that
networks recover on, which need no labels. Fusion makes latencies add up badly, so whole files are measured, and the sums only
put the combinations in order.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ..budget import Budget
from ..context import NetworkContext
from ..data.images import PixelFile
from ..measurement.benchmark import BenchmarkRequest, CompiledModel, Metrics
from ..network import checkpoint
from ..network.activations import Schedule
from ..network.model import EfficientNet
from ..network.reduce import counterparts, losses, removable, without
from ..precision import Precision
from ..records import dump_json, read_json
from .strategies import Network, distilled_from, first_strategy

RECOVERY = Schedule(6000, 4e-4)  # after 2 of 4 epochs the held-back loss is lower than after 4 at 1e-4
PHOTOS = 128  # on which the loss of each block is estimated
TIMED_PHOTOS = 16  # that set the ranges of files which are only timed: latency does not depend on them

Blocks = tuple[str, ...]


@dataclass(frozen=True)
class Cut:
    """Blocks to leave out, what that saves in milliseconds, and the loss it was estimated to cost."""

    blocks: Blocks
    saves_ms: float
    loss: float


def cuts(losses: Mapping[str, float], saves_ms: Mapping[str, float]) -> list[Cut]:
    """The combinations of blocks that no other beats in both, from the least to the most that is saved.

    Blocks of one stage save the same, so of each stage the cheapest are left out; savings and losses are taken to add up.
    """
    stages: dict[str, list[str]] = defaultdict(list)
    for name in sorted(losses, key=lambda name: losses[name]):
        stages[_stage(name)].append(name)
    every = [
        Cut(blocks, sum(saves_ms[name] for name in blocks), sum(losses[name] for name in blocks))
        for counts in itertools.product(*(range(len(names) + 1) for names in stages.values()))
        for blocks in [tuple(sorted(n for names, count in zip(stages.values(), counts, strict=True) for n in names[:count]))]
    ]
    frontier: list[Cut] = []
    for cut in sorted(every, key=lambda cut: (-cut.saves_ms, cut.loss)):
        if not frontier or cut.loss < frontier[-1].loss:
            frontier.append(cut)
    return frontier[::-1]


@dataclass(frozen=True)
class BlockChoice:
    """The blocks to leave out, and why; none where the latency budget is met without, or cannot be met."""

    blocks: Blocks = ()
    reason: str = ""


def reduced_to_budget(context: NetworkContext, original: Network, start: Network) -> tuple[Network | None, str]:
    """`start` without the blocks that the latency budget needs back, recovered to answer as the `original` does, and what to say.

    No network where INT8 meets the budget without, or no combination of blocks does.
    """
    budget = context.budget

    def make(folder: Path) -> None:
        names = [block.name for block in removable(start.model.variant)]
        found = losses(start.model, _few(context, PHOTOS), context.preprocess, names)
        few = replace(context, calibration=_few(context, TIMED_PHOTOS))
        choice = choose(budget, found, partial(timings, few, start))
        (folder / "choice.json").write_text(dump_json(choice), encoding="utf-8")

    name = f"{start.activation}-reduction-{budget.latency_ms}-p{budget.percentile}"  # the budget is no input of the cache
    choice = read_json(context.cache.once(name, make) / "choice.json", BlockChoice)
    return (recovered_without(context, original, start, choice.blocks) if choice.blocks else None), choice.reason


def choose(
    budget: Budget, losses: Mapping[str, float], time: Callable[[Sequence[Blocks]], Mapping[Blocks, Metrics]]
) -> BlockChoice:
    """The cheapest blocks that buy the budget back; `time` measures INT8 without some blocks."""
    limit, percentile = budget.latency_ms, budget.percentile
    if limit is None:
        return BlockChoice()
    if not losses:
        return BlockChoice(reason="No block can be left out: none has a skip.")
    cheapest = {_stage(name): name for name in sorted(losses, key=lambda name: -losses[name])}
    timed = time([(), *((name,) for name in cheapest.values())])
    whole = timed[()].upper_bound(percentile)
    if whole <= limit:
        return BlockChoice(reason=f"INT8 needs {whole:.2f} ms, so no blocks are left out.")
    saves = {stage: max(0.0, timed[()].latency.p50 - timed[(name,)].latency.p50) for stage, name in cheapest.items()}
    frontier = cuts(losses, {name: saves[_stage(name)] for name in losses})
    missing = f"INT8 needs {whole:.2f} ms, {limit:g} are allowed"
    measured = {0: whole}

    def latency(index: int) -> float:
        blocks = frontier[index].blocks
        measured[index] = time([blocks])[blocks].upper_bound(percentile)
        return measured[index]

    low, high = 0, len(frontier) - 1  # `low` misses the budget, and `high` meets it
    if high == 0 or latency(high) > limit:
        return BlockChoice(reason=f"{missing}, and with every block out that saves time it needs {measured[high]:.2f} ms.")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if latency(middle) <= limit else (middle, high)
    names = ", ".join(name.removeprefix("blocks.") for name in frontier[high].blocks)
    return BlockChoice(frontier[high].blocks, f"{missing}; without blocks {names} it is {measured[high]:.2f} ms")


def timings(context: NetworkContext, network: Network, every: Sequence[Blocks]) -> dict[Blocks, Metrics]:
    """What the fastest INT8 precision costs without these blocks, all measured in one run."""
    target, resolution = context.target, context.preprocess.resolution
    precisions = [precision for precision in target.usable() if precision.quantized]
    models: dict[str, CompiledModel] = {}
    for blocks in every:
        aside = _aside(context, "timed", blocks)
        other = Network.export(without(network.model, blocks), aside)
        file = first_strategy(aside, other).quantize(aside, other).file
        models |= {_key(blocks, p): CompiledModel(target.backend, file, p, resolution) for p in precisions}
    measured = context.machine.benchmark(BenchmarkRequest(models, threads=target.threads), context.progress).metrics
    return {blocks: min((measured[_key(blocks, p)] for p in precisions), key=lambda m: m.latency.p50) for blocks in every}


def _key(blocks: Blocks, precision: Precision) -> str:
    return f"{_name(blocks)} {precision}"


def reduced_context(context: NetworkContext, network: Network) -> NetworkContext:
    """The context with a cache of its own for a network without some blocks."""
    return _aside(context, "reduced", network.removed_blocks)


def recovered_without(context: NetworkContext, original: Network, start: Network, blocks: Blocks) -> Network:
    """`start` without these blocks, distilled until it answers as the `original` does, as far as it can."""
    aside = _aside(context, "reduced", blocks)

    def make(folder: Path) -> None:
        student = partial(_student, start.model, blocks)
        matched = counterparts(start.model.variant, blocks)
        network = distilled_from(aside, original.model, student, RECOVERY, f"reduced-{start.activation}", matched)
        checkpoint.save(network, folder / "weights.safetensors", context.preprocess, ())

    weights = aside.cache.once(f"{start.activation}-weights", make) / "weights.safetensors"
    variant = without(start.model, blocks).variant
    model = checkpoint.load(weights, variant, resolution=context.preprocess.resolution)[0]
    return replace(Network.export(model.eval(), aside), removed_blocks=blocks)


def _student(start: EfficientNet, blocks: Blocks, _: EfficientNet) -> EfficientNet:
    return without(start, blocks)


def _few(context: NetworkContext, count: int) -> PixelFile:
    return context.pixels(context.photos.learning.draw(count), context.preprocess)


def _aside(context: NetworkContext, purpose: str, blocks: Iterable[str]) -> NetworkContext:
    return replace(context, cache=context.cache.within(f"{purpose}-{_name(blocks)}"))


def _name(blocks: Iterable[str]) -> str:
    return "-".join(["without", *(name.removeprefix("blocks.") for name in blocks)])


def _stage(block: str) -> str:
    return block.rpartition(".")[0]
