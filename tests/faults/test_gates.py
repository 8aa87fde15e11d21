"""What an accuracy gate may be shown by a broken network or by photos that judge nothing: none of it passes unsaid."""

import copy
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from attempts import Hostile
from manifests import PREPROCESS, small_bundle
from PIL import Image

from edgeeff import Precision
from edgeeff.camera.smoothing import LabelSmoother
from edgeeff.cli import tables
from edgeeff.compilation import _checked
from edgeeff.data.images import ImageSet, PixelFile, Pixels
from edgeeff.data.preprocess import Preprocess
from edgeeff.errors import AccuracyGateFailed, BadInput, EdgeeffError
from edgeeff.export.onnx import to_onnx
from edgeeff.measurement.accuracy import Answers, Gate, agreement
from edgeeff.measurement.by_class import LEAST_PHOTOS, balanced_accuracy, worst_class
from edgeeff.network import checkpoint
from edgeeff.network.model import EfficientNet, create
from edgeeff.records import dump_json

PHOTOS, CLASSES = 300, 10
NOT_NUMBERS = (math.nan, math.inf, -math.inf)
NAMES = (
    "a\nb",
    "\x1b[31mred",
    "[bold]",
    "[/]",
    "'",
    '"',
    "\u202eabc",
    "\0",
    "x" * 5000,
    "%s{0}",
)
Told = Callable[[Pixels], np.ndarray]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> PixelFile:
    folder = tmp_path_factory.mktemp("photos")
    paths = [folder / f"{i:03}.png" for i in range(PHOTOS)]
    for i, path in enumerate(paths):
        Image.new("RGB", (8, 8), (i % 256, 0, 0)).save(path)
    return PixelFile(ImageSet(folder, tuple(paths), None), Preprocess(32, 32, (0, 0, 0), (1, 1, 1)))


def of(photos: PixelFile, labels: np.ndarray | None, names: tuple[str, ...] = ()) -> PixelFile:
    """The first photos, as many as there are labels, with these labels."""
    some = copy.copy(photos)
    count = PHOTOS if labels is None else len(labels)
    told = None if labels is None else tuple(int(label) for label in labels)
    some.images = replace(photos.images, paths=photos.images.paths[:count], labels=told, classes=names)
    return some


def gate_of(photos: PixelFile, labels: np.ndarray | None, names: tuple[str, ...] = (), **limits: float) -> Gate:
    """The widest gate that there is, but for `limits`."""
    return Gate(of(photos, labels, names), **{"max_drop": 100.0, "min_agreement": 0.0, **limits})


def told(logits: np.ndarray) -> Told:
    """A network that answers with these logits, photo by photo."""
    rows = iter(logits)
    return lambda images: np.stack([next(rows) for _ in images])


def sound(labels: np.ndarray, wrong: float, seed: int, classes: int = CLASSES) -> np.ndarray:
    """Logits of a network that is wrong about that share of the photos."""
    rng = np.random.default_rng(seed)
    said = np.where(rng.random(len(labels)) < wrong, rng.integers(0, classes, len(labels)), labels)
    logits = rng.normal(size=(len(labels), classes)).astype(np.float32)
    logits[np.arange(len(labels)), said] += 9
    return logits


LABELS = np.arange(PHOTOS) % CLASSES
BOTH = pytest.mark.parametrize("labels", [LABELS, None], ids=["labelled", "unlabelled"])


@BOTH
def test_logits_that_are_no_numbers_pass_no_gate(hostile: Hostile, photos: PixelFile, labels: np.ndarray | None) -> None:
    draw = random.Random(0)
    for i in range(40):
        logits = sound(LABELS, 0.1, seed=1)
        broken = draw.choice((1, 2, 30, PHOTOS - 1, PHOTOS))
        for row in draw.sample(range(PHOTOS), broken):
            columns = draw.choice(([draw.randrange(CLASSES)], range(CLASSES)))
            logits[row, columns] = draw.choice(NOT_NUMBERS)
        gate = gate_of(photos, labels)
        gate.judge("float", told(sound(LABELS, 0.1, seed=1)))
        report = gate.judge("int8", told(logits))
        share = f"int8: a logit is not a finite number for {broken} of {PHOTOS} photos ({100 * broken / PHOTOS:.2f}%)"
        good = not report.passed and not report.proven and report.not_finite == broken and share in report.refusal
        hostile.expect(good, (i, broken), report.refusal)
        with hostile.raises(AccuracyGateFailed, f"float {i}"):
            gate_of(photos, labels).judge("float", told(logits))


def test_two_networks_without_answers_do_not_agree(hostile: Hostile) -> None:
    for value in (*NOT_NUMBERS, 0.0, 1.0, -3e38, 3e38, 1e-45):
        for kind in (np.float16, np.float32, np.float64):
            with np.errstate(over="ignore"):
                answers = Answers.of(np.full((7, CLASSES), value).astype(kind))
            hostile.expect(agreement(answers.classes, answers.classes) == 0.0, (value, kind))


@BOTH
def test_one_answer_for_every_photo_passes_no_gate(hostile: Hostile, photos: PixelFile, labels: np.ndarray | None) -> None:
    for label in range(CLASSES):
        gate = gate_of(photos, labels)
        gate.judge("float", told(sound(LABELS, 0.1, seed=2)))
        logits = np.zeros((PHOTOS, CLASSES), np.float32)
        logits[:, label] = 1
        report = gate.judge("int8", told(logits))
        hostile.expect(not report.passed and f"nothing but class '{label}'" in report.refusal, label, report.refusal)


@BOTH
def test_equal_logits_are_no_answer(hostile: Hostile, photos: PixelFile, labels: np.ndarray | None) -> None:
    for value in (0.0, -0.0, 1.0, -7.5, 3e38, -3e38, 1e-45):
        equal = np.full((PHOTOS, CLASSES), value, np.float32)
        gate = gate_of(photos, labels)
        gate.judge("float", told(sound(LABELS, 0.1, seed=3)))
        report = gate.judge("int8", told(equal))
        hostile.expect(not report.passed and report.agreement == 0.0, value, report.refusal)
        with hostile.raises(AccuracyGateFailed, f"float {value}"):
            gate_of(photos, labels).judge("float", told(equal))


def test_who_shares_the_highest_logit(hostile: Hostile) -> None:
    """Two of many may, and the lower is the answer, wherever they lie; more, or both of two, are no answer."""
    draw = random.Random(4)
    for classes in (2, 3, 5, 6, 10, 1000):
        for sharing in (1, 2, 3, classes):
            for _ in range(5):
                if sharing > classes:
                    continue
                top = draw.sample(range(classes), sharing)
                logits = np.array([[draw.uniform(-5, 5) for _ in range(classes)]], np.float32)
                logits[0, top] = 6
                expected = min(top) if sharing == 1 or (sharing == 2 and classes > 2) else -1
                hostile.expect(Answers.of(logits).classes[0] == expected, (classes, top[:5]))


def test_labels_in_another_order_are_remarked_on(hostile: Hostile, photos: PixelFile) -> None:
    for classes in (2, 3, 10, 37):
        labels = np.arange(PHOTOS) % classes
        for seed in range(3):
            logits = sound(labels, 0.05, seed, classes)
            for name, shift in (("after", 1), ("before", -1)):
                moved = (labels - shift) % classes
                gate = gate_of(photos, moved)
                gate.judge("float", told(logits))
                hostile.expect(any("check the order" in r for r in gate.remarks), (classes, seed, name), " ".join(gate.remarks))
            mixed = np.random.default_rng(seed).permutation(classes)
            if (mixed == np.arange(classes)).any():
                mixed = np.roll(np.arange(classes), classes // 2)
            gate = gate_of(photos, mixed[labels])
            gate.judge("float", told(logits))
            hostile.expect(any("check the order" in r for r in gate.remarks), (classes, seed, "mixed"), " ".join(gate.remarks))
            gate = gate_of(photos, labels)
            gate.judge("float", told(logits))
            assert gate.remarks == ()  # what is sound is not remarked on


def test_photos_that_judge_nothing_are_remarked_on(hostile: Hostile, photos: PixelFile) -> None:
    constant = np.zeros((PHOTOS, CLASSES), np.float32)
    constant[:, 4] = 1
    for count in range(1, LEAST_PHOTOS):
        gate = gate_of(photos, LABELS[:count])
        gate.judge("float", told(sound(LABELS, 0.0, seed=5)))
        hostile.expect(f"Only {count} photo" in gate.remarks[0], count)
    for label in range(CLASSES):
        gate = gate_of(photos, np.full(50, label))
        gate.judge("float", told(sound(np.full(50, label), 0.1, seed=6)))
        words = (f"All photos are of class '{label}'", f"{CLASSES - 1} of {CLASSES} classes have no photo here")
        hostile.expect(all(any(w in r for r in gate.remarks) for w in words), label, " ".join(gate.remarks))
    for labels in (LABELS, None):
        gate = gate_of(photos, labels)
        gate.judge("float", told(constant))
        hostile.expect("says class '4' for every photo" in gate.remarks[0], "constant", " ".join(gate.remarks))
    with hostile.raises(BadInput, "no photo"):
        gate_of(photos, LABELS[:0])


def test_classes_are_counted_as_by_hand(hostile: Hostile) -> None:
    """Worst class and balanced accuracy against plain loops, for sets of any unevenness."""
    draw = random.Random(7)
    for i in range(100):
        classes = draw.choice((1, 2, 3, 12))
        share = draw.choice((1, 3, 30))
        labels = [min(draw.randrange(classes * share), classes - 1) for _ in range(draw.choice((1, 4, 20, 200)))]
        before, after = ([draw.random() < p for _ in labels] for p in (0.9, draw.choice((0.9, 0.5))))
        rows = []
        for label in sorted(set(labels)):
            own = [k for k, each in enumerate(labels) if each == label]
            was, now = (100 * sum(right[k] for k in own) / len(own) for right in (before, after))
            rows.append((was - now, len(own), label, was, now))
        losing = [r for r in rows if r[1] >= 5 and r[0] > 0]
        arrays = np.array(labels), np.array(before), np.array(after)
        found = worst_class(*arrays, str)
        if losing:
            most = max(r[0] for r in losing)
            good = found is not None and math.isclose(found.drop, most, abs_tol=1e-9) and found.photos >= 5
            good = good and any(r[1:3] == (found.photos, found.label) for r in losing)
        else:
            good = found is None
        hostile.expect(good, i, f"{found} {losing}")
        counts = [r[1] for r in rows]
        balanced = balanced_accuracy(arrays[0], arrays[2])
        expected = sum(r[4] for r in rows) / len(rows) if max(counts) > 2 * min(counts) else None
        hostile.expect(balanced == (None if expected is None else pytest.approx(expected)), (i, "balanced"))


@BOTH
def test_a_lost_class_fails_its_gate_however_small_the_whole_drop(
    hostile: Hostile, photos: PixelFile, labels: np.ndarray | None
) -> None:
    for label in range(CLASSES):
        for lost, limit, passes in ((30, 50, False), (16, 50, False), (15, 50, True), (1, 3, False), (0, 0, True)):
            said = LABELS.copy()
            said[np.flatnonzero(label == LABELS)[:lost]] = (label + 1) % CLASSES
            gate = gate_of(photos, labels, max_class_drop=limit)
            gate.judge("float", told(sound(LABELS, 0.0, seed=8)))
            report = gate.judge("int8", told(sound(said, 0.0, seed=9)))
            good = report.passed is passes and (passes or f"class '{label}' 100.00 → {100 - lost / 0.3:.2f}" in report.refusal)
            hostile.expect(good, (label, lost, limit), report.refusal)


def test_classes_of_any_name_are_named_in_one_printable_line(hostile: Hostile, photos: PixelFile, capsys) -> None:
    labels = np.arange(100) % 2
    for name in NAMES:
        gate = gate_of(photos, labels, (name, "other"), max_class_drop=1)
        gate.judge("float", told(sound(labels, 0.0, seed=10, classes=2)))
        report = gate.judge("int8", told(sound(np.where(np.arange(100) < 20, 1, labels), 0.0, seed=11, classes=2)))
        hostile.expect(report.refusal.startswith("int8: class ") and report.refusal.isprintable(), name, report.refusal[:99])
        tables.by_class(gate.reports)
        lines = capsys.readouterr().out.splitlines()
        hostile.expect(len(lines) == 3 and all(line.isprintable() for line in lines), name, str(lines))


def test_an_engine_that_answers_no_numbers_has_a_record_that_can_be_written(hostile: Hostile, tmp_path: Path) -> None:
    file = tmp_path / "model.engine"
    file.write_bytes(b"engine")
    images = np.zeros((4, 8, 8, 3), np.uint8)
    expected = sound(LABELS[:4], 0.0, seed=12)
    for value in NOT_NUMBERS:
        with np.errstate(invalid="ignore"):
            golden = {"images": images, "int8": expected, "float32": expected}
            record = _checked(Precision.INT8, file, lambda images, v=value: np.full_like(expected, v), golden, None)
            hostile.expect(not record.passed and "answers other than" in record.note, value, record.note)
            with hostile.harmless(value):
                dump_json(record)
            with hostile.raises(EdgeeffError, f"float32 {value}"):
                _checked(Precision.FLOAT32, file, lambda images, v=value: np.full_like(expected, v), golden, None)


def test_frames_without_numbers_leave_the_label_of_the_others(hostile: Hostile) -> None:
    draw = random.Random(13)
    for i in range(40):
        seconds, threshold = draw.choice((0.0, 0.3, 5.0)), draw.choice((0.2, 0.5))
        smooth, clean = LabelSmoother(seconds, threshold), LabelSmoother(seconds, threshold)
        good, expected = True, None
        for at in range(30):
            if draw.random() < 0.3 or at == 0:
                broken = np.full(3, 0.1)
                broken[draw.randrange(3) :] = draw.choice(NOT_NUMBERS)
                good &= smooth.update(at / 10, broken) == expected
            frame = np.array([draw.random() ** 4 + 0.01 for _ in range(3)])
            frame /= frame.sum()
            expected = clean.update(at / 10 + 0.05, frame)
            good &= smooth.update(at / 10 + 0.05, frame) == expected
        hostile.expect(good, (i, seconds, threshold))


@pytest.fixture(scope="module")
def overflowing() -> EfficientNet:
    """Finite weights, and logits that are not."""
    network = create("phi-4", classes=10, resolution=32).eval()
    with torch.no_grad():
        network.bn2.weight.fill_(1e9)  # what arrives at the classifier is large enough
        network.classifier.weight.fill_(3e38)
    return network


def test_a_fit_of_a_network_that_overflows_is_refused(
    hostile: Hostile, overflowing: EfficientNet, few_digits: Path, tmp_path: Path
) -> None:
    network = copy.deepcopy(overflowing)
    preprocess = Preprocess.standard(32, network.variant.mean, network.variant.std)
    fit = ("fit", "--target", "host-cpu", "--latency", 500, "--variant", "phi-4", "--calib", few_digits / "train")
    for value in (3e38, -3e38, 0.0):
        with torch.no_grad():
            network.classifier.weight.fill_(value)
            network.classifier.bias.zero_()
        checkpoint.save(network, tmp_path / "w.safetensors", preprocess, tuple("0123456789"))
        arguments = (*fit, "--weights", tmp_path / "w.safetensors", "--val", few_digits / "val", "--out", tmp_path / "out")
        words = ("float: ", "check the weights" if value == 0 else "for 60 of 60 photos (100.00%)")
        hostile.refused(*arguments, "--accept", code=4, words=words, name=f"weights of {value:g}")
        hostile.expect(not (tmp_path / "out").exists(), f"no bundle of {value:g}")


def test_a_bundle_that_answers_with_no_numbers_is_refused_by_every_verb(
    hostile: Hostile, overflowing: EfficientNet, few_digits: Path, tmp_path: Path
) -> None:
    onnx = to_onnx(overflowing, PREPROCESS, tmp_path / "model.onnx")
    with np.errstate(invalid="ignore"):
        path = small_bundle(tmp_path, onnx, "onnxruntime").path
        hostile.refused("eval", path, "--val", few_digits / "val", code=4, words=("bundle: ", "for 60 of 60 photos"))
        hostile.refused("camera", path, "--source", few_digits / "val/3", words=("numbers that are not finite",))
        hostile.refused("verify", path, words=("not finite",))
