"""What is searched for, and the networks that may be chosen, with what is known of their costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..budget import Budget
from ..errors import BudgetNotMet
from ..job import PickJob, ProfileJob
from ..measurement.benchmark import Metrics
from ..network.architecture import ConvSpec, Variant
from ..network.variants import expected_top1, grid
from ..precision import Precision
from ..records import to_json
from ..target import Target

if TYPE_CHECKING:
    from ..context import Context

Accuracy = Callable[[Variant], float]
LEAST_MB = 0.9
"""Of a file, for each million parameters: INT8 weights take a byte each, and batch norms, a few percent, become part of them."""
LEAST_MS = 0.001
"""Of latency, for each convolution that even --adapt leaves: those of every stage's first block, of stem, head and classifier. They
run one after the other, and to start one takes a GPU's kernel, or a CPU's threads, more than a microsecond."""


@dataclass(frozen=True)
class Search:
    """What to choose from: the largest, of highest `accuracy`, of `variants` that fits `budget` on `target`.

    Networks are measured with each of `activations`, None being their own; `exhaustive` measures every one instead of searching.
    `rivals`: also look outside of the family.
    """

    target: Target
    budget: Budget
    variants: tuple[Variant, ...]
    classes: int = 1000
    accuracy: Accuracy = expected_top1
    activations: tuple[str | None, ...] = (None,)
    exhaustive: bool = False
    rivals: bool = False

    @classmethod
    def everything(cls, job: ProfileJob) -> Search:
        """What a latency model is made of: every variant, without a budget."""
        target = Target.load(job.target)
        swaps = activations(target, "auto")
        return cls(target, Budget(), tuple(grid(job.variants, job.resolution)), activations=swaps)

    @classmethod
    def within(cls, context: Context, variants: Sequence[Variant], classes: int, accuracy: Accuracy = expected_top1) -> Search:
        """What a fit may choose, with the activation that the network is trained with, or swapped to."""
        swaps = activations(context.target, context.trains_with or context.job.activation)
        return cls(context.target, context.budget, tuple(variants), classes, accuracy, swaps)

    @classmethod
    def of(cls, job: PickJob) -> Search:
        target = Target.load(job.target)
        swaps = activations(target, job.activation)
        variants = tuple(grid(job.variants, job.resolution))
        budget = target.budget(job.budget)
        return cls(target, budget, variants, job.classes, expected_top1, swaps, job.exhaustive, job.rivals)


def activations(target: Target, asked: str | None) -> tuple[str | None, ...]:
    """What to measure networks with, by the name of --activation: their own (None), another, or to compare them, both."""
    if asked == "auto":
        return (None, target.activation) if target.activation else (None,)
    return (None if asked in (None, "keep") else asked,)


@dataclass(frozen=True, order=True)
class FormKey:
    """A form of a network: its precision, and another activation than its own where one is named."""

    precision: Precision
    activation: str | None = None

    def __str__(self) -> str:
        return f"{self.precision}, {self.activation}" if self.activation else str(self.precision)


@dataclass(frozen=True)
class FormMetrics:
    """What one form of a candidate costs."""

    form: FormKey
    metrics: Metrics


@dataclass(frozen=True)
class Candidate:
    """A network with what is known of it: `forms`, fastest first, are empty where the search did not need them.

    `noise` says why the measurements cannot be relied on; `predicted`, that they are computed from other networks on that device.
    `accuracy` is what it was ranked by, `yardstick` the milliseconds of the network that was measured in turn with it, if one was.
    """

    variant: Variant
    classes: int
    forms: tuple[FormMetrics, ...] = ()
    noise: tuple[str, ...] = ()
    predicted: bool = False
    accuracy: float | None = None
    yardstick: float | None = None

    @property
    def gflops(self) -> float:
        return self.variant.cost(self.classes).flops / 1e9

    @property
    def mparams(self) -> float:
        return self.variant.cost(self.classes).params / 1e6

    @property
    def fastest(self) -> FormMetrics | None:
        return self.forms[0] if self.forms else None

    def over(self, budget: Budget) -> list[str]:
        """The limits it breaks, with its figures: those of its form that breaks the fewest, or without one, what any needs."""
        static = budget.over({"gflops": self.gflops, "mparams": self.mparams})
        return static + min((form.metrics.over(budget) for form in self.forms), key=len, default=budget.over(self.least))

    @property
    def least(self) -> dict[str, float]:
        """What the network costs at least, in any form, on any device."""
        firsts = (block for block in self.variant.blocks() if block.index == 0)
        convolutions = 3 + sum(isinstance(layer, ConvSpec) for block in firsts for layer in block.layers())
        weights = LEAST_MB * self.mparams
        return {"latency_ms": LEAST_MS * convolutions, "size_mb": weights, "memory_mb": weights}

    def require(self, budget: Budget) -> None:
        """Raises BudgetNotMet where it is over."""
        if self.over(budget):
            raise BudgetNotMet(f"{self.refusal(budget)} The budget is {budget}.")

    def refusal(self, budget: Budget) -> str:
        """What it needs of that which breaks the budget, in a sentence, and one more where seconds may have been meant."""
        v, limit = self.variant, budget.latency_ms
        least = "" if self.forms else "at least "
        in_seconds = limit is not None and limit < self.least["latency_ms"]
        hint = f" --latency is in milliseconds: for {limit:g} seconds, give {limit:g}s." if in_seconds else ""
        return f"{v.name} at {v.resolution} px needs {least}{' and '.join(self.over(budget))}.{hint}"

    def share(self, budget: Budget) -> float:
        """How much of the scarcest thing in the budget its best form needs."""
        return min((form.metrics.share(budget) for form in self.forms), default=0.0)

    def to_json(self) -> dict[str, object]:
        fastest = self.fastest
        return {
            "variant": self.variant.name,
            "resolution": self.variant.resolution,
            "accuracy": None if self.accuracy is None else round(self.accuracy, 2),
            "gflops": round(self.gflops, 4),
            "mparams": round(self.mparams, 4),
            "precision": str(fastest.form.precision) if fastest else None,
            "activation": fastest.form.activation if fastest else None,
            "latency_ms": to_json(fastest.metrics.latency) if fastest else None,
            "size_mb": fastest.metrics.costs["size_mb"] if fastest else None,
            "forms": [
                {"precision": str(f.form.precision), "activation": f.form.activation, **f.metrics.to_json()} for f in self.forms
            ],
            "disturbed": list(self.noise),
            "predicted": self.predicted,
        }
