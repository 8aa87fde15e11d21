"""Cameras that no test machine has, and what else the tests of cameras share."""

import contextlib
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import numpy as np

from edgeeff import Bundle
from edgeeff.camera import Camera
from edgeeff.camera.result import Result
from edgeeff.camera.sources import Source
from edgeeff.camera.web import CameraPage
from edgeeff.progress import Progress

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


def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def listens(number: int) -> bool:
    """Whether a server listens at a port of this machine; found without a connection, as some servers take one only."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind(("127.0.0.1", number))
        except OSError:
            return True
    return False


def result(probability: float, at: float = 0.0) -> Result:
    return Result("cam/1", 0, at, None, (("rose", probability),), 1.0, 0.0, 1.0, np.zeros((48, 64, 3), np.uint8))


@contextlib.contextmanager
def serving(bundle: Bundle, name: str = "pictures") -> Iterator[tuple[Camera, CameraPage]]:
    """A camera that runs in a thread, and its page."""
    camera = Camera(bundle, [Fake(name, at_pace(30))])
    with CameraPage("0", camera) as web:

        def loop() -> None:
            for result in camera:
                web(result)

        thread = threading.Thread(target=loop)
        thread.start()
        yield camera, web
        for capture in camera.captures:
            capture.stop()
        thread.join()


def host_line(web: CameraPage) -> bytes:
    """The end of a request's first line, and its first header."""
    return f" HTTP/1.1\r\nHost: {urlsplit(web.url).netloc}\r\n".encode()


def spoken(web: CameraPage, *pieces: bytes, end: bool = False) -> bytes:
    """What comes back until the server closes the connection, which it must within five seconds. `end`: no more will be sent."""
    url = urlsplit(web.url)
    answer = b""
    with socket.create_connection((url.hostname, url.port), timeout=5) as client, contextlib.suppress(ConnectionError):
        for piece in pieces:
            client.sendall(piece)
            if len(pieces) > 1:
                time.sleep(0.05)
        if end:
            client.shutdown(socket.SHUT_WR)
        while more := client.recv(1 << 16):
            answer += more
    return answer
