"""A bundle whose network goes on learning from collected frames."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import refused
from networks import trained
from PIL import Image

from edgeeff import BadInput, Bundle, backends, job_file
from edgeeff.data.collected import Collected
from edgeeff.data.images import ImageSet, PixelFile
from edgeeff.data.light import Relighting, relit
from edgeeff.data.preprocess import Preprocess
from edgeeff.export.onnx import from_onnx, to_onnx
from edgeeff.network.model import predict
from edgeeff.network.reduce import Reduction, reduced, removable
from edgeeff.network.swap import swapped
from edgeeff.precision import Precision
from edgeeff.selection.improvement import network_of

pytestmark = pytest.mark.slow

DIM = np.array([0.55, 0.4, 0.24])  # what a lamp leaves of red, green and blue


def under_lamp(photo: Path, to: Path) -> None:
    with Image.open(photo) as image:
        Image.fromarray((np.asarray(image.convert("RGB")) * DIM).round().astype(np.uint8)).save(to)


@pytest.fixture(scope="module")
def frames(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training digits under a lamp, without labels, each twice."""
    folder = tmp_path_factory.mktemp("frames")
    for i, photo in enumerate(sorted((digits / "train").glob("*/*.png"))):
        under_lamp(photo, folder / f"{i:03}.png")
        under_lamp(photo, folder / f"{i:03}b.png")
    return folder


@pytest.mark.parametrize("activation", ["silu", "hardswish"])
def test_a_network_comes_back_from_its_graph_with_the_same_answers(activation: str, tmp_path: Path) -> None:
    """Also one with padding at one side only, and without some blocks and gates."""
    whole = trained("v2-b0", classes=10, resolution=64)
    whole = whole if activation == "silu" else swapped(whole, activation)
    parts = tuple(part.name for part in removable(whole.variant) if part.name in ("blocks.1.1", "blocks.4.2.se"))
    model = reduced(whole, Reduction(64, parts)).eval()
    preprocess = Preprocess.standard(64, model.variant.mean, model.variant.std)
    back = from_onnx(to_onnx(model, preprocess, tmp_path / "model.onnx"), model.variant, 10)
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    expected = predict(model, preprocess)(images)
    assert expected.std() > 0
    np.testing.assert_allclose(predict(back, preprocess)(images), expected, atol=1e-3 * expected.std())
    with pytest.raises(BadInput, match=r"is a layer either of the file or of v2-b0"):
        from_onnx(tmp_path / "model.onnx", whole.variant, 10)
    with pytest.raises(BadInput, match=r"classifier.weight is \(10, 1280\), expected \(12, 1280\)"):
        from_onnx(tmp_path / "model.onnx", model.variant, 12)


def test_the_network_of_a_bundle_answers_as_its_graph(portable: tuple[Path, dict]) -> None:
    bundle = Bundle.open(portable[0])
    model = from_onnx(bundle.path / "model.onnx", network_of(bundle), bundle.manifest.classes)
    images = bundle.golden()["images"]
    theirs = backends.get("onnxruntime").load(bundle.path / "model.onnx", precision=Precision.FLOAT32)(images)
    np.testing.assert_allclose(predict(model, bundle.preprocess)(images), theirs, atol=1e-3 * theirs.std())


def test_the_light_of_frames_is_taken_back(tmp_path: Path) -> None:
    """A gain for each channel, which a table can undo but for rounding; and what is no frame stays as it is."""
    chance = np.random.default_rng(0)
    for i in range(40):
        (tmp_path / "own").mkdir(exist_ok=True)
        (tmp_path / "frames").mkdir(exist_ok=True)
        pixels = chance.integers(0, 256, (8, 8, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "own" / f"{i}.png")
        under_lamp(tmp_path / "own" / f"{i}.png", tmp_path / "frames" / f"{i}.png")
    preprocess = Preprocess.standard(64, (0, 0, 0), (1, 1, 1)).cropped(1.0)
    own, frames = (PixelFile(ImageSet.open(tmp_path / name), preprocess) for name in ("own", "frames"))
    light = Relighting.between(own, frames)
    photo, frame = own.rows(0, 1)[0], frames.rows(0, 1)[0]
    paths = own.images.paths[0], frames.images.paths[0]
    assert np.abs(light.seen(frame, paths[1], as_frame=False).astype(int) - photo).mean() < 3
    assert np.abs(light.seen(photo, paths[0], as_frame=True).astype(int) - frame).mean() < 3
    assert (light.seen(photo, paths[0], as_frame=False) == photo).all()
    assert (light.seen(frame, paths[1], as_frame=True) == frame).all()
    assert (relit(np.uint8([[0, 0, 0], [255, 255, 255]]), light.to_frames)[1] < [150, 110, 70]).all()


def test_alike_frames_count_once(frames: Path, tmp_path: Path) -> None:
    found = Collected.open(frames, None)
    assert found.labelled is None
    assert found.left_out >= 300
    assert len(found.unlabelled) + found.left_out == 600
    assert not any(path.stem.endswith("b") for path in found.unlabelled.paths)
    for i in range(40):
        Image.new("RGB", (64, 48)).save(tmp_path / f"{i}.png")
    with pytest.raises(BadInput, match="40 frames, of which 1 are different: expected 32 or more"):
        Collected.open(tmp_path, None)


def test_some_frames_have_labels(frames: Path, tmp_path: Path) -> None:
    listing = frames / "labels.txt"
    listing.write_text("".join(f"{i:03}.png\t{i // 30}\n" for i in range(0, 300, 3)))
    found = Collected.open(frames, None)
    listing.unlink()
    assert found.labelled is not None
    assert found.labelled.labels is not None
    assert found.unlabelled.labels is None
    assert all(label == int(path.stem) // 30 for path, label in zip(found.labelled.paths, found.labelled.labels, strict=True))
    assert not {path.name for path in found.labelled.paths} & {path.name for path in found.unlabelled.paths}
    with pytest.raises(BadInput, match="has no classes"):
        Collected.open(frames, frames)


@pytest.mark.parametrize("labelled", [False, True])
def test_a_bundle_learns_from_frames_under_another_lamp(
    fitted: tuple[Path, dict], frames: Path, run, tmp_path: Path, labelled: bool
) -> None:
    """For some seconds, by a job file of its own."""
    before, job = Bundle.open(fitted[0]), tmp_path / "job.yaml"
    told = yaml.safe_load((before.path / "fit.yaml").read_text())
    places = {name: str(before.path / told[name]) for name in ("train", "val", "out")}
    job.write_text(yaml.safe_dump({**told, **places, "time_budget": 0.4}))
    listing = frames.parent / "some.txt"
    listing.write_text("".join(f"{frames.name}/{i:03}.png\t{i // 30}\n" for i in range(0, 300, 3)))
    words = ["--job", job, "--collected", frames, "--out", tmp_path / "improved", "--accept", "--json"]
    done = run("improve", before.path, *words, *(["--labels", listing] if labelled else []))
    assert done.returncode == 0, done.stderr
    after = Bundle.open(tmp_path / "improved")
    found = after.manifest.improvement
    assert found is not None
    assert found.before == before.manifest.date
    assert found.labelled == labelled
    assert found.frames + found.left_out == 600
    assert "frames that nothing was learned from" in after.manifest.verdict
    assert found.old[0].top1 == pytest.approx(json.loads(done.stdout)["improvement"]["old"][0]["top1"])
    assert (after.path / "fit.yaml").read_text().count("improve: ") == 1
    assert "--improve" in after.manifest.command
    assert after.labels == before.labels
    told_again = job_file.words(after.path / "fit.yaml")
    assert f"--improve={before.path}" in told_again
    assert f"--collected={frames}" in told_again


def test_what_cannot_improve_a_bundle(fitted: tuple[Path, dict], frames: Path, digits: Path, run, tmp_path: Path) -> None:
    def improve(*words: object) -> object:
        return run("improve", fitted[0], "--out", tmp_path / "out", *words)

    refused(improve("--collected", tmp_path / "nothing"), 2, "nothing")
    refused(improve("--collected", digits / "val"), 2, "also occur in")
    listing = frames.parent / "foreign.txt"
    listing.write_text("".join(f"{frames.name}/{i:03}.png\tno such class\n" for i in range(300)))
    refused(improve("--collected", frames, "--labels", listing), 2, "no such class")
    assert not (tmp_path / "out").exists()
