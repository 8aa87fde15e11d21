from pathlib import Path

import numpy as np
import pytest

from edgeeff.data.images import ImageSet, PixelFile, Pixels
from edgeeff.data.preprocess import Preprocess
from edgeeff.errors import AccuracyGateFailed
from edgeeff.measurement.accuracy import Gate, images_needed, paired_drop, rank
from edgeeff.measurement.by_class import ClassDrop, balanced_accuracy, worst_class
from edgeeff.progress import Progress

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


def test_photos_in_another_shape_are_held_to_what_the_float_model_says_of_them_so(pixels: PixelFile) -> None:
    labels = np.array(pixels.images.labels)
    gate = Gate(pixels, max_drop=1.0)
    gate.require("float", answers(labels, 0))
    assert gate.judge("float, frames", answers(labels, 4)).drop == pytest.approx(4 / 3)
    beside = gate.against(gate.answers[-1]).on(pixels)
    assert beside.judge("int8, frames", answers(labels, 7)).drop == pytest.approx(1.0)
    assert beside.judge("worse, frames", answers(labels, 8)).refusal == (
        "worse, frames: top-1 98.67 → 97.33, drop 1.33 points > 1 allowed (300 images)."
    )
    assert [r.passed for r in gate.reports] == [True, False, True, False]
    assert gate.judge("int8", answers(labels, 3)).drop == pytest.approx(1.0)


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


def test_the_worst_class_and_the_balanced_accuracy_are_the_hand_computed_ones() -> None:
    """Class 0: 8 of 10 right, then 7; class 1: 5 of 5, then 3; class 2: 4 of 4, then none, too few to be judged alone."""
    labels = np.repeat([0, 1, 2], [10, 5, 4])
    before = np.array([True] * 8 + [False] * 2 + [True] * 9)
    after = np.array([True] * 7 + [False] * 3 + [True] * 3 + [False] * 6)
    assert worst_class(labels, before, after, "abc".__getitem__) == ClassDrop(1, "b", 5, 100.0, 60.0)
    assert worst_class(labels, before, before, "abc".__getitem__) is None
    assert balanced_accuracy(labels, after) == pytest.approx((70 + 60 + 0) / 3)  # 10 photos are more than twice 4
    assert balanced_accuracy(labels[:15], after[:15]) is None  # and no more than twice 5


def test_a_class_may_lose_no_more_than_its_own_limit(pixels: PixelFile) -> None:
    """The first 30 photos are those of class 0: three of them are 10 points of it, and one point of all."""
    labels = np.array(pixels.images.labels)
    gate = Gate(pixels, max_drop=2.0, max_class_drop=10.0)
    gate.require("float", answers(labels, 0))
    assert gate.require("three of class 0", answers(labels, 3)).worst_class == ClassDrop(0, "0", 30, 100.0, 90.0)
    with pytest.raises(AccuracyGateFailed) as refused:
        gate.require("four", answers(labels, 4))
    assert str(refused.value) == "four: class '0' 100.00 → 86.67, drop 13.33 points > 10 allowed (30 images of it)."
    assert gate.reports[2].drop == pytest.approx(4 / 3)


def test_classes_too_small_for_the_limit_of_a_class_are_counted(pixels: PixelFile) -> None:
    few = ImageSet(pixels.images.root, pixels.images.paths[:34], (0,) * 30 + (1,) * 4)
    gate = Gate(PixelFile(few, PREPROCESS), max_drop=50, max_class_drop=10)
    gate.judge("float", answers(np.array(few.labels), 0))
    assert "1 class with fewer than 5 photos is not held to --max-class-drop." in gate.remarks
    assert gate.judge("all of it lost", lambda images: np.eye(10, dtype=np.float32)[[0] * 30 + [2] * 4]).passed


def test_without_labels_a_class_is_what_the_float_model_says(digits: Path, pixels: PixelFile) -> None:
    labels = np.array(pixels.images.labels)
    gate = Gate(PixelFile(ImageSet(digits, pixels.images.paths, None), PREPROCESS), max_drop=1, min_agreement=90)
    gate.judge("float", answers(labels, 0))
    assert gate.judge("int8", answers(labels, 6)).worst_class == ClassDrop(0, "0", 30, 100.0, 80.0)


def test_a_photo_whose_highest_logit_is_shared_by_three_is_neither_right_nor_wrong_alike(pixels: PixelFile) -> None:
    few = PixelFile(ImageSet(pixels.images.root, pixels.images.paths[:4], (0, 0, 1, 1)), PREPROCESS)
    float_logits = np.array([[5, 5, 5, 1], [5, 5, 1, 1], [1, 5, 5, 1], [0, 9, 0, 0]], np.float32)
    gate = Gate(few, max_drop=100)
    first = gate.judge("float", lambda images: float_logits)
    assert gate.answers[0].classes.tolist() == [-1, 0, 1, 1]
    assert (first.top1, first.agreement) == (75.0, 75.0)  # not even the same as itself
    assert gate.answers[0].probabilities[0] == 0


def test_a_sound_network_on_sound_photos_is_not_remarked_on(pixels: PixelFile) -> None:
    gate = Gate(pixels, max_drop=1.0)
    gate.judge("float", answers(np.array(pixels.images.labels), 30))
    assert gate.remarks == ()


def test_labels_shifted_by_one_are_said_to_be(pixels: PixelFile) -> None:
    labels = np.array(pixels.images.labels)
    said: list[str] = []

    class Said(Progress):
        def say(self, line: str) -> None:
            said.append(line)

    gate = Gate(pixels, max_drop=1.0, progress=Said())
    gate.judge("float", answers(labels, 300))  # each the class after its own
    assert gate.remarks == tuple(said)
    assert said[0].startswith(
        "The network gives 90.0% of the photos the class after their own: the labels seem to be shifted by one"
    )
