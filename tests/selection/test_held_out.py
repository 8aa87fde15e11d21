"""Photos that no choice has seen: kept apart, judged once, and said where they disagree with those that chose."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from cameras import Said
from conftest import SMALL, refused

from edgeeff import Bundle, Job
from edgeeff.context import open_photos
from edgeeff.data.calibration import Calibration
from edgeeff.data.images import ImageSet
from edgeeff.measurement.accuracy import StepReport

LABELLED = StepReport("int8", 84.0, 96.0, 0.1, (-0.5, 0.7), 98.0, 1300, True, False, None, 1.0)
UNLABELLED = replace(LABELLED, top1=None, top5=None, drop=None, drop_ci=None)


def test_a_split_is_disjoint_complete_and_the_same_for_the_same_photos(digits: Path) -> None:
    whole = ImageSet.open(digits / "val")
    rest, held = whole.split(0.3)
    assert len(held) == 90
    assert sorted(rest.paths + held.paths) == sorted(whole.paths)
    assert all(path.parent.name == whole.classes[label] for path, label in zip(held.paths, held.labels or (), strict=True))
    assert whole.split(0.3)[1].paths == held.paths != whole.split(0.3, seed=1)[1].paths


def test_copies_of_a_photo_stay_on_one_side(digits: Path, tmp_path: Path) -> None:
    photos = sorted((digits / "val/3").iterdir())[:10]
    for i, photo in enumerate(photos * 3):
        shutil.copy(photo, tmp_path / f"{i}.png")
    rest, held = ImageSet.open(tmp_path).split(0.5)
    assert not set(rest.digests) & set(held.digests)
    assert (len(rest), len(held)) == (15, 15)


@pytest.mark.parametrize(
    ("report", "other", "differs"),
    [
        (LABELLED, replace(LABELLED, drop=0.9, drop_ci=(0.3, 1.5)), False),  # 0.8 apart, 0.85 is within chance
        (LABELLED, replace(LABELLED, drop=1.1, drop_ci=(0.5, 1.7)), True),
        (UNLABELLED, replace(UNLABELLED, agreement=97.1), False),  # 0.9 apart, 1.2 is within chance
        (UNLABELLED, replace(UNLABELLED, agreement=96.5), True),
    ],
)
def test_losses_differ_where_sampling_does_not_explain_it(report: StepReport, other: StepReport, differs: bool) -> None:
    assert report.differs_from(other) is differs
    assert other.differs_from(report) is differs


def test_what_ships_is_judged_on_the_photos_held_out_and_on_no_others(digits: Path, run, tmp_path: Path) -> None:
    photos = ("--train", digits / "train", "--val", digits / "val", "--hold-out", 0.4, "--max-drop", 20)
    done = run("fit", *SMALL, *photos, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "accuracy on 180 photos" in done.stdout
    assert "accuracy on 120 test photos, which no choice has seen" in done.stdout
    assert "On 120 photos that no choice has seen: top-1" in done.stdout
    manifest = Bundle.open(tmp_path / "out").manifest
    held_out = manifest.held_out
    assert held_out is not None
    assert manifest.validation_photos == 180
    assert held_out.steps[0].step == "float, test photos"
    integers = [s for s in manifest.siblings if s.precision.quantized]
    assert len(held_out.steps) == 2 + len(integers) - manifest.precision.quantized  # what ships, and every other form in INT8
    # The same photos as a folder of their own, judged by another verb, give the same figure of the same file.
    held = ImageSet.open(digits / "val").split(0.4)[1]
    for path in held.paths:
        (tmp_path / "test" / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "test" / path.parent.name)
    answer = json.loads(run("eval", tmp_path / "out", "--val", tmp_path / "test", "--json").stdout)
    assert answer["top1"] == pytest.approx(held_out.steps[1].top1, abs=1e-6)
    confidence = manifest.confidence
    assert confidence is not None
    assert confidence.after is not None
    assert (confidence.photos, confidence.judged_on, confidence.after.photos) == (180, "test", 120)
    assert answer["temperature"] == confidence.temperature
    assert answer["reliability"]["error"] == pytest.approx(confidence.after.error, abs=1e-3)  # the same kernels, in other batches
    assert f"Softmax temperature {confidence.temperature:.3g}" in done.stdout
    assert f"calibration error {confidence.after.error:.2f}%" in done.stdout
    unknown = manifest.unknown
    assert unknown is not None
    assert unknown.test is not None
    assert (unknown.photos, unknown.test.photos, unknown.false_alarms) == (180, 120, 5)
    assert answer["false_alarms"]["percent"] == pytest.approx(unknown.test.percent, abs=1)  # one photo may lie at the threshold
    assert f"Of these photos {unknown.test} get the label unknown" in done.stdout
    page = (tmp_path / "out/report.html").read_text()
    assert "data-path='unknown.test.percent'" in page
    assert "On photos that no choice has seen" in page
    assert "data-path='held_out.steps.1.top1'" in page
    assert "data-path='confidence.after.error'" in page


def test_unlabelled_test_photos_are_judged_by_agreement(fitted, digits: Path, run, tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    for i, photo in enumerate(sorted((digits / "val").glob("*/*.png"))[::6]):
        (tmp_path / "test" / f"{i}.png").write_bytes(photo.read_bytes())
    train, val = ImageSet.open(digits / "train").split(0.2)
    for name, photos in (("train", train), ("val", val)):
        for path in photos.paths:
            (tmp_path / name / path.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, tmp_path / name / path.parent.name)
    photos = ("--train", tmp_path / "train", "--val", tmp_path / "val", "--test", tmp_path / "test", "--max-drop", 20)
    done = run("fit", *SMALL, *photos, "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    steps = json.loads(done.stdout)["held_out"]["steps"]
    assert {(s["top1"], s["images"]) for s in steps} == {(None, 50)}
    assert steps[0]["agreement"] == 100.0


@pytest.mark.parametrize("folder", ["train", "val", "calib"])
def test_test_photos_that_occur_elsewhere_are_refused(digits: Path, run, tmp_path: Path, folder: str) -> None:
    where = {name: digits / ("val" if name == "val" else "train") for name in ("train", "val", "calib")}
    where["calib"] = tmp_path / "calib"
    for name in ("calib", "test"):
        (tmp_path / name).mkdir()
    for i, photo in enumerate(sorted((digits / "val/3").iterdir())[:4]):
        photo_of = photo.read_bytes() + b"changed"  # the same pixels, another file
        (tmp_path / "calib" / f"c{i}.png").write_bytes(photo_of)
        (tmp_path / "test" / f"t{i}.png").write_bytes(photo_of + b"again")
    shutil.copy(next(iter(sorted(where[folder].rglob("*.png")))), tmp_path / "test/renamed.png")
    photos = [part for name, path in where.items() for part in (f"--{name}", path)]
    done = run("fit", *SMALL, *photos, "--test", tmp_path / "test", "--out", tmp_path / "out")
    refused(done, 2, "1 of", "renamed.png", "Give disjoint folders")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--hold-out", 1), ("--hold-out 1.0: expected a share",)),
        (("--hold-out", "nan"), ("--hold-out: 'nan': expected a number",)),
        (("--hold-out", 0.0001), ("--hold-out 0.0001 of 300 photos", "Give more photos")),
        (("--hold-out", 0.5, "--test", "photos"), ("Give one of them",)),
        (("--test", "no/such"), ("no/such: no such folder",)),
    ],
)
def test_odd_held_out_photos_are_refused(digits: Path, run, tmp_path: Path, options, words) -> None:
    photos = ("--train", digits / "train", "--val", digits / "val")
    refused(run("fit", *SMALL, *photos, *options, "--out", tmp_path / "out"), 2, *words)


@pytest.mark.parametrize("seed", range(4))  # the copy is in either part
def test_a_training_photo_that_also_judges_is_left_out_in_whichever_part_it_is(digits: Path, tmp_path: Path, seed: int) -> None:
    shutil.copytree(digits / "train", tmp_path / "train")
    copied = next(iter(sorted((digits / "val/3").iterdir())))
    shutil.copy(copied, tmp_path / "train/3/copy.png")
    job = Job("host-cpu", "out", str(digits / "val"), train=str(tmp_path / "train"), hold_out=0.5, seed=seed)
    said = Said()
    photos = open_photos(job, Calibration.load("default"), said)
    assert photos.training is not None
    assert photos.test is not None
    assert [copied in part.paths for part in (photos.validation, photos.test)].count(True) == 1
    assert tmp_path / "train/3/copy.png" not in photos.training.paths
    assert any("Left out of" in line for line in said.lines)
