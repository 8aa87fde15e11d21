"""What is reported while work runs: a progress bar on a terminal, a line now and then elsewhere, nothing by default."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from .errors import printable

T = TypeVar("T")

DEBUG = "EDGEEFF_DEBUG"  # an environment variable, so that processes started by this one follow


def debugging() -> bool:
    """Whether tracebacks and the logs of libraries are wanted: --debug, or EDGEEFF_DEBUG=1."""
    return os.environ.get(DEBUG) == "1"


class Progress:
    """Says nothing: what a library call uses unless told otherwise."""

    def say(self, line: str) -> None:
        """Report one finished thing."""

    def track(self, items: Iterable[T], label: str, total: int) -> Iterator[T]:
        """Yield the items, showing how far along they are."""
        yield from items


SILENT = Progress()


class TerminalProgress(Progress):
    """On standard error, so that standard output stays the result alone."""

    def say(self, line: str) -> None:
        print(printable(line), file=sys.stderr, flush=True)

    def track(self, items: Iterable[T], label: str, total: int) -> Iterator[T]:
        if not sys.stderr.isatty():
            yield from self._plain(items, label, total)
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            yield from bar.track(items, total=total, description=label)

    def _plain(self, items: Iterable[T], label: str, total: int) -> Iterator[T]:
        start = spoken = time.monotonic()
        for done, item in enumerate(items):
            now = time.monotonic()
            if done and now - spoken >= 10:
                spoken = now
                print(f"{label}: {done}/{total}, {(now - start) / done * (total - done):.0f} s left", file=sys.stderr, flush=True)
            yield item
