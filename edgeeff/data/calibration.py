"""Calibration recipes, YAML files in calib/: how many photos set the INT8 ranges, how they are drawn, which estimators compete."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from .. import config
from ..errors import BadInput
from .images import ImageSet

Estimator = Literal["largest", "percentile", "least squared error"]
ESTIMATORS: tuple[Estimator, ...] = ("largest", "percentile", "least squared error")


@dataclass(frozen=True)
class Calibration:
    """`draw`: even over the classes, or random. `ranges`: the estimators that compete for each layer."""

    name: str
    description: str
    images: int
    draw: Literal["even", "random"]
    ranges: tuple[Estimator, ...]

    @classmethod
    def load(cls, name: str | Path) -> Calibration:
        """A recipe by its name in calib/, or from the path of a YAML file; raises BadInput with the file and the key."""
        recipe = config.read("calib", "calibration recipe", name, cls)
        if recipe.images < 1:
            raise BadInput(f"{name}: images {recipe.images}: expected a whole number, 1 or more.")
        if not recipe.ranges:
            raise BadInput(f"{name}: ranges: expected a list of {', '.join(ESTIMATORS)}.")
        return recipe

    def take(self, images: ImageSet, seed: int) -> ImageSet:
        """The photos to calibrate on."""
        return (images if self.draw == "even" else replace(images, labels=None, classes=())).draw(self.images, seed)
