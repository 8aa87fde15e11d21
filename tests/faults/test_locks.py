"""Two processes at once: one of them is refused, or waits, and nothing of theirs is mixed or lost."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pytest

from edgeeff import BadInput
from edgeeff.files import StageCache, working_folder, write_whole
from edgeeff.selection import profiler

HOLD = """
import sys
from pathlib import Path
from edgeeff.files import StageCache
with StageCache.open(Path(sys.argv[1]), {}) as cache:
    cache.once("step", lambda folder: None)
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path):
    """A process that uses the stage cache of `out`."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "out")], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_a_second_fit_with_the_same_output_is_refused_and_changes_nothing(holder, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"out: process {holder.pid} is writing it. Wait until that has ended, or give another path"):
        StageCache.open(tmp_path / "out", {"other": "inputs"})
    assert (tmp_path / ".out.partial/step").is_dir()
    StageCache.open(tmp_path / "another", {}).__exit__()


def test_a_killed_fit_leaves_its_output_to_the_next(holder, tmp_path: Path) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with StageCache.open(tmp_path / "out", {}) as cache:
        assert (cache.root / "step").is_dir()


def test_a_removed_cache_can_be_used_again(tmp_path: Path) -> None:
    for _ in range(2):
        with StageCache.open(tmp_path / "out", {}) as cache:
            cache.once("step", lambda folder: None)
            cache.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_cache_whose_removal_was_cut_off_is_not_taken_for_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    def cut_off(folder: Path, **_: object) -> None:
        (folder / "step/file").unlink()
        raise KeyboardInterrupt

    with StageCache.open(tmp_path / "out", {}) as cache:
        cache.once("step", lambda folder: (folder / "file").touch())
        monkeypatch.setattr(shutil, "rmtree", cut_off)
        with pytest.raises(KeyboardInterrupt):
            cache.remove()
        monkeypatch.undo()
    with StageCache.open(tmp_path / "out", {}) as cache:
        assert (cache.once("step", lambda folder: (folder / "file").touch()) / "file").exists()


def test_a_working_folder_is_empty_for_one_and_removed_afterwards(tmp_path: Path) -> None:
    (tmp_path / ".out.unfinished/of a killed process").mkdir(parents=True)
    with working_folder(tmp_path / "out") as folder:
        assert [p.name for p in folder.iterdir()] == ["lock"]
        with pytest.raises(BadInput, match="is writing it"), working_folder(tmp_path / "out"):
            pass
        assert folder.is_dir()
    assert list(tmp_path.iterdir()) == []


def remember(memory: Path, first: int) -> None:
    for number in range(first, first + 50):
        profiler._add(memory, str(number), profiler.Remembered(f"v{number}", 224, (), None, conditions=None))  # type: ignore[arg-type]


def write_often(path: Path, first: int) -> None:
    for number in range(first, first + 50):
        write_whole(path, f"{number:04}".encode() * 1000)


@pytest.fixture
def at_once() -> Callable[[Callable[[Path, int], None], Path], None]:
    """Calls a function in three processes at the same time."""

    def call(function: Callable[[Path, int], None], path: Path) -> None:
        processes = [get_context("spawn").Process(target=function, args=(path, 1000 * i)) for i in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * 3

    return call


@pytest.mark.slow
def test_measurements_of_processes_at_once_are_all_remembered(at_once, tmp_path: Path) -> None:
    at_once(remember, tmp_path / "measurements.json")
    assert len(profiler._read(tmp_path / "measurements.json")) == 150
    assert {p.name for p in tmp_path.iterdir()} == {"measurements.json", "measurements.lock"}


def test_a_file_that_processes_write_at_once_is_one_of_theirs(at_once, tmp_path: Path) -> None:
    at_once(write_often, tmp_path / "file")
    data = (tmp_path / "file").read_bytes()
    assert data == data[:4] * 1000
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_what_a_killed_process_began_to_write_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".file.unfinished").write_bytes(b"longer than the new contents")
    write_whole(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
