"""Random crops of photos, which networks learn more from than from the same centre each time."""

from __future__ import annotations

import math
import random

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels."""

LEAST_AREA = 0.35  # of a photo


def random_box(rng: random.Random, width: int, height: int) -> Box:
    """A part of a photo: 35–100% of its area, its sides in a ratio from 3:4 to 4:3.

    Source: Szegedy et al. 2014, arXiv:1409.4842, §6.
    """
    area = width * height * rng.uniform(LEAST_AREA, 1)
    aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    w, h = min(width, round(math.sqrt(area * aspect)) or 1), min(height, round(math.sqrt(area / aspect)) or 1)
    left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
    return left, top, left + w, top + h
