"""How far a network's probabilities can be believed: the temperature of its softmax, and its expected calibration error.

Logits divided by a temperature keep their order, so that no answer changes. Source: Guo et al. 2017, arXiv:1706.04599.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..data.images import Logits, Predict
from .accuracy import BATCH, NO_ANSWER, Answers, Gate

BINS = 15  # of equal width, as in the paper
LEAST_PHOTOS = 50  # labelled photos that a temperature is fitted on
LOWEST, HIGHEST = 0.1, 10.0  # temperatures: what fits better lies outside where photos say nothing of how sure a network may be
STEPS = 30  # halvings between the two, down to a relative 1e-8
MOST_NUMBERS = 1 << 24  # logits that are kept; of more photos every second, third … one fits the temperature

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


def scaled(predict: Predict, temperature: float) -> Predict:
    """The same network with divided logits; in float64, where different ones stay different."""
    return lambda images: predict(images).astype(np.float64) / temperature  # type: ignore[return-value]


def measure_confidence(gate: Gate, step: int, predict: Predict, label: str) -> tuple[Confidence, Answers]:
    """The temperature of a step's file, fitted on the gate's photos, and its answers to them with it."""
    confidence = _fitted(gate, predict, label)
    return hold_to(confidence, gate, step, predict, label)


def hold_to(confidence: Confidence, gate: Gate, step: int, predict: Predict, label: str) -> tuple[Confidence, Answers]:
    """The confidence with the calibration errors on a gate's photos, where they have labels, and the file's calibrated answers.

    `step` is the index of the step that judged the file on these photos.
    """
    run = scaled(predict, confidence.temperature)
    answers = Answers.to(gate.pixels, run, f"calibration error of {label}", gate.progress)
    if gate.labels is None:
        return confidence, answers
    float32, before, after = (Reliability.of(each, gate.labels) for each in (gate.answers[0], gate.answers[step], answers))
    return replace(confidence, float32=float32, before=before, after=after), answers


def _fitted(gate: Gate, predict: Predict, label: str) -> Confidence:
    if gate.labels is None:
        return Confidence(1.0, 0, "not fitted: the validation photos have no labels")
    if len(gate.labels) < LEAST_PHOTOS:
        return Confidence(1.0, 0, f"not fitted: fewer than {LEAST_PHOTOS} validation photos")
    batches = gate.progress.track(gate.pixels.batches(BATCH), f"temperature of {label}", math.ceil(len(gate.pixels) / BATCH))
    kept, rows, start = list[Logits](), list[NDArray[np.integer]](), 0
    for images in batches:
        logits = predict(images)
        every = max(1, math.ceil(len(gate.pixels) * logits.shape[1] / MOST_NUMBERS))
        kept.append(logits[::every])
        rows.append(np.arange(start, start + len(logits), every))
        start += len(logits)
    fitting = np.concatenate(rows)
    found = temperature(np.concatenate(kept), gate.labels[fitting])
    return Confidence(found, len(fitting), _doubt(found))


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
    values = logits.astype(np.float64)
    values -= values.max(1, keepdims=True)
    share = 1 / (len(labels) + 2)
    expected = (1 - share) * values[np.arange(len(labels)), labels].mean() + share * values.mean()

    def slope(inverse: float) -> float:
        weights = np.exp(inverse * values)
        return float((np.einsum("ij,ij->i", weights, values) / weights.sum(1)).mean() - expected)

    low, high = 1 / HIGHEST, 1 / LOWEST
    if slope(low) >= 0:
        return HIGHEST
    if slope(high) <= 0:
        return LOWEST
    for _ in range(STEPS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if slope(middle) >= 0 else (middle, high)
    return 1 / math.sqrt(low * high)
