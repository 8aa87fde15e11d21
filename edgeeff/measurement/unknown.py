"""Photos unlike those that a network knows: out-of-distribution detection by features of the network.

Features of known photos lie near a subspace of few dimensions. How far outside of it a photo's features lie is its distance: photos
of other things have a larger one, also where the network is sure of a class. Labels are not needed. Source: the residual of Wang et
al. 2022 (ViM, arXiv:2203.10807), here of the features of all stages at unit length instead of those of the last layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .remarks import Z

COMPONENTS = 64  # of a subspace: 530 kB at 2000 features; on photos of flowers and of waste 32 tell fewer, and 128 no more

Features = NDArray[np.float32]  # (N, D)
Distances = NDArray[np.float64]  # (N,)


@dataclass(frozen=True)
class Share:
    """The percent of so many photos, with its 95% interval in percent, as the photos are a sample."""

    photos: int
    percent: float
    interval: tuple[float, float]

    @classmethod
    def of(cls, flagged: NDArray[np.bool_]) -> Share:
        """That of the photos `(N,)` which are flagged; there is at least one photo.

        Source: Wilson 1927, Journal of the American Statistical Association 22:209.
        """
        photos, share = len(flagged), float(flagged.mean())
        middle = (share + Z**2 / (2 * photos)) / (1 + Z**2 / photos)
        reach = Z / (1 + Z**2 / photos) * math.sqrt(share * (1 - share) / photos + Z**2 / (4 * photos**2))
        return cls(photos, 100 * share, (100 * max(middle - reach, 0), 100 * min(middle + reach, 1)))

    def __str__(self) -> str:
        return f"{self.percent:.1f}% ({self.interval[0]:.1f} to {self.interval[1]:.1f})"


@dataclass(frozen=True)
class Subspace:
    """Where the features of known photos lie: near `mean` `(D,)` plus combinations of the orthonormal `components` `(k, D)`."""

    mean: NDArray[np.float32]
    components: NDArray[np.float32]

    @classmethod
    def of(cls, features: Features) -> Subspace:
        """The one that finite features `(N, D)` of known photos span best: of COMPONENTS dimensions, or half as many as photos."""
        mean = features.mean(0)
        _, _, components = np.linalg.svd(features - mean, full_matrices=False)
        return cls(mean, components[: min(COMPONENTS, len(features) // 2)])

    def distances(self, features: Features) -> Distances:
        """How far outside of it photos lie; NaN for features that are not finite."""
        with np.errstate(over="ignore", invalid="ignore"):
            apart = features - self.mean
            inside = apart @ self.components.T
            outside = (apart * apart).sum(1) - (inside * inside).sum(1)  # squared
            distances: Distances = np.sqrt(np.maximum(outside, 0)).astype(np.float64)
        return distances


@dataclass(frozen=True)
class Unknown:
    """The distance above which a photo is unknown, chosen on so many validation photos for `false_alarms` percent of them.

    `test` is the share of false alarms among the test photos, which chose nothing; None where there are none.
    """

    threshold: float
    false_alarms: float
    photos: int
    test: Share | None = None

    @property
    def sentence(self) -> str:
        """What the validation photos say of it."""
        return (
            f"Photos unlike these get the label unknown, at {self.false_alarms:g}% false alarms on {self.photos} validation photos."
        )


def threshold(distances: Distances, false_alarms: float) -> float | None:
    """The distance that a known photo exceeds with a probability of at most so many percent; None: too few photos to say.

    It leaves room for the next photo, beside the n that were seen: their k-th largest distance is exceeded with the probability
    k / (n + 1). Source: split conformal prediction, Vovk et al. 2005.
    """
    rank = math.floor((len(distances) + 1) * false_alarms / 100 + 1e-9)
    return float(np.sort(distances)[-rank]) if rank else None


def photos_needed(false_alarms: float) -> int:
    """The fewest photos that choose a threshold for so many percent, above 0."""
    return math.ceil(100 / false_alarms - 1e-9) - 1
