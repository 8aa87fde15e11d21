"""What several tests need: real photos that ship with scikit-learn, and one small fit.

Tests run in tiers (`slow`, `medium` or neither) and in several processes of pytest-xdist, a file's tests in one of them. Each
process has a core to itself, and all share the folders that `shared` makes.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import pytest
import torch
from filelock import FileLock

from edgeeff import Bundle

ROOT = Path(__file__).parents[1]
FAULTS = ROOT / "tests/faults"
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests/startup")]
pytest_plugins = ["attempts", "boards"]


def python_path(*folders: Path) -> str:
    """PYTHONPATH with folders in front of what is there."""
    return os.pathsep.join(filter(None, [*map(str, folders), os.environ.get("PYTHONPATH")]))


os.environ["PYTHONPATH"] = python_path(ROOT / "tests/startup")
FAKES = {**os.environ, "PYTHONPATH": python_path(ROOT / "tests/fakes")}  # a TensorRT and a CUDA over ONNX Runtime


def pytest_configure() -> None:
    """A core for each process of pytest-xdist and all that it starts, so that neither threads nor timings disturb each other."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker) % len(cores)]})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever runs the command line or an SSH server is slow. The slow ones come first, as their files are the longest."""
    for item in items:
        if {"run", "server"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("slow")
        elif FAULTS in item.path.parents:
            item.add_marker("medium")
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


Fill = Callable[[Path], object]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Fill], Path]:
    """The folder of a name, filled by the first of the test processes that asks for it."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def once(name: str, fill: Fill) -> Path:
        folder, filled = root / f"shared-{name}", root / f"shared-{name}.filled"
        with FileLock(root / f"shared-{name}.lock"):
            if not filled.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                filled.touch()
        return folder

    return once


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Measurements of test runs are remembered apart from the user's."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Networks this small gain nothing from threads, which wait for each other wherever other work shares the cores."""
    import economy

    torch.set_num_threads(1)
    economy.after_import(economy.ONE_THREAD)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure and recover as briefly in this process as `run` does in others."""
    import economy

    for module, names in economy.BRIEF.items():
        for name, new in names.items():
            monkeypatch.setattr(f"{module}.{name}", new(getattr(importlib.import_module(module), name)))


@pytest.fixture(scope="session")
def digits(shared: Callable[[str, Fill], Path]) -> Path:
    """{train,val}/DIGIT/*.png, 30 of each digit and set."""
    from digits import write

    return shared("digits", lambda folder: write(folder, each=30))


@pytest.fixture(scope="session")
def few_digits(shared: Callable[[str, Fill], Path]) -> Path:
    """{train,val}/DIGIT/*.png, 6 of each digit and set: where a fit has to end well, and its accuracy is not the point."""
    from digits import write

    return shared("few-digits", lambda folder: write(folder, each=6))


@pytest.fixture(scope="session")
def unlabelled(digits: Path, shared: Callable[[str, Fill], Path]) -> Path:
    """{train,val}/*.png: 38 to calibrate and to recover on, which takes 32 or more, and 100 to judge by."""

    def copy(folder: Path) -> None:
        for name, step in (("train", 8), ("val", 3)):
            (folder / name).mkdir()
            for i, photo in enumerate(sorted((digits / name).glob("*/*.png"))[::step]):
                (folder / name / f"{i}.png").write_bytes(photo.read_bytes())

    return shared("unlabelled", copy)


@pytest.fixture(scope="session")
def run(cache: None) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """The command line as a person uses it, as a new process or a fork of one that has imported the libraries."""
    from forks import Forks

    forks = Forks()

    def edgeeff(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        words, environment = [*map(str, arguments)], options.get("env", os.environ)
        if not options.keys() - {"env"} and forks.can_run(words, environment):
            return forks.run(words, environment, timeout=500)
        command = [sys.executable, "-m", "edgeeff", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=500, **options)  # type: ignore[call-overload,no-any-return]

    yield edgeeff
    forks.end()


SMALL = ["--target", "host-cpu", "--latency", 500, "--variant", "lite0", "--resolution", 32, "--epochs", 1, "--no-flip"]


def refused(done, code: int, *words: str) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("edgeeff")
    for word in words:
        assert word in last


@pytest.fixture(scope="session")
def fitted(
    shared: Callable[[str, Fill], Path], digits: Path, run: Callable[..., subprocess.CompletedProcess[str]]
) -> tuple[Path, dict]:
    """(bundle, its JSON): Lite0 at 32 px, trained for one epoch on digits; the gate is wide, as its accuracy is not the point."""

    def fit(folder: Path) -> None:
        photos, out = ("--train", digits / "train", "--val", digits / "val"), folder / "fit/bundle"
        done = run("fit", *SMALL, *photos, "--max-drop", 20, "--out", out, "--json")
        assert done.returncode == 0, done.stderr
        (folder / "fit.json").write_text(done.stdout)

    folder = shared("fitted", fit)
    return folder / "fit/bundle", json.loads((folder / "fit.json").read_text())


@pytest.fixture(scope="session")
def portable(
    shared: Callable[[str, Fill], Path], digits: Path, run: Callable[..., subprocess.CompletedProcess[str]]
) -> tuple[Path, dict]:
    """(bundle for a Jetson, its JSON): less than B0 at 32 px, trained for one epoch, behind a wide gate."""

    def fit(folder: Path) -> None:
        options = [
            "--variant",
            "phi-4",
            "--resolution",
            32,
            "--epochs",
            1,
            "--no-flip",
            "--max-drop",
            20,
            "--out",
            folder / "bundle",
        ]
        photos = ["--train", digits / "train", "--val", digits / "val"]
        done = run("fit", "--target", "jetson-orin-nano-8gb", *photos, *options, "--json")
        assert done.returncode == 0, done.stderr
        (folder / "fit.json").write_text(done.stdout)

    folder = shared("portable", fit)
    return folder / "bundle", json.loads((folder / "fit.json").read_text())


@pytest.fixture(scope="session")
def bundle(fitted) -> Bundle:
    return Bundle.open(fitted[0])


@pytest.fixture(scope="session")
def film(tmp_path_factory, digits: Path) -> Path:
    """Forty frames of 160 × 120 pixels."""
    path = tmp_path_factory.mktemp("film") / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 20, (160, 120))
    for photo in sorted(digits.glob("val/*/*.png"))[:40]:
        writer.write(cv2.resize(cv2.imread(str(photo)), (160, 120)))
    writer.release()
    return path
