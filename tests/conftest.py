"""What several tests need: real photos that ship with scikit-learn, and one small fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
import torch

from edgeeff import Bundle

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
pytest_plugins = ["boards"]


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Measurements of test runs are remembered apart from the user's."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Networks this small gain nothing from threads, which wait for each other wherever other work shares the cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """{train,val}/DIGIT/*.png, 30 of each digit and set."""
    from digits import write

    folder = tmp_path_factory.mktemp("digits")
    write(folder, each=30)
    return folder


@pytest.fixture(scope="session")
def unlabelled(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """{train,val}/*.png"""
    folder = tmp_path_factory.mktemp("unlabelled")
    for name in ("train", "val"):
        (folder / name).mkdir()
        for i, photo in enumerate(sorted((digits / name).glob("*/*.png"))[::3]):
            (folder / name / f"{i}.png").write_bytes(photo.read_bytes())
    return folder


@pytest.fixture(scope="session")
def run() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line as a person uses it."""

    def edgeeff(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "edgeeff", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=500, **options)  # type: ignore[call-overload,no-any-return]

    return edgeeff


SMALL = ["--target", "host-cpu", "--latency", 500, "--variant", "lite0", "--resolution", 32, "--epochs", 1, "--no-flip"]


def refused(done, code: int, *words: str) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("edgeeff: ")
    for word in words:
        assert word in last


@pytest.fixture(scope="session")
def fitted(
    tmp_path_factory: pytest.TempPathFactory, digits: Path, run: Callable[..., subprocess.CompletedProcess[str]]
) -> tuple[Path, dict]:
    """(bundle, its JSON): Lite0 at 32 px, trained for one epoch on digits; the gate is wide, as its accuracy is not the point."""
    out = tmp_path_factory.mktemp("fit") / "bundle"
    done = run("fit", *SMALL, "--train", digits / "train", "--val", digits / "val", "--max-drop", 20, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)


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
