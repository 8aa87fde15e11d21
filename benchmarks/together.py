"""Everything that a camera can do at once, under limits of memory and descriptors: `python benchmarks/together.py BUNDLE SECONDS`.

Two cameras of 30 and 60 frames a second, the page with a client that comes and goes, a broker, and a folder that collects frames.
Prints resident memory and open descriptors of every second as JSON. A limit that is reached ends it with an error.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from camera import Paced

from edgeeff.bundle import Bundle
from edgeeff.camera import Camera, CameraOptions
from edgeeff.camera.sinks import FrameCollector, MqttPublisher
from edgeeff.camera.web import PageServer

MEMORY = 400 << 20  # bytes of address space beside what is there once all has started
DESCRIPTORS = 100


@contextlib.contextmanager
def broker() -> Iterator[int]:
    """The port of what accepts one MQTT client, and reads what it publishes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def run() -> None:
            client, _ = listening.accept()
            with client, contextlib.suppress(OSError):
                client.sendall(b"\x20\x02\x00\x00")  # CONNACK
                client.settimeout(1.0)
                while True:
                    with contextlib.suppress(TimeoutError):
                        if not client.recv(1 << 16):
                            return
                    client.sendall(b"\xd0\x00")  # PINGRESP

        threading.Thread(target=run, daemon=True).start()
        yield listening.getsockname()[1]


def visit(url: str) -> None:
    """A client of the page, until the server is gone."""
    with contextlib.suppress(OSError):
        while True:
            for page in ("", "state.json", "frame.jpg?source=0", "frame.jpg?source=1"):
                with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(url + page, timeout=10) as answer:
                    answer.read()
            time.sleep(0.1)


def usage() -> dict[str, float]:
    """Resident megabytes and open descriptors of this process."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return {"resident_mb": round(resident / 1e6, 1), "descriptors": len(list(Path("/proc/self/fd").iterdir()))}


def limit() -> None:
    """Little more address space than is used, and few descriptors."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))


def main(path: str, seconds: float) -> None:
    frames = [np.random.default_rng(i).integers(0, 256, (480, 640, 3), np.uint8) for i in range(2)]
    sources = [Paced("thirty", 30, frames[0]), Paced("sixty", 60, frames[1])]
    rows: list[dict[str, float]] = []
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        camera = stack.enter_context(Camera(Bundle.open(path), sources, CameraOptions(seconds=seconds)))
        page = stack.enter_context(PageServer("0", camera))
        publish = stack.enter_context(MqttPublisher(f"127.0.0.1:{stack.enter_context(broker())}/labels"))
        sinks = [page, publish, FrameCollector(Path(folder), 1.0, megabytes=5, seconds=0.5)]
        threading.Thread(target=visit, args=(page.url,), daemon=True).start()
        begun = time.monotonic()
        for result in camera:
            for sink in sinks:
                sink(result)
            if time.monotonic() - begun > len(rows) + 1:
                rows.append(usage())
                if len(rows) == 2:
                    limit()
        labels = [row.labels for row in camera.summary().sources]
        print(json.dumps({"seconds": rows, "labels": labels, "kept": sinks[2].kept, "unsent": publish.unsent}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
