import re
import sys
from dataclasses import replace

import pytest

from edgeeff.cli import tables
from edgeeff.measurement.accuracy import StepReport
from edgeeff.measurement.by_class import ClassDrop
from edgeeff.remote import HostAnswer


@pytest.mark.parametrize(
    ("milliseconds", "marks"),
    [((5.0, 7.0, 6.0), ["", "slowest", ""]), ((5.0, 5.004, 5.0), ["", "", ""])],
)
def test_the_slowest_host_is_marked_where_the_shown_figures_differ(
    milliseconds: tuple[float, ...], marks: list[str], capsys
) -> None:
    latencies = [{"p50": p50, "p90": p50, "ci": [p50, p50]} for p50 in milliseconds]
    answers = [HostAnswer(f"b{i}", {"precision": "int8", "latency_ms": latency}) for i, latency in enumerate(latencies)]
    tables.fleet(answers)
    _, *rows = capsys.readouterr().out.splitlines()
    assert ["slowest" if row.split()[-1] == "slowest" else "" for row in rows] == marks


def test_a_class_is_named_as_it_is_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Within 80 columns, and without taking what stands in brackets for a style."""
    worst = ClassDrop(1, "[/red] apples, ripe", 30, 93.33, 60.0)
    float_step = StepReport("float", 88.0, 99.0, 0.0, (-0.5, 0.5), 100.0, 300, True, True, 1, 1.0, balanced=81.2)
    int8 = replace(float_step, step="int8, 640×480 frames", drop=3.3, worst_class=worst, balanced=71.2)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    tables.by_class([float_step, int8])
    lines = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= 80
    row = next(line for line in lines if "[/red]" in line)
    assert row.split()[-7:] == [
        "[/red]",
        "appl…",
        "30",
        "93.33",
        "60.00",
        "+33.33",
        "71.20",
    ]  # the step's name is broken, no figure
    assert any(line.split() == ["float", "81.20"] for line in lines)


@pytest.mark.parametrize("terminal", [False, True])
def test_names_out_of_files_are_shown_and_not_obeyed(terminal: bool, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    tables.table(["node", "finding"], [["a\x1b[31m\nb", "[red]Größe[/red]"]])
    out = capsys.readouterr().out
    assert r"a\x1b[31m\nb" in out
    assert "[red]Größe[/red]" in out
