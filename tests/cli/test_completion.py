"""The scripts that complete commands in a shell, asked as the shell asks them."""

import json
import shutil
import subprocess

import pytest

from edgeeff.cli.completion import script
from edgeeff.cli.options import SHELLS

pytestmark = pytest.mark.medium


def completed(*words: str, cwd: object = None) -> set[str]:
    """What bash offers for the last of the words."""
    quoted = " ".join(f"'{word}'" for word in words)
    code = f"{script('bash')}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}\n"
    code += f"_shtab_edgeeff edgeeff '{words[-1]}' '{words[-2]}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_bash_completes_verbs_options_and_names() -> None:
    assert completed("edgeeff", "co") == {"compile", "completion"}
    assert {"--train", "--target", "--debug"} <= completed("edgeeff", "fit", "--")
    assert completed("edgeeff", "fit", "--target", "host-") == {"host-cpu", "host-cpu-1core"}
    assert {"v2-b0", "v2-s"} <= completed("edgeeff", "pick", "--variant", "v2-")
    assert "lite0" in completed("edgeeff", "variants", "lite")
    assert completed("edgeeff", "completion", "z") == {"zsh"}
    assert completed("edgeeff", "fit", "--calibration", "def") == {"default"}


def test_bash_completes_paths(tmp_path) -> None:
    (tmp_path / "weights.pth").touch()
    (tmp_path / "photos").mkdir()
    assert completed("edgeeff", "fit", "--weights", "w", cwd=tmp_path) == {"weights.pth"}
    assert completed("edgeeff", "fit", "--val", "", cwd=tmp_path) == {"photos", "weights.pth"}
    assert completed("edgeeff", "fit", "--out", "", cwd=tmp_path) == {"photos"}
    assert completed("edgeeff", "verify", "p", cwd=tmp_path) == {"photos"}


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_has_a_script_that_it_can_read(run, shell: str) -> None:
    done = run("completion", shell)
    assert done.returncode == 0, done.stderr
    assert "host-cpu" in done.stdout
    assert json.loads(run("completion", shell, "--json").stdout) == {"shell": shell, "script": done.stdout.removesuffix("\n")}
    if shutil.which(shell):
        parsed = subprocess.run([shell, "-n"], input=done.stdout, capture_output=True, text=True)
        assert (parsed.returncode, parsed.stderr) == (0, "")


def test_another_shell_is_refused(run) -> None:
    done = run("completion", "powershell")
    assert done.returncode == 2
    assert "expected one of bash, zsh, tcsh" in done.stderr
