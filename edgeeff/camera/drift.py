"""Whether what a camera sees has changed: from what the model was calibrated on, and since the camera was switched on.

A fixed camera's pictures are not spread as calibration photos are: it sees one place. So these only tell when nearly every frame
lies outside of their range, and what size of a change matters. What is usual for the camera it learns from the first START frames.
A window of the newest frames is compared with them by a t test of the means. Frames of one scene are alike, so the error of a
window's mean is measured as what windows of the start differ by (overlapping batch means: Meketon & Schmeiser 1984), and where a
window has too few different scenes to tell a change, frames are looked at less often. Values far from the median are clipped, as
the mean of a few scenes is only then about normally distributed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..measurement.picture_statistics import NAMES, Observation, PictureStatistics

SPACING = 1.0  # seconds at least from one frame that is looked at to the next; those between mostly show the same scene
WINDOW = 48  # frames that are looked at
START = 1200  # frames that are looked at until it is known what is usual
# Student's t at 1 / (24 h of looks × 8 statistics), so that by Bonferroni's inequality one look in 24 hours alarms by chance. Its
# degrees of freedom are 1.5 (START / WINDOW - 1) = 36 for overlapping batch means.
LIMIT = 5.76
CLIP = 2.0  # standard deviations from the median
TOLD = 1.6  # standard deviations: where a window's clipped mean has to differ by more, it holds too few different scenes
MATTERS = 0.5  # standard deviations of the calibration photos that a change has at least
LEAST = np.array([0.02, 0.02, 0.1, 0.01, 0.01, 0.05, 0.05, 0.5])  # for each statistic, where calibration photos hardly differ
OUTSIDE, INSIDE = 0.95, 0.5  # shares of a window's frames: outside of the range from the one on, until fewer than the other are
OVER = 0.5  # of what a change had to be at its beginning; it is over when it is less


@dataclass(frozen=True)
class Usual:
    """What a camera sees at its start: the mean of each statistic, and how far from it a window's is, in `limit`: it has changed
    where the mean of the clipped values, in units of `scale` from `median`, differs from `clipped` by more."""

    mean: Observation
    median: Observation
    scale: Observation
    clipped: Observation
    limit: Observation

    @classmethod
    def of(cls, observed: NDArray[np.float64], spread: Observation) -> Usual:
        """Of `(frames, 8)` at the start, neighbouring ones correlated; `spread` is that of the calibration photos."""
        count, deviation, matters = len(observed), observed.std(0), MATTERS * spread
        median, scale = np.median(observed, axis=0), np.maximum(deviation, matters)
        values = ((observed - median) / scale).clip(-CLIP, CLIP)
        sums = np.concatenate([np.zeros((1, values.shape[1])), (values - values.mean(0)).cumsum(0)])
        means = (sums[WINDOW:] - sums[:-WINDOW]) / WINDOW
        own = count / ((count - WINDOW) * len(means)) * (means**2).sum(0)  # the variance of a window's mean
        frames = np.maximum(values.var(0), 1e-12)
        # One statistic's variance is too low by chance now and then, and where most frames are alike and a few are not, so is that
        # of clipped values: it is at least what all statistics' correlation makes of the frames' own.
        variance = np.maximum(own, (own / frames).mean() * np.maximum(frames, (deviation / scale) ** 2))
        limit = np.maximum(LIMIT * np.sqrt(variance * (1 + WINDOW / count)), matters / scale)
        return cls(observed.mean(0), median, scale, values.mean(0), limit)

    def moved(self, window: NDArray[np.float64]) -> Observation:
        """How far a window `(frames, 8)` is from it, in units of the limit; above 1 it has changed."""
        values = ((window - self.median) / self.scale).clip(-CLIP, CLIP)
        moved: Observation = np.abs(values.mean(0) - self.clipped) / self.limit
        return moved


class DriftDetector:
    """The drift of one camera. `outside` has the statistics that lie outside of the range of the calibration photos, `changed`
    those that have changed since the start, each as a part of a sentence by its name. `mean` is that of the window once it is full,
    and `usual` is known once the start is over."""

    def __init__(self, reference: PictureStatistics) -> None:
        low, lower, _, upper, high = reference.quantiles.T
        self._spread = np.maximum((upper - lower) / 2, LEAST)
        self._low, self._high = np.minimum(low, (low + high - LEAST) / 2), np.maximum(high, (low + high + LEAST) / 2)
        self.usual: Usual | None = None
        self.mean: Observation | None = None
        self.outside: dict[str, str] = {}
        self.changed: dict[str, str] = {}
        self._start: list[Observation] = []
        self._window = np.zeros((WINDOW, len(NAMES)))
        self._looks = 0
        self._looked_at = -np.inf
        self._spacing = SPACING

    @property
    def drifted(self) -> tuple[str, ...]:
        """The names of what lies outside or has changed."""
        return tuple(name for name in NAMES if name in self.outside or name in self.changed)

    @property
    def sentences(self) -> tuple[str, ...]:
        """The same in words, with figures."""
        return (*self.outside.values(), *self.changed.values())

    def due(self, seconds: float) -> bool:
        """Whether a frame that was captured then is to be looked at."""
        return seconds - self._looked_at >= self._spacing

    def look(self, seconds: float, observed: Observation) -> list[str]:
        """Takes a frame's statistics, which are finite; returns what is to be said of it: once for each drift, and at its end."""
        self._looked_at = seconds
        self._window[self._looks % WINDOW] = observed
        self._looks += 1
        if self.usual is None:
            self._start.append(observed)
            if len(self._start) == START:
                self._learn()
        if self._looks < WINDOW:
            return []
        self.mean = self._window.mean(0)
        was_outside, had_changed = bool(self.outside), bool(self.changed)
        self.outside, self.changed = self._outside(self.mean), self._changed(self.mean)
        said = []
        if was_outside and not self.outside:
            said.append("what the camera sees is again within the range of what the model was calibrated on.")
        if had_changed and not self.changed:
            said.append("what the camera sees is again as it was at its start.")
        if self.outside and not was_outside:
            said.append(f"what the camera sees is unlike what the model was calibrated on: {', '.join(self.outside.values())}.")
        if self.changed and not had_changed:
            said.append(f"what the camera sees has changed since its start: {', '.join(self.changed.values())}.")
        return said

    def _learn(self) -> None:
        usual = Usual.of(np.stack(self._start), self._spread)
        if np.median(usual.limit) > TOLD:
            self._spacing *= 2
            self._start = self._start[::2]
        else:
            self.usual, self._start = usual, []

    def _outside(self, mean: Observation) -> dict[str, str]:
        shares = np.maximum((self._window < self._low).mean(0), (self._window > self._high).mean(0))
        needed = [INSIDE if name in self.outside else OUTSIDE for name in NAMES]
        return {
            NAMES[i]: f"{_words(i)} {mean[i]:.2f} (99% of the photos: {self._low[i]:.2f} to {self._high[i]:.2f})"
            for i in np.flatnonzero(shares >= needed)
        }

    def _changed(self, mean: Observation) -> dict[str, str]:
        if self.usual is None:
            return {}
        before, by = self.usual.mean, mean - self.usual.mean
        needed = [OVER if name in self.changed else 1.0 for name in NAMES]
        return {
            NAMES[
                i
            ]: f"{_words(i)} {abs(by[i]):.2f} {'lower' if by[i] < 0 else 'higher'} ({before[i]:.2f} before, now {mean[i]:.2f})"
            for i in np.flatnonzero(self.usual.moved(self._window) > needed)
        }


def _words(index: np.signedinteger[Any]) -> str:
    return NAMES[index].replace("_", " ")
