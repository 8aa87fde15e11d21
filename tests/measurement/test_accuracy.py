from pathlib import Path

import numpy as np
import pytest

from edgeeff.data.images import ImageSet, PixelFile, Pixels
from edgeeff.data.preprocess import Preprocess
from edgeeff.errors import AccuracyGateFailed
from edgeeff.measurement.accuracy import Gate, images_needed, paired_drop, rank

PREPROCESS = Preprocess(32, 32, (0, 0, 0), (1, 1, 1))


@pytest.fixture(scope="module")
def pixels(digits: Path) -> PixelFile:
    return PixelFile(ImageSet.open(digits / "val"), PREPROCESS)


def answers(labels: np.ndarray, wrong: int, classes: int = 10):
    """A model that gives `labels`, but a wrong class for the first `wrong` photos it sees."""
    position = 0

    def predict(images: Pixels) -> np.ndarray:
        nonlocal position
        rows = np.arange(position, position + len(images))
        position += len(images)
        logits = np.zeros((len(images), classes), np.float32)
        logits[np.arange(len(images)), (labels[rows] + (rows < wrong)) % classes] = 1
        return logits

    return predict


def test_paired_drop_is_the_hand_computed_one() -> None:
    before = np.array([True] * 90 + [False] * 10)
    after = np.array([True] * 84 + [False] * 6 + [True] * 2 + [False] * 8)  # 6 lost, 2 gained
    drop, (low, high) = paired_drop(before, after)
    assert drop == pytest.approx(4.0)
    # Agresti & Min's interval with n = 102, b = 6.5, c = 2.5: 4/102 ± 1.96 · sqrt(9 − 16/102) / 102
    assert low == pytest.approx(100 * (4 / 102 - 1.96 * (9 - 16 / 102) ** 0.5 / 102))
    assert high == pytest.approx(100 * (4 / 102 + 1.96 * (9 - 16 / 102) ** 0.5 / 102))


def test_the_interval_covers_the_true_drop_about_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        u = rng.random(400)
        before, after = u < 0.8, (u < 0.78) | (u > 0.99)  # 2% lost, 1% gained: a true drop of one point
        low, high = paired_drop(before, after)[1]
        hits += low <= 1.0 <= high
    assert hits / 2000 == pytest.approx(0.95, abs=0.025)  # the method's own coverage differs from 95% by up to 2 points


def test_images_needed_would_prove_the_drop() -> None:
    rng = np.random.default_rng(1)
    before = rng.random(300) < 0.8
    after = before ^ (rng.random(300) < 0.01)
    needed = images_needed(before, after, 1.0)
    assert needed is not None
    times = -(-needed // 300)
    assert paired_drop(np.tile(before, times + 1), np.tile(after, times + 1))[1][1] <= 1.0
    assert images_needed(np.ones(10, bool), np.zeros(10, bool), 1.0) is None


def test_gate_accepts_a_drop_at_the_limit_and_rejects_one_over_it(pixels: PixelFile) -> None:
    labels = np.array(pixels.images.labels)
    gate = Gate(pixels, max_drop=1.0)
    gate.require("float", answers(labels, 0))
    assert gate.require("three wrong of 300", answers(labels, 3)).drop == pytest.approx(1.0)
    with pytest.raises(AccuracyGateFailed, match=r"four: top-1 100.00 → 98.67, drop 1.33 points > 1 allowed \(300 images\)"):
        gate.require("four", answers(labels, 4))
    assert [r.passed for r in gate.reports] == [True, True, False]


def test_without_labels_agreement_with_the_float_model_is_gated(digits: Path, pixels: PixelFile) -> None:
    unlabelled = PixelFile(ImageSet(digits, pixels.images.paths, None), PREPROCESS)
    labels = np.array(pixels.images.labels)
    gate = Gate(unlabelled, max_drop=0.5, min_agreement=98)
    gate.require("float", answers(labels, 0))
    good = gate.require("good", answers(labels, 6))
    assert (good.top1, good.drop, good.agreement) == (None, None, 98.0)
    with pytest.raises(AccuracyGateFailed, match="agreement with the float model 97.67% < 98%"):
        gate.require("bad", answers(labels, 7))


def test_a_gate_keeps_what_each_step_said_of_every_photo(pixels: PixelFile) -> None:
    logits = np.log(np.array([[0.1, 0.7, 0.2]], np.float32))
    gate = Gate(PixelFile(ImageSet(pixels.images.root, pixels.images.paths, None), PREPROCESS), max_drop=1.0)
    gate.judge("float", lambda images: np.repeat(logits, len(images), 0))
    assert (gate.answers[0].classes == 1).all()
    assert gate.answers[0].probabilities == pytest.approx(np.full(300, 0.7), abs=1e-6)


def test_rank_orders_the_best_five(pixels: PixelFile) -> None:
    logits = np.array([[0.1, 0.9, 0.3, 0.8, 0.2, 0.7, 0.0]], np.float32)
    ranking = rank(lambda images: np.repeat(logits, len(images), 0), pixels)
    assert ranking.shape == (300, 5)
    assert (ranking == [1, 3, 5, 2, 4]).all()


def test_rank_takes_fewer_than_five_classes(pixels: PixelFile) -> None:
    assert rank(lambda images: np.zeros((len(images), 2), np.float32), pixels).shape == (300, 2)
