"""The patches of docs/extending.md, each applied to a copy of the source: what it adds works, and nothing else had to change."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

SECTIONS = dict(re.findall(r"^## (.+?)\n.*?^```diff\n(.*?)^```$", (ROOT / "docs" / "extending.md").read_text("utf-8"), re.M | re.S))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The source without history and caches."""
    for name in ("edgeeff", "targets", "calib"):
        shutil.copytree(ROOT / name, tmp_path / "copy" / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "copy")
    return tmp_path / "copy"


def apply(patch: str, folder: Path) -> None:
    done = subprocess.run(["git", "apply", "-"], input=patch, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stderr}\nUpdate the patch in docs/extending.md."


@pytest.mark.slow
@pytest.mark.parametrize(
    ("section", "check", "touched"),
    [
        ("A backend", "a_backend", ["edgeeff/backends/onnxruntime_plain.py", "pyproject.toml"]),
        ("A strategy for INT8", "a_strategy", ["edgeeff/quantization/strategies.py"]),
        ("An activation", "an_activation", ["edgeeff/network/activations.py"]),
        ("A kind of budget", "a_budget_kind", ["edgeeff/budget.py", "edgeeff/measurement/benchmark.py"]),
        ("A camera source", "a_camera_source", ["edgeeff/camera/sources.py"]),
        ("A target", "a_target", ["targets/odroid-n2.yaml"]),
        ("A model family", "a_model_family", ["edgeeff/network/mobilenet.py", "edgeeff/network/variants.py"]),
    ],
)
def test_the_patch_in_the_docs_is_all_it_takes(copy: Path, tmp_path: Path, section: str, check: str, touched: list[str]) -> None:
    patch = SECTIONS[section]
    assert sorted(re.findall(r"^\+\+\+ b/(.+)$", patch, re.M)) == touched
    apply(patch, copy)
    folder = tmp_path / "work"
    folder.mkdir()
    environment = {**os.environ, "PYTHONPATH": f"{copy}:{ROOT / 'tests'}"}
    command = [sys.executable, str(ROOT / "tests" / "extensions.py"), check, str(folder)]
    done = subprocess.run(command, env=environment, cwd=copy, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_every_section_is_tested() -> None:
    assert len(SECTIONS) == 7


def test_an_activation_is_one_row() -> None:
    assert len(re.findall(r"^[+-](?![+-])", SECTIONS["An activation"], re.M)) == 1


def test_patched_source_is_formatted_and_linted_as_the_rest(copy: Path) -> None:
    for patch in SECTIONS.values():
        apply(patch, copy)
    for command in (["ruff", "format", "--check"], ["ruff", "check"]):
        done = subprocess.run([sys.executable, "-m", *command, "edgeeff"], cwd=copy, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
