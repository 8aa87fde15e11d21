"""What a fit's report shows beside the manifest: candidates, the training, layers by time and by error, each class, confusions, and
the most confident errors.

They are measured once, as a stage of the fit, and kept in the bundle, so that the report can be drawn again from it.
"""

from __future__ import annotations

import base64
import io
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import backends
from .context import NetworkContext
from .data.images import Pixels
from .data.preprocess import Preprocess
from .export.onnx import module_path
from .manifest import Manifest
from .measurement.accuracy import NO_ANSWER, Answers, Gate
from .measurement.latency import Latency
from .network.train import Epoch
from .network.variants import published
from .precision import Precision
from .quantization.layer_error import LayerError, compare
from .selection.outcome import Outcome
from .selection.search import Choice

LAYERS = 15  # of each table
PHOTOS = 8  # that layers are compared on
MATRIX = 20  # classes; with more, the most frequent confusions are listed instead
PAIRS = 15
CLASSES = 20  # of a table: with more, those that are found worst
MISTAKES = 12
THUMBNAIL = 128  # pixels


@dataclass(frozen=True)
class CandidateRow:
    """A variant that could have been chosen; the figures of its fastest form are absent where it was not measured.

    `published`: at the resolution of the published weights. `over` are the limits that it breaks.
    """

    variant: str
    resolution: int
    accuracy: float | None
    gflops: float
    mparams: float
    precision: Precision | None
    activation: str | None
    latency_ms: Latency | None
    size_mb: float | None
    disturbed: tuple[str, ...]
    predicted: bool
    published: bool
    over: tuple[str, ...]


@dataclass(frozen=True)
class TimedLayer:
    """A layer as the runtime runs it; `percent` of the time of all layers."""

    layer: str
    kind: str
    kernel: str
    milliseconds: float
    percent: float


@dataclass(frozen=True)
class LayerTimes:
    """The shipped file's slowest layers, of `count` that take `total_ms` together."""

    count: int
    total_ms: float
    layers: tuple[TimedLayer, ...]


@dataclass(frozen=True)
class LayerErrors:
    """The layers of an INT8 form that add most error against its own float network, on so many photos."""

    photos: int
    count: int
    layers: tuple[LayerError, ...]


@dataclass(frozen=True)
class Confused:
    """How many photos `of` a label got another one's prediction."""

    label: int
    prediction: int
    photos: int
    of: int


@dataclass(frozen=True)
class Confusion:
    """How many photos are wrong, the most frequent confusions, and of few classes the matrix too (a row a label)."""

    wrong: int
    matrix: tuple[tuple[int, ...], ...] = ()
    pairs: tuple[Confused, ...] = ()


@dataclass(frozen=True)
class ClassRow:
    """A class in the shipped form's answers: its `photos`, how many of them are right, and how many photos `got` it as the answer.

    Recall is `right` of `photos`, precision `right` of `got`.
    """

    label: int
    photos: int
    got: int
    right: int

    @property
    def recall(self) -> float | None:
        return 100 * self.right / self.photos if self.photos else None

    @property
    def precision(self) -> float | None:
        return 100 * self.right / self.got if self.got else None


@dataclass(frozen=True)
class Mistake:
    """A photo that the shipped form is wrong about; `thumbnail` is a data URI of the photo as the network saw it."""

    label: int
    prediction: int
    probability: float
    file: str
    thumbnail: str


@dataclass(frozen=True)
class Diagnostics:
    """`commands` make the bundle again and check it; `shipped_step` is the index of the step that judged what ships."""

    commands: tuple[str, ...]
    class_names: tuple[str, ...]
    shipped_step: int
    candidates: tuple[CandidateRow, ...] = ()
    layer_times: LayerTimes | None = None
    layer_errors: LayerErrors | None = None
    confusion: Confusion | None = None
    mistakes: tuple[Mistake, ...] = ()
    by_class: tuple[ClassRow, ...] = ()
    training: tuple[Epoch, ...] = ()


def diagnose(
    context: NetworkContext,
    outcome: Outcome,
    choice: Choice | None,
    manifest: Manifest,
    class_names: tuple[str, ...],
    training: tuple[Epoch, ...],
) -> Diagnostics:
    """Run the shipped file once more, layer by layer, and look at the photos it is wrong about."""
    gate, step = context.gate, context.gate.reports.index(outcome.shipped.report)
    labels, predicted, calibrated = gate.labels, gate.answers[step].classes, outcome.answers or gate.answers[step]
    return Diagnostics(
        commands=_commands(context, manifest.command),
        class_names=class_names,
        shipped_step=step,
        candidates=_candidates(context, choice),
        layer_times=None if context.target.compiles_on_device else layer_times(context, outcome),
        layer_errors=layer_errors(outcome) if outcome.shipped.precision.quantized else None,
        confusion=None if labels is None else confusion(labels, predicted, manifest.classes),
        mistakes=mistakes(gate, calibrated),
        by_class=() if labels is None else class_rows(labels, predicted),
        training=training,
    )


def mistakes(gate: Gate, said: Answers) -> tuple[Mistake, ...]:
    """The gate's photos that these answers are wrong about, the surest first."""
    if gate.labels is None:
        return ()
    images, root = gate.pixels.images, gate.pixels.images.root
    wrong = np.flatnonzero((said.classes != gate.labels) & (said.classes != NO_ANSWER))
    found = []
    for i in map(int, wrong[np.argsort(-said.probabilities[wrong], kind="stable")][:MISTAKES]):
        found.append(
            Mistake(
                label=int(gate.labels[i]),
                prediction=int(said.classes[i]),
                probability=float(said.probabilities[i]),
                file=str(images.paths[i].relative_to(root)).encode(errors="backslashreplace").decode(),
                thumbnail=thumbnail(gate.pixels.rows(i, 1)[0], gate.pixels.preprocess),
            )
        )
    return tuple(found)


def confusion(labels: NDArray[Any], predicted: NDArray[Any], classes: int) -> Confusion:
    """What was mistaken for what. `labels` and `predicted` are `(N,)` integers; photos without an answer are wrong, and no more."""
    wrong, answered = int((labels != predicted).sum()), predicted != NO_ANSWER
    labels, predicted = labels[answered], predicted[answered]
    matrix = np.zeros((classes, classes) if classes <= MATRIX else (0, 0), int)
    if matrix.size:
        np.add.at(matrix, (labels, predicted), 1)
    counts = Counter((int(a), int(b)) for a, b in zip(labels, predicted, strict=True) if a != b)
    pairs = (Confused(a, b, n, int((labels == a).sum())) for (a, b), n in counts.most_common(PAIRS))
    return Confusion(wrong, matrix=tuple(tuple(row) for row in matrix.tolist()), pairs=tuple(pairs))


def class_rows(labels: NDArray[Any], predicted: NDArray[Any]) -> tuple[ClassRow, ...]:
    """The classes with photos, those whose photos are least often right first; of many classes only the first of these."""
    photos, right = np.bincount(labels), np.bincount(labels, weights=labels == predicted)
    got = np.bincount(predicted[predicted != NO_ANSWER], minlength=len(photos))
    rows = [ClassRow(i, int(photos[i]), int(got[i]), int(right[i])) for i in map(int, np.flatnonzero(photos))]
    return tuple(sorted(rows, key=lambda row: (row.recall or 0.0, -row.photos))[:CLASSES])


def layer_times(context: NetworkContext, outcome: Outcome) -> LayerTimes:
    """The slowest layers of the shipped file, where its runtime can tell."""
    form, image = outcome.shipped, outcome.golden["images"][:1]
    timed = backends.get(form.runtime).layer_times(form.file, image, precision=form.precision, threads=context.target.threads)
    total = sum(layer.milliseconds for layer in timed)
    rows = (TimedLayer(short_name(t.layer), t.kind, t.kernel, t.milliseconds, 100 * t.milliseconds / total) for t in timed[:LAYERS])
    return LayerTimes(len(timed), total, tuple(rows))


def layer_errors(outcome: Outcome) -> LayerErrors:
    """The layers that add most error to the shipped form."""
    photos = outcome.golden["images"][:PHOTOS]
    errors = compare(outcome.shipped.onnx, outcome.shipped.file, photos)
    return LayerErrors(len(photos), len(errors), tuple(errors[:LAYERS]))


def short_name(name: str) -> str:
    """A runtime's name of a layer as the network's module; of an operation between modules, what follows the network's name."""
    node = name.split("/WithoutBiases")[0]
    return module_path(node).removeprefix("model").strip(".") or node.split("/")[-1]


def thumbnail(pixels: Pixels, preprocess: Preprocess) -> str:
    """A photo as the network saw it, `(H, W, 3)`, as a JPEG data URI of at most 128 px."""
    image = Image.fromarray(pixels if preprocess.colour == "RGB" else np.ascontiguousarray(pixels[..., ::-1]))
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _candidates(context: NetworkContext, choice: Choice | None) -> tuple[CandidateRow, ...]:
    rows = []
    for c in choice.table if choice else ():
        fastest = c.forms[0] if c.forms else None
        rows.append(
            CandidateRow(
                variant=c.variant.name,
                resolution=c.variant.resolution,
                accuracy=None if c.accuracy is None else round(c.accuracy, 2),
                gflops=round(c.gflops, 4),
                mparams=round(c.mparams, 4),
                precision=fastest.form.precision if fastest else None,
                activation=fastest.form.activation if fastest else None,
                latency_ms=fastest.metrics.latency if fastest else None,
                size_mb=fastest.metrics.costs["size_mb"] if fastest else None,
                disturbed=c.noise,
                predicted=c.predicted,
                published=c.variant.top1 is not None and c.variant == published(c.variant),
                over=tuple(c.over(context.budget)),
            )
        )
    return tuple(rows)


def _commands(context: NetworkContext, command: str) -> tuple[str, ...]:
    """What makes the bundle again, and what checks it."""
    out, val = str(context.job.out), ["--val", str(context.job.val)] if context.job.val else []
    lines: Sequence[Sequence[str]] = [["compile", out, *val]] if context.target.compiles_on_device else []
    evaluate = [["eval", out, *val]] if val and context.gate.labels is not None else []
    lines = [*lines, ["verify", out], *evaluate, ["bench", out]]
    return (command, *(shlex.join(["edgeeff", *words]) for words in lines))
