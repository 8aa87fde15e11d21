"""The table of exit codes, in both directions."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgeeff import errors
from edgeeff.errors import EXIT_CODES, EdgeeffError, error_for, exit_code
from edgeeff.remote.fleet import HostAnswer, failure

ROOT = Path(__file__).parents[1]
CLASSES = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, EdgeeffError)]


def test_every_code_and_every_class_is_listed_once() -> None:
    assert len({row.code for row in EXIT_CODES}) == len({row.error for row in EXIT_CODES}) == len(EXIT_CODES)
    assert set(CLASSES) <= {row.error for row in EXIT_CODES}


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_survives_the_way_through_an_exit_code(kind: type[EdgeeffError]) -> None:
    """As itself, and as the remote part raises what ended a verb on another host."""
    code = exit_code(kind("why"))
    assert error_for(code) is kind
    raised = failure([HostAnswer("board", {}, "why", code)])
    assert type(raised) is kind
    assert str(raised) == "board: why"


def test_subclasses_and_foreign_exceptions_have_a_code() -> None:
    class Tight(errors.BudgetNotMet):
        pass

    assert exit_code(Tight("why")) == 3
    assert error_for(3) is errors.BudgetNotMet
    assert exit_code(KeyboardInterrupt()) == 130
    assert [exit_code(e) for e in (OSError(), KeyError(), MemoryError())] == [errors.INTERNAL_ERROR] * 3
    assert [error_for(code) for code in (0, 1, 77, 130, -9)] == [EdgeeffError] * 5


@pytest.mark.slow
@pytest.mark.parametrize(
    "order",
    [
        ("edgeeff.remote.host", "edgeeff.quantization.strategies"),
        ("edgeeff.quantization.strategies", "edgeeff.remote.host"),
    ],
)
def test_classes_defined_elsewhere_replace_none_in_any_import_order(order: tuple[str, str]) -> None:
    """OutOfTime in `strategies` and two classes of a program that uses edgeeff, one with a code attribute of its own."""
    code = f"""
import importlib
from edgeeff import errors
class Late(errors.BudgetNotMet): pass
class Other(errors.EdgeeffError): exit_code = 3
for name in {order!r}: importlib.import_module(name)
from edgeeff.quantization.strategies import OutOfTime
from edgeeff.remote.fleet import HostAnswer, failure
for row in errors.EXIT_CODES:
    if row.error and issubclass(row.error, errors.EdgeeffError):
        assert type(failure([HostAnswer("h", {{}}, "e", row.code)])) is row.error, row
assert errors.exit_code(OutOfTime("e")) == errors.exit_code(Late("e")) == 3
assert errors.exit_code(Other("e")) == 1
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_readme_and_the_help_have_the_same_table() -> None:
    from edgeeff.cli.options import parser

    table = {row.code: row.description for row in EXIT_CODES}
    page = (
        (ROOT / "docs/command-line.md")
        .read_text(encoding="utf-8")
        .partition("| exit code | |\n|---|---|\n")[2]
        .partition("\n\n")[0]
    )
    assert {int(code): text for code, text in re.findall(r"^\| (\d+) \| (.*) \|$", page, re.MULTILINE)} == table
    epilog = parser().format_help().partition("exit codes:\n")[2]
    assert {int(code): text for code, text in re.findall(r"^  (\d+) +(.*)$", epilog, re.MULTILINE)} == table


def test_a_result_may_be_anything() -> None:
    result = object()
    assert EdgeeffError("why", result).result is result
    assert EdgeeffError("why").result is None
