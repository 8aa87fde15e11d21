"""edgeeff's own exceptions, one level below EdgeeffError, and the one table of exit codes.

A message states in one line what was wrong, what was expected and what to do. It may quote names of files, which may hold anything:
what a terminal might obey, or a line end, is written as an escape.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import NamedTuple


def printable(text: str) -> str:
    """The text in one line, without anything that a terminal obeys: line ends, control characters and the like become escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def suggestion(name: str, known: Collection[str], cutoff: float = 0.6) -> str:
    """Did you mean …? of the known names that contain the name, or of the closest one; nothing where none is close.

    `cutoff` is the share of letters in common, from 0 to 1, that makes a name close: https://docs.python.org/3/library/difflib.html
    """
    written = name.lower()
    longer = [each for each in known if written in each.lower()] if len(name) > 1 else []
    close = longer or difflib.get_close_matches(written, list(known), 1, cutoff)
    *others, last = map(repr, close or [""])
    return f" Did you mean {', '.join(others)}{' or ' if others else ''}{last}?" if close else ""


class EdgeeffError(Exception):
    """Base class of everything that edgeeff refuses. Its message is one printable line, whatever names it is made of.

    `result` is what there is to report despite the error, such as the attempts before it; None where there is nothing.
    """

    def __init__(self, message: str, result: object | None = None) -> None:
        super().__init__(printable(message))
        self.result = result


class BadInput(EdgeeffError):
    """Something that the user gave is wrong: a path, an image, a checkpoint, a budget, a target or a bundle."""


class BudgetNotMet(EdgeeffError):
    """No candidate fits the budget, or the one asked for does not."""


class AccuracyGateFailed(EdgeeffError):
    """A step lost more accuracy than allowed."""


class ToolMissing(EdgeeffError):
    """A package or program that this step needs is not installed."""


class Unreachable(EdgeeffError):
    """The Hugging Face hub or a device does not answer, or refuses the login."""


class BuildFailed(EdgeeffError):
    """The device's compiler built no engine from a graph."""


class Disturbed(EdgeeffError):
    """The machine was slowed down while it was measured, twice."""


class Unreliable(EdgeeffError):
    """A measurement, made for itself, that cannot be relied on; its `result` has the figures and the reasons."""


READER_GONE = 141  # 128 + SIGPIPE: what a shell gives of a program that the signal ended


class ExitCode(NamedTuple):
    """One row of the table: a process's exit code, the exception that leads to it, and its description for the user."""

    code: int
    error: type[BaseException] | None
    description: str


EXIT_CODES = (
    ExitCode(0, None, "done"),
    ExitCode(1, EdgeeffError, "training diverged, or an internal error, which the message asks you to report"),
    ExitCode(2, BadInput, "bad input: a path, an image, a checkpoint, a budget, a target, a bundle"),
    ExitCode(3, BudgetNotMet, "budget not met; the message names the figure that would do"),
    ExitCode(4, AccuracyGateFailed, "accuracy gate failed"),
    ExitCode(5, ToolMissing, "a package or program is not installed"),
    ExitCode(6, Unreachable, "the hub or a device does not answer, or refuses the login"),
    ExitCode(7, BuildFailed, "TensorRT built no engine from a graph; the message has its reason"),
    ExitCode(8, Disturbed, "the device slowed down while it was measured, twice"),
    ExitCode(9, Unreliable, "bench or requalify measured, but not soundly: the figures are printed, the message has the reason"),
    ExitCode(130, KeyboardInterrupt, "interrupted, by Ctrl-C, SIGTERM or SIGHUP: the same command continues from what was done"),
    ExitCode(READER_GONE, BrokenPipeError, "nobody reads standard output any more, as after `head -1`"),
)
"""Every exit code. A subclass that is not listed has the code of its nearest listed ancestor."""

INTERNAL_ERROR = 1


def exit_code(error: BaseException) -> int:
    """The exit code for an exception; INTERNAL_ERROR for one that is neither edgeeff's nor an interruption."""
    codes = {row.error: row.code for row in EXIT_CODES}
    return next((codes[ancestor] for ancestor in type(error).__mro__ if ancestor in codes), INTERNAL_ERROR)


def error_for(code: int) -> type[EdgeeffError]:
    """The exception that another process's exit code stands for; EdgeeffError for a code that is no refusal's."""
    errors = {row.code: row.error for row in EXIT_CODES}
    found = errors.get(code)
    return found if found is not None and issubclass(found, EdgeeffError) else EdgeeffError
