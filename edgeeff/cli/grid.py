"""One table: as wide as a terminal allows, its columns left out in a given order where they do not fit; plain elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from ..errors import printable

if TYPE_CHECKING:
    from rich.table import Table

GAP = 2  # characters between columns
VERDICTS = {
    **dict.fromkeys(("yes", "ok", "passed", "same"), "green"),
    **dict.fromkeys(("NO", "ERROR", "!", "missed the gate", "differs"), "bold red"),
    **dict.fromkeys(("warning", "not sound"), "yellow"),
}
JUDGING = ("passed", "proven", "outcome", "")  # columns whose cells have the colours of VERDICTS


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    title: str = "",
    marked: int | None = None,
    spare: Sequence[str] = (),
    prose: Sequence[str] = (),
) -> None:
    """Print rows under their columns; the `marked` one is bold, with an arrow in front. The first column is left-aligned.

    On a terminal that is too narrow, the columns of `spare` are left out, the first of them first. Cells are whole, but for those
    of `prose` columns, which are left-aligned and continue on the next line, between words.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        _plain(columns, rows, title, marked, {columns[0], *prose})
        return
    from rich.console import Console

    console = Console(markup=False, emoji=False, highlight=False)  # a name may look like markup
    room = console.width - (1 + GAP if marked is not None else 0)
    shown, names = list(columns), {*prose}
    widths = _widths(shown, rows, names, room)
    for column in spare:
        if widths is not None:
            break
        if column in shown:
            i = shown.index(column)
            shown, rows = _without(shown, i), [_without(row, i) for row in rows]
            widths = _widths(shown, rows, names, room)
    widths = widths or _widths(shown, rows, {*shown}, room)  # where nothing else helps, between the words of names
    console.print(_grid(shown, rows, widths, title, marked, {columns[0], *prose}))
    if absent := [column for column in columns if column not in shown]:
        console.print(f"not shown in {console.width} columns: {', '.join(absent)}", style="dim")


def _without(cells: Sequence[str], i: int) -> list[str]:
    return [*cells[:i], *cells[i + 1 :]]


def _plain(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str, marked: int | None, left: Collection[str]) -> None:
    """All of a table, for a file or another program."""
    arrows = ["", *("→" if i == marked else "" for i in range(len(rows)))] if marked is not None else [None] * (1 + len(rows))
    lines = [columns, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    if title:
        print(title)
    for arrow, line in zip(arrows, lines, strict=True):
        cells = [c.ljust(w) if name in left else c.rjust(w) for c, w, name in zip(line, widths, columns, strict=True)]
        print("  ".join(cells if arrow is None else [arrow.ljust(1), *cells]).rstrip())


def _widths(columns: Sequence[str], rows: Sequence[Sequence[str]], prose: Collection[str], room: int) -> list[int] | None:
    """Each column's width in a terminal of so much `room`, the widest narrowed first; None where they do not fit.

    Titles, and the cells of `prose` columns, may continue on the next line, but no word may.
    """
    from rich.cells import cell_len

    def longest(texts: Iterable[str]) -> int:
        return max(map(cell_len, texts), default=0)

    widths, least = [], []
    for i, column in enumerate(columns):
        cells = [row[i] for row in rows]
        parts = [word for cell in cells for word in cell.split()] if column in prose else cells
        widths.append(longest([column, *cells]))
        least.append(longest([*column.split(), *parts]))
    for _ in range(sum(widths) + GAP * (len(widths) - 1) - room):
        widest = max(range(len(widths)), key=lambda i: (widths[i] > least[i], widths[i]))
        if widths[widest] <= least[widest]:
            return None
        widths[widest] -= 1
    return widths


def _grid(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    widths: Sequence[int] | None,
    title: str,
    marked: int | None,
    left: Collection[str],
) -> Table:
    """The table as rich draws it; `widths` None: within the terminal, whatever has to be broken."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    grid.title, grid.title_justify, grid.title_style = title or None, "left", "bold"
    if marked is not None:
        grid.add_column("", width=1)
    for i, column in enumerate(columns):
        grid.add_column(column, justify="left" if column in left else "right", overflow="fold", width=widths[i] if widths else None)
    for i, row in enumerate(rows):
        cells = [Text(c, VERDICTS.get(c, "") if column in JUDGING else "") for c, column in zip(row, columns, strict=True)]
        arrow = [Text("→" if i == marked else "")] if marked is not None else []
        grid.add_row(*arrow, *cells, style="bold" if i == marked else None)
    return grid
