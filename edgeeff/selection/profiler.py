"""Measures networks with random weights on a machine, in every form that a target takes, and remembers the results."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from ..budget import KINDS
from ..errors import BadInput
from ..files import locked, temporary_folder, write_whole
from ..machine import Machine, MachineFacts
from ..measurement.benchmark import BenchmarkRequest, CompiledModel
from ..network.architecture import Variant
from ..progress import Progress
from ..records import dump_json, from_json, parse_json, to_json
from .candidates import Candidate, FormKey, FormMetrics, Search

LOG = logging.getLogger(__name__)
FORMAT = 4  # of what is remembered
Forms = dict[FormKey, CompiledModel]


@dataclass(frozen=True)
class Conditions:
    """What a measurement depends on beside the network."""

    machine: MachineFacts
    edgeeff: str
    format: int = FORMAT


@dataclass(frozen=True)
class Remembered:
    """A measurement as it lies in the memory, by its key; variant, resolution and conditions are for people to read."""

    variant: str
    resolution: int
    forms: tuple[FormMetrics, ...]
    yardstick: float | None
    conditions: Conditions


class Profiler:
    """Builds and measures a network in every form that the target takes, and remembers the result.

    What is remembered belongs to a device, versions, variant, resolution, classes, activations and threads.
    """

    def __init__(self, search: Search, machine: Machine, memory: Path, progress: Progress) -> None:
        self.search, self.machine, self.memory, self.progress = search, machine, memory, progress
        self.yardstick: CompiledModel | None = None
        self.known: dict[Variant, Candidate] = {}
        self._recalled: set[Variant] = set()
        self._recalls = True
        self._conditions: Conditions | None = None
        self._remembers = True

    @property
    def conditions(self) -> Conditions:
        """Asked of the machine once, when first needed."""
        if self._conditions is None:
            facts = self.machine.facts(self.search.target.backend)
            self._conditions = Conditions(facts, version("edgeeff"))
        return self._conditions

    def time(self, v: Variant) -> Candidate:
        """The network's metrics, remembered or measured."""
        if v not in self.known:
            if remembered := self._remembered(v) if self._recalls else None:
                LOG.info("%s at %d px: as measured before, in %s", v.name, v.resolution, self.memory)
                self._recalled.add(v)
            self.known[v] = remembered or self._measured(v)
        return self.known[v]

    def forget(self) -> bool:
        """Let measurements of earlier runs stand for new ones no longer; whether any did."""
        self._recalls = False
        self.known = {v: candidate for v, candidate in self.known.items() if v not in self._recalled}
        return bool(self._recalled)

    def built(self, v: Variant, folder: Path) -> Forms:
        """Every form that the machine can run."""
        from ..quantization.random_weights import random_forms  # torch, where nothing is remembered

        target, forms = self.search.target, Forms()
        for activation in self.search.activations:
            (folder / str(activation)).mkdir()
            for precision, file in random_forms(v, self.search.classes, target, activation, folder / str(activation)).items():
                if precision in self.conditions.machine.precisions:
                    graph = target.compiles_on_device
                    forms[FormKey(precision, activation)] = CompiledModel(target.backend, file, precision, v.resolution, graph)
        return forms

    def _measured(self, v: Variant) -> Candidate:
        self.progress.say(f"measure {v.name} at {v.resolution} px")
        with temporary_folder() as folder:
            forms = self.built(v, folder)
            models = {str(i): model for i, model in enumerate([*forms.values(), *([self.yardstick] if self.yardstick else [])])}
            request = BenchmarkRequest(models, self.search.budget, self.search.target.threads)
            result = self.machine.benchmark(request, self.progress)
        metrics = list(result.metrics.values())
        yardstick = metrics.pop().latency.p50 if self.yardstick else None
        measured = [FormMetrics(form, m) for form, m in zip(forms, metrics, strict=True)]
        fastest_first = sorted(measured, key=lambda form: form.metrics.latency.p50)
        candidate = Candidate(v, self.search.classes, tuple(fastest_first), result.noise, yardstick=yardstick)
        if not result.noise and self._remembers:
            self._remember(v, candidate)
        return candidate

    def _key(self, v: Variant) -> str:
        search = self.search
        facts = [self.conditions, search.target.threads, search.target.precisions, search.activations, repr(v), search.classes]
        return f"{v.name}-{hashlib.sha256(json.dumps(to_json(facts), sort_keys=True).encode()).hexdigest()[:16]}"

    def _remembered(self, v: Variant) -> Candidate | None:
        try:
            entry = from_json(_read(self.memory).get(self._key(v)), Remembered, self.memory)
        except BadInput:
            return None  # nothing is remembered, or it was changed by hand: measured again
        measured = [name for name, kind in KINDS.items() if kind.known == "device" and name != "latency_ms"]
        asked = [name for name in self.search.budget.limits if name in measured]
        complete = all(form.metrics.costs[name] is not None for form in entry.forms for name in asked)
        if not entry.forms or not complete or (self.yardstick and not entry.yardstick):
            return None
        return Candidate(v, self.search.classes, entry.forms, yardstick=entry.yardstick)

    def _remember(self, v: Variant, candidate: Candidate) -> None:
        entry = Remembered(v.name, v.resolution, candidate.forms, candidate.yardstick, self.conditions)
        try:
            _add(self.memory, self._key(v), entry)
        except OSError as error:
            self._remembers = False  # said once, and not of each candidate
            self.progress.say(f"{self.memory}: cannot be written ({error.strerror}): measurements are not remembered.")


def _read(memory: Path) -> Mapping[str, object]:
    try:
        entries = parse_json(memory.read_bytes())
    except (OSError, ValueError):
        return {}  # nothing is remembered, or nothing usable: measured again
    return entries if isinstance(entries, dict) else {}


def _add(memory: Path, key: str, entry: Remembered) -> None:
    """Add to what is remembered, one process after the other."""
    memory.parent.mkdir(parents=True, exist_ok=True)
    with locked(memory.with_suffix(".lock"), wait=True):
        write_whole(memory, dump_json({**_read(memory), key: entry}).encode())
