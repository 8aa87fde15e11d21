"""Nothing is sent anywhere: a fit, an evaluation and a camera on a machine without a network, watched by the operating system."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SMALL

EVERYTHING = """
import sys

def note(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        print("asked for:", event, arguments, file=sys.stderr)

sys.addaudithook(note)
from edgeeff.cli import main

_, train, val, film, *fit = sys.argv[1:]
assert main(["fit", *fit, "--train", train, "--val", val, "--max-drop", "100", "--out", "out"]) == 0
assert main(["eval", "out", "--val", val]) == 0
assert main(["camera", "out", "--source", film, "--collect", "frames", "--uncertain", "1"]) == 0
"""


def alone() -> list[str]:
    """What runs a command without any network interface but an unused loopback; skips the test where that is not permitted."""
    command = ["unshare", "--map-root-user", "--net"]
    if not shutil.which("unshare") or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("no network namespaces: unshare is missing, or not permitted")
    return command


@pytest.mark.slow
def test_fit_eval_and_camera_need_no_network_and_try_to_use_none(few_digits: Path, film: Path, tmp_path: Path) -> None:
    command, calls = alone(), tmp_path / "calls"
    if shutil.which("strace"):
        command += [
            "strace",
            "--follow-forks",
            "--seccomp-bpf",
            "--quiet=all",
            "--trace=connect,sendto,sendmsg,sendmmsg",
            "--output",
            str(calls),
        ]
    arguments = ["fit", few_digits / "train", few_digits / "val", film, *SMALL]
    for name in ("home", "tmp", "work"):
        (tmp_path / name).mkdir()
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")}
    for name in ("XDG_CACHE_HOME", "CI", "TF_BUILD", "GITHUB_ACTIONS", "JENKINS_URL"):  # some telemetry is off by itself there
        environment.pop(name, None)
    command += [sys.executable, "-c", EVERYTHING, *map(str, arguments)]
    done = subprocess.run(command, cwd=tmp_path / "work", env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("asked for:")] == []
    if calls.exists():
        assert [line for line in calls.read_text().splitlines() if "AF_INET" in line] == []
    assert list((tmp_path / "home").iterdir()) == []
    assert [p.name for p in (tmp_path / "tmp").iterdir() if not p.name.startswith("torchinductor_")] == []
    assert {p.name for p in (tmp_path / "work").iterdir()} == {"out", "frames"}
