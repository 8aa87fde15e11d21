"""Runs all but the slow tests on every CPython that edgeeff supports and this machine has, and at the lowest versions it allows.

    python tests/pythons.py [--no-tests] [3.10 3.11 3.12 3.13 lowest newest]

Interpreters are looked for on PATH and among those of pyenv. Each gets an environment in .venv-pythons/, kept for the next time; it
takes 6 GB with PyPI's torch for Linux, which brings CUDA's libraries. "lowest" is the oldest of them with the lowest release that
pyproject.toml allows of every dependency it names, as uv resolves it, and the newest of those that these need. "newest", which runs
only where it is named, is the newest of them with the newest releases that pyproject.toml allows, whatever constraints.txt says.

Prints a line per environment; with --no-tests it makes them alone. Exits with 1 if tests failed in one or it could not be made.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
VENVS = ROOT / ".venv-pythons"
VERSIONS = ["3.10", "3.11", "3.12", "3.13"]
LOWEST, NEWEST = "lowest", "newest"
NO_TESTS = "--no-tests"
DEPENDENCIES = ["-e", ".[dev]"]


def interpreter(version: str) -> str | None:
    """The path of a CPython of this minor version, or None. Each is asked, as one on PATH may be a shim of pyenv for none."""
    candidates = [shutil.which(f"python{version}")]
    if shutil.which("pyenv"):
        root = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=True).stdout.strip()
        candidates += sorted(map(str, Path(root, "versions").glob(f"{version}.*/bin/python3")))
    question = "import sys; print(sys.implementation.name, '%d.%d' % sys.version_info[:2])"
    for path in filter(None, candidates):
        answer = subprocess.run([path, "-c", question], capture_output=True, text=True)
        if answer.stdout.split() == ["cpython", version]:
            return path
    return None


def environment(name: str, python: str) -> Path:
    """The interpreter of the environment of this name, made anew where pyproject.toml or the constraints are newer than it."""
    venv = VENVS / name
    ready = venv / "ready"
    inner = venv / "bin/python"
    sources = [ROOT / "pyproject.toml", ROOT / "constraints.txt"]
    if ready.exists() and ready.stat().st_mtime > max(source.stat().st_mtime for source in sources):
        return inner
    subprocess.run([python, "-m", "venv", "--clear", venv], check=True)
    pip = [inner, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if name == LOWEST:
        subprocess.run([*pip, "uv"], check=True)
        uv = [venv / "bin/uv", "pip", "install", "--quiet", "--python", inner, "--resolution", "lowest-direct"]
        subprocess.run([*uv, *DEPENDENCIES], check=True, cwd=ROOT)
    elif name == NEWEST:
        subprocess.run([*pip, *DEPENDENCIES], check=True, cwd=ROOT)
    else:
        subprocess.run([*pip, "-c", "constraints.txt", *DEPENDENCIES], check=True, cwd=ROOT)
    ready.touch()
    return inner


def passes(name: str, python: str, *, tests: bool) -> bool:
    """Whether the environment is made and its tests, if asked for, pass. Pytest's output is in .venv-pythons/NAME.txt."""
    try:
        inner = environment(name, python)
    except subprocess.CalledProcessError as error:
        print(f"{name:8} cannot be installed: {' '.join(map(str, error.cmd))}", flush=True)
        return False
    if not tests:
        print(f"{name:8} {os.path.relpath(inner)}", flush=True)
        return True
    log = VENVS / f"{name}.txt"
    with log.open("w") as output:
        done = subprocess.run([inner, "-m", "pytest", "-m", "not slow"], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    counts = (log.read_text().splitlines() or ["no output"])[-1]
    print(f"{name:8} {counts} ({os.path.relpath(log)})", flush=True)
    return done.returncode == 0


def main(words: list[str]) -> int:
    names, tests = [word for word in words if word != NO_TESTS], NO_TESTS not in words
    found = {version: python for version in VERSIONS if (python := interpreter(version))}
    if found:
        found[LOWEST], found[NEWEST] = (list(found.values())[i] for i in (0, -1))
    wanted = names or [*VERSIONS, LOWEST]
    for name in wanted:
        if name not in found:
            print(f"{name:8} no such interpreter on PATH or in pyenv")
    VENVS.mkdir(exist_ok=True)
    results = [passes(name, found[name], tests=tests) for name in wanted if name in found]
    return 0 if results and all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
