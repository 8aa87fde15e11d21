"""Folders that may not be written to, and files that may not be read, by a process that no permission is waived for."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import faults
import pytest
from attempts import Hostile

Ended = tuple[int, list[str]]

# Root without these capabilities is refused what its owner's permissions refuse.
LIMITED = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may write everywhere, and needs setpriv"),
]
VERBS = """
import contextlib, io, json, sys
from edgeeff.cli import main

ended = []
for words in json.load(sys.stdin):
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        code = main(words)
    ended.append((code, said.getvalue().splitlines()))
print(json.dumps(ended))
"""


def verbs(*commands: tuple[object, ...], **env: Path) -> list[Ended]:
    """Exit code and lines on standard error of each command, which run in one process."""
    command = [*(LIMITED if os.geteuid() == 0 else []), sys.executable, "-c", VERBS, "measure"]  # "measure": see tests/startup
    words = json.dumps([[str(word) for word in each] for each in commands])
    environment = {**os.environ, **{name: str(path) for name, path in env.items()}}
    done = subprocess.run(command, input=words, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return [(code, lines) for code, lines in json.loads(done.stdout)]


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Callable[[Path], Path]]:
    """Takes away the permission to write into a folder and all below it, until the test ends."""
    folders: list[Path] = []

    def lock(folder: Path) -> Path:
        for each in (folder, *(p for p in folder.rglob("*") if p.is_dir())):
            each.chmod(0o555)
            folders.append(each)
        return folder

    yield lock
    for folder in folders:
        folder.chmod(0o755)


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def test_what_may_not_be_written_is_refused_and_changes_nothing(
    hostile: Hostile, fitted, few_digits: Path, film: Path, locked: Callable[[Path], Path], tmp_path: Path
) -> None:
    place = tmp_path / "place"
    shutil.copytree(fitted[0], place / "bundle")
    private = tmp_path / "ours.key"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True, capture_output=True)
    before = names(locked(place))
    photos = ("--train", few_digits / "train", "--val", few_digits / "val", "--variant", "lite0", "--resolution", 32)
    camera = ("camera", place / "bundle", "--source", film)
    commands = [
        ("fit", "--target", "host-cpu", *photos, "--out", place / "new"),
        ("fit", "--target", "host-cpu", *photos, "--out", place / "bundle"),
        ("report", place / "bundle"),
        ("sign", place / "bundle", "--key", private),
        (*camera, "--collect", place / "frames"),
        (*camera, "--output", place / "lines"),
    ]
    for command, (code, lines) in zip(commands, verbs(*commands), strict=True):
        refused = code == 2 and lines[-1].startswith("edgeeff: ") and "cannot be written: permission denied" in lines[-1]
        hostile.expect(refused, command, f"{code}: {lines}")
        hostile.expect(not any("Traceback" in line for line in lines), command, str(lines))
    assert names(place) == before


def test_what_may_only_be_read_is_enough_to_read(
    hostile: Hostile, fitted, few_digits: Path, locked: Callable[[Path], Path], tmp_path: Path
) -> None:
    place = tmp_path / "place"
    shutil.copytree(fitted[0], place / "bundle")
    shutil.copytree(few_digits / "val", place / "val")
    (place / "hidden").mkdir()
    shutil.copytree(fitted[0], place / "hidden/bundle")
    (place / "hidden/bundle/model.bin").chmod(0)
    before = names(locked(place))
    good = [("verify", place / "bundle"), ("eval", place / "bundle", "--val", place / "val")]
    bad = [("verify", place / "hidden/bundle"), ("eval", place / "hidden/bundle", "--val", place / "val")]
    ended = verbs(*good, *bad)
    for command, (code, lines) in zip(good, ended, strict=False):
        hostile.expect(code == 0, command, f"{code}: {lines}")
    for command, (code, lines) in zip(bad, ended[len(good) :], strict=True):
        hostile.expect(code == 2 and "model.bin: cannot be read: permission denied" in lines[-1], command, f"{code}: {lines}")
    assert names(place) == before


def test_a_cache_that_may_not_be_written_stops_nothing_and_is_said_once(
    hostile: Hostile, locked: Callable[[Path], Path], tmp_path: Path
) -> None:
    """Nor does a lock that a killed process left in it, by which measurements are remembered."""
    (tmp_path / "target.yaml").write_text(faults.TARGET)
    small = ("pick", "--target", tmp_path / "target.yaml", "--resolution", 32, "--variant", "lite0")
    for name in ("shut", "open"):
        (tmp_path / name / "edgeeff").mkdir(parents=True)
        (tmp_path / name / "edgeeff/measurements.lock").write_text("1")
    ((code, lines),) = verbs((*small, "b0"), XDG_CACHE_HOME=locked(tmp_path / "shut"))
    said = [line for line in lines if "measurements are not remembered" in line]
    hostile.expect((code, len(said)) == (0, 1), "a read-only cache", f"{code}: {lines}")
    assert names(tmp_path / "shut") == ["edgeeff", "edgeeff/measurements.lock"]
    ((code, lines),) = verbs(small, XDG_CACHE_HOME=tmp_path / "open")
    hostile.expect(code == 0 and not any("remembered" in line for line in lines), "a stale lock", f"{code}: {lines}")
    assert names(tmp_path / "open") == ["edgeeff", "edgeeff/measurements.json", "edgeeff/measurements.lock"]
