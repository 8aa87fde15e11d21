"""Photos unlike those that a network knows: out-of-distribution detection by features of the network.

The features of known photos in one stage are taken to be normally distributed: along their principal components with the variance
found there, along all other directions with the same small one (probabilistic PCA: Tipping & Bishop 1999). How far from the mean a
photo lies is its Mahalanobis distance, as Lee et al. 2018 (arXiv:1807.03888) take it in several layers, here without classes: the
squares of all stages are added, each in units of its standard deviation. Photos of other things have a larger distance, also where
the network is sure of a class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray

from .remarks import Z

COMPONENTS = 128  # of a stage at most
PHOTOS_EACH = 6  # photos for each component, at least: fewer do not tell directions in which all vary from those of their own
LEAST = 1e-9  # the variance of features at unit length that is taken for none

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
class Known:
    """Where the features of known photos lie. Of features `(D,)` less their `mean`, times `scale`, the parts along the rows of
    `components` `(k, D)` are usual, to the extent of its square length: at most 1."""

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    components: NDArray[np.float32]

    @classmethod
    def of(cls, features: Features, widths: Sequence[int]) -> Known:
        """From finite features `(N, D)` of known photos: `widths` of the stages add up to D."""
        count, mean = len(features), features.mean(0)
        scale, rows = np.empty_like(mean), []
        for start, end in pairwise(np.cumsum([0, *widths])):
            apart = features[:, start:end] - mean[start:end]
            _, values, directions = np.linalg.svd(apart, full_matrices=False)
            kept, variances = min(COMPONENTS, (end - start) // 2, count // PHOTOS_EACH), values**2 / (count - 1)
            rest = max(float(variances[kept:].sum()) / (end - start - kept), LEAST)  # along each other direction
            usual = directions[:kept] * np.sqrt(1 - rest / np.maximum(variances[:kept], rest))[:, None]
            squares = (apart**2).sum(1) - ((apart @ usual.T) ** 2).sum(1)
            scale[start:end] = 1 / math.sqrt(max(float(squares.std()), LEAST))
            rows.append(np.zeros((kept, len(mean)), np.float32))
            rows[-1][:, start:end] = usual
        return cls(mean, scale, np.concatenate(rows))

    @cached_property
    def _blocks(self) -> list[tuple[slice, NDArray[np.float32]]]:
        """The components without what is zero beside a stage: columns of features, and the rows that lie in them."""
        rows = self.components[self.components.any(1)]
        spans = [(int(columns[0]), int(columns[-1]) + 1) for columns in map(np.flatnonzero, rows)]
        groups = [(slice(*span), list(group)) for span, group in groupby(range(len(rows)), key=spans.__getitem__)]
        return [(columns, np.ascontiguousarray(rows[group, columns])) for columns, group in groups]

    def distances(self, features: Features) -> Distances:
        """How unusual photos are; NaN for features that are not finite.

        numpy's matrix product is not used: its threads would wait for work beside those of the model. The operations are few, as
        each is slow after an inference has filled the caches.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            apart = (features - self.mean) * self.scale
            parts = [np.einsum("nd,kd->nk", apart[:, columns], rows) for columns, rows in self._blocks]
            usual = np.concatenate([apart[:, :0], *parts], 1)  # there may be no component
            squares = np.einsum("nd,nd->n", apart, apart) - np.einsum("nk,nk->n", usual, usual)
            distances: Distances = np.sqrt(np.maximum(squares, 0)).astype(np.float64)
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
