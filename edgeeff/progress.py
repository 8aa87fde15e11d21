"""What is reported while work runs: a line on a terminal that keeps changing, one now and then elsewhere, nothing by default."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from .errors import printable

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

T = TypeVar("T")

LOG = logging.getLogger(__name__)
DEBUG = "EDGEEFF_DEBUG"  # an environment variable, so that processes started by this one follow


def debugging() -> bool:
    """Whether tracebacks and the logs of libraries are wanted: --debug, or EDGEEFF_DEBUG=1."""
    return os.environ.get(DEBUG) == "1"


class Progress:
    """Says nothing: what a library call uses unless told otherwise."""

    @contextlib.contextmanager
    def whole(self) -> Iterator[Progress]:
        """Within the block, which is the whole work, a terminal shows one line under all others: stage, share done, time left."""
        yield self

    def say(self, line: str) -> None:
        """Report one finished thing."""

    def expect(self, seconds: float, then: float | None = None) -> None:
        """This stage goes on for about so many seconds, and what comes after it takes `then` (None: as was said last)."""

    def track(self, items: Iterable[T], label: str, total: int) -> Iterator[T]:
        """Yield the items, showing how far along they are."""
        yield from items


SILENT = Progress()


class TerminalProgress(Progress):
    """On standard error, so that standard output stays the result alone."""

    def __init__(self) -> None:
        self._live: Live | None = None
        self._stage, self._began = "", time.monotonic()
        self._end: float | None = None  # when the stage should end, of time.monotonic()
        self._then = 0.0

    @contextlib.contextmanager
    def whole(self) -> Iterator[Progress]:
        if not sys.stderr.isatty() or LOG.isEnabledFor(logging.INFO):  # the lines of a log would break that one
            yield self
            return
        from rich.console import Console
        from rich.live import Live

        # The stream itself, since libraries lead sys.stderr elsewhere meanwhile.
        console = Console(file=sys.stderr, markup=False, emoji=False, highlight=False)
        with Live(
            console=console,
            get_renderable=self._line,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        ) as self._live:
            try:
                yield self
            finally:
                self._live = None

    def say(self, line: str) -> None:
        self._stage = line = printable(line)
        if self._live:
            self._live.console.print(line)
        else:
            print(line, file=sys.stderr, flush=True)

    def expect(self, seconds: float, then: float | None = None) -> None:
        self._end = time.monotonic() + seconds
        self._then = self._then if then is None else then

    def track(self, items: Iterable[T], label: str, total: int) -> Iterator[T]:
        label = printable(label)
        if self._live:
            for done, item in enumerate(items):
                self._stage = f"{label} {done}/{total}"
                yield item
            self._stage = label
            return
        if not sys.stderr.isatty():
            yield from self._plain(items, label, total)
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            yield from bar.track(items, total=total, description=label)

    def _line(self) -> RenderableType:
        """The stage, cut to what fits, and as far as it is known the share and the time that is left."""
        from rich.table import Table
        from rich.text import Text

        line = Table.grid(padding=(0, 2), expand=True)
        line.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        cells = [Text(self._stage)]
        if self._end is not None:
            now = time.monotonic()
            left = max(self._end - now, 0) + self._then
            cells += [Text(f"{(now - self._began) / (now - self._began + left):.0%}"), Text(f"{spoken(left)} left")]
        for _ in cells[1:]:
            line.add_column(justify="right", no_wrap=True)
        line.add_row(*cells)
        return line

    def _plain(self, items: Iterable[T], label: str, total: int) -> Iterator[T]:
        start = said = time.monotonic()
        for done, item in enumerate(items):
            now = time.monotonic()
            if done and now - said >= 10:
                said = now
                print(f"{label}: {done}/{total}, {(now - start) / done * (total - done):.0f} s left", file=sys.stderr, flush=True)
            yield item


def spoken(seconds: float) -> str:
    """So long in words: "40 s", "7 min", "2.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
