"""The YAML files beside the code, targets/ and calib/: found by name or path, read safely, their keys checked."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from .errors import BadInput


def folder(kind: str) -> Path:
    """targets/ or calib/: inside the package when installed, beside it in a checkout."""
    inside = Path(__file__).parent / kind
    return inside if inside.is_dir() else Path(__file__).parents[1] / kind


def read(kind: str, what: str, name: str | Path, known: Collection[str], required: Collection[str]) -> tuple[Path, dict[str, Any]]:
    """The path and contents of `what` (a target, a recipe) by its name, or from the path of a YAML file."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        found = {p.stem: p for p in sorted(folder(kind).glob("*.yaml"))}
        if str(name) not in found:
            hint = _suggestion(str(name), found)
            raise BadInput(f"unknown {what} {str(name)!r}.{hint} Expected one of {', '.join(found)}, or a YAML file's path.")
        path = found[str(name)]
    data = parse(path, what)
    for key in data:
        if key not in known:
            hint = _suggestion(str(key), known) or f" Expected {', '.join(known)}."
            raise BadInput(f"{path}: unknown key {key!r}.{hint}")
    require(path, data, required)
    return path, data


def require(path: Path, data: dict[str, Any], keys: Collection[str]) -> None:
    for key in keys:
        if key not in data:
            raise BadInput(f"{path}: missing key {key!r}.")


def parse(path: Path, what: str = "YAML") -> dict[str, Any]:
    if not path.is_file():
        raise BadInput(f"{path}: no such {what} file.")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not valid YAML ({str(error).splitlines()[0]}).") from error
    if not isinstance(data, dict):
        raise BadInput(f"{path}: expected keys and values.")
    return data


def _suggestion(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f" Did you mean {close[0]!r}?" if close else ""
