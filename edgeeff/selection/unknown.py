"""What ships learns which photos it knows: how their features are spread, and from the validation photos a threshold."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ..context import NetworkContext
from ..data.images import PixelFile
from ..measurement.accuracy import BATCH
from ..measurement.unknown import Features, Known, Share, Unknown, photos_needed, threshold
from .outcome import Outcome

PHOTOS = 2000  # that say how features are spread, at most


def learn_known(context: NetworkContext, outcome: Outcome) -> Outcome:
    """The outcome with what tells photos unlike its own from them, as its file runs; without, where that is not asked for.

    A runtime that gives no features has none either, and photos that cannot choose a threshold, which the verdict says.
    """
    allowed, runtime = context.job.false_alarms, context.target.runtime
    if not (allowed and runtime.FEATURES):
        return outcome
    validation = context.gate.pixels.images
    if len(validation) < photos_needed(allowed):
        return _without(outcome, f"fewer than {photos_needed(allowed)} validation photos for {allowed:g}% false alarms")
    at = context.at(outcome.shipped.preprocess)
    photos = at.pixels(context.photos.learning.draw(PHOTOS, context.job.seed), at.preprocess)
    learned, seen = (features(at, outcome, pixels) for pixels in (photos, at.gate.pixels))
    if not (np.isfinite(learned).all() and np.isfinite(seen).all()):
        return _without(outcome, "features are not all finite")
    widths = [*(stage.channels for stage in context.original.stages[1:]), context.original.head]
    known = Known.of(learned, widths)
    limit = threshold(known.distances(seen), allowed)
    if not limit:
        return _without(outcome, "validation photos do not differ from those that it learned from")
    unknown = Unknown(limit, allowed, len(seen))
    return replace(outcome, known=known, unknown=unknown, verdict=f"{outcome.verdict} {unknown.sentence}")


def judged_on(context: NetworkContext, outcome: Outcome, photos: PixelFile) -> Unknown | None:
    """With the false alarms among photos that chose nothing; None where no photo is unknown."""
    if not (outcome.known and outcome.unknown):
        return None
    distances = outcome.known.distances(features(context, outcome, photos))
    return replace(outcome.unknown, test=Share.of(distances > outcome.unknown.threshold))


def features(context: NetworkContext, outcome: Outcome, pixels: PixelFile) -> Features:
    """Those that the shipped file gives for photos: `(N, D)`."""
    form, target, classes = outcome.shipped, context.target, context.gate.answers[0].known
    run = target.runtime.load(form.file, precision=form.precision, threads=target.threads, throughput=True, features=True)
    batches = context.progress.track(pixels.batches(BATCH), f"features of {form.name}", math.ceil(len(pixels) / BATCH))
    return np.concatenate([run(images)[:, classes:] for images in batches])


def _without(outcome: Outcome, reason: str) -> Outcome:
    return replace(outcome, verdict=f"{outcome.verdict} No photo gets the label unknown: {reason}.")
