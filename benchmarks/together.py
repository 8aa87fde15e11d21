"""`edgeeff camera` with everything at once, under limits of memory and descriptors: what it takes of both, and its labels a second.

Two films of 30 frames a second that begin again at their end, the page with clients that come and go, a broker, a file of labels,
and a folder that collects frames. The process runs under `ulimit -v` and `ulimit -n`: it fails where it reaches a limit.
Called by run.py; tests/camera/test_together.py does the same for some seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import IO, Any

import cv2
import numpy as np

FPS = 30
CLIENTS = 3
ADDRESS_SPACE = 4 << 30  # bytes, for `ulimit -v`: OpenVINO and OpenCV reserve about half of it at once
DESCRIPTORS = 64
WARM = 0.5  # of the time: the most frames that were needed at once, and tables of Python, go on growing for minutes
BLOCK = 10  # seconds of which the median is taken, so that neighbours in a regression are less alike
MEMORY = {"resident_mb": "VmRSS", "own_mb": "RssAnon"}  # of /proc/PID/status
END = 60.0  # seconds that it may take beyond the time that it is given


def film(path: Path, seed: int, seconds: int = 5) -> Path:
    """Noise of 640 × 480 pixels that no two frames share."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (640, 480))
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (FPS * seconds, 48, 64, 3), np.uint8)
    for frame in coarse:
        writer.write(cv2.resize(frame, (640, 480)))
    writer.release()
    return path


@contextlib.contextmanager
def broker() -> Iterator[tuple[int, Counter[str]]]:
    """The port of what accepts one MQTT client, and the bytes that it has published."""
    got: Counter[str] = Counter()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def run() -> None:
            client, _ = listening.accept()
            with client, contextlib.suppress(OSError):
                client.sendall(b"\x20\x02\x00\x00")  # CONNACK
                client.settimeout(1.0)
                while True:
                    with contextlib.suppress(TimeoutError):
                        if not (data := client.recv(1 << 16)):
                            return
                        got["bytes"] += len(data)
                    client.sendall(b"\xd0\x00")  # PINGRESP

        threading.Thread(target=run, daemon=True).start()
        yield listening.getsockname()[1], got


def visit(url: str, visits: Counter[str]) -> None:
    """A client of the page, until the server is gone."""
    with contextlib.suppress(OSError):
        while True:
            for page in ("", "state.json", "frame.jpg?source=0", "frame.jpg?source=1"):
                with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(url + page, timeout=10) as answer:
                    answer.read()
                visits["pages"] += 1
            time.sleep(0.25)


def usage(pid: int) -> dict[str, float]:
    """Resident megabytes, those of them that no file backs, open descriptors and threads of a process.

    Pages of files, which are libraries here, leave memory and come back as the kernel finds it fit: only the others are the
    process's own.
    """
    process = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    megabytes = {name: round(int(status[field].split()[0]) * 1024 / 1e6, 2) for name, field in MEMORY.items()}
    counts = {name: len(list((process / folder).iterdir())) for name, folder in {"descriptors": "fd", "threads": "task"}.items()}
    return {**megabytes, **counts}


def limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))


def page_of(stream: IO[str], process: subprocess.Popen[str]) -> str:
    """The address that the camera says, once it is there."""
    while process.poll() is None:
        if found := re.search(r"watch at (\S+)", stream.read()):
            return found[1]
        time.sleep(0.1)
        stream.seek(0)
    raise RuntimeError(stream.read())


def run(bundle: Path, seconds: float) -> dict[str, Any]:
    """What the camera took in each second, and the labels that it gave."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        films, (port, got) = [film(folder / f"{i}.avi", i) for i in range(2)], stack.enter_context(broker())
        outputs = ("--web", 0, "--mqtt", f"127.0.0.1:{port}/labels", "--output", folder / "labels", "--collect", folder / "frames")
        words = (
            "camera",
            bundle,
            "--source",
            *films,
            "--loop",
            "--seconds",
            seconds,
            *outputs,
            "--uncertain",
            1,
            "--collect-mb",
            5,
        )
        said = stack.enter_context((folder / "said").open("w+"))
        command = [sys.executable, "-m", "edgeeff", *map(str, words)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, text=True, preexec_fn=limit)
        stack.callback(process.kill)
        reader = stack.enter_context((folder / "said").open())
        url, visits, rows = page_of(reader, process), Counter[str](), []
        for _ in range(CLIENTS):
            threading.Thread(target=visit, args=(url, visits), daemon=True).start()
        begun = time.monotonic()
        while process.poll() is None and (second := time.monotonic() - begun) < seconds - 2:  # before it begins to end
            if (folder / "labels").stat().st_size:  # the model is compiled, and every sink has had a label
                rows.append({"second": round(second, 1), **usage(process.pid)})
            time.sleep(1)
        process.wait(END)
        if process.returncode:
            raise RuntimeError(f"the camera ended with {process.returncode}: {(folder / 'said').read_text()}")
        labels = [json.loads(line) for line in (folder / "labels").read_text().splitlines()]
        kept = len(list((folder / "frames").glob("*.jpg")))
        lines = [line for line in (folder / "said").read_text().splitlines() if "watch at" not in line]
    return {
        "rows": rows,
        "rates": rates(labels),
        "kept": kept,
        "said": lines,
        "published_bytes": got["bytes"],
        "pages": visits["pages"],
    }


def rates(labels: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Labels a second of each source, in tenths of the time."""
    times = np.array([label["time"] for label in labels])
    edges = np.linspace(times.min(), times.max(), 11)
    return {
        Path(source).name: [
            round(float(n / (b - a)), 2)
            for n, (a, b) in zip(
                np.histogram(times[[x["source"] == source for x in labels]], edges)[0], pairwise(edges), strict=True
            )
        ]
        for source in sorted({label["source"] for label in labels})
    }


def trend(rows: list[dict[str, float]], what: str) -> dict[str, float]:
    """Least and most once it is warm; the slope, a minute, of a line through medians of BLOCK seconds, with its 95% interval."""
    from scipy import stats

    steady = [row for row in rows if row["second"] > WARM * rows[-1]["second"]]
    blocks: dict[int, list[dict[str, float]]] = {}
    for row in steady:
        blocks.setdefault(int(row["second"] // BLOCK), []).append(row)
    values = [row[what] for row in steady]
    fit = stats.linregress(
        [median(r["second"] for r in block) / 60 for block in blocks.values()],
        [median(r[what] for r in block) for block in blocks.values()],
    )
    half = np.nan_to_num(fit.stderr) * stats.t.ppf(0.975, max(1, len(blocks) - 2))  # of equal values it is not a number
    facts = {"least": min(values), "most": max(values), "slope": fit.slope, "low": fit.slope - half, "high": fit.slope + half}
    return {name: round(float(value), 3) for name, value in facts.items()}


def measured(bundle: Path, seconds: float) -> dict[str, Any]:
    """The run, with the trend of each figure."""
    found = run(bundle, seconds)
    load = round(os.getloadavg()[1], 1)  # of five minutes: what else the machine did
    limits = {"address_space": ADDRESS_SPACE, "descriptors": DESCRIPTORS}
    figures = {what: trend(found["rows"], what) for what in (*MEMORY, "descriptors", "threads")}
    return {"seconds": seconds, "load": load, "limits": limits, **figures, **found}
