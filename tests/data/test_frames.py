from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from edgeeff import BadInput, Budget, Bundle, Job, Precision, backends
from edgeeff.data.frames import GRAPH, Frames, SyntheticFrames, View
from edgeeff.data.images import ImageSet, PixelFile
from edgeeff.data.preprocess import Preprocess
from edgeeff.export.onnx import frames_graph
from edgeeff.pipeline import fit
from edgeeff.selection import on_frames
from edgeeff.selection.on_frames import judge_on_frames

PREPROCESS = Preprocess(64, 73, (0, 0, 0), (1, 1, 1))
SESSION = onnxruntime.InferenceSession(GRAPH, providers=["CPUExecutionProvider"])


def seen(view: View, frame: np.ndarray) -> np.ndarray:
    """What the network sees of a frame, by the graph in ONNX Runtime."""
    return SESSION.run(None, {"part": np.ascontiguousarray(view.part(frame)), **view.constants})[0]


def test_the_graph_is_its_text() -> None:
    assert GRAPH.read_bytes() == frames_graph()


def picture(width: int, height: int, detail: int = 6) -> Image.Image:
    """Smooth colours that change every `detail` pixels."""
    coarse = np.random.default_rng(width).integers(0, 256, (height // detail + 2, width // detail + 2, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def bgr(image: Image.Image) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(image)[..., ::-1])


def nv12(image: Image.Image) -> np.ndarray:
    """BT.601, limited range."""
    r, g, b = np.asarray(image).astype(float).transpose(2, 0, 1)
    y = 16 + 0.257 * r + 0.504 * g + 0.098 * b
    u, v = 128 - 0.148 * r - 0.291 * g + 0.439 * b, 128 + 0.439 * r - 0.368 * g - 0.071 * b
    chroma = np.stack([plane[::2, ::2] for plane in (u, v)], -1).reshape(len(y) // 2, -1)
    return np.concatenate([y, chroma]).round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(640, 480), (480, 640), (1920, 1080), (641, 357), (100, 80), (70, 70), (64, 64), (40, 33)])
def test_frames_are_shrunk_as_photos_are(size, interpolation) -> None:
    preprocess = Preprocess(64, 73, (0, 0, 0), (1, 1, 1), interpolation)
    image = picture(*size)
    difference = np.abs(seen(View.of(preprocess, Frames(*size)), bgr(image))[0].astype(int) - preprocess(image))
    assert difference.max() <= 4
    assert difference.mean() < 0.3


def test_only_what_the_crop_needs_is_read() -> None:
    view = View.of(Preprocess(224, 256, (0, 0, 0), (1, 1, 1)), Frames(1920, 1080))
    assert view.rows.shape[1] < 0.9 * 1080
    assert len(view.columns) < 0.5 * 1920
    assert not view.crops_only
    assert View.of(PREPROCESS, Frames(70, 64)).crops_only


def test_a_region_is_a_smaller_frame() -> None:
    frame = bgr(picture(320, 240))
    whole = seen(View.of(PREPROCESS, Frames(320, 240, region=(20, 30, 200, 160))), frame)
    part = seen(View.of(PREPROCESS, Frames(200, 160)), frame[30:190, 20:220])
    assert (whole == part).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, 0), "0×0 pixels"),
        ((10000, 480), "expected 32 to 8192"),
        ((641, 480, "NV12"), "expected even sides"),
        ((640, 480, "BGR", (600, 0, 100, 100)), "within 640×480"),
        ((640, 480, "BGR", (0, 0, 8, 8)), "32 pixels or more"),
    ],
)
def test_odd_frames_are_refused(arguments, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        Frames(*arguments)


@pytest.mark.parametrize("colour", ["BGR", "RGB", "NV12"])
@pytest.mark.parametrize("region", [None, (40, 20, 300, 200)])
def test_every_runtime_sees_the_same(fitted, colour, region) -> None:
    """Where all compute in float32, the logits agree closely."""
    bundle = Bundle.open(fitted[0])
    image = picture(400, 300)
    frame = {"BGR": bgr(image), "RGB": np.asarray(image), "NV12": nv12(image)}[colour]
    view = View.of(bundle.preprocess, Frames(*image.size, colour, region))
    openvino, reference = backends.get("openvino"), backends.get("onnxruntime")
    graph = openvino.watch(bundle.path / "model.xml", view, precision=Precision("float32"))(frame)
    outside = openvino.load(bundle.path / "model.xml", precision=Precision("float32"))(seen(view, frame))
    assert graph.shape == (1, 10)
    assert graph == pytest.approx(outside, abs=float(0.05 * outside.std()))
    portable = reference.watch(bundle.path / "model.onnx", view, precision=Precision("float32"))(frame)
    outside = reference.load(bundle.path / "model.onnx", precision=Precision("float32"))(seen(view, frame))
    assert portable == pytest.approx(outside, abs=1e-5)


def test_nv12_is_nearly_the_same_picture() -> None:
    image = picture(640, 480, 30)
    colours = seen(View.of(PREPROCESS, Frames(640, 480)), bgr(image)).astype(int)
    assert np.abs(seen(View.of(PREPROCESS, Frames(640, 480, "NV12")), nv12(image)) - colours).mean() < 3


def test_a_bundle_refuses_frames_of_another_shape(fitted) -> None:
    see = Bundle.open(fitted[0]).watch(Frames(320, 240))
    for wrong in (np.zeros((480, 640, 3), np.uint8), np.zeros((240, 320, 3), np.float32)):
        with pytest.raises(BadInput, match=r"expected a uint8 frame \(240, 320, 3\)"):
            see(wrong)


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (1920, 1080), (100, 80), (64, 64)])
@pytest.mark.parametrize("colour", ["BGR", "RGB"])
def test_footage_is_what_looks_like_the_photos(tmp_path: Path, size, colour) -> None:
    for i in range(3):
        picture(90 + i, 80).save(tmp_path / f"{i}.png")
    pixels = PixelFile(ImageSet(tmp_path, tuple(sorted(tmp_path.iterdir())), None), PREPROCESS)
    view = View.of(PREPROCESS, Frames(*size, colour))
    footage = SyntheticFrames(pixels, view)
    first, second = footage.batches(2)
    assert len(footage) == len(first) + len(second) == 3
    assert first.shape == (2, *view.frames.shape)
    pictures = np.concatenate([seen(view, frame) for frame in (*first, *second)]).astype(int)
    assert np.abs(pictures - pixels.rows(0, 3)).mean() < 2


@pytest.mark.parametrize("size", [(640, 480), (1920, 1080)])
def test_a_frame_shrinks_to_its_photo_at_sharp_edges_too(size) -> None:
    letters = Image.fromarray(np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (73, 97), p=[0.7, 0.3]))
    photo = PREPROCESS(letters.convert("RGB").resize((300, 226), Image.Resampling.NEAREST))
    view = View.of(PREPROCESS, Frames(*size))
    off = seen(view, view.frame(photo)).astype(float) - photo
    assert np.sqrt((off**2).mean()) < 7  # 11, where what is cut off at the edges is lost


@pytest.mark.parametrize(
    "frames", [Frames(640, 480), Frames(96, 70, "RGB"), Frames(128, 96, "NV12"), Frames(99, 80, "BGR", (7, 9, 60, 50))]
)
def test_numpy_sees_what_the_graph_sees(frames: Frames) -> None:
    view = View.of(PREPROCESS, frames)
    noise = np.random.default_rng(0).integers(0, 256, frames.shape, np.uint8)
    off = np.abs(view.seen(noise).astype(int) - seen(view, noise).astype(int))
    assert off.max() <= 1
    assert off.mean() < 0.01


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_a_form_whose_camera_fails_makes_way_for_another(few_digits: Path, tmp_path: Path, monkeypatch) -> None:
    """No real form passes on photos and fails on the same photos as frames; the first one's verdict is turned."""
    judged: list[str] = []

    def first_fails(context, step, watch):
        report = judge_on_frames(context, step, watch)
        judged.append(step)
        return replace(report, passed=False) if len(judged) == 2 else report

    monkeypatch.setattr(on_frames, "judge_on_frames", first_fails)
    small = {"variants": ["lite0"], "resolution": [32], "epochs": 1, "flip": False, "max_drop": 20.0}
    places = {"train": few_digits / "train", "val": few_digits / "val", "out": tmp_path / "out"}
    done = fit(Job(target="host-cpu", budget=Budget(latency_ms=500), **places, **small))
    original, first, last = judged
    assert original == "float"
    assert done.outcome.shipped.report.step == last != first
    steps = [step.step for step in done.bundle.manifest.steps]
    assert steps[-3:] == [f"{step}, 640×480 frames" for step in judged]


def test_the_whole_path_is_a_step_of_the_fit(fitted) -> None:
    step = fitted[1]["steps"][-1]
    assert step["step"].endswith("640×480 frames")
    assert step["passed"]
    assert step["images"] == fitted[1]["steps"][0]["images"]
