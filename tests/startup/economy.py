"""Settings that the tests run edgeeff with, so that many runs fit into a few minutes on two cores.

They replace names in modules of edgeeff; a name that is gone is an error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.machinery import SourceFileLoader
from types import ModuleType, SimpleNamespace
from typing import Any

Change = Callable[[Any], object]  # from the old value of a name to the new one

ONE_THREAD: dict[str, dict[str, Change]] = {
    # By default ONNX Runtime takes a thread for each core of the machine, whatever cores its process may use, and the threads spin
    # while they wait for each other: a network this small needs twice the processor time, four times if cores are shared.
    "edgeeff.backends.onnxruntime": {
        "_session": lambda old: lambda model, threads, *rest, **named: old(model, threads or 1, *rest, **named)
    }
}
BRIEF: dict[str, dict[str, Change]] = {
    # A latency is measured in few rounds, however wide its interval is then.
    "edgeeff.measurement.latency": {"_width": lambda old: lambda blocks: 0.0},
    "edgeeff.selection.outcome": {"ROUNDS": lambda old: 3},
    "edgeeff.compilation": {"ROUNDS": lambda old: 2},
    # A network is recovered for two epochs, as its accuracy is not the point.
    "edgeeff.quantization.strategies": {"MOST_EPOCHS": lambda old: 2},
    # It is made smaller once.
    "edgeeff.quantization.reduction": {"STEPS": lambda old: old[:1]},
    # NNCF takes a tenth of a second for each photo, whatever it shows.
    "edgeeff.context": {"Calibration": lambda old: SimpleNamespace(load=lambda name: _of_few_photos(old.load(name)))},
    # So few photos are enough to be described, too.
    "edgeeff.measurement.picture_statistics": {"LEAST_PHOTOS": lambda old: 32},
}
QUIET: dict[str, dict[str, Change]] = {
    # Hosts that are one machine disturb each other: a measurement is not repeated for that.
    "edgeeff.measurement.latency": {"noise_reasons": lambda old: lambda before, after: []}
}


def for_words(words: Sequence[str]) -> None:
    """What a process with these words on its command line is spared."""
    if {"fit", "pick", "compile", "measure", "requalify"} & set(words):
        after_import(BRIEF)
    if {"measure", "bench", "requalify"} & set(words):
        after_import(QUIET)


def _of_few_photos(recipe: Any) -> Any:
    return replace(recipe, images=min(recipe.images, 32))


def after_import(changes: dict[str, dict[str, Change]]) -> None:
    """Change names in modules, now where they are imported already, otherwise when they are, so nothing is imported for it."""
    load = SourceFileLoader.exec_module

    def exec_module(self: SourceFileLoader, module: ModuleType) -> None:
        load(self, module)
        change(module)

    def change(module: ModuleType) -> None:
        for name, new in changes.get(module.__name__, {}).items():
            setattr(module, name, new(getattr(module, name)))

    for module in [sys.modules[name] for name in changes if name in sys.modules]:
        change(module)
    SourceFileLoader.exec_module = exec_module  # type: ignore[method-assign]
