"""The YAML files that a person writes, targets/ and calib/: found by name or path, read safely, checked field by field."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from .errors import BadInput
from .files import user_path
from .records import from_json

T = TypeVar("T")


def folder(kind: str) -> Path:
    """targets/ or calib/: inside the package when installed, beside it in a checkout."""
    inside = Path(__file__).parent / kind
    return inside if inside.is_dir() else Path(__file__).parents[1] / kind


def read(kind: str, what: str, name: str | Path, record: type[T]) -> T:
    """A `record` (a target, a recipe) by its name in the folder `kind`, or from the path of a YAML file.

    The record has the file's keys as fields, and its own `name`. Raises BadInput with the path and the key that is wrong.
    """
    path = _path(kind, what, name)
    data = parse(path, what)
    known = [f.name for f in fields(record) if f.name != "name"]  # type: ignore[arg-type]  # a dataclass
    for key in data:
        if key not in known:
            hint = suggestion(str(key), known) or f" Expected {', '.join(known)}."
            raise BadInput(f"{path}: unknown key {key!r}.{hint}")
    for f in fields(record):  # type: ignore[arg-type]
        if f.name != "name" and f.name not in data and f.default is MISSING and f.default_factory is MISSING:
            raise BadInput(f"{path}: missing key {f.name!r}.")
    return from_json({**data, "name": path.stem}, record, path)


def parse(path: Path, what: str = "YAML") -> dict[str, Any]:
    """The keys and values of a YAML file."""
    try:
        with user_path(path, "read"):
            if not path.is_file():
                raise BadInput(f"{path}: no such {what} file.")
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not valid YAML ({str(error).splitlines()[0]}).") from error
    if not isinstance(data, dict):
        raise BadInput(f"{path}: expected keys and values.")
    return data


def suggestion(name: str, known: Collection[str]) -> str:
    """Did you mean …?, or nothing where no known name is close."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _path(kind: str, what: str, name: str | Path) -> Path:
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return path
    found = {p.stem: p for p in sorted(folder(kind).glob("*.yaml"))}
    if str(name) not in found:
        hint = suggestion(str(name), found)
        raise BadInput(f"unknown {what} {str(name)!r}.{hint} Expected one of {', '.join(found)}, or a YAML file's path.")
    return found[str(name)]
