"""Kill a command with --on, or its half on the host, at every step; give it again, and compare with an undisturbed one.

    python benchmarks/remote_faults.py              every step on either side of bench, eval, pick and fit, and 40 random moments
    python benchmarks/remote_faults.py --only 20    20 of them, drawn at random

It goes on where it was interrupted. The host is this machine, by an SSH server of its own: it needs sshd and rsync. A step here is
one of benchmarks/faults.py; a step there is the same in the host's home, counted over all of its processes. At a moment there,
whatever runs on the host is killed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faults
import result_files

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks/results/remote-faults.json"
VERBS = ("bench", "eval", "pick", "fit")
HERE, THERE = "here", "there"
RULE = """\
export PYTHONPATH={startup} PYTHONDONTWRITEBYTECODE=1 TMPDIR="$HOME/tmp"
export FAULTS_STEPS={steps} FAULTS_AT={at}
mkdir -p "$TMPDIR"
"""
PATIENCE = 30.0  # seconds until processes on the host that nobody waits for have ended


@dataclass(frozen=True)
class Point:
    """What is killed of a verb, and when: before the step of that number, or after that part of an undisturbed run's time."""

    verb: str
    side: str
    at: float


class RemoteRuns(faults.Runs):
    """Equal runs of a verb on one host, whose home is empty before each."""

    def __init__(self, folder: Path, board: Any, words: Sequence[object]) -> None:
        super().__init__(folder, *words, "--on", board.name, "--json")
        self.board, self.steps = board, folder / "there.steps"
        self.environments = (board.home / ".cache/edgeeff/on").readlink()

    def fresh(self) -> None:
        """Empty the host's home, but for the installed environments."""
        shutil.rmtree(self.board.home)
        (self.board.home / ".cache/edgeeff").mkdir(parents=True)
        (self.board.home / ".cache/edgeeff/on").symlink_to(self.environments)
        self.kill_there_at(0)

    def kill_there_at(self, step: int) -> None:
        """The process of the host that comes to that step, counted from now on, is killed before it."""
        self.steps.write_text("")
        self.board.rule(RULE.format(startup=ROOT / "tests/startup", steps=self.steps, at=step))

    def steps_there(self) -> list[str]:
        return self.steps.read_text().splitlines()

    def enter(self, place: Path) -> None:
        from edgeeff.files import temporary_folder
        from edgeeff.remote import ssh

        super().enter(place)
        os.environ["PATH"] = self.board.env["PATH"]
        ssh.temporary_folder = lambda root: temporary_folder()  # the socket's, which would lie among those of others in /tmp

    def left(self, name: str) -> list[str]:
        """What is left here, files in the host's home, and processes that still run in it after a while."""
        end = time.monotonic() + PATIENCE
        while self.board.processes and time.monotonic() < end:
            time.sleep(0.05)
        home = self.board.home
        files = [f"{p.relative_to(home)}" for p in home.rglob("*") if not p.is_dir() or p.parent.name == "jobs"]
        there = (*files, *self.board.processes.values())
        return [*(f"here: {each}" for each in self.leftovers(name)), *(f"there: {each}" for each in there)]

    def result(self, name: str, answer: str) -> object:
        """What does not differ between equal runs."""
        told = json.loads(answer)
        if self.words[0] == "fit":
            return faults.unmeasured(self.folder / name / "work/bundle")
        if self.words[0] == "pick":
            return told["chosen"]["variant"], [(form["precision"], form["activation"]) for form in told["chosen"]["forms"]]
        (there,) = told["hosts"]
        return {key: there.get(key) for key in ("precision", "top1", "top5", "images")}, sorted(there)


def far_steps() -> None:
    """In each Python process of the host: count its steps with those of the others, and kill it before its step comes."""
    record, wanted, home = Path(os.environ["FAULTS_STEPS"]), int(os.environ["FAULTS_AT"]), Path(os.environ["HOME"])

    def before(number: int, step: str) -> None:
        with record.open("a+") as file:
            file.write(f"{step}\n")
            file.flush()
            file.seek(0)
            count = sum(1 for _ in file)
        if count == wanted:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(faults.counted(home, before))


@dataclass
class Whole:
    """An undisturbed run of a verb: what every other is compared with."""

    runs: RemoteRuns
    here: list[str]
    there: list[str]
    seconds: float
    result: object
    left: list[str]

    @classmethod
    def of(cls, runs: RemoteRuns) -> Whole:
        for name in ("first", "whole"):  # the first one installs the environment
            runs.fresh()
            start = time.monotonic()
            here = faults.steps(runs, name)
            seconds = time.monotonic() - start
        answer = (runs.folder / "whole.out").read_text()
        return cls(runs, here, runs.steps_there(), seconds, runs.result("whole", answer), runs.left("whole"))

    def points(self, moments: int) -> list[Point]:
        rng, verb = random.Random(self.runs.words[0]), self.runs.words[0]
        at_steps = [Point(verb, side, i) for side in (HERE, THERE) for i in range(1, len(getattr(self, side)) + 1)]
        return [
            *at_steps,
            *(Point(verb, f"{side}, at a moment", round(rng.random(), 3)) for _ in range(moments) for side in (HERE, THERE)),
        ]

    def tried(self, point: Point) -> dict[str, object]:
        """How the verb ended when it was disturbed, and whether the same command then gave the same and left nothing more."""
        runs, name = self.runs, "p"
        runs.fresh()
        if point.side == HERE:
            first = runs.run(name, before=faults.killed_at(int(point.at)))
        elif point.side == THERE:
            runs.kill_there_at(int(point.at))
            first = runs.run(name)
        elif point.side.startswith(HERE):
            first = runs.run(name, after=point.at * self.seconds)
        else:
            timer = threading.Timer(point.at * self.seconds, self.kill_there)
            timer.start()
            first = runs.run(name)
            timer.cancel()
            timer.join()
        struck = first.code == -signal.SIGKILL if point.side.startswith(HERE) else len(runs.steps_there()) >= point.at
        runs.kill_there_at(0)
        second = runs.run(name)
        same = second.code == 0 and runs.result(name, second.answer) == self.result
        left = sorted(set(runs.left(name)) - set(self.left))
        shutil.rmtree(runs.folder / name)
        said = [*first.said.splitlines()[-1:], *second.said.splitlines()[-1:]]
        ends = {"ended": first.code, "again": second.code, "said": said}
        return {**vars(point), "struck": struck, **ends, "same": same, "leftovers": left}

    def kill_there(self) -> None:
        """Everything that runs on the host, as where its power fails; the server goes on."""
        for pid in self.runs.board.processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def hosts() -> Iterator[tuple[Path, Callable[[str, Sequence[object]], RemoteRuns]]]:
    """A folder, and what makes the runs of a verb in it."""
    from boards import new_board, serving

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for each in ("s", "on"):
            (folder / each).mkdir()
        with serving(folder / "s") as server:
            yield folder, lambda name, words: RemoteRuns(folder / name, new_board(server, folder / "on"), words)


def wholes(folder: Path, runs: Callable[[str, Sequence[object]], RemoteRuns], verbs: Sequence[str] = VERBS) -> list[Whole]:
    """An undisturbed run of each verb; bundle and photos are made for it."""
    from digits import write

    photos = folder / "photos"
    write(photos, each=6)
    fits = faults.Fits(folder / "fits", photos)
    if fits.run("bundle").code:
        raise RuntimeError((fits.folder / "bundle.log").read_text())
    bundle, target = fits.folder / "bundle/work/bundle", fits.folder / "only-int8.yaml"
    words: dict[str, Sequence[object]] = {
        "bench": ("bench", bundle, "--rounds", 2),
        "eval": ("eval", bundle, "--val", photos / "val"),
        "pick": ("pick", "--target", target, "--variant", "lite0", "--resolution", 32, "--classes", 10),
        "fit": fits.words,
    }
    return [Whole.of(runs(verb, words[verb])) for verb in verbs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=int, metavar="N", help="as many points, drawn at random (default: all)")
    parser.add_argument("--verbs", nargs="*", default=VERBS, choices=VERBS)
    parser.add_argument("--out", type=Path, default=RESULT, metavar="FILE")
    options = parser.parse_args()
    faults.preload()
    with hosts() as (folder, runs):
        found = {whole.runs.words[0]: whole for whole in wholes(folder, runs, options.verbs)}
        points = [point for whole in found.values() for point in whole.points(5)]
        random.Random(1).shuffle(points)  # so that an unfinished run has some of each
        before = result_files.read(options.out) if options.out.exists() else {"steps": {}, "tried": []}
        results = before["tried"]
        done = {(each["verb"], each["side"], each["at"]) for each in results}
        for point in points[: options.only]:
            if (point.verb, point.side, point.at) in done:
                continue
            results.append(found[point.verb].tried(point))
            struck = [each for each in results if each["struck"]]
            summary = {
                "points": len(struck),
                "same": sum(each["same"] for each in struck),
                "leftovers": sum(bool(each["leftovers"]) for each in struck),
            }
            print(f"{len(results)} of {len(points)}: {results[-1]}", flush=True)
            steps = before["steps"] | {verb: {HERE: whole.here, THERE: whole.there} for verb, whole in found.items()}
            result_files.write(options.out, {**summary, "steps": steps, "tried": results})


if __name__ == "__main__":
    main()
