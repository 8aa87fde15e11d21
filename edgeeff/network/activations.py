"""The activations that a network can have, as a table. An activation more is a row more, and nothing elsewhere.

No torch here: the command line and target files are checked against the same table. `swap.py` replaces one by another.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..errors import BadInput, suggestion

Activation = str
"""The name of a row of the table. Names that come from outside are checked by `check` or `get`."""


@dataclass(frozen=True)
class Schedule:
    """How long a network is distilled, in photos (each counted as often as it is seen), and at what peak learning rate.

    `bf16`: in bfloat16, where the machine computes in it.
    """

    samples: int
    peak_lr: float
    bf16: bool = True


@dataclass(frozen=True)
class ActivationFunction:
    """`module` and `gate` are classes of torch.nn: the function itself, and squeeze-and-excitation's gate in its networks.

    `recovery` is how a network swapped to it is distilled until it is as accurate as before: the closer the function is to Swish,
    the less it takes. None: networks are not swapped to it.
    """

    name: str
    module: str
    gate: str
    recovery: Schedule | None = None


ACTIVATIONS = {
    row.name: row
    for row in (
        ActivationFunction("silu", "SiLU", "Sigmoid"),  # Swish, which most published weights were trained with
        # Howard et al. 2019, arXiv:1905.02244, §5.2: x · ReLU6(x + 3) / 6 follows Swish closely, ReLU6(x + 3) / 6 the sigmoid.
        ActivationFunction("hardswish", "Hardswish", "Hardsigmoid", Schedule(6000, 5e-5)),
        ActivationFunction("relu6", "ReLU6", "Hardsigmoid", Schedule(28_000, 3e-4)),
        ActivationFunction("relu", "ReLU", "Hardsigmoid", Schedule(28_000, 3e-4)),
    )
}
SWAPS = {name: row.recovery for name, row in ACTIVATIONS.items() if row.recovery}
"""The activations that networks with Swish can be swapped to, with how they are distilled afterwards."""

CHOICES = ("keep", *SWAPS, "auto")
"""What can be asked of a fit: no swap, a swap to one of them, or whichever the measurements on the device favour."""


def get(name: str) -> ActivationFunction:
    """The row of that name. Raises BadInput for any other."""
    return ACTIVATIONS[check(name, ACTIVATIONS)]


def check(name: object, names: Collection[str], what: str = "activation") -> str:
    """The name, which is one of `names`. Raises BadInput with the nearest of them if it is not; `what` is its key or option."""
    if isinstance(name, str) and name in names:
        return name
    raise BadInput(f"{what} {name!r}: expected one of {', '.join(names)}.{suggestion(str(name), names)}")
