"""Photos unlike those of a fit: which are flagged, by the stages of a fit and by `eval`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL, refused
from PIL import Image

from edgeeff import Bundle
from edgeeff.data.images import ImageSet, PixelFile


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty photos of noise, whose labels nobody knows."""
    folder, rng = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for i in range(40):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / f"{i}.png")
    return folder


def test_eval_states_both_shares(fitted, digits: Path, noise: Path, run) -> None:
    done = run("eval", fitted[0], "--val", digits / "val", "--foreign", noise, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    bundle = Bundle.open(fitted[0])
    see = bundle.load_scored(throughput=True)
    for name, folder, photos in (("false_alarms", digits / "val", 300), ("foreign", noise, 40)):
        distances = np.concatenate([see(batch)[1] for batch in PixelFile(ImageSet.open(folder), bundle.preprocess).batches(64)])
        assert answer[name]["photos"] == photos
        assert answer[name]["percent"] == pytest.approx(100 * (distances > 1).mean(), abs=1)  # one photo may lie at the threshold
        low, high = answer[name]["interval"]
        assert low <= answer[name]["percent"] <= high
    assert answer["false_alarms"]["percent"] <= 5  # of the photos that chose the threshold
    plain = run("eval", fitted[0], "--val", digits / "val", "--foreign", noise).stdout
    assert "of 40 foreign photos" in plain
    assert "of these 300 photos, which are false alarms" in plain


def test_foreign_photos_need_a_bundle_that_tells_them(fitted, few_digits: Path, noise: Path, run, tmp_path: Path) -> None:
    photos = ("--train", few_digits / "train", "--val", few_digits / "val", "--max-drop", 20, "--min-agreement", 0)
    done = run("fit", *SMALL, *photos, "--out", tmp_path / "out", "--false-alarms", 0, "--accept")
    assert done.returncode == 0, done.stderr
    assert "unknown" not in done.stdout
    bundle = Bundle.open(tmp_path / "out")
    assert bundle.manifest.unknown is None
    assert "known.npz" not in bundle.manifest.files
    refused(run("eval", bundle.path, "--val", few_digits / "val", "--foreign", noise), 2, "--foreign", "has no label unknown")
    answer = json.loads(run("eval", bundle.path, "--val", few_digits / "val", "--json").stdout)
    assert (answer["false_alarms"], answer["foreign"]) == (None, None)


@pytest.mark.parametrize("percent", [-1, 51, "x"])
def test_shares_of_false_alarms_that_make_no_sense_are_refused(digits: Path, run, tmp_path: Path, percent: object) -> None:
    photos = ("--train", digits / "train", "--val", digits / "val", "--out", tmp_path / "out")
    refused(run("fit", *SMALL, *photos, "--false-alarms", percent), 2, "--false-alarms")
