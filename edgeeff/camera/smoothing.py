"""A label that does not flicker."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

HYSTERESIS = 0.7  # a label is kept until its probability falls below this share of what another label needs


class LabelSmoother:
    """Smooths probabilities exponentially with a time constant of `seconds`, and chooses the label with hysteresis.

    A class becomes the label when its smoothed probability reaches `threshold`. It stays the label until that probability falls
    below HYSTERESIS times the threshold, or HYSTERESIS times the probability of the most likely class. Probabilities that are not
    all finite change nothing: in an average they would stay for ever.
    """

    def __init__(self, seconds: float, threshold: float) -> None:
        self.seconds, self.threshold = seconds, threshold
        self.label: int | None = None
        self._updated_at = -math.inf
        self._smoothed: NDArray[np.floating] | None = None

    def update(self, at: float, probabilities: NDArray[np.floating]) -> int | None:
        """The index of the label after a frame captured at that second, with probabilities `(classes,)`; None for no label."""
        if not np.isfinite(probabilities).all():
            return self.label
        previous = probabilities if self._smoothed is None else self._smoothed
        weight = 1 - math.exp(-max(at - self._updated_at, 0) / self.seconds) if self.seconds else 1.0
        self._smoothed, self._updated_at = previous + weight * (probabilities - previous), at
        best = int(self._smoothed.argmax())
        highest = float(self._smoothed[best])
        if self.label is None or self._smoothed[self.label] < HYSTERESIS * max(self.threshold, highest):
            self.label = best if highest >= self.threshold else None
        return self.label
