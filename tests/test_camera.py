"""Frames in, labels out: real video, real servers and the fitted bundle; `Fake` stands for cameras that no test machine has."""

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from edgeeff import BadInput, BudgetNotMet, Bundle, ToolMissing, Unreachable
from edgeeff.accuracy import rank
from edgeeff.camera import Camera, Percentiles, Result, Steady
from edgeeff.frames import Footage, Frames, View
from edgeeff.images import ImageSet, PixelFile
from edgeeff.outlets import Collector, Mqtt
from edgeeff.progress import Progress
from edgeeff.sources import Source, tidy
from edgeeff.web import Web

FFMPEG, MOSQUITTO = shutil.which("ffmpeg"), shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Said(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


class Fake(Source):
    """A camera whose frames come from a function; `live` as a stream is."""

    def __init__(self, name: str, frames) -> None:
        super().__init__(f"rtsp://{name}")
        self._frames = frames

    def frames(self, say) -> Iterator[tuple[float, np.ndarray]]:
        yield from self._frames()


def at_pace(fps: float, count: int = 10_000, shape=(48, 64, 3)):
    def frames():
        start = time.monotonic()
        for i in range(count):
            time.sleep(max(0.0, start + i / fps - time.monotonic()))
            yield time.monotonic(), np.full(shape, i % 256, np.uint8)

    return frames


@pytest.fixture(scope="module")
def bundle(fitted) -> Bundle:
    return Bundle.open(fitted[0])


@pytest.fixture(scope="module")
def film(tmp_path_factory, digits: Path) -> Path:
    """Forty frames of 160 × 120 pixels."""
    path = tmp_path_factory.mktemp("film") / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 20, (160, 120))
    for photo in sorted(digits.glob("val/*/*.png"))[:40]:
        writer.write(cv2.resize(cv2.imread(str(photo)), (160, 120)))
    writer.release()
    return path


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


def test_the_camera_says_what_footage_says(bundle: Bundle, digits: Path) -> None:
    frames = Frames(640, 480)
    photos = PixelFile(ImageSet.open(digits / "val").draw(20), bundle.preprocess)
    footage = np.concatenate(list(Footage(photos, View.of(bundle.preprocess, frames)).batches(8)))
    see = bundle.watch(frames)
    source = Fake("it", lambda: ((time.monotonic(), f) for f in footage))
    source.live = False
    results = list(Camera(bundle, [source]))
    assert [r.top[0][0] for r in results] == [bundle.labels[int(see(f).argmax())] for f in footage]


def test_every_frame_of_a_file_gets_a_line(run, fitted, film: Path, tmp_path: Path) -> None:
    done = run("camera", fitted[0], "--source", film, "--json", "--output", tmp_path / "lines", "--top", 2)
    assert done.returncode == 0, done.stderr
    *lines, last = map(json.loads, done.stdout.splitlines())
    assert [line["frame"] for line in lines] == list(range(40))
    assert (tmp_path / "lines").read_text().splitlines() == done.stdout.splitlines()[:-1]
    assert set(lines[0]) == {"source", "frame", "time", "label", "top", "age_ms", "waited_ms", "inference_ms"}
    assert len(lines[0]["top"]) == 2
    (seen,) = last["summary"]["sources"]
    assert (seen["frames"], seen["labels"], seen["dropped"], seen["outages"]) == (40, 40, 0, [])
    assert seen["age_ms"]["p50"] <= seen["age_ms"]["p99"]
    plain = run("camera", fitted[0], "--source", film, "--every", 4)
    assert plain.returncode == 0
    assert "age p50 ms" in plain.stdout
    assert plain.stderr == ""


def test_standard_input_is_jpeg_after_jpeg(fitted, film: Path, tmp_path: Path) -> None:
    capture = cv2.VideoCapture(str(film))
    pictures = [cv2.imencode(".jpg", capture.read()[1])[1].tobytes() for _ in range(40)]
    thumbnail = pictures[0][:2] + b"\xff\xe1" + (len(pictures[1]) + 2).to_bytes(2, "big") + pictures[1] + pictures[0][2:]
    (tmp_path / "stream").write_bytes(b"--boundary\r\n\r\n".join([thumbnail, *pictures[1:]]))
    command = [sys.executable, "-m", "edgeeff.cli", "camera", str(fitted[0]), "--source", "-", "--json"]
    with (tmp_path / "stream").open("rb") as stream:
        done = subprocess.run(command, stdin=stream, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    (seen,) = json.loads(done.stdout.splitlines()[-1])["summary"]["sources"]
    assert seen["labels"] + seen["dropped"] == 40
    assert seen["labels"] > 0
    nothing = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert nothing.returncode == 2
    assert "no JPEG on standard input" in nothing.stderr


def test_a_slow_reader_sees_the_newest_frame(bundle: Bundle) -> None:
    """Frames come at 60 a second, the one who reads takes a tenth of a second for each."""
    camera = Camera(bundle, [Fake("fast", at_pace(60))])
    waited = []
    for result in itertools.islice(camera, 20):
        waited.append(result.waited_ms)
        time.sleep(0.1)
    camera.close()
    seen = camera.summary()["sources"][0]
    assert seen["dropped"] > 2 * seen["labels"]
    assert np.median(waited[1:]) < 1000 / 60  # a frame's time: the newest, not the next
    assert seen["parts_ms"]["output"]["p50"] == pytest.approx(100, rel=0.2)


def test_two_cameras_share_the_model_fairly(bundle: Bundle) -> None:
    camera = Camera(bundle, [Fake("a", at_pace(200)), Fake("b", at_pace(50))])
    for _ in itertools.islice(camera, 60):
        time.sleep(0.03)
    camera.close()
    fewer, more = sorted(row["labels"] for row in camera.summary()["sources"])
    assert fewer + more == 60
    assert more - fewer <= 6


def test_a_camera_that_vanishes_is_opened_again(bundle: Bundle, monkeypatch) -> None:
    monkeypatch.setattr("edgeeff.sources.PATIENCE", (0.05, 0.2))
    opened = itertools.count()

    def frames():
        turn = next(opened)
        if turn in (1, 2):
            raise Unreachable("still away")
        yield from at_pace(50, 5)()

    said = Said()
    camera = Camera(bundle, [Fake("loose", frames)], progress=said)
    assert len(list(itertools.islice(camera, 8))) == 8
    camera.close()
    assert len(camera.summary()["sources"][0]["outages"]) >= 1
    assert said.lines[0] == "rtsp://loose: gives no more frames; trying to open it again."
    assert "is back after" in said.lines[1]


def test_a_password_is_never_shown() -> None:
    source = Source("rtsp://me:p@ss:word@10.0.0.7:554/a")
    assert source.name == "rtsp://me:…@10.0.0.7:554/a"
    assert source.address == "rtsp://me:p@ss:word@10.0.0.7:554/a"
    assert Source("rtsp://10.0.0.7:554/a@b").name == "rtsp://10.0.0.7:554/a@b"


def test_what_never_worked_is_an_error(bundle: Bundle) -> None:
    def frames():
        raise Unreachable("nobody there")
        yield

    with pytest.raises(Unreachable, match="nobody there"):
        list(Camera(bundle, [Fake("dead", frames)]))


def test_what_goes_wrong_in_the_thread_is_raised_where_frames_are_read(bundle: Bundle) -> None:
    def frames():
        yield from at_pace(50, 2)()
        raise cv2.error("broken decoder")

    with pytest.raises(cv2.error, match="broken decoder"):
        list(Camera(bundle, [Fake("broken", frames)]))


def test_a_decoder_that_stalls_is_reported(bundle: Bundle, monkeypatch) -> None:
    monkeypatch.setattr("edgeeff.camera.STALLED", 0.2)

    def frames():
        yield from at_pace(50, 3)()
        time.sleep(1.5)
        yield from at_pace(50, 3)()

    said = Said()
    source = Fake("stuck", frames)
    camera = Camera(bundle, [source], progress=said)
    list(itertools.islice(camera, 4))
    camera.close()
    assert any("rtsp://stuck: no frame for" in line for line in said.lines)


def test_a_stream_may_change_its_size(bundle: Bundle) -> None:
    def frames():
        for shape in ((48, 64, 3), (48, 64, 3), (96, 128, 3), (48, 64, 3)):
            yield time.monotonic(), np.zeros(shape, np.uint8)

    source, said = Fake("changing", frames), Said()
    source.live = False
    assert len(list(Camera(bundle, [source], progress=said))) == 4
    assert said.lines == ["frames of 128×96 pixels now."]


def test_nv12_frames_and_a_region(bundle: Bundle) -> None:
    raw = np.random.default_rng(0).integers(16, 236, (72, 64), np.uint8)
    source = Fake("raw", lambda: iter([(time.monotonic(), raw)]))
    source.live = False
    (result,) = Camera(bundle, [source], nv12=True, region=(8, 8, 40, 36))
    expected = bundle.watch(Frames(64, 48, "NV12", (8, 8, 40, 36)))(raw)
    assert result.top[0][0] == bundle.labels[int(expected.argmax())]


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
    found = tidy(cv2, pixels)
    assert (None if found is None else found.shape) == shape
    if pixels is not None and pixels.dtype in (np.uint16, np.float32):
        assert found.min() == 255


def test_a_label_does_not_flicker() -> None:
    steady = Steady(0.5, 0.5)
    sure, other, unsure = np.array([0.9, 0.1]), np.array([0.1, 0.9]), np.array([0.4, 0.6])
    assert steady.update(0.0, sure) == 0
    assert steady.update(0.1, other) == 0  # once is not enough
    assert steady.update(0.2, sure) == 0
    labels = [steady.update(0.3 + i / 10, other) for i in range(10)]
    assert labels[0] == 0
    assert labels[-1] == 1
    assert labels == sorted(labels)  # it changes once
    vague = Steady(0.0, 0.7)
    assert vague.update(0, unsure) is None
    assert [vague.update(t, p) for t, p in enumerate((sure, np.array([0.6, 0.4]), np.array([0.5, 0.5])), 1)] == [0, 0, None]


def test_percentiles_are_right_to_a_percent() -> None:
    samples = np.random.default_rng(0).lognormal(3, 1, 20_000)
    found = Percentiles()
    assert found.at(50) is None
    for sample in samples:
        found.add(sample)
    for p in (50, 90, 99):
        assert found.at(p) == pytest.approx(np.percentile(samples, p), rel=0.011)


def test_a_missed_budget_names_the_part_that_takes_most(bundle: Bundle) -> None:
    camera = Camera(bundle, [Fake("slow", at_pace(100))])
    for _ in itertools.islice(camera, 5):
        time.sleep(0.05)
    camera.close()
    with pytest.raises(BudgetNotMet, match=r"p90 .* ms > 10: waiting for the model .* Output takes most"):
        camera.hold(10)
    camera.hold(1000)


def result(probability: float, at: float = 0.0) -> Result:
    return Result("cam/1", 0, at, None, (("rose", probability),), 1.0, 0.0, 1.0, np.zeros((48, 64, 3), np.uint8))


def test_uncertain_frames_are_kept_within_limits(tmp_path: Path) -> None:
    collect = Collector(tmp_path / "new", 0.6, megabytes=0.003, seconds=0.0)
    for i, probability in enumerate((0.9, 0.5, 0.4, 0.59, 0.6, 0.1, 0.1, 0.1)):
        collect(result(probability, at=float(i)))
    kept = sorted((tmp_path / "new").iterdir())
    assert 2 <= len(kept) == collect.kept < 6
    assert sum(p.stat().st_size for p in kept) <= 3000
    assert len(ImageSet.open(tmp_path / "new")) == len(kept)  # ready to calibrate on
    rated = Collector(tmp_path / "rated", 0.6, megabytes=1, seconds=60.0)
    for i in range(3):
        rated(result(0.1, at=float(i)))
    assert rated.kept == 1


def test_a_folder_that_cannot_be_written_ends_the_collecting_only(tmp_path: Path) -> None:
    said = Said()
    collect = Collector(tmp_path / "gone", 0.6, megabytes=1, seconds=0.0, progress=said)
    (tmp_path / "gone").rmdir()
    collect(result(0.1))
    collect(result(0.1))
    assert len(said.lines) == 1
    assert "collecting no more" in said.lines[0]


def test_sigterm_ends_with_the_summary(fitted) -> None:
    command = [sys.executable, "-m", "edgeeff.cli", "camera", str(fitted[0]), "--source", "-", "--json"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    jpeg = cv2.imencode(".jpg", np.zeros((120, 160, 3), np.uint8))[1].tobytes()
    stop = threading.Event()

    def feed() -> None:
        while not stop.wait(0.02):
            try:
                process.stdin.write(jpeg)
                process.stdin.flush()
            except OSError:
                return

    feeder = threading.Thread(target=feed)
    feeder.start()
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    stop.set()
    feeder.join()
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert "summary" in json.loads(out.splitlines()[-1])


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--source", "nowhere.mp4"], 2, "no such file"),
        (["--source", "77"], 2, "no such camera: there is no /dev/video77"),
        (["--source", "{folder}/text.mp4"], 2, "cannot be opened as video"),
        (["--source", "{folder}/empty"], 2, "no photos in it"),
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
        (["--source", "{film}", "--mqtt", "127.0.0.1"], 2, "HOST[:PORT]/TOPIC"),
        (["--source", "{film}", "--web", "{taken}"], 2, "cannot listen there"),
        (["--source", "{film}", "--web", "many"], 2, "expected PORT or HOST:PORT"),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else "",
)
def test_what_is_refused(run, fitted, film: Path, tmp_path: Path, options, code: int, words: str) -> None:
    (tmp_path / "text.mp4").write_text("no film")
    (tmp_path / "empty").mkdir()
    with socket.socket() as taken, socket.socket() as closed:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        closed.bind(("127.0.0.1", 0))
        known = {"folder": tmp_path, "film": film, "taken": taken.getsockname()[1], "closed": closed.getsockname()[1]}
        done = run("camera", fitted[0], *(option.format(**known) for option in options))
    assert done.returncode == code, done.stderr
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_bundle_for_another_runtime_is_refused_before_the_camera_is_opened(bundle: Bundle) -> None:
    foreign = replace(bundle, manifest={**bundle.manifest, "backend": "tensorrt", "forms": [{}]})
    with pytest.raises(ToolMissing, match="On the device itself: edgeeff compile"):
        Camera(foreign, ["/dev/video77"])


def test_a_clock_that_jumps_changes_no_age(bundle: Bundle, monkeypatch) -> None:
    clock, real = itertools.count(step=-86_400.0), time.time
    monkeypatch.setattr("edgeeff.camera.time.time", lambda: real() + next(clock))
    with Camera(bundle, [Fake("steady", at_pace(50))]) as camera:
        results = list(itertools.islice(camera, 5))
    assert all(0 < r.age_ms < 10_000 for r in results)
    assert results[1].time < results[0].time - 80_000


def test_opencv_missing_is_said(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ToolMissing, match="opencv is not installed"):
        next(Source(os.devnull).frames(print))


def fetched(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.fixture
def live(bundle: Bundle) -> Iterator[tuple[Camera, Web]]:
    """A camera that runs in a thread, and its page."""
    camera = Camera(bundle, [Fake("pictures", at_pace(30))])
    with Web("0", camera) as web:

        def loop() -> None:
            for result in camera:
                web(result)

        thread = threading.Thread(target=loop)
        thread.start()
        yield camera, web
        for capture in camera.captures:
            capture.stop()
        thread.join()


def test_the_page_has_the_newest_frame_and_the_figures(live) -> None:
    _, web = live
    while web.newest[0] is None:
        time.sleep(0.01)
    assert fetched(web.url)[0] == 200
    states, pictures = [], []
    for _ in range(3):
        states.append(json.loads(fetched(web.url + "state.json")[1]))
        pictures.append(cv2.imdecode(np.frombuffer(fetched(web.url + "frame.jpg?source=0")[1], np.uint8), cv2.IMREAD_COLOR))
        time.sleep(0.1)
    assert states[0]["newest"][0]["frame"] < states[2]["newest"][0]["frame"]
    assert pictures[0].shape == (48, 64, 3)
    assert (pictures[0] != pictures[2]).any()
    assert states[2]["summary"]["sources"][0]["age_ms"]["p50"] > 0
    assert [fetched(web.url + page)[0] for page in ("frame.jpg?source=7", "frame.jpg?source=x", "etc/passwd")] == [404] * 3


def test_however_many_ask_a_picture_is_made_ten_times_a_second_at_most(live, monkeypatch) -> None:
    from edgeeff import web as module

    _, web = live
    while web.newest[0] is None:
        time.sleep(0.01)
    made: list[float] = []
    real = module.encoded
    monkeypatch.setattr(module, "encoded", lambda *a, **k: made.append(time.monotonic()) or real(*a, **k))
    for _ in range(50):
        assert fetched(web.url + "frame.jpg")[0] == 200
    assert 1 <= len(made) <= 50
    assert all(later - earlier > module.FRESH for earlier, later in itertools.pairwise(made))


def test_beyond_this_machine_the_page_needs_its_token(bundle: Bundle) -> None:
    with Web("0.0.0.0:0", Camera(bundle, [Fake("pictures", at_pace(30))])) as web:
        bare, token = web.url.split("?token=")
        assert len(token) > 20
        assert [fetched(bare + page)[0] for page in ("", "state.json", "frame.jpg?token=x", f"state.json?token={token}")] == [
            *(403, 403, 403),
            200,
        ]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_a_browser_shows_moving_pictures_without_complaint(live, tmp_path: Path) -> None:
    _, web = live
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0", "--dump-dom"]
    profile = [f"--user-data-dir={tmp_path}", "--virtual-time-budget=4000"]
    done = subprocess.run([*command, *profile, web.url], capture_output=True, text=True, timeout=120)
    assert ":CONSOLE" not in done.stderr, done.stderr
    assert "rtsp://pictures</td>" in done.stdout
    assert 'src="frame.jpg?t=' in done.stdout
    assert done.stdout.split('points="')[1].split('"')[0].count(",") > 2


def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.skipif(FFMPEG is None, reason="no ffmpeg here")
def test_mjpeg_over_http_from_a_server_that_goes_away(bundle: Bundle, film: Path, monkeypatch) -> None:
    monkeypatch.setattr("edgeeff.sources.PATIENCE", (0.1, 0.3))
    address = f"http://127.0.0.1:{port()}/"
    serve = [FFMPEG, "-v", "error", "-re", "-stream_loop", "-1", "-i", film, "-c", "copy", "-f", "mpjpeg", "-listen", "1", address]
    servers = [subprocess.Popen(serve)]
    said = Said()
    try:
        time.sleep(0.5)
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
    (seen,) = camera.summary()["sources"]
    assert seen["labels"] >= 12
    assert len(seen["outages"]) >= 1
    assert any("is back after" in line for line in said.lines)


@pytest.mark.skipif(MOSQUITTO is None, reason="no mosquitto here")
def test_a_broker_gets_every_label_and_may_go_away(tmp_path: Path) -> None:
    from paho.mqtt import client as mqtt
    from paho.mqtt.enums import CallbackAPIVersion

    number, said, got = port(), Said(), []
    (tmp_path / "conf").write_text(f"listener {number} 127.0.0.1\nallow_anonymous true\n")
    broker = [MOSQUITTO, "-c", tmp_path / "conf"]
    server = subprocess.Popen(broker, stderr=subprocess.DEVNULL)
    reader = mqtt.Client(CallbackAPIVersion.VERSION2)
    reader.on_message = lambda _, __, message: got.append(json.loads(message.payload))
    try:
        time.sleep(0.5)
        reader.connect("127.0.0.1", number)
        reader.subscribe("edge/labels")
        reader.loop_start()
        time.sleep(0.3)
        with Mqtt(f"127.0.0.1:{number}/edge/labels", said) as send:
            send(result(0.5))
            time.sleep(0.3)
            server.kill()
            server.wait()
            while not said.lines:
                time.sleep(0.05)
            send(result(0.6))
            server = subprocess.Popen(broker, stderr=subprocess.DEVNULL)
            while len(said.lines) < 2:
                time.sleep(0.05)
    finally:
        server.kill()
        server.wait()
        reader.loop_stop()
    assert [message["top"] for message in got] == [[["rose", 0.5]]]
    assert "1 labels were not sent" in said.lines[1]


def test_an_odd_broker_address_is_refused() -> None:
    for where in ("host", "host/a/#", "host:x/topic"):
        with pytest.raises(BadInput, match=r"HOST\[:PORT\]/TOPIC"):
            Mqtt(where)
