"""A dataclass field that is also an option of the command line: its name, default and help are said once, with the field.

The parser is made of it (`cli.options`), and so are the words that ask for the same again, here or on another machine.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from typing import Any

from .budget import KINDS, Budget


@dataclass(frozen=True)
class Option:
    """How a field is typed: `--flag` (of the field's name by default) with a value that `parse` reads.

    `many`: one or more values. `positional`: a word without a flag. `words` writes a value for `parse` to read, where str does not.
    """

    help: str
    metavar: str | None = None
    choices: Sequence[Any] | None = None
    flag: str | None = None
    parse: Callable[[str], Any] | None = None
    many: bool = False
    positional: bool = False
    words: Callable[[Any], str] = str


def option(default: Any = MISSING, *, help: str, **how: Any) -> Any:
    """A dataclass field with its Option; without a default it has to be given."""
    return field(default=default, metadata={"option": Option(help, **how)})


def options(kind: type) -> Iterator[tuple[Field[Any], Option]]:
    """The fields of a dataclass that can be typed, with how."""
    for each in fields(kind):
        if "option" in each.metadata:
            yield each, each.metadata["option"]


def flag(each: Field[Any], how: Option) -> str:
    """The flag of a field: `--no-flip` for a boolean that is true by default."""
    if how.flag:
        return how.flag
    return f"--{'no-' if each.default is True else ''}{each.name.replace('_', '-')}"


def arguments(job: object) -> list[str]:
    """The words of the command line that give a job's fields their values; those that have their default are left out."""
    assert is_dataclass(job)
    first: list[str] = []
    words: list[str] = []
    for each in fields(job):
        value = getattr(job, each.name)
        if isinstance(value, Budget):
            words += _budget(value)
        if "option" not in each.metadata or value == each.default:
            continue
        how: Option = each.metadata["option"]
        values = [how.words(v) for v in (value if how.many else [value])]
        if how.positional:
            first += values
        else:
            words += [flag(each, how), *([] if isinstance(value, bool) else values)]
    return first + words


def _budget(budget: Budget) -> list[str]:
    words = [word for name, limit in budget.limits.items() for word in (KINDS[name].flag(name), f"{limit:g}")]
    return words if budget.percentile == Budget().percentile else [*words, "--percentile", str(budget.percentile)]


def parse_whole(text: str) -> int:
    """A whole number of at most 18 digits, so that it fits into 64 bits."""
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise ValueError("expected a whole number of at most 18 digits")
    return int(text)


def parse_number(text: str) -> float:
    """A finite number, with a point or an exponent where it has one."""
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", text, re.IGNORECASE) or math.isinf(float(text)):
        raise ValueError("expected a number, like 10 or 0.5")
    return float(text)


def parse_count(text: str) -> int:
    """A whole number of 1 or more."""
    number = parse_whole(text)
    if number < 1:
        raise ValueError("expected 1 or more")
    return number


def parse_positive(text: str) -> float:
    """A finite number above 0."""
    number = parse_number(text)
    if number <= 0:
        raise ValueError("expected a number above 0")
    return number
