"""How old labels are: `edgeeff.camera` on films, on MJPEG over HTTP (ffmpeg) and on RTSP (GStreamer's server), against its parts.

Called by run.py. Servers are of the Debian packages ffmpeg, python3-gi, gir1.2-gst-rtsp-server-1.0, gstreamer1.0-plugins-good.
"""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np

from edgeeff.bundle import Bundle
from edgeeff.camera import Camera, Source
from edgeeff.camera.web import CameraPage
from edgeeff.data.frames import Frame, Frames

RTSP = """
import sys
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_service(sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch("( filesrc location=%s ! avidemux ! image/jpeg ! jpegparse ! rtpjpegpay name=pay0 )" % sys.argv[2])
factory.set_shared(True)
server.get_mount_points().add_factory("/film", factory)
server.attach(None)
GLib.MainLoop().run()
"""


def film(path: Path, photos: list[Path], size: tuple[int, int], fps: int, count: int) -> Path:
    """Photos as MJPEG, changing every frame."""
    folder = path.with_suffix("")
    folder.mkdir()
    for i, photo in enumerate(itertools.islice(itertools.cycle(photos), count)):
        cv2.imwrite(str(folder / f"{i:05d}.jpg"), cv2.resize(cv2.imread(str(photo)), size))
    source = ["-framerate", str(fps), "-i", str(folder / "%05d.jpg")]
    subprocess.run(["ffmpeg", "-v", "error", *source, "-c", "copy", str(path)], check=True)
    return path


def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def served(kind: str, path: Path) -> Iterator[str]:
    """Where the film is played at its own pace: a file that grows (a pipe), or the address of a server."""
    number = port()
    play = ["ffmpeg", "-v", "error", "-re", "-stream_loop", "-1", "-i", str(path), "-c", "copy"]
    if kind == "file":
        address = str(path.with_suffix(".pipe"))
        os.mkfifo(address)
        server = subprocess.Popen([*play, "-y", "-f", "avi", address])
    elif kind == "http":
        address = f"http://127.0.0.1:{number}/"
        server = subprocess.Popen([*play, "-f", "mpjpeg", "-listen", "1", address])
    else:
        address = f"rtsp://127.0.0.1:{number}/film"
        python = shutil.which("python3", path="/usr/bin") or "python3"
        server = subprocess.Popen([python, "-c", RTSP, str(number), str(path)])
    try:
        time.sleep(2)
        yield address
    finally:
        server.kill()
        server.wait()
        if kind == "file":
            Path(address).unlink()


def alone(bundle: Bundle, path: Path, size: tuple[int, int], fps: int, count: int) -> dict[str, float]:
    """Milliseconds to decode a frame, to convert it to BGR and to infer it, at the same pace and one after the other: medians."""
    capture, see = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), bundle.watch(Frames(*size))
    times = np.empty((count, 4))
    begun = time.perf_counter()
    for i in range(count):
        time.sleep(max(0.0, begun + i / fps - time.perf_counter()))
        times[i, 0] = time.perf_counter()
        capture.grab()
        times[i, 1] = time.perf_counter()
        frame = capture.retrieve()[1]
        times[i, 2] = time.perf_counter()
        see(frame)
        times[i, 3] = time.perf_counter()
    parts = 1000 * np.median(np.diff(times), axis=0)
    return dict(zip(("decoding", "conversion", "inference"), map(float, parts), strict=True))


def ages(bundle: Bundle, photos: list[Path], *, fps: int = 10, count: int = 60, rounds: int = 5) -> dict[str, Any]:
    """From the coded frame to its label, in turn with the same work done one after the other. Ages begin with the decoded frame."""
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in ((640, 480), (1920, 1080)):
            path = film(Path(folder) / f"{size[1]}.avi", photos, size, fps, 2 * (fps + count))
            for kind in ("file", "http", "rtsp"):
                turns = []
                for _ in range(rounds):
                    with served(kind, path) as address, Camera(bundle, [address]) as camera:
                        labels = itertools.islice(camera, fps, fps + count)  # a stream begins with a burst
                        times = np.array([(r.age_ms, r.waited_ms, r.inference_ms) for r in labels])
                        dropped = camera.captures[0].dropped
                    parts = alone(bundle, path, size, fps, count)
                    age, waiting, inferring = np.median(times, axis=0)
                    p90, p99 = np.percentile(times[:, 0], (90, 99))
                    ratio = (parts["decoding"] + age) / sum(parts.values())
                    within = {"age": age, "p90": p90, "p99": p99, "waiting": waiting, "inferring": inferring}
                    turns.append({**within, **parts, "ratio": ratio, "dropped": dropped})
                middle = {name: round(float(median(turn[name] for turn in turns)), 3) for name in turns[0]}
                results[f"{kind} {size[0]}×{size[1]}"] = {**middle, "ratios": [round(float(turn["ratio"]), 3) for turn in turns]}
    return results


class Paced(Source):
    """A camera of so many frames a second."""

    def __init__(self, name: str, fps: float, frame: Frame) -> None:
        super().__init__(f"rtsp://{name}")
        self.fps, self.frame = fps, frame

    def frames(self, say: Callable[[str], None]) -> Iterator[tuple[float, Frame]]:
        start = time.monotonic()
        for i in itertools.count():
            time.sleep(max(0.0, start + i / self.fps - time.monotonic()))
            yield time.monotonic(), self.frame.copy()


def overload(bundle: Bundle, minutes: float) -> dict[str, Any]:
    """A camera of 60 frames a second, and a reader that takes 100 ms for each: ages and memory by the minute."""
    frame = np.zeros((480, 640, 3), np.uint8)
    rows: list[dict[str, Any]] = []
    with Camera(bundle, [Paced("sixty", 60, frame)]) as camera:
        waited: list[float] = []
        begun = time.monotonic()
        for result in camera:
            time.sleep(0.1)
            waited.append(result.waited_ms)
            if time.monotonic() - begun > 60 * (len(rows) + 1):
                status = Path("/proc/self/status").read_text()
                resident = int(status.split("VmRSS:")[1].split()[0]) // 1024
                rows.append({"p99_waited_ms": round(float(np.percentile(waited, 99)), 2), "resident_mb": resident})
                waited.clear()
                if len(rows) >= minutes:
                    break
    return {"minutes": rows, "frame_ms": 1000 / 60}


def sharing(bundle: Bundle, labels: int = 400) -> dict[str, int]:
    """Labels of two cameras, of 30 and 60 frames a second, on one model that follows neither."""
    frame = np.zeros((480, 640, 3), np.uint8)
    with Camera(bundle, [Paced("thirty", 30, frame), Paced("sixty", 60, frame)]) as camera:
        for _ in itertools.islice(camera, labels):
            time.sleep(0.05)
        return {row.source: row.labels for row in camera.summary().sources}


CROWD = r"""
import itertools, socket, sys, time
from urllib.parse import urlsplit

where, seconds = urlsplit(sys.argv[1]), float(sys.argv[2])
open_now, begun = [None] * 100, time.monotonic()
for turn in itertools.count():
    time.sleep(max(0, begun + turn / 50 - time.monotonic()))
    if time.monotonic() - begun > seconds:
        break
    if leaving := open_now[turn % 100]:
        leaving.close()
    open_now[turn % 100] = client = socket.create_connection((where.hostname, where.port), timeout=10)
    for page in ("/", "/state.json", "/frame.jpg"):
        client.sendall(f"GET {page} HTTP/1.1\r\nHost: {where.netloc}\r\n\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += client.recv(1 << 16)
        head, _, body = answer.partition(b"\r\n\r\n")
        length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
        while len(body) < length:
            body += client.recv(1 << 16)
        assert length > 1000 or page != "/frame.jpg"
print(turn)
"""


def clients(bundle: Bundle, photo: Path, seconds: float = 8.0, rounds: int = 10) -> dict[str, Any]:
    """Labels a second and their ages, in turn without and with 100 clients of the page that come and go; the clients run here too.

    Each connects, asks for the page, the figures and the picture, stays for two seconds and leaves, and another one comes. Once
    with a camera of 30 frames a second, and once with one that the model cannot follow.
    """
    frame = cv2.resize(cv2.imread(str(photo)), (640, 480))
    results: dict[str, Any] = {}
    for fps in (30, 240):
        rates: dict[str, list[float]] = {"without": [], "with": []}
        ages: dict[str, list[float]] = {"without": [], "with": []}
        visits = []
        with Camera(bundle, [Paced("page", fps, frame)]) as camera, CameraPage(str(port()), camera) as web:
            labels = iter(camera)
            web(next(labels))
            for turn in range(2 * rounds):
                name = "with" if turn % 4 in (1, 2) else "without"
                command = [sys.executable, "-c", CROWD, web.url, str(seconds)]
                crowd = subprocess.Popen(command, stdout=subprocess.PIPE, text=True) if name == "with" else None
                start, times = time.monotonic(), []
                while time.monotonic() - start < seconds:
                    result = next(labels)
                    web(result)
                    times.append(result.age_ms)
                rates[name].append(round(len(times) / (time.monotonic() - start), 1))
                ages[name].append(round(float(np.median(times)), 3))
                if crowd:
                    visits.append(int(crowd.communicate()[0]) / seconds)
                    assert crowd.returncode == 0, "a client got no answer"
        ratios = [a / b for a, b in zip(rates["with"], rates["without"], strict=True)]
        older = [a / b for a, b in zip(ages["with"], ages["without"], strict=True)]
        low, high = (round(float(np.percentile(ratios, p)), 3) for p in (10, 90))
        results[f"{fps} a second"] = {
            "labels_a_second": rates,
            "ratio": round(median(ratios), 3),
            "ratio_p10": low,
            "ratio_p90": high,
            "age_ms": ages,
            "age_ratio": round(median(older), 3),
            "visits_a_second": round(median(visits), 1),
        }
    return results


NEIGHBOURS = r"""
import random, socket, sys, time
from urllib.parse import urlsplit

where, seconds = urlsplit(sys.argv[1]), float(sys.argv[2])
generator, idle, begun, malformed = random.Random(5), [], time.monotonic(), 0

def connect():
    client = socket.create_connection((where.hostname, where.port), timeout=10)
    client.setblocking(False)
    return client

def is_open(client):
    try:
        return client.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False

while time.monotonic() - begun < seconds:
    turn = time.monotonic()
    idle = [client for client in idle if is_open(client)]
    idle += [connect() for _ in range(500 - len(idle))]
    bad = [connect() for _ in range(50)]
    for client in bad:
        client.send(generator.randbytes(1000))
    time.sleep(max(0, turn + 1 - time.monotonic()))
    for client in bad:
        client.close()
    malformed += len(bad)
print(malformed)
"""


def hostile_clients(bundle: Bundle, seconds: float = 6.0, rounds: int = 6) -> dict[str, Any]:
    """Labels a second, in turn without and with 500 connections to the page that say nothing, and 50 a second that send garbage.

    Once with a camera of 30 frames a second, and once with one that the model cannot follow. The clients run here too.
    """
    frame = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    results: dict[str, Any] = {}
    for fps in (30, 2000):
        rates: dict[str, list[float]] = {"without": [], "with": []}
        malformed = 0
        with Camera(bundle, [Paced("page", fps, frame)]) as camera, CameraPage("0", camera) as web:
            labels = iter(camera)
            web(next(labels))
            for turn in range(2 * rounds):
                name = "with" if turn % 4 in (1, 2) else "without"
                command = [sys.executable, "-c", NEIGHBOURS, web.url, str(seconds + 1)]
                crowd = subprocess.Popen(command, stdout=subprocess.PIPE, text=True) if name == "with" else None
                start, count = time.monotonic() + 1, 0  # once the connections are open
                while (now := time.monotonic()) < start + seconds:
                    web(next(labels))
                    count += now > start
                rates[name].append(round(count / seconds, 1))
                if crowd:
                    malformed += int(crowd.communicate()[0])
                    assert crowd.returncode == 0, "a connection was refused"
        ratios = [a / b for a, b in zip(rates["with"], rates["without"], strict=True)]
        results[f"{fps} a second"] = {
            "labels_a_second": rates,
            "ratio": round(median(ratios), 3),
            "ratios": [round(ratio, 3) for ratio in ratios],
            "malformed": malformed,
        }
    return results
