"""Frames of files, folders, pipes and servers, and what is refused."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from io import FileIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from boards import until
from cameras import FFMPEG, Said, listens, port
from PIL import Image

from edgeeff import BadInput, Bundle, ToolMissing
from edgeeff.camera import Camera, CameraOptions, Source, sources
from edgeeff.camera.jpeg_stream import split_jpegs
from edgeeff.camera.opencv import decode_photo, to_bgr
from edgeeff.cli import main
from edgeeff.data.images import ImageSet, PixelFile
from edgeeff.measurement.accuracy import rank


def test_a_folder_is_seen_photo_by_photo_as_eval_sees_it(bundle: Bundle, digits: Path, tmp_path: Path) -> None:
    photos = sorted(digits.glob("val/*/*.png"))[::7]
    for i, photo in enumerate(photos):
        Image.open(photo).convert("RGB").save(tmp_path / f"{i:03d}.png")
    (tmp_path / "100.png").write_text("no photo")
    (tmp_path / "101.png").touch()
    said = Said()
    results = list(Camera(bundle, [str(tmp_path)], progress=said))
    images = ImageSet(tmp_path, tuple(sorted(tmp_path.glob("0*.png"))), None)
    expected = rank(bundle.load(), PixelFile(images, bundle.preprocess))[:, 0]
    assert [r.frame for r in results] == list(range(len(photos)))
    agree = np.mean([r.top[0][0] == bundle.labels[e] for r, e in zip(results, expected, strict=True)])
    assert agree > 0.9
    assert [line.split(":")[0] for line in said.lines] == [str(tmp_path / n) for n in ("100.png", "101.png")]
    assert all(r.age_ms >= r.waited_ms + r.inference_ms for r in results)


def test_standard_input_is_jpeg_after_jpeg(fitted, film: Path, tmp_path: Path) -> None:
    capture = cv2.VideoCapture(str(film))
    pictures = [cv2.imencode(".jpg", capture.read()[1])[1].tobytes() for _ in range(40)]
    thumbnail = pictures[0][:2] + b"\xff\xe1" + (len(pictures[1]) + 2).to_bytes(2, "big") + pictures[1] + pictures[0][2:]
    (tmp_path / "stream").write_bytes(b"--boundary\r\n\r\n".join([thumbnail, *pictures[1:]]))
    command = [sys.executable, "-m", "edgeeff", "camera", str(fitted[0]), "--source", "-", "--json"]
    with (tmp_path / "stream").open("rb") as stream:
        done = subprocess.run(command, stdin=stream, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    (seen,) = json.loads(done.stdout.splitlines()[-1])["summary"]["sources"]
    assert seen["labels"] + seen["dropped"] == 40
    assert seen["labels"] > 0
    nothing = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert nothing.returncode == 2
    assert "no JPEG on standard input" in nothing.stderr


def test_a_password_is_never_shown() -> None:
    source = Source.of("rtsp://me:p@ss:word@10.0.0.7:554/a")
    assert source.name == "rtsp://me:…@10.0.0.7:554/a"
    assert source.address == "rtsp://me:p@ss:word@10.0.0.7:554/a"
    assert Source.of("rtsp://10.0.0.7:554/a@b").name == "rtsp://10.0.0.7:554/a@b"
    assert Source.of("http://cam/mjpeg?user=me&pwd=secret&fps=5").name == "http://cam/mjpeg?user=me&pwd=…&fps=5"
    assert Source.of("rtspsrc user-id=me user-pw=secret ! appsink").name == "rtspsrc user-id=me user-pw=… ! appsink"


@pytest.mark.parametrize(
    ("pixels", "shape"),
    [
        (np.zeros((4, 5), np.uint8), (4, 5, 3)),
        (np.zeros((4, 5, 1), np.uint8), (4, 5, 3)),
        (np.zeros((4, 5, 4), np.uint8), (4, 5, 3)),
        (np.full((4, 5), 65535, np.uint16), (4, 5, 3)),
        (np.full((4, 5, 3), 300.0, np.float32), (4, 5, 3)),
        (np.zeros((0, 0, 3), np.uint8), None),
        (np.zeros((4, 5, 2), np.uint8), None),
        (None, None),
    ],
)
def test_frames_of_any_depth_become_8_bit_bgr(pixels, shape) -> None:
    found = to_bgr(cv2, pixels)
    assert (None if found is None else found.shape) == shape
    if pixels is not None and pixels.dtype in (np.uint16, np.float32):
        assert found.min() == 255


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--source", "nowhere.mp4"], 2, "no such file"),
        (["--source", "77"], 6, "no such camera: there is no /dev/video77"),
        (["--source", "{folder}/text.mp4"], 2, "cannot be opened as video"),
        (["--source", "{folder}/empty"], 2, "no photos in it"),
        (["--source", "/dev/v4l/by-id/usb-none"], 6, "no such camera"),
        (["--source", "{film}", "--nv12"], 2, "gives decoded pictures"),
        (["--source", "{film}", "--size", "640x480"], 2, "has a size of its own"),
        (["--source", "{film}", "--size", "large"], 2, "expected WIDTHxHEIGHT"),
        (["--source", "file://{film}"], 2, "no such file"),
        (["--source", "csi://0"], 5, "without GStreamer"),
        (["--source", "videotestsrc ! appsink"], 5, "without GStreamer"),
        (["--source", "rtsp://127.0.0.1:{closed}/x"], 6, "does not answer"),
        (["--source", "{film}", "{film}"], 2, "the same one twice"),
        (["--source", "{film}", "--roi", "0,0,500,500"], 2, "within 160×120"),
        (["--source", "{film}", "--roi", "left"], 2, "expected left,top,width,height"),
        (["--source", "{film}", "--every", "0"], 2, "expected 1 or more"),
        (["--source", "{film}", "--seconds", "0"], 2, "expected a number above 0"),
        (["--source", "{film}", "--threshold", "1.5"], 2, "above 0 to 1"),
        (["--source", "{film}", "--smooth", "-1"], 2, "0 s or more"),
        (["--source", "{film}", "--budget-ms", "0.001"], 3, "takes most"),
        (["--source", "{film}", "--collect", "{folder}/c", "--uncertain", "2"], 2, "expected a probability"),
        (["--source", "{film}", "--mqtt", "127.0.0.1:{closed}/labels"], 6, "no broker answers"),
        (["--source", "{film}", "--mqtt", "127.0.0.1:0/x"], 2, "HOST[:PORT]/TOPIC"),
        (["--source", "{film}", "--mqtt", "a..b/x"], 6, "no broker answers"),
        (["--source", "{film}", "--mqtt", "127.0.0.1"], 2, "HOST[:PORT]/TOPIC"),
        (["--source", "{film}", "--web", "{taken}"], 2, "cannot listen there"),
        (["--source", "{film}", "--web", "many"], 2, "expected PORT or HOST:PORT"),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else "",
)
def test_what_is_refused(fitted, film: Path, tmp_path: Path, capsys, options, code: int, words: str) -> None:
    (tmp_path / "text.mp4").write_text("no film")
    (tmp_path / "empty").mkdir()
    with socket.socket() as taken, socket.socket() as closed:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        closed.bind(("127.0.0.1", 0))
        known = {"folder": tmp_path, "film": film, "taken": taken.getsockname()[1], "closed": closed.getsockname()[1]}
        returned = in_process("camera", str(fitted[0]), *(option.format(**known) for option in options))
    said = capsys.readouterr().err
    assert returned == code, said
    assert words in said.splitlines()[-1]
    assert "Traceback" not in said


def in_process(*arguments: str) -> int:
    """The exit code of the command line. Unlike `run` it starts no other process, which would take most of the time."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        return main(arguments)
    except SystemExit as end:  # how argparse ends
        return int(end.code or 0)
    finally:
        signal.signal(signal.SIGTERM, handler)


def test_a_new_kind_of_source_is_one_class(bundle: Bundle, monkeypatch) -> None:
    class Noise(Source):
        """So many frames of noise."""

        example, kind = "noise://3", "noise"
        takes_size = True
        live = False

        @classmethod
        def accepts(cls, address: str) -> bool:
            return address.startswith("noise://")

        def frames(self, say):
            width, height = self.size or (64, 48)
            for _ in range(int(self.address.removeprefix("noise://"))):
                yield time.monotonic(), np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)

    monkeypatch.setattr(sources, "SOURCES", (Noise, *sources.SOURCES))
    assert [r.frame for r in Camera(bundle, ["noise://3"], CameraOptions(size=(80, 60)))] == [0, 1, 2]
    assert sources.accepted_addresses().startswith("noise://3 (noise), ")
    with pytest.raises(BadInput, match="nowhere: no such file.* noise://3"):
        Source.of("nowhere")
    with pytest.raises(BadInput, match="--nv12 is for: V4L2 camera"):
        Source.of("noise://3", nv12=True)
    with pytest.raises(BadInput, match="--size is for: noise, V4L2 camera"):
        Source.of("rtsp://somewhere", size=(80, 60))


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("0", None),
        ("/dev/video7", None),
        ("/dev/v4l/by-id/usb", None),
        ("csi://0", sources.CsiCamera),
        ("nvarguscamerasrc ! appsink", sources.GStreamerPipeline),
        ("rtspsrc location=rtsp://x/y ! appsink", sources.GStreamerPipeline),
        ("-", sources.JpegPipe),
        ("rtsp://x/y", sources.NetworkStream),
        ("HTTPS://x", sources.NetworkStream),
        ("{folder}", sources.PhotoFolder),
        (os.devnull, sources.VideoFile),
    ],
)
def test_an_address_says_what_kind_of_source_it_is(address: str, kind: type[Source] | None, tmp_path: Path) -> None:
    address = address.format(folder=tmp_path)
    if kind is None:  # a camera that is missing is refused at once
        assert sources.V4l2Camera.accepts(address)
    else:
        assert type(Source.of(address)) is kind


def test_opencv_missing_is_said(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ToolMissing, match="opencv is not installed"):
        next(Source.of(os.devnull).frames(print))


@pytest.mark.skipif(FFMPEG is None, reason="no ffmpeg here")
def test_mjpeg_over_http_from_a_server_that_goes_away(bundle: Bundle, film: Path, monkeypatch) -> None:
    monkeypatch.setattr("edgeeff.camera.capture.REOPEN_DELAYS", (0.1, 0.3))
    number = port()
    address = f"http://127.0.0.1:{number}/"
    serve = [FFMPEG, "-v", "error", "-re", "-stream_loop", "-1", "-i", film, "-c", "copy", "-f", "mpjpeg", "-listen", "1", address]
    servers = [subprocess.Popen(serve)]
    said = Said()
    try:
        until(lambda: listens(number))
        camera = Camera(bundle, [address], progress=said)
        for i, _ in enumerate(camera):
            if i == 5:
                servers[0].kill()
                servers.append(subprocess.Popen(serve))
            if i == 12:
                break
    finally:
        for server in servers:
            server.kill()
            server.wait()
    (seen,) = camera.summary().sources
    assert seen.labels >= 12
    assert len(seen.outages) >= 1
    assert any("is back after" in line for line in said.lines)


def fed(pieces: list[bytes]) -> list[bytes]:
    """What is made of them, as they come through a pipe."""
    take, give = os.pipe()

    def feed() -> None:
        with os.fdopen(give, "wb") as pipe:
            for piece in pieces:
                pipe.write(piece)

    feeder = threading.Thread(target=feed)
    feeder.start()
    with FileIO(take) as stream:
        found = list(split_jpegs(stream))
    feeder.join()
    return found


@pytest.mark.parametrize("cut", [3, 10, 100, 500, 900])
def test_a_jpeg_that_was_cut_off_costs_itself_only(cut: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), np.uint8)
    whole = [cv2.imencode(".jpg", picture)[1].tobytes() for picture in noise]
    assert fed([whole[0][:cut], *whole[1:]]) == whole[1:]
    assert fed([whole[0], whole[1][:cut], *whole[2:], whole[0][:cut]]) == [whole[0], *whole[2:]]


def test_a_jpeg_too_large_for_opencv_is_no_picture(tmp_path: Path) -> None:
    jpeg = bytearray(cv2.imencode(".jpg", np.zeros((32, 32, 3), np.uint8))[1].tobytes())
    start = jpeg.index(b"\xff\xc0")
    jpeg[start + 5 : start + 9] = (65500).to_bytes(2, "big") * 2
    assert decode_photo(cv2, bytes(jpeg)) is None


class Opened:
    """What cv2.VideoCapture gives of a GStreamer pipeline: frames as its caps say, which OpenCV hands on as they are."""

    def __init__(self, *shape: int) -> None:
        self.raw = np.zeros(shape, np.uint8)

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, self.raw

    def get(self, _: int) -> float:
        return 48.0


@pytest.mark.parametrize(
    ("shape", "nv12", "words"),
    [
        ((72, 64), False, "gives frames of raw NV12 or I420. Expected BGR or grey"),
        ((48, 64, 2), False, r"gives frames of uint8 \(48, 64, 2\). Expected BGR or grey"),
        ((48, 64, 3), True, r"gives frames of uint8 \(48, 64, 3\). Expected NV12"),
        ((48, 64), True, r"gives frames of uint8 \(48, 64\). Expected NV12"),
    ],
)
def test_a_pipeline_that_gives_another_kind_of_frames_is_refused(shape: tuple[int, ...], nv12: bool, words: str) -> None:
    source = Source.of("videotestsrc ! appsink", nv12=nv12)
    with pytest.raises(BadInput, match=words):
        source._decode(cv2, Opened(*shape))


def test_a_pipeline_may_give_grey_or_nv12() -> None:
    assert Source.of("videotestsrc ! appsink")._decode(cv2, Opened(48, 64)).shape == (48, 64, 3)
    assert Source.of("videotestsrc ! appsink", nv12=True)._decode(cv2, Opened(72, 64)).shape == (72, 64)


def test_streams_that_differ_in_their_passwords_are_two(bundle: Bundle) -> None:
    camera = Camera(bundle, ["http://nvr/s?token=a", "http://nvr/s?token=b"])
    assert [capture.source.name for capture in camera.captures] == ["http://nvr/s?token=…", "http://nvr/s?token=… (2)"]


def test_a_missing_opencv_is_not_sought_at_pypi_on_a_jetson(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ToolMissing, match=r"'edgeeff\[camera\]', on a Jetson sudo apt install nvidia-opencv"):
        next(Source.of(os.devnull).frames(print))


def test_an_opencv_built_for_another_numpy_is_said(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "cv2.py").write_text("raise ImportError('numpy.core.multiarray failed to import')")
    monkeypatch.delitem(sys.modules, "cv2")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ToolMissing, match=r"beside NumPy .* pip install 'numpy<2'"):
        next(Source.of(os.devnull).frames(print))
