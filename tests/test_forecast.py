"""What a fit says before it takes long, and how it splits one folder of photos."""

import contextlib
import json
import os
import pty
import re
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cameras import Said
from conftest import SMALL
from contexts import context_of

from edgeeff import BadInput, Budget, Job
from edgeeff.context import Photos, open_photos
from edgeeff.data.calibration import Calibration
from edgeeff.data.images import ImageSet, PixelFile
from edgeeff.data.preprocess import Preprocess
from edgeeff.errors import BudgetNotMet
from edgeeff.forecast import announce
from edgeeff.network import checkpoint
from edgeeff.network.model import create
from edgeeff.network.train import Recipe
from edgeeff.network.variants import variant
from edgeeff.progress import SILENT, TerminalProgress, spoken
from edgeeff.weights import prepare_weights


def files(folder: Path, names: dict[str, bytes]) -> None:
    for name, content in names.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def sides(folder: Path, seed: int = 0) -> dict[str, int]:
    """The part that each content is in."""
    parts = ImageSet.open(folder).parts((0.15, 0.15), seed, least=1)
    return {path.read_bytes().decode(): side for side, part in enumerate(parts) for path in part.paths}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files(tmp_path, {f"{c}/{i}.jpg": f"{c} {i}".encode() for c, n in (("cat", 40), ("dog", 100)) for i in range(n)})
    return tmp_path


def test_each_class_has_its_share_on_every_side(folder: Path) -> None:
    test, validation, training = ImageSet.open(folder).parts((0.15, 0.15), least=1)
    assert [[part.labels.count(label) for label in (0, 1)] for part in (test, validation, training)] == [[6, 15], [6, 15], [28, 70]]


def test_the_split_depends_on_contents_and_seed_alone(folder: Path) -> None:
    before = sides(folder)
    for path in list(folder.glob("*/*.jpg")):
        path.rename(path.with_name(f"renamed-{hash(path.name)}.jpg"))
    assert sides(folder) == before
    assert sides(folder, seed=1) != before


def test_a_photo_more_moves_at_most_one_other_across_each_border(folder: Path) -> None:
    before = sides(folder)
    for i in range(20):
        files(folder, {f"dog/new-{i}.jpg": f"new {i}".encode()})
        after = sides(folder)
        assert sum(after[content] != side for content, side in before.items()) <= 2
        before = after


def test_copies_of_a_photo_stay_on_one_side_even_in_another_class(folder: Path) -> None:
    files(folder, {f"cat/copy-{i}.jpg": f"dog {i}".encode() for i in range(100)})
    parts = [{path.read_bytes() for path in part.paths} for part in ImageSet.open(folder).parts((0.15, 0.15), least=1)]
    assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]


def job(**options: object) -> Job:
    return Job("host-cpu", "out", **options)


@pytest.mark.parametrize("other", [{"train": "t"}, {"val": "v"}, {"calib": "c"}, {"test": "t"}, {"hold_out": 0.2}])
def test_one_folder_of_photos_goes_with_no_other(other: dict[str, object]) -> None:
    with pytest.raises(BadInput, match=f"leave out --{next(iter(other)).replace('_', '-')}"):
        job(photos="p", **other)


def test_published_weights_are_refused_where_there_are_none_or_nothing_tells_which() -> None:
    assert job(photos="p", weights="auto").weights == "auto"  # of the variant that is chosen
    with pytest.raises(BadInput, match="phi0.5: no published weights are known"):
        job(photos="p", weights="auto", variants=("phi0.5",))
    with pytest.raises(BadInput, match="--weights belong to one variant"):
        job(val="v", calib="c", weights="auto")


def test_photos_of_one_folder_are_counted_by_class_and_split(few_digits: Path, tmp_path: Path) -> None:
    shutil.copytree(few_digits / "train", tmp_path / "photos")
    shutil.copy(next((few_digits / "val/7").iterdir()), tmp_path / "photos/7/more.png")
    photos = open_photos(job(photos=tmp_path / "photos"), Calibration.load("default"), SILENT)
    digests = [set(each.digests) for each in (photos.training, photos.validation, photos.test)]
    assert len(set.union(*digests)) == sum(map(len, digests)) == 61
    assert str(photos) == (
        "photos: 10 classes; training 41 (4 of 0 to 5 of 7); validation 10 (1 of each class); test 10 (1 of each class)"
    )


def test_a_class_that_is_too_small_to_be_split_is_named(few_digits: Path, tmp_path: Path) -> None:
    shutil.copytree(few_digits / "train", tmp_path / "photos")
    for path in sorted((tmp_path / "photos/3").iterdir())[2:]:
        path.unlink()
    with pytest.raises(BadInput, match="class '3' has 2 photos, too few"):
        open_photos(job(photos=tmp_path / "photos"), Calibration.load("default"), SILENT)


@pytest.fixture
def small(digits: Path, tmp_path: Path):
    """A context with 100 digits that train and 100 that judge, and B0 with random weights."""
    torch.manual_seed(0)
    model, preprocess = create("b0", classes=10, resolution=32), Preprocess(32, 32, (127.0,) * 3, (128.0,) * 3)
    images = ImageSet.open(digits / "train").draw(100)
    with torch.no_grad():
        model.classifier.bias += torch.randn(10)
    context, _ = context_of("host-cpu", PixelFile(images, preprocess), model.eval(), tmp_path, agreement=0)
    photos = Photos(ImageSet.open(digits / "val").draw(100), images, images, images)
    return replace(context, photos=photos, progress=Said()), model, preprocess


@pytest.mark.slow
def test_training_from_scratch_on_few_photos_is_told_the_time_and_the_better_way(small, tmp_path: Path) -> None:
    context, model, preprocess = small
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    announce(context, model, preprocess, "", (Recipe(epochs=3, lr=1e-3, batch=25), tmp_path / "none.pt"))
    network, minutes, *warnings = context.progress.lines
    assert network == "network: b0 at 32 px, silu, from scratch"
    assert minutes.startswith("time: about ")
    assert "(3 epochs " in minutes
    assert "10 photos a class are few to train from scratch" in warnings[0]
    assert "--weights auto (hf-hub:timm/efficientnet_b0.ra_in1k)" in warnings[0]
    assert "one of 100 validation photos is 1.00 points, more than --max-drop 0.5" in warnings[1]
    assert "200 photos would let it lose one" in warnings[1]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())  # a copy was measured


@pytest.mark.slow
def test_a_network_that_is_not_trained_is_told_the_time_alone(small) -> None:
    context, model, preprocess = small
    context = replace(context, job=replace(context.job, max_drop=1.0))
    announce(context, model, preprocess, "w.pth", None)
    assert [line.partition(":")[0] for line in context.progress.lines] == ["network", "time"]
    assert "epochs" not in context.progress.lines[1]


@pytest.mark.slow
def test_a_network_that_misses_the_budget_is_refused_before_it_is_trained(small, few_digits: Path, monkeypatch) -> None:
    monkeypatch.setattr("edgeeff.weights.LONG", 0.0)
    context, _, _ = small
    sets = {"train": few_digits / "train", "val": few_digits / "val"}
    asked = replace(context.job, **sets, weights=None, variants=("lite0",), resolution=(32,), budget=Budget(latency_ms=0.05))
    context = replace(context, job=asked, budget=asked.budget)
    with pytest.raises(BudgetNotMet, match=r"lite0 at 32 px needs p50 .* That budget"):
        prepare_weights(context, variant("lite0").at(32))
    assert not list(context.cache.root.glob("*training*"))


@pytest.mark.slow
def test_auto_loads_the_published_weights_at_the_resolution_that_was_chosen(
    small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, model, preprocess = small
    folder = tmp_path / "hub"
    folder.mkdir()
    checkpoint.save(model, folder / "model.safetensors", preprocess, ())
    (folder / "config.json").write_text(json.dumps({"architecture": "efficientnet_b0"}))
    asked = []
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda name, file: asked.append(name) or folder / file)
    context = replace(
        context, job=replace(context.job, weights="auto", max_drop=50.0), photos=replace(context.photos, training=None)
    )
    weights = prepare_weights(context, model.variant.at(64))
    assert set(asked) == {"timm/efficientnet_b0.ra_in1k"}
    assert (weights.variant.resolution, weights.preprocess.resolution) == (64, 64)


def test_a_folder_of_photos_becomes_a_bundle_that_was_judged_on_test_photos(few_digits: Path, run, tmp_path: Path) -> None:
    done = run("fit", *SMALL, "--photos", few_digits / "train", "--max-drop", 50, "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0].startswith("photos: 10 classes; training 40 (4 of each class); validation 10 (1 of each class)")
    assert lines[1] == "network: lite0 at 32 px, relu6, from scratch"
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert (manifest["training_photos"], manifest["validation_photos"]) == (40, 10)
    assert manifest["held_out"]["steps"][0]["images"] == 10
    assert len(manifest["training_sha256"]) == 64


def written_to(reader: int) -> Iterator[str]:
    """All that a terminal was sent, whose other end is closed: one read may give only a part of it."""
    with os.fdopen(reader, "rb", buffering=0) as terminal, contextlib.suppress(OSError):  # Linux ends a terminal by EIO
        while part := terminal.read(100_000):
            yield part.decode()


def test_a_terminal_has_one_line_with_stage_share_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    with os.fdopen(writer, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with (progress := TerminalProgress()).whole():
            progress.expect(50, then=50)
            for i in progress.track(range(3), "epoch 1/2", 3):
                if i == 1:
                    time.sleep(0.6)  # the line is drawn four times a second
                    progress.say("said in between")
        monkeypatch.undo()
    shown = "".join(written_to(reader))
    assert "said in between" in shown
    assert re.search(r"epoch 1/2 1/3 .*\d%.*(\d s|2 min) left", shown)


def test_spans_are_spoken_in_the_unit_that_suits_them() -> None:
    assert [spoken(s) for s in (3.2, 89, 120, 5000, 9000)] == ["3 s", "89 s", "2 min", "83 min", "2.5 h"]
