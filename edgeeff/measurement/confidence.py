"""How far a network's probabilities can be believed: the temperature of its softmax, its expected calibration error, and what they
let expect of answers that change.

Logits divided by a temperature keep their order, so that no answer changes. Source: Guo et al. 2017, arXiv:1706.04599.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..data.images import Logits, Pixels, Predict
from .accuracy import BATCH, NO_ANSWER, Answers, Classes, ExpectedDrop, Gate

BINS = 15  # of equal width, as in the paper
LEAST_PHOTOS = 50  # labelled photos that a temperature is fitted on
LOWEST, HIGHEST = 0.1, 10.0  # temperatures: what fits better lies outside where photos say nothing of how sure a network may be
STEPS = 30  # halvings between the two, down to a relative 1e-8

Probabilities = NDArray[np.float64]


@dataclass(frozen=True)
class Bin:
    """The photos whose answer has a probability within the bin: how many, its mean in percent, and the percent that are right."""

    photos: int
    probability: float
    right: float


@dataclass(frozen=True)
class Reliability:
    """The probabilities of answers, held to how often they are right. `error` is the expected calibration error in percent: the
    mean distance of the two in bins of equal width, weighted by their photos. `by_chance` is what probabilities that are true
    would show, since the photos are a sample."""

    photos: int
    error: float
    by_chance: float
    bins: tuple[Bin, ...]

    @classmethod
    def of(cls, answers: Answers, labels: NDArray[np.integer]) -> Reliability:
        """That of answers to labelled photos, which are at least one."""
        right = (answers.classes == labels) & (answers.classes != NO_ANSWER)
        sure = answers.probabilities.astype(np.float64)
        places = np.minimum(np.floor(sure * BINS), BINS - 1).astype(int)
        groups = [np.flatnonzero(places == i) for i in range(BINS)]
        bins = tuple(
            Bin(len(g), 100 * float(sure[g].mean()), 100 * float(right[g].mean())) if len(g) else Bin(0, 0, 0) for g in groups
        )
        error = sum(b.photos * abs(b.probability - b.right) for b in bins) / len(sure)
        # The number of right answers in a bin is about normal, with the variance Σ p (1 - p); the mean of |x| is then √(2/π) σ.
        by_chance = sum(math.sqrt(2 / math.pi * float((sure[g] * (1 - sure[g])).sum())) for g in groups) / len(sure)
        return cls(len(sure), error, 100 * by_chance, bins)


@dataclass(frozen=True)
class Confidence:
    """The temperature of a file's softmax, fitted on so many of the validation photos; `note` says what is doubtful about it.

    `float32`, `before` and `after` are of the float network, and of the file without and with the temperature, on the `judged_on`
    photos; None where these have no labels.
    """

    temperature: float
    photos: int
    note: str = ""
    judged_on: Literal["validation", "test"] = "validation"
    float32: Reliability | None = None
    before: Reliability | None = None
    after: Reliability | None = None

    def held_to(self, gate: Gate, step: int, answers: Answers) -> Confidence:
        """The same with the calibration errors on a gate's photos, where they have labels.

        `step` is the index of the step that judged the file there, `answers` are the file's with the temperature.
        """
        if gate.labels is None:
            return self
        float32, before, after = (Reliability.of(each, gate.labels) for each in (gate.answers[0], gate.answers[step], answers))
        return replace(self, float32=float32, before=before, after=after)

    @property
    def errors(self) -> str:
        """The calibration errors, in words; empty where they are not known."""
        if not (self.float32 and self.before and self.after):
            return ""
        before = "" if self.temperature == 1 else f", {self.before.error:.2f}% without the temperature"
        by_chance = f"probabilities that are true show about {self.after.by_chance:.2f}% on so few photos"
        return f"calibration error {self.after.error:.2f}% (float32 {self.float32.error:.2f}%{before}; {by_chance})"

    @property
    def sentence(self) -> str:
        """What the validation photos say of it."""
        note = f" ({self.note})" if self.note else ""
        return f"Softmax temperature {self.temperature:.3g}{note}{': ' if self.errors else ''}{self.errors}."


def softmax(logits: Logits, temperature: float) -> Probabilities:
    """`(N, classes)` probabilities of finite logits."""
    scaled = logits.astype(np.float64) / temperature
    exponentials = np.exp(scaled - scaled.max(1, keepdims=True))
    probabilities: Probabilities = exponentials / exponentials.sum(1, keepdims=True)
    return probabilities


class Calibrated:
    """A network that runs as it does without a temperature; `answers` are those with it to all it was run on, in that order."""

    def __init__(self, predict: Predict, temperature: float) -> None:
        self.predict, self.temperature = predict, temperature
        self._parts: list[Answers] = []

    def __call__(self, images: Pixels) -> Logits:
        logits = self.predict(images)
        self._parts.append(Answers.of(logits, self.temperature))
        return logits

    @property
    def answers(self) -> Answers:
        return Answers.joined(self._parts)


def measure_confidence(gate: Gate, step: int, predict: Predict, label: str) -> tuple[Confidence, Answers]:
    """The temperature of a step's file, fitted on the gate's photos, and its answers to them with it."""
    if gate.labels is None:
        return Confidence(1.0, 0, "not fitted: the validation photos have no labels"), gate.answers[step]
    if len(gate.labels) < LEAST_PHOTOS:
        few = Confidence(1.0, 0, f"not fitted: fewer than {LEAST_PHOTOS} validation photos")
        return few.held_to(gate, step, gate.answers[step]), gate.answers[step]
    logits = _logits(gate, predict, f"temperature of {label}")
    found = temperature(np.concatenate(logits), gate.labels)
    answers = Answers.joined([Answers.of(each, found) for each in logits])
    return Confidence(found, len(gate.labels), _doubt(found)).held_to(gate, step, answers), answers


def expected_drop(gate: Gate, predict: Predict) -> ExpectedDrop | None:
    """What answers to the gate's photos are expected to lose, by the probabilities of the float model, which is `predict`.

    A changed answer is taken to be right as often as the float model says of that class, with the temperature that fits the labels.
    As far as that is true, it varies less on few photos than what their labels say: of four answers that change, two may do so for
    the better by chance. None where the photos have no labels, or too few.
    """
    if gate.labels is None or len(gate.labels) < LEAST_PHOTOS:
        return None
    logits = np.concatenate(_logits(gate, predict, "how sure the float model is"))
    sure = softmax(logits, temperature(logits, gate.labels)).astype(np.float32)
    before = gate.answers[0].classes

    def right(said: Classes) -> float:
        found = np.take_along_axis(sure, said[:, None], 1)[:, 0]
        return 100 * float(np.where(said == NO_ANSWER, 0, found).mean(dtype=np.float64))

    return lambda said: right(before) - right(said)


def _logits(gate: Gate, predict: Predict, label: str) -> list[Logits]:
    """Those of the gate's photos, batch by batch."""
    batches = gate.progress.track(gate.pixels.batches(BATCH), label, math.ceil(len(gate.pixels) / BATCH))
    return [predict(images) for images in batches]


def _doubt(found: float) -> str:
    if found == LOWEST:
        return "the lowest that is allowed: the network is right about all of these photos, or nearly all"
    if found == HIGHEST:
        return "the highest that is allowed: what the network says of these photos tells nothing"
    return ""


def temperature(logits: Logits, labels: NDArray[np.integer]) -> float:
    """The temperature of the least mean negative log-likelihood of labels `(N,)` for finite logits `(N, classes)`, within bounds.

    Where a network is right about every photo it would be 0. So the labels are smoothed by one photo more, spread over all
    classes, as Platt 1999 ("Probabilistic outputs for support vector machines") does with the targets of two. The likelihood is
    convex in the inverse temperature: the zero of its derivative is found by halving.
    """
    values = logits - logits.max(1, keepdims=True)
    share = 1 / (len(labels) + 2)
    right = values[np.arange(len(labels)), labels].mean(dtype=np.float64)
    expected = (1 - share) * right + share * values.mean(dtype=np.float64)

    def slope(inverse: float) -> float:
        found = 0.0
        for start in range(0, len(values), BATCH):  # of thousands of photos, float64 would take gigabytes
            block = values[start : start + BATCH].astype(np.float64)
            weights = np.exp(inverse * block)
            found += float((np.einsum("ij,ij->i", weights, block) / weights.sum(1)).sum())
        return found / len(values) - float(expected)

    low, high = 1 / HIGHEST, 1 / LOWEST
    if slope(low) >= 0:
        return HIGHEST
    if slope(high) <= 0:
        return LOWEST
    for _ in range(STEPS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if slope(middle) >= 0 else (middle, high)
    return 1 / math.sqrt(low * high)
