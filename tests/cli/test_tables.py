import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgeeff.cli import tables
from edgeeff.cli.grid import table
from edgeeff.export.finding import Finding
from edgeeff.manifest import AttemptRecord, FormRecord
from edgeeff.measurement.accuracy import StepReport
from edgeeff.measurement.by_class import ClassDrop
from edgeeff.precision import Precision
from edgeeff.records import from_json
from edgeeff.remote import HostAnswer
from edgeeff.requalification import Line, Requalification

ROOT = Path(__file__).parents[2]


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


FITS = ("v2-b0", "reduced", "lite0")
WIDTHS = (60, 80, 120)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What a call prints on a terminal of a width, with its styles."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def printed(width: int, show: Callable[..., object], *arguments: object, **options: object) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        show(*arguments, **options)
        return capsys.readouterr().out

    return printed


def lines(printed: str) -> list[str]:
    """Without the styles."""
    return re.sub(r"\x1b\[[\d;]*m", "", printed).splitlines()


def fit(name: str) -> dict:
    """What a real fit printed with --json."""
    facts = json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())["measured"]
    return facts if "steps" in facts else facts["smaller"]


def forms(name: str) -> list[FormRecord]:
    return [from_json({**row, "metrics": row}, FormRecord, name) for row in fit(name)["siblings"]]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", FITS)
def test_a_table_of_a_real_fit_has_whole_names_and_figures_at_every_width(name: str, width: int, terminal) -> None:
    rows = forms(name)
    steps = from_json(fit(name)["steps"], list[StepReport], name)
    ladder = from_json(fit(name)["ladder"], list[AttemptRecord], name)
    for names, show, *arguments in (
        ([row.name for row in rows], tables.siblings, rows, 0),
        ([step.step for step in steps], tables.steps, steps),
        ([attempt.remedy for attempt in ladder], tables.ladder, ladder),
    ):
        shown = lines(terminal(width, show, *arguments, **({"shipped": "int8"} if show is tables.steps else {})))
        assert max(map(len, shown)) <= width
        text = "\n".join(shown)
        parts = names if width >= 80 else [word for each in names for word in each.split()]
        assert not [each for each in parts if each not in text]
        assert "…" not in text.replace(" … ", "")  # nothing is cut
    drops = {f"{row.drop:+.2f}" for row in rows}
    assert drops <= set(" ".join(lines(terminal(width, tables.siblings, rows, 0))).split())


def test_columns_go_in_their_order_and_are_named(terminal) -> None:
    rows = forms("v2-b0")
    printed = {w: " ".join(" ".join(lines(terminal(w, tables.siblings, rows, 0))).split()) for w in (60, 80, 200)}
    narrow, usual = (set(printed[w].split(f"not shown in {w} columns: ")[1].split(", ")) for w in (60, 80))
    assert usual < narrow
    assert "not shown" not in printed[200]


def test_no_word_is_broken_where_all_columns_are_needed(terminal) -> None:
    words = ["the", "quantization", "of", "depthwise", "convolutions"]
    rows = [["a-rule-with-a-name", "ERROR", "/blocks/0/conv_dw/Conv", " ".join(words * 3), " ".join(words)]]
    findings = [Finding(rows[0][0], True, *rows[0][2:])]
    for width in (80, 120):
        shown = lines(terminal(width, tables.findings, findings))
        assert max(map(len, shown)) <= width
        found = " ".join(shown).split()
        assert found.count("quantization") == found.count("convolutions") == 4
        assert {"a-rule-with-a-name", "/blocks/0/conv_dw/Conv"} <= set(found)


@pytest.mark.parametrize("plain", [False, True])
def test_pass_and_fail_have_colours_unless_there_are_to_be_none(plain: bool, terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    if plain:
        monkeypatch.setenv("NO_COLOR", "1")
    passing = StepReport("float", 88.0, 99.0, 0.0, (-0.5, 0.5), 100.0, 300, True, True, 1, 1.0)
    shown = terminal(120, tables.steps, [passing, passing, replace(passing, passed=False, proven=False)], shipped="")
    styles = [re.search(rf"\x1b\[{style}m *{word}\b", shown) is not None for style, word in (("32", "yes"), ("1;31", "NO"))]
    assert styles == [not plain, not plain]
    assert "yes" in shown
    assert "NO" in shown


def test_the_speed_of_the_table_is_that_of_the_verdict(capsys) -> None:
    for name in FITS:
        facts, rows = fit(name), forms(name)
        tables.siblings(rows, None)
        _, header, *printed = capsys.readouterr().out.splitlines()
        said = re.search(r"([\d.]+)× \(([\d.]+) to ([\d.]+)\) as fast as the best float32", facts["verdict"])
        assert said
        wanted = [f"{said[1]}×", said[2], "…", said[3]]
        p50 = f"{facts['latency_ms']['p50']:.2f}"
        (row,) = [line.split() for line in printed if p50 in line.split()[:12] and facts["precision"] in line.split()[0]]
        i = row.index(wanted[0])
        assert row[i : i + 4] == wanted
        assert "95% of speed" in header


def test_a_gain_is_called_one() -> None:
    step = StepReport("int8", 88.5, 99.0, -0.49, (-1.2, 0.2), 98.0, 300, True, True, 1, 1.0)
    assert step.change == "gain 0.49 points (-0.20 to +1.20)"
    assert replace(step, drop=0.49, drop_ci=(-0.2, 1.2)).change == "drop 0.49 points (-0.20 to +1.20)"
    assert replace(step, drop=-0.001).change.startswith("drop 0.00 points")
    assert replace(step, drop=None, drop_ci=None).change == ""


def test_a_class_is_named_as_it_is_on_a_terminal(terminal) -> None:
    """Within 80 columns, and without taking what stands in brackets for a style."""
    worst = ClassDrop(1, "[/red] apples, ripe", 30, 93.33, 60.0)
    float_step = StepReport("float", 88.0, 99.0, 0.0, (-0.5, 0.5), 100.0, 300, True, True, 1, 1.0, balanced=81.2)
    int8 = replace(float_step, step="int8, 640×480 frames", drop=3.3, worst_class=worst, balanced=71.2)
    shown = lines(terminal(80, tables.by_class, [float_step, int8]))
    assert max(map(len, shown)) <= 80
    row = next(line for line in shown if "[/red]" in line)
    assert row.startswith("int8, 640×480 frames  [/red] apples, ")
    assert shown[shown.index(row) + 1].split() == ["ripe"]
    assert row.split()[-5:] == ["30", "93.33", "60.00", "+33.33", "71.20"]
    assert any(line.split() == ["float", "81.20"] for line in shown)


@pytest.mark.parametrize("terminal", [False, True])
def test_names_out_of_files_are_shown_and_not_obeyed(terminal: bool, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    table(["node", "finding"], [["a\x1b[31m\nb", "[red]Größe[/red]"]])
    out = capsys.readouterr().out
    assert r"a\x1b[31m\nb" in out
    assert "[red]Größe[/red]" in out


@pytest.mark.parametrize("width", WIDTHS)
def test_what_was_compared_has_whole_lines_at_every_width(width: int, terminal) -> None:
    results = (
        Line("golden images", "off by ≤ 0.1", "off by 0.0001", "same"),
        Line("p50 ms", "113.046 (111.993 … 115.994)", "119.862 (119.337 … 119.973)", "not compared"),
        Line("budget", "p99 ≤ 120 ms, ≥ 8 fps, ≤ 10 MB", "not met", "differs", "the budget is not met", 3),
    )
    environment = (
        Line("Jetson Linux", "36.4.3", "36.4.4", "differs"),
        Line("device", "AMD EPYC 9V74 80-Core Processor", "", "same"),
    )
    compared = Requalification("/a/long/path/to/my-model", Precision.INT8_BF16, results, environment, "Differs.", None, None)
    shown = lines(terminal(width, tables.requalification, compared))
    assert max(map(len, shown)) <= width
    text = " ".join(" ".join(shown).split())
    assert "not shown" not in text
    words = [word for line in (*results, *environment) for cell in (line.what, line.outcome) for word in cell.split()]
    assert not set(words) - set(text.split())
