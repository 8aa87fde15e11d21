"""Two folders of results compared: `python benchmarks/run.py --compare OLD`.

What has a 95% interval is compared: the accuracy of a step, as its photos are a sample; its drop from the float network, which is
paired; and latencies. Two figures differ where their intervals do not overlap. Latencies of two devices are not compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import result_files

from edgeeff.cli.grid import table
from edgeeff.errors import BadInput
from edgeeff.measurement.accuracy import share_error
from edgeeff.measurement.remarks import Z
from edgeeff.measurement.system_state import Device
from edgeeff.records import from_json

ROW_NAMES = ("step", "variant", "precision", "activation", "runtime", "remedy", "resolution")  # what tells rows of a list apart


class Figure(NamedTuple):
    """A figure and its 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} … {self.high:.2f})"

    def differs_from(self, other: Figure) -> bool:
        return self.low > other.high or self.high < other.low


def compare(old: Path, new: Path) -> None:
    """Print what differs between the results that both folders have. Raises BadInput where there are none, or one was edited."""
    names = sorted({file.name for file in old.glob("*.json")} & {file.name for file in new.glob("*.json")})
    if not names:
        raise BadInput(f"{old}: holds no result that {new} has as well. Expected files like {new}/v2-b0.json.")
    rows = []
    for name in names:
        before, after = result_files.read(old / name), result_files.read(new / name)
        pairs = dict(_pairs(before, after))
        rows += [[Path(name).stem, figure, str(was), str(now)] for figure, (was, now) in pairs.items() if now.differs_from(was)]
        print(f"{Path(name).stem}: {len(pairs)} figures compared. {_environment(before, after)}")
    if rows:
        columns = ["result", "figure", "before", "now"]
        table(columns, rows, title="differ beyond their intervals", prose=columns[1:])
    else:
        print("No figure differs beyond its interval.")


def _pairs(before: dict[str, Any], after: dict[str, Any]) -> Iterator[tuple[str, tuple[Figure, Figure]]]:
    """The figures that both have, by their place, as they were and as they are."""
    was, now = (dict(_figures(each.get("measured"))) for each in (before, after))
    alike = _same_device(before, after)
    for place in was:
        if place in now and (alike or not place.endswith("p50 ms")):
            yield place, (was[place], now[place])


def _figures(node: Any, place: str = "") -> Iterator[tuple[str, Figure]]:
    """Every figure with an interval below a place. Rows of a list go by what they are, so that their order does not matter."""
    if isinstance(node, list):
        for i, row in enumerate(node):
            named = isinstance(row, dict) and any(name in row for name in ROW_NAMES)
            yield from _figures(row, f"{place} {_row_name(row) if named else i}")
        return
    if not isinstance(node, dict):
        return
    if node.get("top1") is not None and "images" in node:
        margin = Z * share_error(node["top1"], node["images"])
        yield f"{place} top-1 %".strip(), Figure(node["top1"], node["top1"] - margin, node["top1"] + margin)
    if node.get("drop") is not None and node.get("drop_ci"):
        yield f"{place} drop".strip(), Figure(node["drop"], *node["drop_ci"])
    if "p50" in node and "ci" in node:
        yield f"{place} p50 ms".strip(), Figure(node["p50"], *node["ci"])
    for name, inner in node.items():
        yield from _figures(inner, place if name == "latency_ms" else f"{place} {name}")


def _row_name(row: dict[str, Any]) -> str:
    known = [str(row[name]) for name in ROW_NAMES if row.get(name)]
    return ", ".join([*known, *(["reference"] if row.get("reference") else []), *row.get("left_out", ())])


def _same_device(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether both say where they were measured, and that is the same."""
    if "device" not in before or "device" not in after:
        return False
    was, now = (from_json(each["device"], Device, "device") for each in (before, after))
    return was.same_kind(now)


def _environment(before: dict[str, Any], after: dict[str, Any]) -> str:
    """In what environment each was measured, where that differs."""
    was, now = before.get("versions", {}), after.get("versions", {})
    changes = [f"{name} {was[name]} → {now[name]}" for name in was if name in now and was[name] != now[name]]
    if not _same_device(before, after):
        changes.append("the device is another, or not known, so latencies are not compared")
    return f"{'; '.join(changes) or 'The same versions and device'}."
