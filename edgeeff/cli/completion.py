"""Shell completion: a script made from the parser by shtab, which only the verb `completion` imports."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator

from .. import config
from ..network.variants import VARIANTS
from .options import PATHS, parser


def script(shell: str) -> str:
    """The completion script for bash, zsh or tcsh: verbs, options, names of targets, recipes and variants, and paths."""
    import shtab

    complete = {"file": shtab.FILE, "directory": shtab.DIRECTORY}
    top = parser()
    for action in _arguments(top):
        if isinstance(action.metavar, str) and action.metavar in PATHS:
            action.complete = complete[PATHS[action.metavar]]  # type: ignore[attr-defined]  # shtab's own attribute
        elif names := _names(action.dest):
            action.choices = names
    return str(shtab.complete(top, shell))


def _arguments(top: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments of all verbs."""
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from verb._actions


def _names(argument: str) -> Iterable[str]:
    """What an argument may be, where that is known without looking at the machine."""
    if argument in ("variant", "variants"):
        return list(VARIANTS)
    kind = {"target": "targets", "calibration": "calib"}.get(argument)
    return config.names(kind) if kind else ()
