from pathlib import Path

import pytest

from edgeeff import BadInput
from edgeeff.files import Workspace


def test_a_finished_step_is_not_made_again(tmp_path: Path) -> None:
    calls = []

    def make(folder: Path) -> None:
        calls.append(folder)
        (folder / "result").touch()

    first = Workspace.open(tmp_path / "out", {"seed": 0})
    again = Workspace.open(tmp_path / "out", {"seed": 0})
    assert first.once("step", make) == again.once("step", make)
    assert (again.root / "step" / "result").exists()
    assert len(calls) == 1


def test_an_unfinished_step_is_made_again(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "out", {})

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workspace.once("step", fail)
    folder = workspace.once("step", lambda folder: (folder / "whole").touch())
    assert [p.name for p in folder.iterdir()] == ["whole"]


def test_other_inputs_start_anew(tmp_path: Path) -> None:
    old = Workspace.open(tmp_path / "out", {"seed": 0}).within("b0")
    old.once("step", lambda folder: None)
    new = Workspace.open(tmp_path / "out", {"seed": 1}).within("b0")
    assert not (new.root / "step").exists()


def test_an_unwritable_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="cannot write there"):
        Workspace.open(tmp_path / "file" / "out", {})
