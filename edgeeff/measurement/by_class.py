"""Accuracy class by class: an average over all photos hides that one class is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Right = NDArray[np.bool_]  # (N,): whether a step is right about each photo
Labels = NDArray[np.integer]  # (N,)

LEAST_PHOTOS = 5  # of a class, to be judged alone: with fewer, one photo more or less is over 20 points
UNEVEN = 2.0  # times as many photos in the largest class as in the smallest: from there on balanced accuracy tells more


@dataclass(frozen=True)
class ClassDrop:
    """What one class lost: `before` and `after` are the percent of its `photos` that the float model and the step are right about.

    Without labels a photo's class is what the float model says, so `before` is 100. `name` is the label where it has no name.
    """

    label: int
    name: str
    photos: int
    before: float
    after: float

    @property
    def drop(self) -> float:
        """Points lost."""
        return self.before - self.after


def recalls(labels: Labels, right: Right) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The photos of each class `(classes,)` and the percent of them that are right, NaN for a class without photos."""
    photos = np.bincount(labels)
    with np.errstate(invalid="ignore"):
        return photos, 100 * np.bincount(labels, weights=right) / photos


def worst_class(labels: Labels, before: Right, after: Right, name: Callable[[int], str]) -> ClassDrop | None:
    """The class that lost most points, of those with LEAST_PHOTOS or more; None where none of them lost any.

    Of classes that lost as much, the one with most photos.
    """
    if not len(labels):
        return None
    photos, was = recalls(labels, before)
    now = recalls(labels, after)[1]
    lost = np.where(photos >= LEAST_PHOTOS, was - now, 0.0)
    worst = int(np.lexsort((-photos, -lost))[0])
    if lost[worst] <= 0:
        return None
    return ClassDrop(worst, name(worst), int(photos[worst]), float(was[worst]), float(now[worst]))


def balanced_accuracy(labels: Labels, right: Right) -> float | None:
    """The mean recall of the classes that occur, in percent; None where they are about even, so that top-1 says the same."""
    photos, recall = recalls(labels, right)
    occur = photos > 0
    if photos.max() <= UNEVEN * photos[occur].min():
        return None
    return float(recall[occur].mean())
