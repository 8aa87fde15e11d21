import sys

import pytest

from edgeeff.cli import tables
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


@pytest.mark.parametrize("terminal", [False, True])
def test_names_out_of_files_are_shown_and_not_obeyed(terminal: bool, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    tables.table(["node", "finding"], [["a\x1b[31m\nb", "[red]Größe[/red]"]])
    out = capsys.readouterr().out
    assert r"a\x1b[31m\nb" in out
    assert "[red]Größe[/red]" in out
