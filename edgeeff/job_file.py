"""A fit as a YAML file: `fit --job FILE` reads it, and each bundle holds the one that repeats its fit.

The keys are the fields of a job, and the kinds of cost of its budget. Relative paths are relative to the file. It becomes words of
the command line, so that both are checked alike; nothing in it is executed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from . import config
from .budget import KINDS, Budget
from .errors import BadInput, suggestion
from .job import AUTO, Job
from .option import Option, flag, options

NAME = "fit.yaml"
HEAD = "# edgeeff fit --job fit.yaml repeats this fit. Relative paths are relative to this file.\n"
PATHS = ("DIR", "FILE", "PHOTOS", "BUNDLE")  # metavars


def dump(job: Job, folder: Path) -> str:
    """The text of a job's file, which is to lie in `folder`; what has its default is left out."""
    data: dict[str, object] = {}
    for each, how in options(Job):
        value = getattr(job, each.name)
        if value == each.default or (how.many and not value):
            continue
        values = [_text(v, how, lambda path: os.path.relpath(path, os.path.realpath(folder))) for v in _list(value)]
        data[each.name] = values if how.many else values[0]
    budget = {**job.budget.limits, "percentile": job.budget.percentile}
    data |= {name: value for name, value in budget.items() if value != Budget().percentile or name != "percentile"}
    return HEAD + yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def words(path: Path) -> list[str]:
    """The words of the command line that a job's file stands for. Raises BadInput with the file and the key that is wrong."""
    folder = Path(os.path.realpath(path.parent))
    flags = {each.name: (flag(each, how), how, each.default) for each, how in options(Job)}
    flags |= {name: (kind.flag(name), Option(""), None) for name, kind in KINDS.items()}
    flags["percentile"] = "--percentile", Option(""), None
    found = list[str]()
    for key, value in config.parse(path, "job").items():
        if key not in flags:
            hint = suggestion(key, flags) or f" Expected {', '.join(flags)}."
            raise BadInput(f"{path}: unknown key {key!r:.80}.{hint}")
        name, how, default = flags[key]
        if isinstance(default, bool):
            if not isinstance(value, bool):
                raise BadInput(f"{path}: {key}: expected true or false, found {value!r:.80}.")
            found += [name] if value != default else []
            continue
        values = _list(value)
        if not values or (len(values) > 1 and not how.many) or any(type(v) not in (str, int, float) for v in values):
            raise BadInput(f"{path}: {key}: expected {'a list' if how.many else 'text or a number'}, found {value!r:.80}.")
        texts = [str(_text(v, how, lambda path: os.path.relpath(folder / path))) for v in values]
        found += [f"{name}={texts[0]}"] if len(texts) == 1 else [name, *texts]
    return found


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, (list, tuple)) else [value]


def _text(value: object, how: Option, moved: Callable[[str], str]) -> object:
    """A value as YAML has it; a path that is relative becomes relative to another folder."""
    if isinstance(value, (bool, int, float)):
        return value
    text = how.words(value)
    is_path = (how.metavar in PATHS and text != AUTO and not text.startswith("hf-hub:")) or text.endswith((".yaml", ".yml"))
    return moved(text) if is_path and not Path(text).is_absolute() else text
