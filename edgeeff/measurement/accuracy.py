"""Accuracy after every step, on the same photos, and whether it is still good enough.

Every step is compared photo by photo with the float model. Works with any `Predict`; keeps a few numbers a photo, whatever the
number of classes.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..data.images import PixelFile, Pixels, Predict
from ..errors import AccuracyGateFailed
from ..progress import SILENT, Progress

Ranking = NDArray[np.int32]  # (N, ≤ 5): the classes of the highest logits, best first
BATCH = 128
Z = 1.96


@dataclass(frozen=True)
class StepReport:
    """One step's accuracy, in percent and points. `top1`, `top5`, `drop` and `drop_ci` are None without labels.

    `drop` is top-1 lost against the float model (negative: gained), `drop_ci` its paired 95% interval. `proven`: the whole
    interval lies within the limit. `needed`: about how many photos would prove it at the rates seen (None: no number would).
    """

    step: str
    top1: float | None
    top5: float | None
    drop: float | None
    drop_ci: tuple[float, float] | None
    agreement: float
    images: int
    passed: bool
    proven: bool
    needed: int | None
    seconds: float

    @property
    def loss(self) -> float:
        """What is lost against the float model: points of top-1, without labels of agreement."""
        return 100 - self.agreement if self.drop is None else self.drop

    @property
    def loss_error(self) -> float:
        """The standard error of `loss`, in points, as the photos are a sample. Agresti and Coull's, where they have no labels."""
        if self.drop_ci is not None:
            return (self.drop_ci[1] - self.drop_ci[0]) / (2 * Z)
        share = (self.images * self.agreement / 100 + Z**2 / 2) / (self.images + Z**2)
        return 100 * math.sqrt(share * (1 - share) / (self.images + Z**2))

    def differs_from(self, other: StepReport) -> bool:
        """Whether the loss is another than on other photos, by more than the sampling of both explains, at 95%."""
        return abs(self.loss - other.loss) > Z * math.hypot(self.loss_error, other.loss_error)


@dataclass(frozen=True)
class Answers:
    """What a step says of every photo: its class `(N,)`, and the probability of that class `(N,)`."""

    classes: NDArray[np.int32]
    probabilities: NDArray[np.float32]


def rank(predict: Predict, pixels: PixelFile, *, label: str = "evaluate", progress: Progress = SILENT) -> Ranking:
    """The top five classes of every photo."""
    return _asked(predict, pixels, label, progress)[0]


def _asked(predict: Predict, pixels: Batches, label: str, progress: Progress) -> tuple[Ranking, NDArray[np.float32]]:
    """The top five classes of every photo, and the first one's probability `(N,)`."""
    batches = progress.track(pixels.batches(BATCH), label, math.ceil(len(pixels) / BATCH))
    found = [(_top5(logits), _probability(logits)) for logits in map(predict, batches)]
    return np.concatenate([r for r, _ in found]), np.concatenate([p for _, p in found])


def _probability(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """The largest value of each row's softmax."""
    return 1 / np.exp(logits - logits.max(1, keepdims=True)).sum(1)  # type: ignore[no-any-return]


def _top5(logits: NDArray[np.float32]) -> Ranking:
    k = min(5, logits.shape[1])
    best = np.argpartition(-logits, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(logits, best, 1), axis=1, kind="stable")
    return np.take_along_axis(best, order, 1).astype(np.int32)


def paired_drop(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> tuple[float, tuple[float, float]]:
    """Points lost from `before` to `after` (photo by photo: was it right?), and the 95% interval.

    Source: Agresti & Min 2005, Statistics in Medicine 24:729, the adjusted Wald interval for matched pairs.
    """
    n = len(before)
    lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
    difference = (lost - gained) / (n + 2)
    error = math.sqrt(max(lost + gained + 1 - (lost - gained) ** 2 / (n + 2), 0)) / (n + 2)
    return 100 * (lost - gained) / n, (100 * (difference - Z * error), 100 * (difference + Z * error))


def images_needed(before: NDArray[np.bool_], after: NDArray[np.bool_], max_drop: float) -> int | None:
    """How many photos would put the interval's upper end under `max_drop` points at the rates seen; None: never."""
    n = len(before)
    lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
    margin = max_drop / 100 - (lost - gained) / n
    if margin <= 0:
        return None
    variance = (lost + gained + 1) / n - ((lost - gained) / n) ** 2
    return math.ceil(Z**2 * variance / margin**2)


class Batches(Protocol):
    """Photos in the shape that a `Predict` takes."""

    def __len__(self) -> int: ...

    def batches(self, size: int) -> Iterator[Pixels]: ...


class Gate:
    """Judges steps on one set of photos against the first step, the float model.

    With labels a step passes when it loses at most `max_drop` points of top-1; without, when at least `min_agreement` percent of
    the photos get the float model's label.
    """

    def __init__(self, pixels: PixelFile, *, max_drop: float, min_agreement: float = 97.0, progress: Progress = SILENT) -> None:
        self.pixels, self.max_drop, self.min_agreement, self.progress = pixels, max_drop, min_agreement, progress
        labels = pixels.images.labels
        self.labels = None if labels is None else np.array(labels)
        self.reports: list[StepReport] = []
        self.answers: list[Answers] = []  # a report each
        self._baseline: Ranking | None = None

    def on(self, pixels: PixelFile) -> Gate:
        """The same gate for the same photos prepared in another way: its baseline and its reports are these."""
        other = copy.copy(self)
        other.pixels = pixels
        return other

    def judge(self, step: str, predict: Predict, pixels: Batches | None = None) -> StepReport:
        """Evaluate and report; the first call sets the float baseline. `pixels`: the same photos in another shape."""
        start = time.monotonic()
        ranking, probabilities = _asked(predict, pixels or self.pixels, f"accuracy of {step}", self.progress)
        if self._baseline is None:
            self._baseline = ranking
        report = self._report(step, ranking, self._baseline, time.monotonic() - start)
        self.reports.append(report)
        self.answers.append(Answers(ranking[:, 0], probabilities))
        return report

    def require(self, step: str, predict: Predict) -> StepReport:
        """Judge a step that the fit cannot go on without."""
        report = self.judge(step, predict)
        if not report.passed:
            raise AccuracyGateFailed(self.refusal(report))
        return report

    def refusal(self, report: StepReport) -> str:
        if report.drop is None or report.top1 is None:
            shares = f"{report.agreement:.2f}% < {self.min_agreement:g}%"
            return f"{report.step}: agreement with the float model {shares} ({report.images} images)."
        return (
            f"{report.step}: top-1 {report.top1 + report.drop:.2f} → {report.top1:.2f}, "
            f"drop {report.drop:.2f} points > {self.max_drop:g} allowed ({report.images} images)."
        )

    def _report(self, step: str, ranking: Ranking, baseline: Ranking, seconds: float) -> StepReport:
        agreement = 100 * float((ranking[:, 0] == baseline[:, 0]).mean())
        if self.labels is None:
            passed = agreement >= self.min_agreement
            return StepReport(step, None, None, None, None, agreement, len(ranking), passed, False, None, seconds)
        right = ranking[:, 0] == self.labels
        before = baseline[:, 0] == self.labels
        drop, interval = paired_drop(before, right)
        top5 = 100 * float((ranking == self.labels[:, None]).any(1).mean())
        needed = images_needed(before, right, self.max_drop)
        return StepReport(
            step=step,
            top1=100 * float(right.mean()),
            top5=top5,
            drop=drop,
            drop_ci=interval,
            agreement=agreement,
            images=len(ranking),
            passed=drop <= self.max_drop + 1e-9,
            proven=interval[1] <= self.max_drop,
            needed=needed,
            seconds=seconds,
        )
