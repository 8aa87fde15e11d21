"""Geometry of the report's drawings: axes with round ticks, and a scatter plot whose labels stay apart.

By hand rather than by a plotting library: the drawings are inline SVG with the report's own colours, selectable text and titles for
screen readers, in a few kilobytes and without a dependency.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Axis:
    """From values to positions in a drawing; `ticks` are round values."""

    low: float
    high: float
    start: float
    end: float
    log: bool
    ticks: tuple[float, ...]

    def __call__(self, value: float) -> float:
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 1)


@dataclass(frozen=True)
class Point:
    """What a scatter plot draws: a value with its interval on the horizontal axis, if there is one, and its height."""

    x: float
    low: float | None
    high: float | None
    y: float
    label: str
    good: bool
    chosen: bool


@dataclass(frozen=True)
class Mark:
    """A point with its place in the drawing, that of its label, and the box that the label covers."""

    point: Point
    cx: float
    cy: float
    tx: float
    ty: float
    covered: Box


@dataclass(frozen=True)
class Scatter:
    """A scatter plot: `line` joins the points that none beats in both, `limit` is a value to mark on the horizontal axis."""

    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    line: str
    limit: float | None


def axis(
    values: Iterable[float | None], start: float, end: float, *, zero: bool = False, log: bool = False, room: float = 0.08
) -> Axis:
    """One that shows all `values` with some room around, from `zero` on if asked."""
    found = [v for v in values if v is not None] + [0.0] * zero
    low, high = min(found), max(found)
    if log:
        grow = (high / low) ** room
        low, high = low / grow, high * grow
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [step * 10.0**power for power in powers for step in (1, 2, 5)]
    else:
        spread = (high - low) or abs(high) or 1.0
        low, high = low - (0 if zero and low == 0 else room * spread), high + room * spread
        rough = (high - low) / 6
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough)
        ticks = [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return Axis(low, high, start, end, log, tuple(round(t, 9) for t in ticks if low <= t <= high))


def shown_limit(limit: float | None, values: Iterable[float]) -> float | None:
    """A limit worth drawing: one so far off that it would squeeze the values is left to the text."""
    found = list(values)
    return limit if limit and min(found) / 3 <= limit <= 3 * max(found) else None


def scatter(points: Sequence[Point], limit: float | None, box: Box) -> Scatter | None:
    """Where to draw points in `box` (left, right, bottom, top); None where there are none."""
    if not points:
        return None
    left, right, bottom, top = box
    xs = [v for p in points for v in (p.x, p.low, p.high) if v is not None]
    limit = shown_limit(limit, xs)
    xs += [limit] if limit else []
    x, y = axis(xs, left, right, log=max(xs) > 8 * min(xs)), axis((p.y for p in points), bottom, top, room=0.12)
    taken = [(x(p.x) - 6, y(p.y) - 6, x(p.x) + 6, y(p.y) + 6) for p in points]
    taken += [(x(p.low), y(p.y) - 2, x(p.high), y(p.y) + 2) for p in points if p.low is not None and p.high is not None]
    line = _frontier(points, x, y)
    taken += [*_along(line), *([(x(limit) - 2, top, x(limit) + 2, bottom)] if limit else [])]
    places = {}
    for p in sorted(points, key=lambda p: x(p.x)):
        (tx, ty), covered = _place(p.label, x(p.x), y(p.y), taken, box)
        places[p] = (tx, ty, covered)
        taken.append(covered)
    marks = (Mark(p, x(p.x), y(p.y), *places[p]) for p in points)
    return Scatter(x, y, tuple(marks), " ".join(f"{cx},{cy}" for cx, cy in line), limit)


def _along(line: Sequence[tuple[float, float]]) -> list[Box]:
    """Small boxes that cover a line, for labels to stay away from."""
    boxes = []
    for (ax, ay), (bx, by) in itertools.pairwise(line):
        count = math.ceil(math.hypot(bx - ax, by - ay) / 4)
        for i in range(count):
            cx, cy = ax + (bx - ax) * i / count, ay + (by - ay) * i / count
            boxes.append((cx - 2, cy - 2, cx + 2, cy + 2))
    return boxes


def _frontier(points: Sequence[Point], x: Axis, y: Axis) -> list[tuple[float, float]]:
    best, line = -math.inf, []
    for p in sorted(points, key=lambda p: (p.x, -p.y)):
        if p.y > best:
            best = p.y
            line.append((x(p.x), y(p.y)))
    return line


def _place(label: str, cx: float, cy: float, taken: Sequence[Box], box: Box) -> tuple[tuple[float, float], Box]:
    """Where a label's baseline begins, so that it covers least of what is there, and what it covers itself."""
    left, right, bottom, top = box
    width = 7.2 * len(label)
    places = [  # beside, above, below the point
        *((cx + 9, cy + 4), (cx - 9 - width, cy + 4)),
        *((cx + a, cy + d) for d in (-10, 20, -26, 36) for a in (-width / 2, -6, 6 - width)),
    ]
    boxes = [(round(a, 1), round(b - 11, 1), round(a + width, 1), round(b + 3, 1)) for a, b in places]
    inside = [i for i, b in enumerate(boxes) if b[0] >= left and b[2] <= right + 8 and b[1] >= top - 12 and b[3] <= bottom]
    i = min(inside or [0], key=lambda i: sum(_overlap(boxes[i], other) for other in taken))
    return (round(places[i][0], 1), round(places[i][1], 1)), boxes[i]


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
