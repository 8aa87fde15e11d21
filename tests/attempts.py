"""Hostile inputs: each has to end within ten seconds, in one line and with the right exit code. They are counted at the end.

`hostile` tries them in this process, so that a thousand take a minute; what has to be killed or starved runs in one of its own.
"""

from __future__ import annotations

import contextlib
import io
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType

import pytest

from edgeeff.cli import main
from edgeeff.errors import EdgeeffError

SECONDS = 10.0
TRIED, FAILING = "hostile inputs tried", "hostile inputs failing"  # properties of a test, also in a JUnit file


class TooSlow(BaseException):
    """An attempt took longer than it may. No handler of exceptions in what is tried stops it."""


@dataclass
class Hostile:
    """What one test tries. A test goes on after an input that is not handled cleanly, and fails at its end with all of them."""

    tried: int = 0
    failing: list[str] = field(default_factory=list)

    def refused(self, *arguments: object, code: int = 2, words: tuple[str, ...] = (), name: object = None) -> None:
        """The command line ends with `code` and one line, which has the `words`."""
        what = name if name is not None else arguments
        out, err, ended = io.StringIO(), io.StringIO(), -1
        with self._attempt() as slow, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                ended = main([str(a) for a in arguments])
            except SystemExit as end:  # argparse
                ended = end.code if isinstance(end.code, int) else 1
        lines = err.getvalue().strip().splitlines()
        last = lines[-1] if lines else ""
        wrong = [
            *([f"exit code {ended}, expected {code}"] if ended != code else []),
            *(["a traceback"] if "Traceback" in err.getvalue() else []),
            *(["an internal error"] if "internal error" in last else []),
            *(["no line of edgeeff's"] if not last.startswith("edgeeff") else []),
            *(["control characters"] if any(not c.isprintable() for line in lines for c in line) else []),
            *(f"no {word!r}" for word in words if word not in last),
        ]
        self._note(what, slow or wrong, last)

    @contextlib.contextmanager
    def raises(self, kind: type[EdgeeffError], name: object) -> Iterator[None]:
        """Within the block, `kind` is raised, with a message of one printable line."""
        message, wrong, slow = "", [], list[str]()
        try:
            with self._attempt() as slow:
                yield
            wrong = ["nothing was raised"]
        except kind as error:
            message, wrong = str(error), _of_message(error)
        except Exception as error:
            message, wrong = str(error), [f"raised {type(error).__name__}"]
        self._note(name, slow or wrong, message)

    @contextlib.contextmanager
    def harmless(self, name: object) -> Iterator[None]:
        """Within the block, nothing is raised but an EdgeeffError: an input that may be good enough to use."""
        message, wrong, slow = "", list[str](), list[str]()
        try:
            with self._attempt() as slow:
                yield
        except EdgeeffError as error:
            message, wrong = str(error), _of_message(error)
        except Exception as error:
            message, wrong = str(error), [f"raised {type(error).__name__}"]
        self._note(name, slow or wrong, message)

    def expect(self, condition: bool, name: object, message: str = "") -> None:
        """One more input, judged by the caller."""
        self._note(name, [] if condition else ["not as expected"], message)

    def _note(self, what: object, wrong: list[str], message: str) -> None:
        self.tried += 1
        if wrong:
            self.failing.append(f"{what!r:.200}: {', '.join(wrong)} ({message[:300]!r})")

    @contextlib.contextmanager
    def _attempt(self) -> Iterator[list[str]]:
        """Within the block, SECONDS may pass; gives a list that says so afterwards. The alarm that was set before is set again."""
        slow: list[str] = []

        def stop(signum: int, frame: FrameType | None) -> None:
            raise TooSlow

        handler, start = signal.signal(signal.SIGALRM, stop), time.monotonic()
        before, _ = signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            yield slow
        except TooSlow:
            slow.append(f"longer than {SECONDS:g} seconds")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)
            if before:
                signal.setitimer(signal.ITIMER_REAL, max(0.1, before - (time.monotonic() - start)))


def _of_message(error: EdgeeffError) -> list[str]:
    return [] if str(error).isprintable() else ["more than one printable line"]


@pytest.fixture
def hostile(request: pytest.FixtureRequest) -> Iterator[Hostile]:
    tries = Hostile()
    yield tries
    request.node.user_properties.extend(((TRIED, tries.tried), (FAILING, len(tries.failing))))
    assert tries.tried, "nothing was tried"
    assert not tries.failing, f"{len(tries.failing)} of {tries.tried} failing:\n" + "\n".join(tries.failing[:20])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many were tried in all, and how many of them were not handled cleanly."""
    reports = (report for reports in terminalreporter.stats.values() for report in reports)
    found = [each for report in reports for each in getattr(report, "user_properties", ())]
    tried, failing = (sum(value for name, value in found if name == wanted) for wanted in (TRIED, FAILING))
    if tried:
        terminalreporter.line(f"hostile inputs: {tried} tried, {tried - failing} clean, {failing} failing")
