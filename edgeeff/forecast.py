"""What a fit is about to do, said before it takes long: network, epochs, minutes, and the better way where there is one.

The minutes are scaled from a few training steps and a few inferences of the network itself on this machine. They are those of a
fit whose first strategy for INT8 passes the gate; further strategies are bounded by --time-budget.
"""

from __future__ import annotations

import math
import statistics
import time
from pathlib import Path

import numpy as np

from .context import Context
from .data.images import noise
from .data.preprocess import Preprocess
from .job import AUTO
from .network import accelerator
from .network.architecture import Variant
from .network.model import EfficientNet, predict
from .network.train import Recipe, epoch_seconds, finished_epochs
from .progress import spoken

BATCH = 16
FEW_PHOTOS = 1000  # of a class, with which training from scratch does not reach published weights

# What the stages after training take, as measured with B0 at 224 px and networks at 64 px, on 2 cores. Passes over a set of photos
# are in terms of inferences in torch: a validation photo is seen in torch, by ONNX Runtime, in each form and as a frame.
FIXED_SECONDS = 25.0  # export, compilation, diagnostics, report
PER_VALIDATION_PHOTO, PER_CALIBRATION_PHOTO, PER_TEST_PHOTO = 4.5, 1.5, 2.0
ROUNDS, BLOCK, BLOCK_SECONDS = 20, 33, 0.5  # of the measurement of latency


def announce(context: Context, model: EfficientNet, preprocess: Preprocess, origin: str, plan: tuple[Recipe, Path] | None) -> float:
    """Say what is to be done with a network, and how many seconds that takes, which are returned.

    `origin` is where its weights come from, empty for scratch.
    `plan` is how it is trained, and where the state of an interrupted training is; None: it is not, or no more.
    """
    job, photos, progress = context.job, context.photos, context.progress
    v, training, epochs = model.variant, 0.0, ""
    progress.say(f"network: {v.name} at {v.resolution} px, {v.activation}, from {origin or 'scratch'}")
    if plan and photos.training:
        recipe, state = plan
        left = recipe.epochs - finished_epochs(state)
        each = epoch_seconds(model, preprocess, photos.training, recipe)
        training = left * each
        gpu = f" on {accelerator.name()}" if accelerator.name() else ""
        epochs = f"{left} epochs {spoken(training)}{gpu}, "
    rest = _rest(context, _inference_seconds(model, preprocess))
    more = f"; up to {job.time_budget:g} min more where INT8 needs more than its first strategy"
    progress.say(f"time: about {spoken(training + rest)} ({epochs}INT8, judging and measuring {spoken(rest)}{more})")
    progress.expect(training, then=rest)
    if plan and photos.training and not origin:
        _recommend(context, v, each * Recipe.fine_tune(None, None, flip=job.flip, seed=job.seed).epochs + rest)
    count, labels = len(photos.validation), photos.validation.labels
    if labels is not None and 0 < count * job.max_drop < 100:
        progress.say(
            f"warning: one of {count} validation photos is {100 / count:.2f} points, more than --max-drop {job.max_drop:g}: a step "
            f"fails as soon as it loses one more than it gains. {math.ceil(100 / job.max_drop)} photos would let it lose one."
        )
    return training + rest


def _recommend(context: Context, v: Variant, seconds: float) -> None:
    """Published weights, where the photos are too few to train from scratch."""
    training, classes = context.photos.training, context.photos.classes
    assert training is not None
    assert classes is not None
    if v.hub and len(training) < FEW_PHOTOS * classes:
        context.progress.say(
            f"warning: {len(training) // classes} photos a class are few to train from scratch. Published weights mostly do "
            f"better, in about {spoken(seconds)}: --weights {AUTO} (hf-hub:{v.hub})"
        )


def _inference_seconds(model: EfficientNet, preprocess: Preprocess) -> float:
    """Of one photo, in torch, in a batch."""
    run, photos = predict(model, preprocess), np.repeat(noise(preprocess.resolution), BATCH, axis=0)
    times = [time.monotonic()]
    for _ in range(4):
        run(photos)
        times.append(time.monotonic())
    return statistics.median(np.diff(times[1:])) / BATCH


def _rest(context: Context, inference: float) -> float:
    """Seconds of everything after training."""
    photos, forms = context.photos, len(context.target.usable()) + 1
    passes = PER_VALIDATION_PHOTO * len(photos.validation) + PER_CALIBRATION_PHOTO * len(photos.calibration)
    passes += PER_TEST_PHOTO * len(photos.test or ())
    measuring = 0.0 if context.target.compiles_on_device else ROUNDS * forms * min(BLOCK * inference, BLOCK_SECONDS + 3 * inference)
    return FIXED_SECONDS + inference * passes + measuring
