"""A network that is made smaller than it was trained: by a budget or as far as the gate allows, recovered, judged and shipped."""

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import SMALL, refused

from edgeeff import Bundle, Job
from edgeeff.context import open_photos
from edgeeff.data.calibration import Calibration
from edgeeff.data.images import ImageSet
from edgeeff.progress import SILENT

ADAPTED = ["--target", "host-cpu", "--variant", "b0", "--resolution", 48, "--epochs", 1, "--no-flip", "--adapt", "auto"]


@pytest.fixture
def frames(digits: Path, tmp_path: Path) -> Path:
    """Unlabelled photos, other files than those of the digits."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for i, photo in enumerate(sorted((digits / "train").glob("*/*.png"))[:40]):
        (folder / f"{i}.png").write_bytes(photo.read_bytes() + b"again")
    return folder


def test_a_network_becomes_smaller_as_far_as_the_gate_allows(few_digits: Path, frames: Path, run, tmp_path: Path) -> None:
    photos = ("--train", few_digits / "train", "--val", few_digits / "val", "--hold-out", 0.5, "--unlabelled", frames)
    done = run("fit", *ADAPTED, *photos, "--crop", 1, "--max-drop", 100, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    manifest = Bundle.open(tmp_path / "out").manifest
    assert [s.step for s in manifest.steps][:2] == ["float", "float, crop 0.873"]
    assert re.search(r"precision +activation +runtime +px +parts out", done.stdout)
    assert ("made smaller by" in done.stdout) == bool(manifest.made_smaller_by)
    smaller = [s for s in manifest.siblings if s.resolution < 48 or s.left_out]
    assert smaller
    quantized = any(s.precision.quantized for s in smaller)  # not where another precision is clearly faster
    assert bool(re.search(r"strategy +activation +px +parts out", done.stdout)) is quantized
    assert {s.activation for s in smaller} == {"hardswish"}  # it was trained with what the target prefers
    reductions = {r.name: r for r in manifest.reductions}
    assert {"32 px", "blocks.1.1", "blocks.1.1.se"} <= set(reductions)
    assert all(r.saves_ms >= 0 and r.loss >= 0 for r in manifest.reductions)
    assert any(row.left_out or row.resolution == 32 for row in manifest.ladder)
    assert manifest.preprocess.resolution == manifest.resolution == manifest.preprocess.resize
    assert manifest.held_out is not None
    evaluated = json.loads(run("eval", tmp_path / "out", "--val", few_digits / "val", "--json").stdout)
    assert evaluated["images"] == len(ImageSet.open(few_digits / "val"))
    assert json.loads(run("verify", tmp_path / "out", "--json").stdout)["ok"] is True
    page = (tmp_path / "out/report.html").read_text()
    assert "What makes the network smaller" in page
    assert "data-path='reductions.0.saves_ms'" in page


def test_a_budget_that_is_met_leaves_the_network_as_it_is(few_digits: Path, run, tmp_path: Path) -> None:
    photos = ("--train", few_digits / "train", "--val", few_digits / "val", "--max-drop", 100)
    done = run("fit", *ADAPTED, *photos, "--latency", 1000, "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert "so the network stays as it is" in result["verdict"]
    assert result["left_out"] == []
    assert {s["resolution"] for s in result["siblings"]} == {48}


def photos_of(job: Job):
    return open_photos(job, Calibration.load("default"), SILENT)


def test_networks_recover_on_unlabelled_photos_too(digits: Path, frames: Path) -> None:
    job = Job("host-cpu", "out", digits / "val", train=digits / "train", flip=False)
    without, photos = photos_of(job), photos_of(Job(**{**vars(job), "unlabelled": frames}))
    assert len(photos.learning) == len(without.learning) + 40
    assert {path.parent for path in photos.learning.paths} >= {frames}
    assert photos.calibration.paths == without.calibration.paths  # they set no ranges


@pytest.mark.parametrize("folder", ["val", "test"])
def test_unlabelled_photos_that_judge_are_refused(digits: Path, frames: Path, run, tmp_path: Path, folder: str) -> None:
    shutil.copytree(digits / "val", tmp_path / "test")
    for file in (tmp_path / "test").rglob("*.png"):
        file.write_bytes(file.read_bytes() + b"other")
    shutil.copy(next((tmp_path / "test" if folder == "test" else digits / "val").rglob("*.png")), frames / "seen.png")
    photos = ("--train", digits / "train", "--val", digits / "val", "--test", tmp_path / "test", "--unlabelled", frames)
    refused(run("fit", *SMALL, *photos, "--out", tmp_path / "out"), 2, "1 of", "seen.png", "Give disjoint folders")


@pytest.mark.parametrize("share", [0, 1.5, "nan", "-1"])
def test_an_odd_crop_is_refused(digits: Path, run, tmp_path: Path, share) -> None:
    photos = ("--train", digits / "train", "--val", digits / "val", f"--crop={share}")
    refused(run("fit", *SMALL, *photos, "--out", tmp_path / "out"), 2, "crop")
