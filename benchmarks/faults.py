"""Kill a fit at every step that changes a file, run the same command again, and compare the bundle with an undisturbed one's.

    python benchmarks/faults.py              every step: killed, on a full disk, on a broken disk; and kills at 100 random moments
    python benchmarks/faults.py --only 20    20 of them, drawn at random

It goes on where it was interrupted. A step is one of Python's audit events in the fit's folder, its temporary folder or its cache:
a file is opened for writing, renamed or removed. Random moments also hit computations and what is written in C++. Libraries are
imported once; each attempt is a fork of that process. Tests try a sample: tests/faults/test_kills.py.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks/results/faults.json"
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink", "os.chmod")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
MEASURED = {  # in a manifest: what differs from one fit to the next
    *("seconds", "date", "digest", "files", "conditions", "disturbed", "verdict", "latency_ms", "fps", "memory_mb", "energy_mj"),
    *("command", "metrics"),
}
MEASURED_FILES = {"manifest.json", "diagnostics.json", "report.html", "README.md"}
TARGET = """\
description: INT8 alone, so that no measurement decides what ships
backend: openvino
precisions: [int8]
threads: 1
latency_ms: 1000
activation: hardswish
"""
Step = Callable[[int, str], None]  # number and name of a step, called before it is made


@dataclass(frozen=True)
class Attempt:
    """How a process ended: its exit code, or minus the signal that killed it; what it wrote to standard error and output."""

    code: int
    seconds: float
    said: str
    answer: str


@dataclass(frozen=True)
class Point:
    """What happens to a fit, and when: `at` is a step's number, or for MOMENT the part of an undisturbed fit's time."""

    fault: str
    at: float


class Runs:
    """Equal runs of one command, each in a folder of its own below `folder`, as forks of this process."""

    def __init__(self, folder: Path, *words: object) -> None:
        self.folder, self.words = folder, [str(word) for word in words]
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, name: str, *, before: Step = lambda number, step: None, after: float | None = None) -> Attempt:
        """Run `name`, or go on with it. `before` is called before each step; it is killed `after` that many seconds."""
        place = self.folder / name
        for each in ("home", "tmp", "work"):
            (place / each).mkdir(parents=True, exist_ok=True)
        start, said, answer = time.monotonic(), place.with_suffix(".log"), place.with_suffix(".out")
        child = os.fork()
        if child == 0:
            self._run(place, (answer, said), before)
        killer = threading.Timer(after or 600, os.kill, (child, signal.SIGKILL))
        killer.start()
        try:
            _, status = os.waitpid(child, 0)
        finally:
            killer.cancel()
        seconds = time.monotonic() - start
        return Attempt(os.waitstatus_to_exitcode(status), seconds, *(p.read_text(encoding="utf-8") for p in (said, answer)))

    def _run(self, place: Path, outputs: tuple[Path, Path], before: Step) -> None:
        """In the child, which never returns."""
        code = 70
        try:
            for descriptor, file in enumerate(outputs, 1):
                os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
            self.enter(place)
            sys.addaudithook(counted(place, before))
            from edgeeff.cli import main

            code = main(self.words)
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def enter(self, place: Path) -> None:
        """In the child: everything that the command writes lies in the place."""
        os.environ.update(HOME=str(place / "home"), TMPDIR=str(place / "tmp"), XDG_CACHE_HOME=str(place / "home/.cache"))
        tempfile.tempdir = None
        os.chdir(place / "work")

    def leftovers(self, name: str) -> list[str]:
        """Everything beside the bundle, but for the empty folder that torch makes in the temporary one."""
        place = self.folder / name
        found = [p for part in ("home", "tmp", "work") for p in (place / part).rglob("*")]
        known = [place / "work/bundle", *(place / "tmp").glob("torchinductor_*")]
        return sorted(str(p.relative_to(place)) for p in found if not {p, *p.parents} & set(known))


class Fits(Runs):
    """Equal fits of a small network to a few photos."""

    def __init__(self, folder: Path, photos: Path, *options: object) -> None:
        target, sets = folder / "only-int8.yaml", ("--train", photos / "train", "--val", photos / "val")
        network = ("--variant", "lite0", "--resolution", 32, "--epochs", 1, "--no-flip", "--max-drop", 100)
        super().__init__(folder, "fit", "--target", target, *network, *sets, "--out", "bundle", *options)
        target.write_text(TARGET, encoding="utf-8")

    def bundle(self, name: str) -> dict[str, object]:
        return unmeasured(self.folder / name / "work/bundle")


def counted(place: Path, before: Step) -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook that calls `before` for each step within `place`."""
    number, inside = 0, f"{place}{os.sep}"

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal number
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & WRITES:
                return
        elif event in CHANGES:
            path = arguments[0]
        else:
            return
        if isinstance(path, (str, bytes, os.PathLike)) and os.path.abspath(os.fsdecode(path)).startswith(inside):  # noqa: PTH100
            number += 1
            before(number, f"{event} {os.path.relpath(os.fsdecode(path), place)}")

    return hook


def killed_at(wanted: int) -> Step:
    """Kills the process, as nothing can be caught, before that step."""

    def before(number: int, step: str) -> None:
        if number == wanted:
            os.kill(os.getpid(), signal.SIGKILL)

    return before


def failing_at(wanted: int, error: int) -> Step:
    """Lets the step, and each that writes after it, fail as a full or broken disk does. What is removed makes room."""

    def before(number: int, step: str) -> None:
        if number >= wanted and step.split()[0] not in ("os.remove", "os.rmdir"):
            raise OSError(error, os.strerror(error))

    return before


FAULTS: dict[str, Callable[[int], Step]] = {
    "killed": killed_at,
    "full disk": partial(failing_at, error=errno.ENOSPC),
    "broken disk": partial(failing_at, error=errno.EIO),
}
MOMENT = "killed at a moment"


def steps(runs: Runs, name: str) -> list[str]:
    """Every step of the undisturbed run `name`, in its order."""
    record = runs.folder / f"{name}.steps"
    file = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def note(number: int, step: str) -> None:
        os.write(file, f"{step}\n".encode())

    attempt = runs.run(name, before=note)
    os.close(file)
    if attempt.code:
        raise RuntimeError(f"the undisturbed run ended with {attempt.code}: {attempt.said}")
    return record.read_text(encoding="utf-8").splitlines()


def unmeasured(bundle: Path) -> dict[str, object]:
    """What does not differ between the bundles of equal fits: each file's bytes, and the manifest without what was measured."""
    files: dict[str, object] = {p.name: p.read_bytes() for p in bundle.iterdir() if p.name not in MEASURED_FILES}
    return {**files, "manifest.json": without_measurements(json.loads((bundle / "manifest.json").read_bytes()))}


def without_measurements(value: Any) -> Any:
    """JSON without the fields of MEASURED."""
    if isinstance(value, dict):
        return {key: without_measurements(each) for key, each in value.items() if key not in MEASURED}
    return [without_measurements(each) for each in value] if isinstance(value, list) else value


def preload() -> None:
    """Import what a fit imports, as briefly measured as in tests, so that forks need not."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests/startup")]
    import economy

    economy.after_import(economy.ONE_THREAD | economy.BRIEF)
    for name in ("edgeeff.pipeline", "nncf", "onnxruntime", "torch._dynamo"):  # edgeeff first: it turns telemetry off
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)


def points(steps: int) -> list[Point]:
    """Everything that is tried of a fit that takes that many steps; every kill comes first, so that an unfinished run has all."""
    rng = random.Random(0)
    at_steps = [Point(fault, step) for fault in FAULTS for step in range(1, steps + 1)]
    return [*at_steps, *(Point(MOMENT, round(rng.random(), 3)) for _ in range(100))]


def tried(fits: Fits, point: Point, whole: dict[str, object], seconds: float) -> dict[str, object]:
    """How a fit ended at that point, and whether the same command then made the bundle `whole` and left nothing behind."""
    name = f"{point.fault}-{point.at:g}".replace(" ", "-")
    if point.fault == MOMENT:
        first = fits.run(name, after=point.at * seconds)
    else:
        first = fits.run(name, before=FAULTS[point.fault](int(point.at)))
    line = first.said.splitlines()[-1:]
    second = fits.run(name)
    same = second.code == 0 and fits.bundle(name) == whole
    left = fits.leftovers(name)
    shutil.rmtree(fits.folder / name)
    return {**asdict(point), "ended": first.code, "line": line, "again": second.code, "same": same, "leftovers": left}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=int, metavar="N", help="as many points, drawn at random (default: all)")
    parser.add_argument("--out", type=Path, default=RESULT, metavar="FILE")
    options = parser.parse_args()
    preload()
    import result_files
    from digits import write

    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "photos", each=6)
        fits = Fits(Path(folder) / "fits", Path(folder) / "photos")
        start = time.monotonic()
        names = steps(fits, "whole")
        seconds, whole = time.monotonic() - start, fits.bundle("whole")
        wanted = points(len(names))
        if options.only:
            wanted = random.Random(1).sample(wanted, options.only)
        results = result_files.read(options.out)["tried"] if options.out.exists() else []
        done = {(each["fault"], each["at"]) for each in results}
        for point in wanted:
            if (point.fault, point.at) in done:
                continue
            results.append(tried(fits, point, whole, seconds))
            summary = {
                "points": len(results),
                "same": sum(each["same"] for each in results),
                "leftovers": sum(bool(each["leftovers"]) for each in results),
            }
            print(f"{point.fault} {point.at:g} of {len(wanted)}: {results[-1]}", flush=True)
            result_files.write(options.out, {**summary, "steps": names, "tried": results})


if __name__ == "__main__":
    main()
