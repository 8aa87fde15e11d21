"""Records to JSON and back. What is read is checked field by field by msgspec; what is wrong is said in one line with its place."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from .errors import BadInput
from .files import read_file

T = TypeVar("T")
JSON_BYTES = 100_000_000


class Custom(Protocol):
    """A class whose JSON form is not simply its fields: it says itself how it is written and read."""

    def to_json(self) -> object: ...

    @classmethod
    def from_json(cls, data: Any) -> Custom: ...


def to_json(value: object) -> Any:
    """Lists, dictionaries, texts and numbers, of dataclasses and containers of them.

    Field by field, not by msgspec: it leaves out the defaults of a dataclass that it made itself.
    """
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(each) for each in value]
    if isinstance(value, Path):
        return str(value)
    encode: Callable[[], object] | None = getattr(value, "to_json", None)
    if encode is None:
        raise TypeError(f"{type(value).__name__} has no JSON form")
    return to_json(encode())


def from_json(data: object, kind: type[T], source: object) -> T:
    """A record of what JSON or YAML gave; raises BadInput with `source` and the field where a type or a key is wrong."""
    try:
        return msgspec.convert(data, kind, dec_hook=_decode)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise BadInput(f"{source}: {_plain(error, kind).rstrip('.')}.") from error


def read_json(path: Path, kind: type[T]) -> T:
    """A record from a JSON file; raises BadInput where it cannot be read or is no such record."""
    return from_json(load_json(path), kind, path)


def load_json(path: Path) -> Any:
    """What a JSON file holds; raises BadInput where it cannot be read."""
    try:
        return parse_json(read_file(path, JSON_BYTES))
    except ValueError as error:
        raise BadInput(f"{path}: cannot be read ({error}).") from error


def parse_json(text: bytes | str) -> Any:
    """What JSON text holds, without the numbers that JSON has not (NaN, Infinity); raises ValueError."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error


def dump_json(value: object) -> str:
    """Indented JSON text with a final line break."""
    return json.dumps(to_json(value), indent=1, allow_nan=False) + "\n"


def _decode(kind: type[Any], data: object) -> object:
    if issubclass(kind, Path):
        if not isinstance(data, str):
            raise ValueError(f"expected a path as text, got {type(data).__name__}")
        return Path(data)
    custom: type[Custom] = kind
    try:
        return custom.from_json(data)
    except BadInput as error:
        raise ValueError(str(error)) from error


def _plain(error: Exception, kind: type) -> str:
    """msgspec's message with the field first, and the values that it may have: "draw: invalid enum value 'x'. Expected a, b"."""
    message, _, where = str(error).partition(" - at ")
    place = where.strip("`").removeprefix("$").replace("[...]", "").lstrip(".")  # msgspec names no keys of mappings
    allowed = _allowed(kind, re.findall(r"[^.\[\]]+", place)) if "enum value" in message else []
    expected = f". Expected {', '.join(allowed)}" if allowed else ""
    return (f"{place}: {message[0].lower()}{message[1:]}" if place else message) + expected


def _allowed(kind: Any, path: list[str]) -> list[str]:
    """The values of the Literal or Enum at a path into a record's type."""
    if get_origin(kind) is Literal:
        return [str(value) for value in get_args(kind)]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [str(member.value) for member in kind]
    if is_dataclass(kind):
        return _allowed(get_type_hints(kind).get(path[0]), path[1:]) if path else []
    inner = [argument for argument in get_args(kind) if argument not in (type(None), Ellipsis)]
    optional = type(None) in get_args(kind)
    return _allowed(inner[-1], path if optional else path[1:]) if inner else []
