import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeeff import BadInput, Bundle
from edgeeff.bundle import publish, replaceable, seal
from edgeeff.data.frames import View
from edgeeff.manifest import digest


@pytest.fixture
def copy(fitted, tmp_path: Path) -> Path:
    return Path(shutil.copytree(fitted[0], tmp_path / "bundle"))


def edit(bundle: Path, **changes: object) -> None:
    path = bundle / "manifest.json"
    manifest = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({**manifest, "digest": digest(manifest)}))


def test_a_bundle_says_everything_about_its_file(fitted) -> None:
    bundle = Bundle.open(fitted[0])
    written = json.loads((fitted[0] / "manifest.json").read_text())
    for key in ("variant", "preprocess", "steps", "latency_ms", "siblings", "device", "versions", "date", "files", "schema"):
        assert written[key], key
    assert bundle.labels == tuple("0123456789")
    assert set(bundle.manifest.files) == {p.name for p in bundle.path.iterdir()} - {"manifest.json"}


def test_a_loaded_bundle_gives_the_golden_logits(fitted) -> None:
    bundle = Bundle.open(fitted[0])
    golden = bundle.golden()
    images, logits = golden["images"], golden["logits"]
    assert bundle.load()(images) == pytest.approx(logits, abs=1e-4)  # the same kernels ran before
    assert bundle.load(throughput=True)(images) == pytest.approx(logits, abs=1e-4)
    assert bundle.verify()["images"] < 1e-3


def test_scored_photos_have_the_logits_of_photos_and_the_distances_of_their_features(fitted) -> None:
    bundle = Bundle.open(fitted[0])
    images, unknown, known = bundle.golden()["images"], bundle.manifest.unknown, bundle.known
    assert unknown is not None
    assert known is not None
    file = bundle.path / bundle.manifest.model
    found = bundle.runtime().load(file, precision=bundle.manifest.precision, features=True)(images)
    expected, plain = known.distances(found[:, 10:]) / unknown.threshold, bundle.load()(images)
    exact = bundle.manifest.precision.rest == "float32"
    near = 1e-4 if exact else 0.1 * float(plain.std())  # an output more may change what is fused, and so where bf16 rounds
    for throughput in (False, True):
        logits, distances = bundle.load_scored(throughput=throughput)(images)
        assert logits == pytest.approx(found[:, :10], abs=1e-4)
        assert logits == pytest.approx(plain, abs=near)
        assert distances == pytest.approx(expected, abs=1e-4)
    view = View.standard(bundle.preprocess)
    logits, distances = bundle.watch_scored(view.frames)(view.frame(images[0]))
    assert logits == pytest.approx(bundle.watch(view.frames)(view.frame(images[0])), abs=near)
    assert distances == pytest.approx(bundle.load_scored()(view.seen(view.frame(images[0])))[1], abs=0.1)  # it rounds by itself


def test_a_bundle_of_before_tells_nothing_of_unknown_photos(copy: Path) -> None:
    written = json.loads((copy / "manifest.json").read_text())
    del written["unknown"], written["files"]["known.npz"]
    (copy / "known.npz").unlink()
    (copy / "manifest.json").write_text(json.dumps({**written, "digest": digest(written)}))
    older = Bundle.open(copy)
    images = older.golden()["images"]
    logits, distances = older.load_scored()(images)
    assert (logits == older.load()(images)).all()
    assert older.known is None
    assert np.isnan(distances).all()
    assert distances.shape == (len(images),)


def test_a_bundle_of_before_has_features_of_the_first_stage_that_do_not_count(copy: Path) -> None:
    bundle = Bundle.open(copy)
    images, known = bundle.golden()["images"], bundle.known
    assert known
    distances = bundle.load_scored()(images)[1]
    mean, scale = (np.pad(each, (16, 0)) for each in (known.mean, known.scale))
    np.savez_compressed(copy / "known.npz", mean=mean, scale=scale, components=np.pad(known.components, ((0, 0), (16, 0))))
    assert (seal(copy, bundle.manifest).load_scored()(images)[1] == distances).all()


MEAN, COMPONENTS = np.zeros(1280, np.float32), np.zeros((64, 1280), np.float32)
SHAPES = r"expected \(D,\), \(D,\) and \(k, D\)"


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"mean": MEAN}, "known.npz has no components"),
        ({"mean": MEAN[:5], "components": COMPONENTS}, SHAPES),
        ({"mean": MEAN[None], "components": COMPONENTS}, SHAPES),
        ({"mean": MEAN[:0], "components": COMPONENTS[:, :0]}, SHAPES),
        ({"mean": MEAN, "scale": MEAN[:5], "components": COMPONENTS}, SHAPES),
        ({"mean": MEAN, "scale": MEAN + np.float32("inf"), "components": COMPONENTS}, "expected finite float32"),
        ({"mean": MEAN.astype(np.float64), "components": COMPONENTS}, "expected finite float32"),
        ({"mean": MEAN, "components": COMPONENTS * np.float32("nan")}, "expected finite float32"),
        ({"mean": np.array([{}]), "components": COMPONENTS}, "cannot be read"),  # would be unpickled
        ({"mean": MEAN, "components": np.zeros((8000, 1280), np.float32)}, "unpacks to"),
        ({"mean": MEAN[:5], "components": COMPONENTS[:, :5]}, r"gives \(8, [0-9]+\), expected logits and features \(8, 15\)"),
    ],
)
def test_what_photos_are_known_by_is_checked(copy: Path, arrays: dict[str, np.ndarray], reason: str) -> None:
    facts = Bundle.open(copy).manifest
    np.savez_compressed(copy / "known.npz", **arrays)
    changed = seal(copy, facts)
    with pytest.raises(BadInput, match=reason):
        changed.load_scored()(changed.golden()["images"])
    assert changed.load()(changed.golden()["images"]).shape == (8, 10)


def test_a_missing_file_of_known_photos_is_said(copy: Path) -> None:
    facts = Bundle.open(copy).manifest
    (copy / "known.npz").unlink()
    with pytest.raises(BadInput, match=r"known\.npz is missing"):
        seal(copy, facts).load_scored()


@pytest.mark.parametrize(
    "images", [np.zeros((1, 16, 16, 3), np.uint8), np.zeros((32, 32, 3), np.uint8), np.zeros((1, 32, 32, 3), np.float32)]
)
def test_images_of_another_shape_or_type_are_refused(fitted, images: np.ndarray) -> None:
    with pytest.raises(BadInput, match="expected uint8 images"):
        Bundle.open(fitted[0]).load()(images)


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "labels.txt"])
def test_a_changed_file_is_refused(copy: Path, name: str) -> None:
    with (copy / name).open("ab") as file:
        file.write(b"x")
    with pytest.raises(BadInput, match=f"{name} does not match its hash"):
        Bundle.open(copy)


def test_a_truncated_bundle_is_refused(copy: Path) -> None:
    model = copy / Bundle.open(copy).manifest.model
    model.unlink()
    with pytest.raises(BadInput, match="truncated"):
        Bundle.open(copy)


def test_a_missing_or_foreign_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not a bundle"):
        Bundle.open(tmp_path / "nothing")
    (tmp_path / "manifest.json").write_text('{"name": "a web app"}')
    with pytest.raises(BadInput, match="not edgeeff's"):
        Bundle.open(tmp_path)
    (tmp_path / "manifest.json").write_text("{half")
    with pytest.raises(BadInput, match="cannot be read"):
        Bundle.open(tmp_path)


def test_another_schema_is_refused(copy: Path) -> None:
    edit(copy, schema=99)
    with pytest.raises(BadInput, match="schema 99"):
        Bundle.open(copy)


def test_a_changed_manifest_is_refused(copy: Path) -> None:
    path = copy / "manifest.json"
    path.write_text(path.read_text().replace('"lite0"', '"lite1"'))
    with pytest.raises(BadInput, match="its own digest"):
        Bundle.open(copy)


def test_a_manifest_cannot_point_outside_the_bundle(copy: Path) -> None:
    files = Bundle.open(copy).manifest.files
    edit(copy, files={**files, "../secret": "0" * 64})
    with pytest.raises(BadInput, match=r"files: '\.\./secret': expected a plain file name"):
        Bundle.open(copy)
    edit(copy, files={name: value for name, value in files.items() if name != "golden.npz"})
    with pytest.raises(BadInput, match="does not vouch for 'golden.npz'"):
        Bundle.open(copy)


def test_a_camera_path_that_shows_other_pixels_is_refused(fitted, monkeypatch) -> None:
    """Logits of a network of one epoch hardly move, so the tolerance here is half of the real one."""
    bundle, right = Bundle.open(fitted[0]), View.seen
    monkeypatch.setattr("edgeeff.bundle.GOLDEN_TOLERANCE", 0.05)
    bundle.verify()
    monkeypatch.setattr(View, "seen", lambda view, frame: 255 - right(view, frame))
    with pytest.raises(BadInput, match="golden frames give other logits"):
        bundle.verify()


def test_other_golden_logits_are_refused(copy: Path) -> None:
    import hashlib

    golden = Bundle.open(copy).golden()
    np.savez_compressed(copy / "golden.npz", **{**golden, "logits": -golden["logits"]})
    files = json.loads((copy / "manifest.json").read_text())["files"]
    edit(copy, files={**files, "golden.npz": hashlib.sha256((copy / "golden.npz").read_bytes()).hexdigest()})
    with pytest.raises(BadInput, match="golden images give other logits"):
        Bundle.open(copy).verify()


def test_only_bundles_and_empty_folders_are_replaced(copy: Path, tmp_path: Path) -> None:
    replaceable(copy)
    replaceable(tmp_path / "new")
    (tmp_path / "photos").mkdir()
    replaceable(tmp_path / "photos")
    (tmp_path / "photos" / "1.jpg").touch()
    with pytest.raises(BadInput, match="not a bundle"):
        replaceable(tmp_path / "photos")
    (tmp_path / "photos" / "manifest.json").write_text('{"name": "a web app"}')
    with pytest.raises(BadInput, match="not a bundle"):
        replaceable(tmp_path / "photos")
    (copy / "notes.txt").touch()
    with pytest.raises(BadInput, match="more than a bundle"):
        replaceable(copy)


def test_publishing_replaces_an_older_bundle(copy: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "manifest.json").write_text("old")
    publish(copy, out)
    assert (out / "manifest.json").read_text() != "old"
    assert not copy.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_the_device_side_needs_no_torch_nncf_or_onnx(fitted) -> None:
    """What runs on a camera board: open, verify, evaluate and time a bundle."""
    code = f"""
import sys
for name in ("torch", "nncf", "onnx", "jinja2", "aiohttp", "cv2", "paho"):
    sys.modules[name] = None
import edgeeff, edgeeff.bundle, edgeeff.compilation, edgeeff.data.images, edgeeff.cli, edgeeff.cli.doctor
import edgeeff.measurement.accuracy, edgeeff.measurement.latency
import edgeeff.camera.loop, edgeeff.camera.sinks, edgeeff.camera.web
bundle = edgeeff.Bundle.open({str(fitted[0])!r})
bundle.verify()
assert edgeeff.cli.main(["bench", {str(fitted[0])!r}, "--rounds", "2"]) in (0, 9)  # 9: something else runs here
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
