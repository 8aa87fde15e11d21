"""The page of a camera: what it answers, to browsers and to what is none."""

import contextlib
import itertools
import json
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from cameras import CHROMIUM, Fake, at_pace

from edgeeff import Bundle
from edgeeff.camera.loop import Camera
from edgeeff.camera.web import Web


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
    from edgeeff.camera import web as module

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


def spoken(web: Web, *pieces: bytes) -> bytes:
    """What comes back until the server hangs up, or says nothing more for a second."""
    _, _, where = web.url.rstrip("/").rpartition("/")
    host, _, number = where.rpartition(":")
    answer = b""
    with (
        socket.create_connection((host, int(number)), timeout=1) as client,
        contextlib.suppress(TimeoutError, ConnectionResetError),
    ):
        for piece in pieces:
            client.sendall(piece)
            time.sleep(0.05)
        while more := client.recv(1 << 16):
            answer += more
    return answer


def test_one_connection_takes_many_requests_also_in_pieces(live) -> None:
    _, web = live
    ask = b"GET /state.json HTTP/1.1\r\nHost: x\r\n\r\n"
    assert spoken(web, ask[:7], ask[7:30], ask[30:] + ask).count(b"HTTP/1.1 200 OK") == 2


def test_what_is_no_request_is_refused_without_a_word_on_standard_error(live, capfd) -> None:
    _, web = live
    assert spoken(web, b"POST / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 405 ")
    for nonsense in (
        b"\xff\xfe\r\n\r\n",
        b"GET //[ HTTP/1.1\r\n\r\n",
        b"GET /frame.jpg?source=" + b"9" * 5000 + b" HTTP/1.1\r\n\r\n",
    ):
        assert spoken(web, nonsense).startswith(b"HTTP/1.1 400 "), nonsense
    assert spoken(web, *[b"x" * 6000] * 4) == b""
    assert fetched(web.url)[0] == 200
    assert capfd.readouterr().err == ""


def test_a_client_that_asks_and_never_reads_is_dropped(live, monkeypatch) -> None:
    monkeypatch.setattr("edgeeff.camera.web.UNREAD", 100_000)
    _, web = live
    url = urlsplit(web.url)
    with socket.create_connection((url.hostname, url.port), timeout=5) as client, pytest.raises(OSError, match=r"reset|pipe"):
        client.sendall(b"GET / HTTP/1.1\r\n\r\n" * 5_000_000)


def test_a_client_that_says_nothing_is_hung_up_on(live, monkeypatch) -> None:
    monkeypatch.setattr("edgeeff.camera.web.IDLE", 0.2)
    _, web = live
    begun = time.monotonic()
    assert spoken(web) == b""
    assert time.monotonic() - begun < 0.9


def test_the_page_also_listens_at_ipv6(bundle: Bundle) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    with Web("[::1]:0", Camera(bundle, [Fake("pictures", at_pace(30))])) as web:
        assert web.url.startswith("http://[::1]:")
        assert fetched(web.url)[0] == 200
