import argparse
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from edgeeff.cli.options import parser

ROOT = Path(__file__).parents[1]


def test_the_wheel_holds_the_targets_and_no_photos(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert {
        "edgeeff/targets/host-cpu.yaml",
        "edgeeff/cli/commands.py",
        "edgeeff/backends/openvino.py",
        "edgeeff/report/charts.html.j2",
        "edgeeff/report/report.html.j2",
    } <= set(names)
    assert [n for n in names if n.endswith("share/man/man1/edgeeff.1")]
    assert not [n for n in names if n.endswith((".png", ".jpg", ".pth", ".pyc"))]


def test_the_manual_page_has_every_verb_and_option() -> None:
    page = (ROOT / "docs/edgeeff.1").read_text().replace("\\-", "-")
    (verbs,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    for name, verb in verbs.choices.items():
        section = page.split(rf"\fBedgeeff {name}\fR", 1)[1].split(r"\fBedgeeff", 1)[0]
        options = {option for action in verb._actions for option in action.option_strings if option.startswith("--")}
        assert options - {"--help"} <= set(re.findall(r"--[\w-]+", section)), f"{name}: run make man"


def of(machine: str, python: str) -> dict[str, str]:
    return {"platform_machine": machine, "python_version": python, "sys_platform": "linux"}


def cuda_bindings(text: str, environment: dict[str, str]) -> Requirement:
    """What a file asks of cuda-bindings in that environment."""
    lines = re.findall(r"""^\s*"?(cuda-bindings.*?)(?:", #.*)?$""", text, re.M)
    found = [r for r in map(Requirement, lines) if not r.marker or r.marker.evaluate(environment)]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(
    ("machine", "python"), [*[("x86_64", f"3.{minor}") for minor in range(10, 14)], ("aarch64", "3.12"), ("aarch64", "3.13")]
)
def test_the_extra_for_tensorrt_goes_with_the_versions_of_constraints(machine: str, python: str) -> None:
    extra = cuda_bindings((ROOT / "pyproject.toml").read_text(), of(machine, python))
    pinned = cuda_bindings((ROOT / "constraints.txt").read_text(), of(machine, python))
    assert next(iter(pinned.specifier)).version in extra.specifier


def test_on_jetpack_6_the_bindings_are_of_cuda_12() -> None:
    extra = cuda_bindings((ROOT / "pyproject.toml").read_text(), of("aarch64", "3.10"))
    assert "12.9.10" in extra.specifier
    assert "13.0.0" not in extra.specifier  # CUDA 13 needs a driver of version 580, JetPack 6 has 540
