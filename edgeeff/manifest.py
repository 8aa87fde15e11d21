"""What a bundle says of itself: the typed form of manifest.json, and the only place that knows the names in it.

Schema 2 is written. Schema 1 is read: its rows named the INT8 form that kept all layers "int8 (all layers)".
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from . import backends
from .budget import Budget
from .data.preprocess import Preprocess
from .errors import BadInput
from .files import read_file
from .measurement.accuracy import StepReport
from .measurement.benchmark import Metrics
from .measurement.confidence import HIGHEST, LOWEST, Confidence
from .measurement.latency import Latency
from .measurement.picture_statistics import PictureStatistics
from .measurement.system_state import Device, SystemState
from .measurement.unknown import Unknown
from .precision import Precision
from .records import from_json, parse_json, to_json

NAME = "manifest.json"
SCHEMA = 2
MAX_BYTES = 64 << 20  # of a manifest
MAX_THREADS, MAX_CLASSES = 1024, 1_000_000  # a runtime starts the threads, and a camera names every class


@dataclass(frozen=True)
class AttemptRecord:
    """What came of one strategy for INT8; the figures are absent where it gave no file, and `note` says why."""

    remedy: str
    activation: str
    seconds: float
    note: str = ""
    top1: float | None = None
    drop: float | None = None
    agreement: float | None = None
    passed: bool | None = None
    resolution: int = 0
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReductionRecord:
    """What can make the network smaller: a block or a gate to leave out, by its module's name, or a lower resolution.

    `saves_ms` is what the network is faster with it, in its fastest precision. `loss` is the mean KL divergence of the logits from
    the whole network's, before recovery, on photos that networks recover on.
    """

    name: str
    saves_ms: float
    loss: float


@dataclass(frozen=True)
class FormRecord:
    """One form of the model: how it runs, what strategy it needed, how accurate it is, and where it was measured what it costs.

    `left_out` are blocks and gates that the network is without, `excluded_layers` those that the strategy left in float; a
    `reference` is there to compare with, and never ships. `resolution` 0: as the manifest says (it was not written at first).
    """

    precision: Precision
    activation: str
    runtime: str
    remedy: str
    top1: float | None
    drop: float | None
    drop_ci: tuple[float, float] | None
    agreement: float
    passed: bool
    excluded_layers: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    resolution: int = 0
    reference: bool = False
    file: str = ""
    metrics: Metrics | None = None
    confidence: Confidence | None = None

    @property
    def name(self) -> str:
        """The precision and the detail."""
        return f"{self.precision} ({self.detail})" if self.detail else str(self.precision)

    @property
    def detail(self) -> str:
        """What sets it apart from another of its precision: parts left out, or that it keeps all layers, and is compared with."""
        if self.left_out:
            return f"{len(self.left_out)} parts out"
        return "all layers" if self.reference and self.precision.quantized else ""


@dataclass(frozen=True)
class Rehearsal:
    """What TensorRT-RTX said of a graph: "built", or why it was not."""

    precision: Precision
    outcome: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class EngineRecord:
    """One engine as it was built on the device. `difference` is from what its graph answered before, to golden photos, as the root
    mean square in standard deviations of the logits; `note` says what failed. `photos_sha256` are those of `accuracy`, empty where
    there are none."""

    precision: Precision
    difference: float | None
    passed: bool
    note: str
    accuracy: StepReport | None
    size_mb: float
    latency_ms: Latency | None = None
    photos_sha256: str = ""


@dataclass(frozen=True)
class HeldOut:
    """The float network, the shipped file and other forms in INT8 (`steps`) on photos that no choice of the fit saw, judged once.

    `differs`: whether the loss is another than on the validation photos, by more than the sampling of photos explains at 95%.
    """

    photos_sha256: str
    steps: tuple[StepReport, ...]
    differs: bool


@dataclass(frozen=True)
class Improvement:
    """What came of learning from `frames` that a camera collected (`left_out` were like others): the bundle of the date `before`
    and this one, on old photos and on frames. Frames that are not `labelled` have as their labels what the network before said of
    them in the light that it was trained in."""

    before: str
    frames: int
    left_out: int
    labelled: bool
    old: tuple[StepReport, StepReport]
    new: tuple[StepReport, StepReport]

    def __str__(self) -> str:
        truth = "top-1" if self.labelled else "agreement with the network before in its own light, as they have no labels,"
        frames = f"On {self.new[0].images} frames that nothing was learned from {truth} {_from_to(self.new)}"
        return f"Improved from {self.frames} frames. {frames}; on {self.old[0].images} old photos {_from_to(self.old)}."


def _from_to(steps: tuple[StepReport, StepReport]) -> str:
    before, after = steps
    if before.top1 is None or after.top1 is None:
        return f"{after.agreement:.2f}% as before"
    return f"{before.top1:.2f} → {after.top1:.2f}"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything that is known of a bundle. `metrics` and `siblings` are of a device at hand, `forms` and `rehearsals` of graphs
    for one that compiles for itself, and `engines` of what it made of them. `left_out` are the parts that what
    ships is without, of the `reductions` that were measured. `files` has the SHA-256 of every other file."""

    variant: str
    resolution: int
    classes: int
    preprocess: Preprocess
    backend: str
    target: str
    threads: int
    model: str
    precision: Precision
    activation: str
    remedy: str
    budget: Budget
    max_drop: float
    min_agreement: float
    steps: tuple[StepReport, ...]
    ladder: tuple[AttemptRecord, ...]
    validation_sha256: str
    calibration_sha256: str
    validation_photos: int
    calibration_photos: int
    command: str
    verdict: str
    device: Device
    versions: Mapping[str, str]
    date: str
    refusals: tuple[str, ...] = ()
    reverted_layers: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    reductions: tuple[ReductionRecord, ...] = ()
    conditions: tuple[SystemState, ...] = ()
    disturbed: tuple[str, ...] = ()
    siblings: tuple[FormRecord, ...] = ()
    forms: tuple[FormRecord, ...] = ()
    rehearsals: tuple[Rehearsal, ...] = ()
    engines: tuple[EngineRecord, ...] = ()
    metrics: Metrics | None = None
    held_out: HeldOut | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    max_class_drop: float | None = None
    training_sha256: str = ""
    training_photos: int = 0
    confidence: Confidence | None = None
    unknown: Unknown | None = None
    calibration_statistics: PictureStatistics | None = None
    improvement: Improvement | None = None

    @property
    def temperature(self) -> float:
        """What logits are divided by before they become probabilities; 1 where none was fitted, as at first."""
        return self.confidence.temperature if self.confidence else 1.0

    @property
    def made_smaller_by(self) -> list[ReductionRecord]:
        """The reductions that what ships came by."""
        return [r for r in self.reductions if r.name in (*self.left_out, f"{self.resolution} px")]

    @property
    def shipped(self) -> int | None:
        """The index of the sibling that ships."""
        wanted = (self.precision, self.activation, self.remedy, self.resolution, self.left_out, self.backend, False)
        found = [
            (f.precision, f.activation, f.remedy, f.resolution or self.resolution, f.left_out, f.runtime, f.reference)
            for f in self.siblings
        ]
        return found.index(wanted) if wanted in found else None

    @property
    def shipped_form(self) -> FormRecord | None:
        """The row of what ships, among the siblings or the graphs."""
        if self.shipped is not None:
            return self.siblings[self.shipped]
        return next((form for form in self.forms if form.precision is self.precision), None)

    def made_at(self, source: object) -> datetime.datetime:
        """Its date; raises BadInput, with `source`, where that is none or says no time zone."""
        try:
            made = datetime.datetime.fromisoformat(self.date)
        except ValueError as error:
            raise BadInput(f"{source}: date {self.date[:80]!r}: expected one like 2026-01-31T12:00:00+00:00.") from error
        if made.tzinfo is None:
            raise BadInput(f"{source}: date {self.date[:80]!r}: expected one with a time zone, like 2026-01-31T12:00:00+00:00.")
        return made

    def to_json(self) -> dict[str, Any]:
        """As it is written, but for `schema` and `digest`: metrics lie flat beside the rest."""
        data = _flat(to_json(self), {"latency_ms": None})
        for rows in ("siblings", "forms"):
            data[rows] = [_flat(row) for row in data[rows]]
        return data

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """That of a bundle; raises BadInput where there is none, it was changed, or another schema is needed."""
        return cls.parse(written(folder), folder)

    @classmethod
    def parse(cls, text: bytes, folder: Path) -> Manifest:
        """That of a bundle, from what `written` gave; raises BadInput as `read` does."""
        path = folder / NAME
        try:
            data = parse_json(text)
        except ValueError as error:
            raise BadInput(f"{path}: cannot be read ({error}).") from error
        if not isinstance(data, dict) or "schema" not in data:
            raise BadInput(f"{folder}: {NAME} is not edgeeff's.")
        if data["schema"] not in (1, SCHEMA):
            raise BadInput(
                f"{folder}: bundle schema {repr(data['schema'])[:20]}, this edgeeff reads 1 to {SCHEMA}. "
                "Use the version that wrote it."
            )
        if data.get("digest") != digest(data):
            raise BadInput(f"{folder}: {NAME} does not match its own digest. The bundle was changed; fit or copy it again.")
        return cls.from_json(_upgraded(data) if data["schema"] == 1 else data, path)

    @classmethod
    def from_json(cls, data: dict[str, Any], source: object) -> Manifest:
        """What `to_json` gave; raises BadInput with `source` and the field that is wrong."""
        manifest = from_json(_nested(data), cls, source)
        if wrong := manifest._wrong():
            raise BadInput(f"{source}: {wrong}.")
        return manifest

    def _wrong(self) -> str:
        """What no field's type tells: the field that is wrong, and what was expected; empty where nothing is."""
        if not (0 <= self.threads <= MAX_THREADS and 1 <= self.classes <= MAX_CLASSES):
            return (
                f"threads {self.threads}, classes {self.classes}: expected 0 to {MAX_THREADS} threads, 1 to {MAX_CLASSES} classes"
            )
        if self.resolution != self.preprocess.resolution:
            return f"resolution {self.resolution}: expected that of preprocess, {self.preprocess.resolution}"
        if self.held_out and len(self.held_out.steps) < 2:
            return "held_out: expected the float network's step and that of what ships"
        confidences = [("confidence", self.confidence), *(("forms", form.confidence) for form in self.forms)]
        for field_name, confidence in confidences:
            if confidence and not LOWEST <= confidence.temperature <= HIGHEST:
                return f"{field_name}: temperature {confidence.temperature:g}: expected {LOWEST:g} to {HIGHEST:g}"
        if self.calibration_statistics and (wrong := self.calibration_statistics.wrong):
            return f"calibration_statistics: {wrong}"
        if self.backend not in backends.names():
            return f"backend {self.backend!r}: expected one of {', '.join(backends.names())}"
        if self.unknown and not 0 < self.unknown.threshold < math.inf:
            return f"unknown: threshold {self.unknown.threshold:g}: expected a distance above 0"
        offered = backends.get(self.backend).PRECISIONS
        if self.precision not in offered:
            return f"precision {self.precision}: expected one that {self.backend} runs, {', '.join(map(str, offered))}"
        names = [("model", self.model), *(("files", name) for name in self.files)]
        names += [("forms", form.file) for form in self.forms if form.file]
        for field_name, name in names:
            if not name or name in (".", "..") or re.search(r"[/\\]", name) or not name.isprintable():
                return f"{field_name}: {name[:80]!r}: expected a plain file name"
        kinds = [("model", self.model, Path(backends.get(self.backend).MODEL).suffix)]  # a runtime reads other formats by the name
        kinds += [("forms", form.file, ".onnx") for form in self.forms if form.file]
        for field_name, name, suffix in kinds:
            if not name.endswith(suffix):
                return f"{field_name}: {name[:80]!r}: expected a file *{suffix}"
        return ""


def written(folder: Path) -> bytes:
    """The bytes of a bundle's manifest; raises BadInput where there is none, or what is there cannot be one."""
    path = folder / NAME
    if not os.path.lexists(path):
        raise BadInput(f"{folder}: not a bundle: no {NAME}.")
    return read_file(path, MAX_BYTES, follow=False)


def digest(data: Mapping[str, Any]) -> str:
    """SHA-256 of everything in a manifest's JSON but the digest itself."""
    rest = {k: v for k, v in data.items() if k != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _flat(row: dict[str, Any], without: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    rest = {name: value for name, value in row.items() if name != "metrics"}
    return {**rest, **(row["metrics"] or without)}


def _nested(data: dict[str, Any]) -> dict[str, Any]:
    def row(each: Any) -> Any:
        return {**each, "metrics": each if each.get("latency_ms") is not None else None} if isinstance(each, dict) else each

    lists = {name: [row(each) for each in data[name]] for name in ("siblings", "forms") if isinstance(data.get(name), list)}
    return {**row(data), **lists}


def _upgraded(data: dict[str, Any]) -> dict[str, Any]:
    """Schema 1 as schema 2."""
    if not isinstance(data.get("siblings"), list):
        return data
    rows = []
    for each in data["siblings"]:
        name, brackets, _ = str(each.get("precision") if isinstance(each, dict) else "").partition(" (")
        rows.append({**each, "precision": name, "reference": bool(brackets)} if brackets else each)
    return {**data, "siblings": rows}
