"""The page of a camera: what it answers, to browsers and to what is none."""

import base64
import contextlib
import itertools
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from cameras import CHROMIUM, Fake, at_pace, host_line, serving, spoken

from edgeeff import Bundle, ToolMissing
from edgeeff.camera import Camera
from edgeeff.camera.web import CameraPage


def fetched(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.fixture
def live(bundle: Bundle) -> Iterator[tuple[Camera, CameraPage]]:
    with serving(bundle) as (camera, web):
        yield camera, web


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


def test_a_picture_comes_with_the_label_of_its_own_frame(live) -> None:
    """Each frame of the camera is as bright as its number says."""
    _, web = live
    while web.newest[0] is None:
        time.sleep(0.01)
    numbers = set()
    for _ in range(8):
        fetched(web.url + "frame.jpg")  # another client asks between
        (label,) = json.loads(fetched(web.url + "state.json")[1])["newest"]
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(label["picture"]), np.uint8), cv2.IMREAD_COLOR)
        assert abs(picture.mean() - label["frame"] % 256) < 1.5
        numbers.add(label["frame"])
        time.sleep(0.07)
    assert len(numbers) > 2


@pytest.mark.slow
def test_the_page_stays_open_at_the_end_of_a_file_and_says_so(fitted, film: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "edgeeff",
        "camera",
        str(fitted[0]),
        "--source",
        str(film),
        "--web",
        "0",
        "--budget-ms",
        "9000",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        url = process.stderr.readline().removeprefix("watch at ").strip()
        assert process.stderr.readline() == "The stream has ended; the page stays open until Ctrl-C.\n"
        states = [json.loads(fetched(url + "state.json")[1])]
        time.sleep(0.5)
        states.append(json.loads(fetched(url + "state.json")[1]))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "end-to-end latency" in out
    assert states[0]["sources"] == [{"ended": True, "smooth_s": 0.5, "threshold": 0.5}]
    assert states[0]["newest"][0]["frame"] == 39
    assert states[0]["budgets_ms"] == {"the model": 500.0, "end-to-end latency": 9000.0}
    assert states[0]["summary"]["seconds"] == states[1]["summary"]["seconds"] > 1.5  # at the file's pace, and not counted on


def test_however_many_ask_a_picture_is_made_ten_times_a_second_at_most(live, monkeypatch) -> None:
    from edgeeff.camera import web as module

    _, web = live
    while web.newest[0] is None:
        time.sleep(0.01)
    made: list[float] = []
    real = module.encode_jpeg
    monkeypatch.setattr(module, "encode_jpeg", lambda *a, **k: made.append(time.monotonic()) or real(*a, **k))
    for _ in range(50):
        assert fetched(web.url + "frame.jpg")[0] == 200
    assert 1 <= len(made) <= 50
    assert all(later - earlier > module.CACHE_SECONDS for earlier, later in itertools.pairwise(made))


def test_beyond_this_machine_the_page_needs_its_token(bundle: Bundle) -> None:
    with CameraPage("0.0.0.0:0", Camera(bundle, [Fake("pictures", at_pace(30))])) as web:
        bare, token = web.url.split("?token=")
        assert len(token) > 20
        assert [fetched(bare + page)[0] for page in ("", "state.json", "frame.jpg?token=x", f"state.json?token={token}")] == [
            *(403, 403, 403),
            200,
        ]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_a_browser_shows_moving_pictures_without_complaint(live, tmp_path: Path) -> None:
    _, web = live
    while web.newest[0] is None:
        time.sleep(0.01)
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0", "--dump-dom"]
    profile = [f"--user-data-dir={tmp_path}", "--virtual-time-budget=4000"]
    done = subprocess.run([*command, *profile, web.url], capture_output=True, text=True, timeout=120)
    assert ":CONSOLE" not in done.stderr, done.stderr
    assert "rtsp://pictures · frame " in done.stdout
    assert "Label, smoothed over 0.5 s" in done.stdout
    assert 'src="data:image/jpeg;base64,' in done.stdout
    assert done.stdout.count('<div class="track">') == 3
    assert done.stdout.split('points="')[1].split('"')[0].count(",") > 2
    assert "budget of the model: 500 ms" in done.stdout
    assert "−10 s</text>" in done.stdout


def test_one_connection_takes_many_requests_also_in_pieces(live) -> None:
    _, web = live
    ask = b"GET /state.json" + host_line(web)
    last = ask + b"Connection: close\r\n\r\n"
    assert spoken(web, ask[:7], ask[7:30], ask[30:] + b"\r\n" + last).count(b"HTTP/1.1 200 OK") == 2


def test_what_is_no_request_is_refused_without_a_word_on_standard_error(live, capfd) -> None:
    _, web = live
    end = host_line(web) + b"Connection: close\r\n\r\n"
    assert spoken(web, b"PUT /" + end).startswith(b"HTTP/1.1 405 ")
    assert spoken(web, b"POST /" + end).startswith(b"HTTP/1.1 403 ")  # not from the page
    own = b"Origin: " + web.url.rstrip("/").encode() + b"\r\n"
    assert spoken(web, b"POST /" + host_line(web) + own + b"Connection: close\r\n\r\n").startswith(b"HTTP/1.1 405 ")
    for target in (b"//[", b"/frame.jpg?source=" + b"9" * 5000):
        assert spoken(web, b"GET " + target + end).startswith(b"HTTP/1.1 400 "), target
    assert spoken(web, b"\xff\xfe\r\n\r\n").startswith(b"HTTP/1.0 400 ")
    assert spoken(web, *[b"x" * 6000] * 4)[:13] in (b"HTTP/1.0 400 ", b"")  # nothing, where the reset overtakes the answer
    assert spoken(web, b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 200 + b"\r\n").startswith(b"HTTP/1.0 400 ")
    assert fetched(web.url)[0] == 200
    assert capfd.readouterr().err == ""


def test_a_client_that_asks_and_never_reads_is_dropped(live, monkeypatch) -> None:
    monkeypatch.setattr("edgeeff.page.SEND_TIMEOUT", 0.5)
    _, web = live
    url = urlsplit(web.url)
    with socket.create_connection((url.hostname, url.port), timeout=5) as client, pytest.raises(OSError, match=r"reset|pipe"):
        client.sendall((b"GET /" + host_line(web) + b"\r\n") * 4_000_000)


def test_a_client_that_says_nothing_is_hung_up_on(bundle: Bundle, monkeypatch) -> None:
    monkeypatch.setattr("edgeeff.page.IDLE_TIMEOUT", 0.2)
    with CameraPage("0", Camera(bundle, [Fake("pictures", at_pace(30))])) as web:
        for begun_request in (b"", b"GET /", b"GET /" + host_line(web), b"GET /" + host_line(web) + b"\r\n"):
            begun = time.monotonic()
            assert spoken(web, begun_request)[:12] in (b"", b"HTTP/1.1 200")
            assert time.monotonic() - begun < 0.9


def test_the_page_also_listens_at_ipv6(bundle: Bundle) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    with CameraPage("[::1]:0", Camera(bundle, [Fake("pictures", at_pace(30))])) as web:
        assert web.url.startswith("http://[::1]:")
        assert fetched(web.url)[0] == 200


def test_leaving_does_not_wait_for_clients(bundle: Bundle) -> None:
    """One that is idle, one in the middle of a request, one that does not read its answers."""
    with contextlib.ExitStack() as clients, CameraPage("0", Camera(bundle, [Fake("pictures", at_pace(30))])) as web:
        url = urlsplit(web.url)
        for asked in (b"", b"GET /", (b"GET /" + host_line(web) + b"\r\n") * 2000):
            client = clients.enter_context(socket.create_connection((url.hostname, url.port), timeout=5))
            client.sendall(asked)
        assert fetched(web.url)[0] == 200
        time.sleep(0.1)
        begun = time.monotonic()
    assert time.monotonic() - begun < 2


def test_without_aiohttp_it_is_said_what_to_install(bundle: Bundle, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(
        ToolMissing, match=r"aiohttp is not installed: pip install 'edgeeff\[camera\]', on a Jetson pip install aiohttp"
    ):
        CameraPage("0", Camera(bundle, [Fake("pictures", at_pace(30))]))
