"""Calibration recipes, YAML files in calib/: how many photos set the INT8 ranges, how they are drawn, which estimators compete."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from .. import config as settings
from ..errors import BadInput
from .images import ImageSet

ESTIMATORS = ("largest", "percentile", "least squared error")
KEYS = ("description", "images", "draw", "ranges")


@dataclass(frozen=True)
class Calibration:
    """`draw`: even over the classes, or random. `ranges`: the estimators that compete for each layer in the symmetric scheme."""

    name: str
    description: str
    images: int
    draw: str
    ranges: tuple[str, ...]

    @classmethod
    def load(cls, name: str | Path) -> Calibration:
        """A recipe by its name in calib/, or from the path of a YAML file."""
        path, data = settings.read("calib", "calibration recipe", name, KEYS, KEYS)
        images, draw, ranges = data["images"], data["draw"], data["ranges"]
        if type(images) is not int or images < 1:
            raise BadInput(f"{path}: images {images!r}: expected a whole number, 1 or more.")
        if draw not in ("even", "random"):
            raise BadInput(f"{path}: draw {draw!r}: expected even or random.")
        if not isinstance(ranges, list) or not ranges or not set(map(str, ranges)) <= set(ESTIMATORS):
            raise BadInput(f"{path}: ranges {ranges!r}: expected a list of {', '.join(ESTIMATORS)}.")
        return cls(path.stem, str(data["description"]), images, draw, tuple(ranges))

    def take(self, images: ImageSet, seed: int) -> ImageSet:
        """The photos to calibrate on."""
        return (images if self.draw == "even" else replace(images, labels=None, classes=())).draw(self.images, seed)
