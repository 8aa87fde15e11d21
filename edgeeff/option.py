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

    `unit` is that of a number, one of UNITS: then another unit of the same kind is understood after it (`in_unit`).
    `many`: one or more values. `positional`: a word without a flag. `words` writes a value for `parse` to read, where str does not.
    """

    help: str
    metavar: str | None = None
    choices: Sequence[Any] | None = None
    flag: str | None = None
    parse: Callable[[str], Any] | None = None
    unit: str = ""
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
    words = [word for name, limit in budget.limits.items() for word in (KINDS[name].flag(name), f"{limit:.15g}")]
    return words if budget.percentile == Budget().percentile else [*words, "--percentile", str(budget.percentile)]


TIME = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
SIZE = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
OPERATIONS = {"M": 1e6, "G": 1e9, "MFLOPs": 1e6, "GFLOPs": 1e9, "MMACs": 1e6, "GMACs": 1e9}
UNITS: dict[str, dict[str, float]] = {
    "ms": TIME,
    "s": TIME,
    "min": TIME,
    "MB": SIZE,
    "GFLOPs": OPERATIONS,
    "GMACs": OPERATIONS,
    "M": {"k": 1e3, "M": 1e6},
    "mJ": {"uJ": 1e-6, "µJ": 1e-6, "mJ": 1e-3, "J": 1.0},
    "frames": {"frames": 1.0, "fps": 1.0},
    "px": {"px": 1.0},
    "points": {"points": 1.0, "pp": 1.0},
    "%": {"%": 1.0},
    "share": {"share": 1.0, "%": 0.01},
}
"""By the unit that an option's numbers are in: what may be typed after a number instead, and how much each is."""

NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]+)?"


def in_unit(text: str, unit: str) -> str:
    """The number alone of a number with a unit, in `unit`: of `4ms` and `0.004 s` it is 4 in ms. Any other text stays as it is.

    `unit` may have words after it (`MB of memory`). Upper and lower case are the same: no option takes megajoules.
    """
    known = {name.lower(): size for name, size in UNITS.get(unit.partition(" ")[0], {}).items()}
    typed = re.fullmatch(rf"({NUMBER}) ?([^\W\d_]+|%)", text, re.IGNORECASE)
    if not typed or typed[2].lower() not in known:
        return text
    size, own = known[typed[2].lower()], known[unit.partition(" ")[0].lower()]
    return typed[1] if size == own else f"{float(typed[1]) * size / own:.15g}"


def units(unit: str) -> str:
    """What an option's error says of units: its own, and the others that are understood; empty where it has none."""
    own = unit.partition(" ")[0]
    others = [name for name in UNITS.get(own, {}) if name != own]
    return f" (unit: {unit}{'; also ' if others else ''}{', '.join(others)})" if unit else ""


def parse_whole(text: str) -> int:
    """A whole number of at most 18 digits, so that it fits into 64 bits."""
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise ValueError("expected a whole number of at most 18 digits")
    return int(text)


def parse_number(text: str) -> float:
    """A finite number, with a point or an exponent where it has one."""
    if not re.fullmatch(NUMBER, text, re.IGNORECASE) or math.isinf(float(text)):
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
