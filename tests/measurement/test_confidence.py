"""The temperature of a softmax and the calibration error, against other computations of the same and on photos that say little."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeeff.data.images import ImageSet, PixelFile, Pixels
from edgeeff.data.preprocess import Preprocess
from edgeeff.measurement.accuracy import Answers, ExpectedDrop, Gate
from edgeeff.measurement.confidence import (
    HIGHEST,
    LEAST_PHOTOS,
    LOWEST,
    Calibrated,
    Reliability,
    expected_drop,
    measure_confidence,
    softmax,
    temperature,
)

PREPROCESS = Preprocess(32, 32, (0, 0, 0), (1, 1, 1))


@pytest.fixture(scope="module")
def pixels(digits: Path) -> PixelFile:
    return PixelFile(ImageSet.open(digits / "val"), PREPROCESS)


def drawn(photos: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels that are drawn by their softmax: a network whose probabilities are true."""
    rng = np.random.default_rng(seed)
    logits = (3 * rng.standard_normal((photos, classes))).astype(np.float32)
    odds = np.exp(logits.astype(np.float64))
    labels = ((odds / odds.sum(1, keepdims=True)).cumsum(1) > rng.random((photos, 1))).argmax(1)
    return logits, labels


def in_turn(logits: np.ndarray):
    """A network that gives these logits to the photos, in their order, again and again."""
    position = 0

    def predict(images: Pixels) -> np.ndarray:
        nonlocal position
        rows = np.arange(position, position + len(images)) % len(logits)
        position += len(images)
        return logits[rows]

    return predict


def test_the_calibration_error_is_the_hand_computed_one() -> None:
    """Four answers of 95%, three of them right; two of 70%, both right; one photo without an answer, which counts as 0%."""
    sure = np.array([0.95, 0.95, 0.95, 0.95, 0.7, 0.7, 0.0], np.float32)
    answers = Answers(np.array([[0], [0], [0], [1], [2], [2], [-1]], np.int32), sure, 1, 10)
    found = Reliability.of(answers, np.array([0, 0, 0, 0, 2, 2, 0]))
    assert (len(found.bins), [b.photos for b in found.bins if b.photos]) == (15, [1, 2, 4])
    assert found.error == pytest.approx((1 * 0 + 2 * 30 + 4 * 20) / 7, abs=1e-4)
    assert (found.bins[-1].photos, found.bins[-1].right) == (4, 75.0)
    assert found.bins[-1].probability == pytest.approx(95)


def test_a_probability_of_one_lies_in_the_last_bin() -> None:
    found = Reliability.of(Answers(np.zeros((3, 1), np.int32), np.ones(3, np.float32), 0, 10), np.array([0, 0, 1]))
    assert found.bins[-1].photos == 3
    assert found.error == pytest.approx(100 / 3)


def test_true_probabilities_show_the_error_that_chance_explains() -> None:
    found = [Reliability.of(Answers.of(logits), labels) for logits, labels in (drawn(650, 10, seed) for seed in range(200))]
    shown, expected = (np.mean([getattr(each, name) for each in found]) for name in ("error", "by_chance"))
    assert 3 < expected < 6  # which a gate of 2% on so many photos could not tell from a network that is calibrated badly
    assert shown == pytest.approx(expected, rel=0.1)  # bins of few photos are not normal


def test_the_temperature_undoes_what_logits_were_multiplied_by() -> None:
    logits, labels = drawn(5000, 10)
    assert temperature(logits, labels) == pytest.approx(1, rel=0.03)  # its standard error is about 1% here
    assert temperature(2.5 * logits, labels) == pytest.approx(2.5 * temperature(logits, labels), rel=1e-4)


def test_the_temperature_has_the_least_loss_of_torch_s_cross_entropy() -> None:
    logits, labels = drawn(300, 7)
    found = temperature(3 * logits, labels)

    def loss(at: float) -> float:
        scaled_logits = torch.from_numpy(3 * logits).double() / at
        return float(torch.nn.functional.cross_entropy(scaled_logits, torch.from_numpy(labels), label_smoothing=1 / 302))

    assert loss(found) <= min(loss(found * 0.999), loss(found * 1.001), *(loss(t) for t in np.geomspace(LOWEST, HIGHEST, 50)))


@pytest.mark.parametrize("photos", [3, 50, 1000])
def test_a_network_that_is_right_or_wrong_about_every_photo_gets_a_temperature_within_bounds(photos: int) -> None:
    labels = np.arange(photos) % 3
    sure = np.eye(5, dtype=np.float32)[labels]  # right, and far from sure
    found = temperature(sure, labels)
    assert LOWEST <= found < 1
    assert 1 - softmax(sure, found).max(1).mean() >= 0.5 / (photos + 2)  # no surer than so many photos allow
    assert temperature(20 * np.eye(5, dtype=np.float32)[labels + 1], labels) == HIGHEST
    assert temperature(np.zeros((photos, 5), np.float32), labels) in (LOWEST, HIGHEST)


def test_division_changes_no_answer() -> None:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((500, 10)).astype(np.float32)
    logits[:, 1] = np.nextafter(logits.max(1), np.float32(9))  # the least that float32 can tell apart
    logits[:, 7] = np.nextafter(logits[:, 1], np.float32(9))
    for at in (LOWEST, 0.83, 3.7, HIGHEST):
        assert (Answers.of(logits, at).ranking == Answers.of(logits).ranking).all()


def test_a_step_s_confidence_is_that_of_its_own_logits(pixels: PixelFile) -> None:
    logits, labels = drawn(300, 10)
    images = replace(pixels.images, labels=tuple(map(int, labels)))
    gate = Gate(PixelFile(images, PREPROCESS), max_drop=100)
    gate.judge("float", in_turn(logits))
    gate.judge("int8", in_turn(4 * logits))
    found, answers = measure_confidence(gate, 1, in_turn(4 * logits), "int8")
    assert (found.temperature, found.photos, found.note) == (temperature(4 * logits, labels), 300, "")
    assert found.float32 == Reliability.of(gate.answers[0], labels)
    assert found.before == Reliability.of(gate.answers[1], labels)
    assert found.after == Reliability.of(answers, labels)
    assert found.before.error > 3 * found.after.error
    assert (answers.ranking == gate.answers[1].ranking).all()
    assert answers.probabilities == pytest.approx(softmax(4 * logits, found.temperature).max(1), abs=1e-6)
    network = Calibrated(in_turn(4 * logits), found.temperature)
    assert gate.judge("the same, once more", network).top1 == gate.reports[1].top1
    assert found.held_to(gate, 2, network.answers).after == found.after


@pytest.mark.parametrize(
    ("count", "labelled", "note"),
    [(300, False, "the validation photos have no labels"), (49, True, "fewer than 50 validation photos")],
)
def test_photos_that_fit_no_temperature_are_said_to(pixels: PixelFile, count: int, labelled: bool, note: str) -> None:
    images = pixels.images.take(range(count))
    gate = Gate(PixelFile(images if labelled else replace(images, labels=None), PREPROCESS), max_drop=100)
    logits = 4 * drawn(count, 10)[0]
    gate.judge("float", in_turn(logits))
    found, answers = measure_confidence(gate, 0, in_turn(logits), "float")
    assert (found.temperature, found.photos, found.note) == (1.0, 0, f"not fitted: {note}")
    assert (answers.probabilities == gate.answers[0].probabilities).all()
    assert (found.after is not None) == labelled
    assert note in found.sentence


def test_changed_answers_that_cancel_by_chance_are_refused_where_a_step_is_expected_to_pass(pixels: PixelFile) -> None:
    """The float network is wrong about one photo, and unsure of it. That answer changes for the better, and one that it was sure of
    for the worse: nothing is lost on these photos, but would be on others."""
    labels = np.arange(60) % 10
    logits = 6 * np.eye(10, dtype=np.float32)[labels]
    logits[0, 3] = 6.5  # wrong
    images = replace(pixels.images.take(range(60)), labels=tuple(labels.tolist()))
    gate = Gate(PixelFile(images, PREPROCESS), max_drop=0.5)
    gate.judge("float", in_turn(logits))
    changed = logits.copy()
    changed[0, 0], changed[7, 2] = 9, 9  # the first for the better, the other for the worse
    assert gate.judge("int8", in_turn(changed)).passed
    expecting = gate.expecting(expected_drop(gate, in_turn(logits)))
    report = expecting.judge("smaller", in_turn(changed))
    assert (report.drop, report.passed) == (0.0, False)
    sure = softmax(logits, temperature(logits, labels))
    points = 100 * (sure[0, 3] - sure[0, 0] + sure[7, 7] - sure[7, 2]) / 60
    assert f"but on others {points:.2f} > 0.5 allowed are expected: 3.33% of the answers changed" in report.refusal
    assert expecting.judge("the same", in_turn(logits)).passed


def expected_of(images: ImageSet, logits: np.ndarray, labels: np.ndarray) -> ExpectedDrop:
    """What answers are expected to lose by a network with these logits."""
    gate = Gate(PixelFile(replace(images, labels=tuple(labels.tolist())), PREPROCESS), max_drop=100)
    gate.judge("float", in_turn(logits))
    expected = expected_drop(gate, in_turn(logits))
    assert expected is not None
    return expected


def test_by_true_probabilities_the_expected_drop_is_that_of_many_other_photos(pixels: PixelFile) -> None:
    logits, labels = drawn(300, 10)
    expected = expected_of(pixels.images, logits, labels)
    coarse = np.round(logits / 4).argmax(1)
    chance = np.random.default_rng(1).random((4000, 300, 1))
    truth = (softmax(logits, 1.0).cumsum(1) > chance).argmax(2)  # what else the photos' labels could have been
    drop = 100 * ((truth == logits.argmax(1)).mean() - (truth == coarse).mean())
    assert drop > 5
    assert expected(coarse.astype(np.int32)) == pytest.approx(drop, rel=0.1)


def test_an_answer_that_is_none_is_never_expected_to_be_right(pixels: PixelFile) -> None:
    logits, labels = drawn(300, 10)
    expected = expected_of(pixels.images, logits, labels)
    right = softmax(logits, temperature(logits, labels)).max(1).mean()
    assert expected(np.full(300, -1, np.int32)) == pytest.approx(100 * right, rel=1e-5)


@pytest.mark.parametrize("photos", [300, LEAST_PHOTOS - 1])
def test_without_labels_or_enough_of_them_nothing_is_expected(pixels: PixelFile, photos: int) -> None:
    logits, labels = drawn(photos, 10)
    images = replace(pixels.images.take(range(photos)), labels=None if photos == 300 else tuple(labels.tolist()))
    gate = Gate(PixelFile(images, PREPROCESS), max_drop=100)
    gate.judge("float", in_turn(logits))
    assert expected_drop(gate, in_turn(logits)) is None
