"""Results of benchmarks: whole, and compared between versions of the dependencies."""

import json
import sys
from pathlib import Path

import compare
import pytest
import result_files
import run as benchmarks
from compare import Figure

RESULTS = sorted(result_files.FOLDER.glob("*.json"))


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder with two results, as they are."""
    for name in ("v2-b0", "pick"):
        result_files.write(tmp_path / f"{name}.json", result_files.read(result_files.FOLDER / f"{name}.json"))
    return tmp_path


def changed(file: Path, **changes: object) -> None:
    result_files.write(file, {**result_files.read(file), **changes})


def main(*words: object) -> None:
    """run.py, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["run.py", *map(str, words)])
        benchmarks.main()


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.stem)
def test_every_result_is_as_it_was_written(file: Path) -> None:
    assert result_files.read(file)


def test_a_result_edited_by_hand_is_refused(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (old / "v2-b0.json").read_text()
    assert text.count('"p50": 5.5') >= 1
    for edited in (text.replace('"p50": 5.5', '"p50": 4.5'), text.replace('"digest"', '"other"'), "[]", "{"):
        (old / "v2-b0.json").write_text(edited)
        with pytest.raises(SystemExit) as ended:
            main("--compare", old)
        assert ended.value.code == 2
        assert f"{old}/v2-b0.json: " in capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(SystemExit):
        main("--compare", old / "nowhere")
    assert "holds no result that" in capsys.readouterr().err


def test_equal_results_differ_in_nothing(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main("--compare", old)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "pick: 0 figures compared. The same versions and device."  # medians alone, without intervals
    assert lines[1].startswith("v2-b0: ")
    assert int(lines[1].split()[1]) > 20
    assert lines[2:] == ["No figure differs beyond its interval."]


def test_what_differs_beyond_its_interval_is_named_and_nothing_else(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = result_files.read(old / "v2-b0.json")
    fit = result["measured"]
    step, sibling = fit["steps"][1], fit["siblings"][-1]
    assert step["step"] == "onnx"
    step["drop"], step["drop_ci"] = 5.0, [4.0, 6.0]
    sibling["latency_ms"] |= {"p50": 0.5, "ci": [0.4, 0.6]}
    fit["siblings"].reverse()  # rows go by what they are
    versions = {**result["versions"], "openvino": "2026.0.0"}
    changed(old / "v2-b0.json", measured=fit, versions=versions)
    main("--compare", old)
    _, head, *table = capsys.readouterr().out.splitlines()
    assert f"openvino 2026.0.0 → {result['versions']['openvino']}." in head
    rows = [line for line in table if line.startswith("v2-b0")]
    assert len(rows) == 2
    assert "steps onnx drop" in rows[0]
    assert "5.00 (4.00 … 6.00)" in rows[0]
    assert f"siblings {sibling['precision']}, {sibling['activation']}, {sibling['runtime']}" in rows[1]
    assert "0.50 (0.40 … 0.60)" in rows[1]

    changed(old / "v2-b0.json", device={**result["device"], "cpu": "another"})
    main("--compare", old)
    out = capsys.readouterr().out
    assert "the device is another, or not known, so latencies are not compared." in out
    assert "0.50 (0.40 … 0.60)" not in out
    assert "5.00 (4.00 … 6.00)" in out


def test_figures_differ_where_their_intervals_are_apart() -> None:
    assert not Figure(1.0, 0.9, 1.1).differs_from(Figure(1.2, 1.1, 1.3))
    assert Figure(1.0, 0.9, 1.09).differs_from(Figure(1.2, 1.1, 1.3))
    assert Figure(1.2, 1.1, 1.3).differs_from(Figure(1.0, 0.9, 1.09))


def test_every_figure_of_a_fit_has_a_place_of_its_own() -> None:
    """Rows that are told apart by less than they differ in would hide each other."""

    def count(node: object) -> int:
        if isinstance(node, list):
            return sum(map(count, node))
        return ("p50" in node and "ci" in node) + sum(map(count, node.values())) if isinstance(node, dict) else 0

    for name in ("v2-b0", "reduced", "lite0", "flowers12"):
        measured = json.loads((result_files.FOLDER / f"{name}.json").read_text())["measured"]
        places = [place for place, _ in compare._figures(measured)]
        assert len(places) == len(set(places)), name
        assert sum(place.endswith("p50 ms") for place in places) == count(measured), name
