"""What tells photos unlike those that a network knows, against other computations of the same and by drawing many times."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from edgeeff.measurement.unknown import PHOTOS_EACH, Known, Share, photos_needed, threshold

WIDTHS = (10, 40, 150)  # of three stages


def drawn(photos: int, seed: int = 0) -> np.ndarray:
    """Features, none negative, as pooled ones are."""
    rng = np.random.default_rng(seed)
    return np.maximum(rng.standard_normal((photos, 20)) @ rng.standard_normal((20, 200)), 0).astype(np.float32)


def test_distances_are_those_of_normal_distributions_by_probabilistic_principal_components() -> None:
    learned, others = drawn(300), drawn(50, seed=1)
    known, expected = Known.of(learned, WIDTHS), np.zeros(50)
    for stage, kept in ((slice(10), 5), (slice(10, 50), 20), (slice(50, 200), 50)):  # half of the width, and a sixth of the photos
        own = learned[:, stage].astype(np.float64)
        model = PCA(kept, svd_solver="full").fit(own)
        precision = model.get_precision()
        mine, theirs = (each - model.mean_ for each in (own, others[:, stage]))
        expected += np.einsum("ni,ij,nj->n", theirs, precision, theirs) / np.einsum("ni,ij,nj->n", mine, precision, mine).std()
    assert known.components.shape == (75, 200)
    assert known.distances(others) == pytest.approx(np.sqrt(expected), rel=1e-3)  # in float32
    assert known.distances(others).mean() > 1.5 * known.distances(learned).mean()


def test_what_is_zero_in_the_components_may_lie_anywhere() -> None:
    chance = np.random.default_rng(2)
    mean, scale, components, learned = (chance.normal(size=n).astype(np.float32) for n in (12, 12, (6, 12), (50, 12)))
    components /= 6  # so that no square is negative
    components[0] = components[2, 3:] = components[3, 3:] = components[4, :5] = components[5, 7] = 0
    apart = (learned - mean) * scale
    squares = (apart**2).sum(1) - ((apart @ components.T) ** 2).sum(1)
    assert squares.min() > 0
    assert np.allclose(Known(mean, scale, components).distances(learned), np.sqrt(squares), rtol=1e-5)
    assert np.allclose(Known(mean, scale, np.zeros((0, 12), np.float32)).distances(learned), np.sqrt((apart**2).sum(1)))


def test_few_photos_span_few_dimensions() -> None:
    learned = drawn(20)
    known = Known.of(learned, WIDTHS)
    assert len(known.components) == 3 * (20 // PHOTOS_EACH)
    assert known.distances(learned).min() > 0


@pytest.mark.filterwarnings("error")
def test_features_that_are_not_finite_have_no_distance_and_give_no_warning() -> None:
    known = Known.of(drawn(300), WIDTHS)
    odd = np.stack([np.full(200, np.nan), np.full(200, np.inf), np.full(200, 3e38)]).astype(np.float32)
    assert not np.isfinite(known.distances(odd)).any()
    assert Known.of(np.zeros((40, 8), np.float32), (2, 6)).distances(np.zeros((2, 8), np.float32)).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("flagged", "photos", "interval"),
    [(0, 10, (0.0, 27.75)), (10, 10, (72.25, 100.0)), (5, 100, (2.15, 11.18)), (81, 263, (25.5, 36.6))],
)
def test_the_interval_of_a_share_is_wilson_s(flagged: int, photos: int, interval: tuple[float, float]) -> None:
    """The last is the example of Newcombe 1998, Statistics in Medicine 17:857: 0.2553 to 0.3662."""
    found = Share.of(np.arange(photos) < flagged)
    assert (found.photos, found.percent) == (photos, pytest.approx(100 * flagged / photos))
    assert found.interval == pytest.approx(interval, abs=0.03)


@pytest.mark.parametrize(("photos", "percent"), [(19, 5.0), (84, 5.0), (250, 5.0), (84, 2.0), (99, 1.0)])
def test_as_many_new_photos_are_false_alarms_as_were_asked_for(photos: int, percent: float) -> None:
    """Of uniform distances the share above a threshold is 1 less it; its mean over 4000 draws has a standard error under 0.1%."""
    rng = np.random.default_rng(0)
    found = [threshold(rng.random(photos), percent) for _ in range(4000)]
    alarms = 100 * (1 - np.mean([each for each in found if each is not None]))
    rank = int((photos + 1) * percent / 100)
    assert len([each for each in found if each is not None]) == 4000
    assert alarms == pytest.approx(100 * rank / (photos + 1), abs=0.3)
    assert alarms <= percent + 0.3


def test_too_few_photos_choose_no_threshold() -> None:
    assert [photos_needed(percent) for percent in (5, 1, 50)] == [19, 99, 1]
    for percent in (0.3, 1, 5, 7, 33, 50):
        needed = photos_needed(percent)
        assert threshold(np.ones(needed), percent) == 1
        assert needed == 1 or threshold(np.ones(needed - 1), percent) is None
