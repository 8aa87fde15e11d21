"""Whether what a camera sees has changed: from what the model was calibrated on, and since the camera was switched on.

A fixed camera's pictures are not spread as calibration photos are: it sees one place. So these only tell when nearly every frame
lies outside of their range, and what size of a change matters. What is usual for the camera it learns from the first START frames.
A window of the newest frames is compared with them by a test of all means at once (Hotelling's T²). Frames of one scene are alike,
so the error of a window's mean is measured as what windows of the start differ by (overlapping batch means: Meketon & Schmeiser
1984), and where a window has too few different scenes to tell a change, frames are looked at less often. Values far from the median
are clipped, as the mean of a few scenes is only then about normally distributed.
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
# The root of Hotelling's T² of 8 statistics at 1 / 86400, so that by Bonferroni's inequality one look in 24 hours alarms by chance,
# is 6.25: 8 F(8, 288), as overlapping batch means have 1.5 (START / WINDOW - 1) = 36 degrees of freedom, and the correlation of
# frames is estimated from all 8. It is 5% more here, because clipped means of few scenes are not quite normally distributed.
LIMIT = 6.6
CLIP = 2.0  # standard deviations from the median
RIDGE = 0.02  # share of independence in the statistics' correlations, where two of them are one
TOLD = 1.7  # standard deviations: where a change has to be larger to be told, a window has too few different scenes
MATTERS = 0.5  # standard deviations of the calibration photos that one statistic at least has to change by
ERRORS = 2.0  # that a statistic has to change by to be named
LEAST = np.array([0.02, 0.02, 0.1, 0.01, 0.01, 0.05, 0.05, 0.5])  # for each statistic, where calibration photos hardly differ
OUTSIDE, INSIDE = 0.95, 0.5  # shares of a window's frames: outside of the range from the one on, until fewer than the other are
OVER = 0.6  # of what a change had to be at its beginning; it is over when it is less


@dataclass(frozen=True)
class Usual:
    """What a camera sees at its start: the mean of each statistic, and how far from it a window's may be.

    Values are taken in units of `scale` from `median` and clipped: then `clipped` is their mean, `error` the standard error of a
    window's mean, and `inverse` `(8, 8)` that of the statistics' correlations. `tells` says whether a window has
    scenes enough to tell a change of TOLD standard deviations of the frames, or one that matters, from chance.
    """

    mean: Observation
    median: Observation
    scale: Observation
    clipped: Observation
    error: Observation
    inverse: NDArray[np.float64]
    tells: bool

    @classmethod
    def of(cls, observed: NDArray[np.float64], matters: Observation) -> Usual:
        """Of `(frames, 8)` at the start, neighbouring ones correlated; a change of less than `matters` does not matter."""
        count, deviation = len(observed), observed.std(0)
        median, scale = np.median(observed, axis=0), np.maximum(deviation, matters)
        values = ((observed - median) / scale).clip(-CLIP, CLIP)
        centred = values - values.mean(0)
        sums = np.concatenate([np.zeros((1, values.shape[1])), centred.cumsum(0)])
        means = (sums[WINDOW:] - sums[:-WINDOW]) / WINDOW
        own = count / ((count - WINDOW) * len(means)) * (means**2).sum(0)  # the variance of a window's mean
        frames = np.maximum(values.var(0), 1e-12)
        # One statistic's variance is too low by chance now and then, and where most frames are alike and a few are not, so is that
        # of clipped values: it is at least what all statistics' correlation in time makes of the frames' own.
        shared = float((own / frames).mean()) * (1 + WINDOW / count)
        variance = np.maximum(own * (1 + WINDOW / count), shared * np.maximum(frames, (deviation / scale) ** 2))
        unit = centred / np.sqrt(frames)
        correlations = (1 - RIDGE) * unit.T @ unit / count + RIDGE * np.eye(len(frames))
        error = np.sqrt(np.maximum(variance, 1e-12))
        return cls(
            mean=observed.mean(0),
            median=median,
            scale=scale,
            clipped=values.mean(0),
            error=error,
            inverse=np.linalg.inv(correlations + 1e-9 * np.eye(len(frames))),
            tells=bool(np.median(LIMIT * error * scale / np.maximum(TOLD * deviation, matters)) <= 1),
        )

    def errors(self, window: NDArray[np.float64]) -> Observation:
        """How far the means of a window `(frames, 8)` are from it, in standard errors."""
        values = ((window - self.median) / self.scale).clip(-CLIP, CLIP)
        away: Observation = (values.mean(0) - self.clipped) / self.error
        return away


class DriftDetector:
    """The drift of one camera. `outside` has the statistics that lie outside of the range of the calibration photos, `changed`
    those that have changed since the start, each as a part of a sentence by its name. `mean` is that of the window once it is full,
    and `usual` is known once the start is over."""

    def __init__(self, reference: PictureStatistics) -> None:
        low, lower, _, upper, high = reference.quantiles.T
        self._matters = MATTERS * np.maximum((upper - lower) / 2, LEAST)
        self._low, self._high = np.minimum(low, (low + high - LEAST) / 2), np.maximum(high, (low + high + LEAST) / 2)
        self.usual: Usual | None = None
        self.mean: Observation | None = None
        self.outside: dict[str, str] = {}
        self.changed: dict[str, str] = {}
        self._start, self._started = np.full((START, len(NAMES)), np.nan), 0  # all of it now: memory then stays as it is
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
            self._start[self._started] = observed
            self._started += 1
            if self._started == START:
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
        usual = Usual.of(self._start, self._matters)
        if usual.tells:
            self.usual = usual
        else:
            self._spacing *= 2
            self._start[: START // 2] = self._start[::2]
            self._started = START // 2

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
        before, by, errors = self.usual.mean, mean - self.usual.mean, self.usual.errors(self._window)
        ease = OVER if self.changed else 1.0
        if np.sqrt(errors @ self.usual.inverse @ errors) <= ease * LIMIT:
            return {}
        told = (np.abs(by) >= ease * self._matters) & (np.abs(errors) >= ease * ERRORS)
        return {
            NAMES[i]: f"{_words(i)} {abs(by[i]):.2f} {_higher(by[i])} ({before[i]:.2f} before, now {mean[i]:.2f})"
            for i in np.flatnonzero(told)
        }


def _higher(difference: float) -> str:
    return "lower" if difference < 0 else "higher"


def _words(index: np.signedinteger[Any]) -> str:
    return NAMES[index].replace("_", " ")
