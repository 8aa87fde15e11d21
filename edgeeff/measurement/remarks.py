"""What keeps a set of photos, or a network's answers to it, from judging anything: said in sentences, never repaired."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .by_class import LEAST_PHOTOS, Labels

Z = 1.96
NAMED = 3  # classes of a list; the others are counted


def remarks(answers: NDArray[np.integer], labels: Labels | None, classes: int, name: Callable[[int], str]) -> tuple[str, ...]:
    """Sentences about the reference network's `answers` (N,), of so many `classes`; none where photos and answers are sound.

    `labels` (N,) are None without labels. An answer of -1 is none; there is at least one. `name` gives a class its name.
    """
    found = []
    if len(answers) < LEAST_PHOTOS:
        found.append(f"Only {len(answers)} photo{'s' * (len(answers) > 1)}: too few to judge a network by.")
    said, occurring = np.unique(answers[answers >= 0]), np.unique(answers if labels is None else labels)
    if labels is not None and len(occurring) == 1:
        found.append(
            f"All photos are of class {name(int(occurring[0]))!r}: a network that knows no other class would pass as well."
        )
    elif len(said) == 1:
        found.append(
            f"The network says class {name(int(said[0]))!r} for every photo, and so may a broken one: "
            "check the weights, the photos, and how they are prepared."
        )
    if labels is None:
        return tuple(found)
    if order := _order(answers, labels, classes):
        found.append(order)
    absent = sorted(set(range(classes)) - set(occurring.tolist()))
    if absent:
        listed = ", ".join(repr(name(label)) for label in absent[:NAMED]) + (" …" if len(absent) > NAMED else "")
        found.append(f"{len(absent)} of {classes} classes have no photo here, so nothing is known of them: {listed}.")
    return tuple(found)


def _order(answers: NDArray[np.integer], labels: Labels, classes: int) -> str:
    """What tells that labels and outputs are in another order: shifted by one, or right no more often than by guessing."""
    right = float((answers == labels).mean())
    for step, neighbour in ((1, "after"), (-1, "before")):
        shifted = float((answers == labels + step).mean())
        if shifted > max(right, 0.5):
            return (
                f"The network gives {100 * shifted:.1f}% of the photos the class {neighbour} their own: "
                "the labels seem to be shifted by one, so check the order of the classes."
            )
    guessing = 1 / classes
    if right <= guessing + Z * math.sqrt(guessing * (1 - guessing) / len(labels)):
        return (
            f"The network is right about {100 * right:.2f}% of the photos, no more than guessing would be "
            f"({100 * guessing:.3g}%, as far as {len(labels)} photos tell): check the order of the classes, and the weights."
        )
    return ""
