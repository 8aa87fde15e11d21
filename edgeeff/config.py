"""The YAML files that a person writes, targets/ and calib/: found by name or path, read safely, checked field by field.

They are plain trees of text, numbers and lists: aliases, with which a few lines can stand for billions, are refused.
"""

from __future__ import annotations

import os
from collections.abc import Hashable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from .errors import BadInput, suggestion
from .files import read_file
from .records import from_json

T = TypeVar("T")
YAML_BYTES = 10_000


def folder(kind: str) -> Path:
    """targets/ or calib/: inside the package when installed, beside it in a checkout."""
    inside = Path(__file__).parent / kind
    return inside if inside.is_dir() else Path(__file__).parents[1] / kind


def names(kind: str) -> list[str]:
    """The names of the files in a folder that can be used: those with the key `refused` only say why theirs cannot."""
    return sorted(path.stem for path in folder(kind).glob("*.yaml") if "refused" not in parse(path))


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
    if not os.path.lexists(path):
        raise BadInput(f"{path}: no such {what} file.")
    try:
        data = yaml.load(read_file(path, YAML_BYTES).decode("utf-8-sig"), _Loader)
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise BadInput(f"{path}: not valid YAML ({error.problem}{line}).") from error
    except RecursionError as error:
        raise BadInput(f"{path}: not valid YAML (nested too deeply).") from error
    except BadInput:
        raise
    except Exception as error:  # a value that is not of the type its tag claims raises nearly anything
        raise BadInput(f"{path}: not valid YAML ({str(error) or type(error).__name__:.200}).") from error
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise BadInput(f"{path}: expected keys and values.")
    return data


class _Loader(yaml.SafeLoader):
    """Plain data only, each key once."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(None, None, f"an alias, *{event.anchor}", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value in keys:
                problem = "a key that is no text, or is there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            keys.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        number = super().construct_yaml_int(node)
        if abs(number) >= 2**63:
            raise yaml.constructor.ConstructorError(None, None, "a number of more than 64 bits", node.start_mark)
        return number


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def _path(kind: str, what: str, name: str | Path) -> Path:
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return path
    found = {p.stem: p for p in folder(kind).glob("*.yaml")}
    if str(name) not in found:
        known = names(kind)
        hint = suggestion(str(name), known) or f" Expected one of {', '.join(known)}, or a YAML file's path."
        raise BadInput(f"unknown {what} {str(name)!r}.{hint}")
    return found[str(name)]
