"""A camera that follows a folder of bundles: 200 of them in turn under 30 frames a second, ones that fail, and kills at any moment.

The camera is a process of its own, which runs this file; bundles are copies of one with later dates. `fetched` has them come from
another host, which is this machine by an SSH server of its own, and needs sshd and rsync. Called by run.py.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from together import film, trend, usage

from edgeeff.bundle import Bundle, seal
from edgeeff.camera import Camera, CameraOptions
from edgeeff.camera.follow import STATE, Follower, Following, bundle_to_run, rollback
from edgeeff.camera.result import Event
from edgeeff.job import BundleJob
from edgeeff.remote import pull

FRAMES = 10  # that a bundle is tried on, and watched for: a tenth of what the command line takes, so that 200 are soon through
SWAPS, FETCHED, FAILING, KILLS = 200, 40, 20, 100
PERIOD = 2.0  # seconds from one look at another host to the next; a camera of the command line takes 30
PATIENCE = 60.0  # seconds for a bundle to be decided about


def watch(bundle: str, source: str, folder: str, address: str = "") -> None:
    """The camera: one line of JSON for each label and each event, until it is killed. It fetches bundles from an address."""

    def write(line: dict[str, Any]) -> None:
        os.write(sys.stdout.fileno(), f"{json.dumps(line)}\n".encode())  # at once, as events come from another thread

    def tell(event: Event) -> None:
        write({**asdict(event), "at": time.monotonic()})

    job = BundleJob(Path(bundle))
    first, running = bundle_to_run(job, Path(folder), tell)
    pull.PERIOD = PERIOD
    with ExitStack() as stack:
        camera = stack.enter_context(Camera(first, [source], CameraOptions(loop=True)))
        camera.paced = True
        stack.enter_context(Follower(job, Path(folder), camera, running, tell, FRAMES))
        if address:
            stack.enter_context(pull.Puller(address, Path(folder), tell))
        for result in camera:
            write({"frame": result.frame, "bundle": camera.bundle.path.name})


class Watched:
    """Such a process, and every line that it has written."""

    def __init__(self, *words: str | Path) -> None:
        self.lines: list[dict[str, Any]] = []
        self.process = subprocess.Popen([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            if line.endswith("\n"):  # the last of a process that is killed may be cut off
                self.lines.append(json.loads(line))

    def wait(self, kind: str, name: str) -> dict[str, Any]:
        """The event of that kind about that bundle."""
        return self._until(
            lambda: [line for line in self.lines if (line.get("event"), line["bundle"]) == (kind, name)], f"{name}: {kind}"
        )

    def label(self) -> dict[str, Any]:
        """A label that comes from now on."""
        seen = len(self.lines)
        return self._until(lambda: [line for line in self.lines[seen:] if "frame" in line], "a label")

    def _until(self, found: Callable[[], list[dict[str, Any]]], what: str) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while not (lines := found()):
            if time.monotonic() > end or self.process.poll() is not None:
                raise RuntimeError(f"waited for {what}; the camera said: {[line for line in self.lines if 'event' in line][-3:]}")
            time.sleep(0.02)
        return lines[0]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()


class Releases:
    """Bundles that come into a folder, each a day newer than the one before, at once, as by a rename."""

    def __init__(self, bundle: Path, folder: Path) -> None:
        self.bundle, self.folder, self.count = bundle, folder, 0
        self.manifest, self.golden = Bundle.open(bundle).manifest, Bundle.open(bundle).golden()
        folder.mkdir()

    def add(self, *, failing: bool = False) -> str:
        """The name of a new one, whose golden photos give other logits where it is `failing`."""
        self.count += 1
        name = f"bundle-{self.count:03d}"
        part = self.folder / f".{name}"
        shutil.copytree(self.bundle, part)
        (part / "manifest.json").unlink()
        if failing:
            np.savez_compressed(part / "golden.npz", **{**self.golden, "logits": self.golden["logits"][:, ::-1]})
        date = datetime.now(timezone.utc) + timedelta(days=self.count)
        seal(part, replace(self.manifest, date=date.isoformat()))
        part.rename(self.folder / name)
        return name

    def keep(self, *names: str) -> None:
        """Remove the others."""
        for path in self.folder.glob("bundle-*"):
            if path.name not in names:
                shutil.rmtree(path)


def measured(bundle: Path) -> dict[str, Any]:
    """Frames without a label at each swap, memory over all of them, seconds until one that fails is refused and until a return; and
    what came of kills."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        words = (bundle, film(root / "film.avi", 0), root / "bundles")
        releases = Releases(bundle, root / "bundles")
        return {"frames": FRAMES, **swapped(releases, words), "kills": killed(releases, words)}


def swapped(releases: Releases, words: Sequence[Path]) -> dict[str, Any]:
    """Bundles in turn, each watched until it is proven; then those that fail, and returns by hand."""
    watched = Watched(*words)
    rows = in_turn(watched, releases, SWAPS)
    refused = [after(watched, "refused", lambda: releases.add(failing=True)) for _ in range(FAILING)]
    returned = [after(watched, "rolled back", lambda: gone_back(watched, releases)) for _ in range(FAILING)]
    watched.kill()
    return {**told(watched, rows), "refused_s": spread(refused), "returned_s": spread(returned)}


def fetched(bundle: Path) -> dict[str, Any]:
    """Bundles that come from another host, in turn."""
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from boards import SSHD, new_board, serving

    for program in (SSHD, "rsync"):
        if not shutil.which(program):
            raise SystemExit(f"{program} is not installed: this needs an SSH server and rsync (Debian: openssh-server, rsync).")
    with tempfile.TemporaryDirectory() as temporary, serving(Path(temporary)) as server:
        board, copies = new_board(server, server / "on"), server / "copies"
        os.environ["PATH"] = board.env["PATH"]
        copies.mkdir()
        releases = Releases(bundle, board.home / "bundles")
        watched = Watched(bundle, film(server / "film.avi", 0), copies, f"{board.name}:bundles")
        rows = in_turn(watched, releases, FETCHED)
        watched.kill()
        return {"frames": FRAMES, "period": PERIOD, **told(watched, rows)}


def in_turn(watched: Watched, releases: Releases, swaps: int) -> list[dict[str, float]]:
    """So many bundles, each of which is proven before the next one comes; what the camera uses after each."""
    rows, begun, before = [], time.monotonic(), ""
    watched.label()
    for _ in range(swaps):
        name = releases.add()
        watched.wait("proven", name)
        releases.keep(before, name)
        before = name
        rows.append({"second": time.monotonic() - begun, **usage(watched.process.pid)})
        print(f"swapped {len(rows)} of {swaps}", file=sys.stderr)
    return rows


def told(watched: Watched, rows: list[dict[str, float]]) -> dict[str, Any]:
    """The frames without a label at each change of bundles, and what was used while they came in turn."""
    labels = [line for line in watched.lines if "frame" in line]
    pairs = list(pairwise(labels))
    numbers = [label["frame"] for label in labels]
    return {
        "swaps": len(rows),
        "without_label": Counter(b["frame"] - a["frame"] - 1 for a, b in pairs if a["bundle"] != b["bundle"]),
        "labelled": len(numbers) / (numbers[-1] - numbers[0] + 1),
        "own_mb": trend(rows, "own_mb"),
        "descriptors": trend(rows, "descriptors"),
        "rows": rows,
    }


def gone_back(watched: Watched, releases: Releases) -> str:
    """Go back to what ran before a new bundle, as `edgeeff rollback` does; the new one's name."""
    name = releases.add()
    watched.wait("proven", name)
    rollback(releases.folder)
    return name


def after(watched: Watched, kind: str, act: Callable[[], str]) -> float:
    """Seconds from the end of what is done about a bundle to the event, while labels go on."""
    name = act()
    begun = time.monotonic()
    seconds = watched.wait(kind, name)["at"] - begun
    watched.label()
    return max(0.0, float(seconds))


def spread(seconds: list[float]) -> dict[str, float]:
    return {"median": statistics.median(seconds), "most": max(seconds)}


def killed(releases: Releases, words: Sequence[Path]) -> dict[str, int]:
    """Cameras that are killed while bundles come, at moments that are drawn at random, and are started again."""
    rng, labelled, whole = random.Random(0), 0, 0
    for number in range(KILLS):
        watched = Watched(*words)
        watched.label()
        labelled += 1
        name = releases.add()
        time.sleep(rng.uniform(0, 3))  # opened, on trial, swapped, or proven
        watched.kill()
        running = Following.read(releases.folder).running
        whole += not running or bool(Bundle.open(releases.folder / running))
        releases.keep(running, name)
        print(f"killed {number + 1} of {KILLS}", file=sys.stderr)
    left = [path.name for path in releases.folder.iterdir() if path.name != STATE and not path.name.startswith("bundle-")]
    return {"kills": KILLS, "labelled_again": labelled, "whole": whole, "files_beside": len(left)}


if __name__ == "__main__":
    watch(*sys.argv[1:])
