"""Accuracy after every step, on the same photos, and whether it is still good enough.

Every step is compared photo by photo with the float model. Works with any `Predict`; keeps a few numbers a photo, whatever the
number of classes. A photo whose logits say nothing has no answer: it is neither right, nor the same as any other.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..data.images import PixelFile, Pixels, Predict
from ..errors import AccuracyGateFailed, BadInput
from ..progress import SILENT, Progress
from .by_class import LEAST_PHOTOS, ClassDrop, balanced_accuracy, worst_class
from .remarks import Z, remarks

Classes = NDArray[np.int32]  # (N,)
Ranking = NDArray[np.int32]  # (N, ≤ 5): the classes of the highest logits, best first
ExpectedDrop = Callable[[Classes], float]
"""What answers to a gate's photos are expected to lose against the float model, in points of top-1; see `confidence`."""

NO_ANSWER = -1  # in place of a class
BATCH = 128
ROUNDING = 1e-9  # points: a drop at the limit passes


@dataclass(frozen=True)
class StepReport:
    """One step's accuracy, in percent and points. `top1`, `top5`, `drop` and `drop_ci` are None without labels.

    `drop` is top-1 lost against the float model (negative: gained), `drop_ci` its paired 95% interval. `proven`: the whole
    interval lies within the limit. `needed`: about how many photos would prove it at the rates seen (None: no number would).
    `worst_class` lost most of all (None: none lost any), `balanced` is the mean recall of the classes (None: they are even), and
    `not_finite` counts the photos that get a logit which is no finite number. `refusal` says why a step does not pass.
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
    worst_class: ClassDrop | None = None
    balanced: float | None = None
    not_finite: int = 0
    refusal: str = ""

    @property
    def change(self) -> str:
        """What top-1 lost or gained against the float model, with the interval, in words; empty without labels."""
        if self.drop is None or self.drop_ci is None:
            return ""
        gain = round(self.drop, 2) < 0
        word, points, (low, high) = (
            ("gain", -self.drop, sorted(-end for end in self.drop_ci)) if gain else ("drop", self.drop, self.drop_ci)
        )
        return f"{word} {abs(points):.2f} points ({low:+.2f} to {high:+.2f})"

    @property
    def loss(self) -> float:
        """What is lost against the float model: points of top-1, without labels of agreement."""
        return 100 - self.agreement if self.drop is None else self.drop

    @property
    def loss_error(self) -> float:
        """The standard error of `loss`, in points, as the photos are a sample."""
        if self.drop_ci is not None:
            return (self.drop_ci[1] - self.drop_ci[0]) / (2 * Z)
        return share_error(self.agreement, self.images)

    def differs_from(self, other: StepReport) -> bool:
        """Whether the loss is another than on other photos, by more than the sampling of both explains, at 95%."""
        return abs(self.loss - other.loss) > Z * math.hypot(self.loss_error, other.loss_error)


@dataclass(frozen=True)
class Answers:
    """What a step says of every photo: its best classes `ranking`, and the probability of the first `(N,)`.

    NO_ANSWER stands for all of a photo's classes, with probability 0, where one of its logits is not finite (`not_finite` counts
    these photos), or where too many share the highest. Two may share it, as FP16 rounds, and the lower class is then the answer,
    as on a camera; of two classes in all, both may not. `known` is the number of logits.
    """

    ranking: Ranking
    probabilities: NDArray[np.float32]
    not_finite: int
    known: int

    @property
    def classes(self) -> Classes:
        """The answer to each photo."""
        return self.ranking[:, 0]

    @classmethod
    def of(cls, logits: NDArray[np.float32], temperature: float = 1.0) -> Answers:
        """Those of a batch's logits `(N, classes)`, which the softmax divides by a temperature: no answer depends on it."""
        finite: NDArray[np.bool_] = np.all(np.isfinite(logits), axis=1)
        known = logits.shape[1]
        values = np.where(finite[:, None], logits, 0).astype(np.float64)
        highest = values.max(1, keepdims=True)
        sharing = np.count_nonzero(values == highest, axis=1)
        answered = finite & (sharing <= (2 if known > 2 else 1))
        best = np.sort(np.argpartition(-values, min(5, known) - 1, axis=1)[:, :5], axis=1)
        order = np.argsort(-np.take_along_axis(values, best, 1), axis=1, kind="stable")
        ranking = np.where(answered[:, None], np.take_along_axis(best, order, 1), NO_ANSWER)
        probabilities = np.where(answered, 1 / np.exp((values - highest) / temperature).sum(1), 0)
        return cls(ranking.astype(np.int32), probabilities.astype(np.float32), int((~finite).sum()), known)

    @classmethod
    def to(cls, pixels: Batches, predict: Predict, label: str, progress: Progress) -> Answers:
        """Those of a step to photos, which are at least one."""
        batches = progress.track(pixels.batches(BATCH), label, math.ceil(len(pixels) / BATCH))
        return cls.joined([cls.of(logits) for logits in map(predict, batches)])

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """Those of several batches, in their order."""
        ranking, probabilities = (np.concatenate(each) for each in zip(*((p.ranking, p.probabilities) for p in parts), strict=True))
        return cls(ranking, probabilities, sum(p.not_finite for p in parts), parts[0].known)


def rank(predict: Predict, pixels: PixelFile, *, label: str = "evaluate", progress: Progress = SILENT) -> Ranking:
    """The top five classes of every photo; NO_ANSWER for one whose logits say nothing."""
    return Answers.to(pixels, predict, label, progress).ranking


def agreement(ours: Classes, theirs: Classes) -> float:
    """The percent of the photos that get the same answer from both. No answer is not the same as any other."""
    return 100 * float(((ours == theirs) & (ours != NO_ANSWER)).mean())


def paired_drop(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> tuple[float, tuple[float, float]]:
    """Points lost from `before` to `after` (photo by photo: was it right?), and the 95% interval.

    Source: Agresti & Min 2005, Statistics in Medicine 24:729, the adjusted Wald interval for matched pairs.
    """
    n = len(before)
    lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
    difference = (lost - gained) / (n + 2)
    error = math.sqrt(max(lost + gained + 1 - (lost - gained) ** 2 / (n + 2), 0)) / (n + 2)
    return 100 * (lost - gained) / n, (100 * (difference - Z * error), 100 * (difference + Z * error))


def share_error(percent: float, images: int) -> float:
    """The standard error, in points, of a percentage of so many photos.

    Source: Agresti & Coull 1998, The American Statistician 52:119.
    """
    share = (images * percent / 100 + Z**2 / 2) / (images + Z**2)
    return 100 * math.sqrt(share * (1 - share) / (images + Z**2))


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
    the photos get the float model's label. With `max_class_drop` no class of LEAST_PHOTOS or more may lose more points than that.
    A step whose logits are not all finite never passes, nor does one that says the same of every photo where the float model is
    right about LEAST_PHOTOS of other classes. `remarks` are those on the float model's answers. Raises BadInput where there is no
    photo.
    """

    def __init__(
        self,
        pixels: PixelFile,
        *,
        max_drop: float,
        min_agreement: float = 97.0,
        max_class_drop: float | None = None,
        progress: Progress = SILENT,
    ) -> None:
        if not len(pixels):
            raise BadInput(f"{pixels.images.root}: no photo to judge a network by. Give some.")
        self.pixels, self.progress = pixels, progress
        self.max_drop, self.min_agreement, self.max_class_drop = max_drop, min_agreement, max_class_drop
        labels = pixels.images.labels
        self.labels = None if labels is None else np.array(labels)
        self.reports: list[StepReport] = []
        self.answers: list[Answers] = []  # a report each
        self.remarks: tuple[str, ...] = ()
        self.expected_drop: ExpectedDrop | None = None
        self.beside: Answers | None = None

    def on(self, pixels: PixelFile) -> Gate:
        """The same gate for the same photos prepared in another way: its baseline and its reports are these."""
        other = copy.copy(self)
        other.pixels = pixels
        return other

    def expecting(self, drop: ExpectedDrop | None) -> Gate:
        """The same gate, where a step that loses little must be expected to on other photos, too: of several, one may by chance."""
        other = copy.copy(self)
        other.expected_drop = drop
        return other

    def against(self, answers: Answers) -> Gate:
        """The same gate, with what the float model says of the same photos in another shape as its baseline."""
        other = copy.copy(self)
        other.beside = answers
        return other

    def judge(self, step: str, predict: Predict, pixels: Batches | None = None) -> StepReport:
        """Evaluate and report; the first call sets the float baseline. `pixels`: the same photos in another shape.

        Raises AccuracyGateFailed where the float model's own logits say nothing.
        """
        start = time.monotonic()
        answers = Answers.to(pixels or self.pixels, predict, f"accuracy of {step}", self.progress)
        if not self.answers:
            self._begin(step, answers)
        self.answers.append(answers)
        report = self._report(step, answers, time.monotonic() - start)
        self.reports.append(report)
        return report

    def require(self, step: str, predict: Predict) -> StepReport:
        """Judge a step that the fit cannot go on without."""
        report = self.judge(step, predict)
        if not report.passed:
            raise AccuracyGateFailed(report.refusal)
        return report

    def name(self, label: int) -> str:
        """A class's name; its number where it has none."""
        return self.pixels.images.name(label)

    def _begin(self, step: str, answers: Answers) -> None:
        """Refuse a float model that cannot be compared with, and remark on its answers."""
        if answers.not_finite:
            raise AccuracyGateFailed(_not_finite(step, answers))
        if (answers.classes == NO_ANSWER).all():
            raise AccuracyGateFailed(
                f"{step}: every photo gets equal logits, so the network says nothing. Expected a trained one: check the weights."
            )
        found = list(remarks(answers.classes, self.labels, answers.known, self.name))
        if self.max_class_drop is not None:
            truth = self._truth(answers.classes)
            photos = np.bincount(truth[truth != NO_ANSWER])
            if few := int(((photos > 0) & (photos < LEAST_PHOTOS)).sum()):
                which = "class with fewer than {} photos is" if few == 1 else "classes with fewer than {} photos are"
                found.append(f"{few} {which.format(LEAST_PHOTOS)} not held to --max-class-drop.")
        self.remarks = tuple(found)
        for remark in found:
            self.progress.say(remark)

    def _truth(self, baseline: Classes) -> NDArray[np.integer]:
        """Each photo's class: its label, or without labels what the float model says."""
        return baseline if self.labels is None else self.labels

    def _report(self, step: str, answers: Answers, seconds: float) -> StepReport:
        said, baseline = answers.classes, (self.beside or self.answers[0]).classes
        truth = self._truth(baseline)
        before, after = ((each == truth) & (each != NO_ANSWER) for each in (baseline, said))
        known = truth != NO_ANSWER
        report = StepReport(
            step=step,
            top1=None,
            top5=None,
            drop=None,
            drop_ci=None,
            agreement=agreement(said, baseline),
            images=len(said),
            passed=False,
            proven=False,
            needed=None,
            seconds=seconds,
            worst_class=worst_class(truth[known], before[known], after[known], self.name),
            not_finite=answers.not_finite,
        )
        if self.labels is not None:
            drop, interval = paired_drop(before, after)
            report = replace(
                report,
                top1=100 * float(after.mean()),
                top5=100 * float((answers.ranking == self.labels[:, None]).any(1).mean()),
                drop=drop,
                drop_ci=interval,
                proven=interval[1] <= self.max_drop,
                needed=images_needed(before, after, self.max_drop),
                balanced=balanced_accuracy(self.labels, after),
            )
        others = int((before & ~np.isin(truth, said)).sum())
        refusal = self._refusal(report, answers, others)
        return replace(report, passed=not refusal, proven=report.proven and not refusal, refusal=refusal)

    def _refusal(self, report: StepReport, answers: Answers, others: int) -> str:
        """Why a step does not pass; empty where it does. `others`: photos that the float model has right, of classes never said."""
        step, images = report.step, f"({report.images} images)"
        if answers.not_finite:
            return _not_finite(step, answers)
        if report.top1 is None or report.drop is None:
            if report.agreement < self.min_agreement:
                return f"{step}: agreement with the float model {report.agreement:.2f}% < {self.min_agreement:g}% {images}."
        elif report.drop > self.max_drop + ROUNDING:
            return (
                f"{step}: top-1 {report.top1 + report.drop:.2f} → {report.top1:.2f}, "
                f"drop {report.drop:.2f} points > {self.max_drop:g} allowed {images}."
            )
        elif self.expected_drop and (expected := self.expected_drop(answers.classes)) > self.max_drop + ROUNDING:
            return (
                f"{step}: drop {report.drop:.2f} points {images}, but on others {expected:.2f} > {self.max_drop:g} allowed are "
                f"expected: {100 - report.agreement:.2f}% of the answers changed, and the float model was sure of them."
            )
        said = np.unique(answers.classes[answers.classes != NO_ANSWER])
        if len(said) <= 1 and others >= LEAST_PHOTOS:
            only = "".join(f" but class {self.name(int(label))!r}" for label in said)
            return (
                f"{step}: says nothing{only} for any photo, but the float model is right about {others} of other classes {images}."
            )
        worst = report.worst_class
        if worst and self.max_class_drop is not None and worst.drop > self.max_class_drop + ROUNDING:
            return (
                f"{step}: class {worst.name!r} {worst.before:.2f} → {worst.after:.2f}, "
                f"drop {worst.drop:.2f} points > {self.max_class_drop:g} allowed ({worst.photos} images of it)."
            )
        return ""


def _not_finite(step: str, answers: Answers) -> str:
    count, images = answers.not_finite, len(answers.classes)
    return (
        f"{step}: a logit is not a finite number for {count} of {images} photos ({100 * count / images:.2f}%). "
        "Check the weights, or use another precision."
    )
