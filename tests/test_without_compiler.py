"""A fit for TensorRT where nothing can be compiled, every core is taken, and a killed build of kernels has left its lock."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def busy() -> Iterator[None]:
    """A process that computes for each core."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in os.sched_getaffinity(0)]
    yield
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.usefixtures("busy")
def test_a_fit_for_tensorrt_compiles_nothing_and_waits_for_no_lock(few_digits: Path, run, tmp_path: Path) -> None:
    extensions = tmp_path / "extensions"
    for name in ("quantized_functions_cpu", "binarized_functions_cpu"):  # where torch builds NNCF's kernels, and its lock
        (extensions / name).mkdir(parents=True)
        (extensions / name / "lock").touch()
    nothing = tmp_path / "bin"
    nothing.mkdir()
    options = ["--variant", "phi-6", "--resolution", 32, "--epochs", 1, "--no-flip", "--max-drop", 100, "--json"]
    photos = ["--train", few_digits / "train", "--val", few_digits / "val", "--out", tmp_path / "bundle"]
    environment = {**os.environ, "PATH": str(nothing), "TORCH_EXTENSIONS_DIR": str(extensions), "HOME": str(tmp_path)}
    done = run("fit", "--target", "jetson-orin-nano-8gb", *photos, *options, env=environment)
    assert done.returncode == 0, done.stderr
    assert "int8-fp16" in {form["precision"] for form in json.loads(done.stdout)["forms"]}
    assert sorted(p.name for p in extensions.rglob("*") if p.is_file()) == ["lock", "lock"]
