"""The float network of a fit: loaded, fine-tuned, or trained from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from . import forecast
from .context import Context
from .data.labels import LIST_BYTES, class_names
from .data.preprocess import Preprocess
from .errors import BadInput
from .files import read_lines
from .job import AUTO, Job
from .machine import LOCAL
from .measurement.accuracy import agreement, rank
from .network import checkpoint, distributed
from .network.architecture import Variant
from .network.model import EfficientNet, create, predict
from .network.swap import swapped
from .network.train import Epoch, Recipe, train
from .network.variants import expected_top1, grid, published, published_weights
from .records import dump_json, read_json
from .selection.candidates import Accuracy, Search
from .selection.improvement import Improving
from .selection.search import pick

LONG = 60.0  # seconds, before which a network is measured: that takes 10 to 30


@dataclass(frozen=True)
class Weights:
    """A trained network, how its photos are prepared, and its class names, where they are known.

    `usual` is how they would be prepared without --crop, where that was given. `history` is that of a network trained here.
    """

    model: EfficientNet
    preprocess: Preprocess
    class_names: tuple[str, ...]
    usual: Preprocess | None = None
    history: tuple[Epoch, ...] = ()

    @property
    def variant(self) -> Variant:
        """As it was trained: its activation may be another than the usual one."""
        return self.model.variant


@dataclass(frozen=True)
class Ranking:
    """What tells which of several networks is the larger: its expected accuracy in percent, for so many classes."""

    classes: int
    accuracy: Accuracy


def prepare_weights(context: Context, v: Variant) -> Weights:
    """The variant's network with trained weights; what was trained is kept in the stage cache."""
    if context.job.improve:
        improving = Improving.of(context, context.job.improve)
        return Weights(improving.learn(), improving.before.preprocess, improving.before.labels)
    torch.manual_seed(context.job.seed)  # what no weights are loaded for begins at random
    start = _loaded(context, v) if context.job.weights else _created(context, v)
    if context.job.crop is not None:
        start = replace(start, preprocess=start.preprocess.cropped(context.job.crop), usual=start.preprocess)
    if context.photos.training is not None:
        return _trained(context, v, start)
    validation, classes = context.photos.validation, start.model.classes
    names = start.class_names or (validation.classes if len(validation.classes) == classes else ())
    validation.labelled_for(classes, names)  # refuses photos of other classes before time is spent
    _announce(context, v, start)
    return replace(start, class_names=names)


def ranking(context: Context, candidates: Sequence[Variant]) -> Ranking | None:
    """How candidates are ranked; None where there is only one.

    Networks that are to be trained are ranked by their published top-1. Trained weights are ranked by resolution: by how many
    photos, in percent, get the label that they get at the weights' own resolution.
    """
    if len(candidates) == 1:
        return None
    if context.photos.classes is not None:
        return Ranking(context.photos.classes, expected_top1)
    job, v = context.job, candidates[0]
    own, _ = _at(context, published(v), None)
    answers = {}
    for resolution in sorted({own.variant.resolution, *(c.resolution for c in candidates)}):
        context.progress.say(f"{source(job, v)} at {resolution} px")
        model, preprocess = _at(context, v.at(resolution), resolution)
        answers[resolution] = rank(predict(model, preprocess), context.pixels(context.photos.calibration, preprocess))[:, 0]
    reference = answers[own.variant.resolution]
    return Ranking(own.classes, lambda c: agreement(answers[c.resolution], reference))


def source(job: Job, v: Variant) -> str:
    """The checkpoint to start from; empty where training starts from scratch."""
    return published_weights(v) if job.weights == AUTO else str(job.weights or "")


def _at(context: Context, v: Variant, resolution: int | None) -> tuple[EfficientNet, Preprocess]:
    """The weights at a resolution, or at their own."""
    file = source(context.job, v)
    model, stated, _ = checkpoint.load(file, v, padding=context.job.padding, resolution=resolution)
    mean, std = (stated.preprocess.mean, stated.preprocess.std) if stated.preprocess else (v.mean, v.std)
    preprocess = Preprocess.standard(model.variant.resolution, mean, std)
    return model, preprocess if context.job.crop is None else preprocess.cropped(context.job.crop)


def _loaded(context: Context, v: Variant) -> Weights:
    job, classes, file = context.job, context.photos.classes, source(context.job, v)
    resolution = v.resolution if job.resolution or job.weights == AUTO else None
    model, stated, fresh = checkpoint.load(file, v, classes=classes, padding=job.padding, resolution=resolution)
    if fresh:
        context.progress.say(f"{file}: initialised afresh: {', '.join(fresh)}")
    preprocess = stated.preprocess or Preprocess.standard(model.variant.resolution, v.mean, v.std)
    if preprocess.resolution != model.variant.resolution:
        preprocess = Preprocess.standard(model.variant.resolution, preprocess.mean, preprocess.std)
    return Weights(model, preprocess, stated.class_names or read_labels(job.labels, model.classes))


def _created(context: Context, v: Variant) -> Weights:
    model = create(v, classes=context.photos.classes or 1000, padding=context.job.padding)
    return Weights(model, Preprocess.standard(v.resolution, v.mean, v.std), ())


def _trained(context: Context, v: Variant, start: Weights) -> Weights:
    job, training = context.job, context.photos.training
    assert training is not None
    if context.trains_with and start.variant.activation == "silu":
        start = replace(start, model=swapped(start.model, context.trains_with))
    kind = Recipe.fine_tune if job.weights else Recipe.from_scratch
    recipe, activation = kind(job.epochs, job.lr, flip=job.flip, seed=job.seed), start.variant.activation

    name, state = f"{activation}-weights", context.cache.root / f"{activation}-training.pt"
    plan = None if (context.cache.root / name).exists() else (recipe, state)
    _announce(context, v, start, plan)

    def make(folder: Path) -> None:
        arguments = (start.model, start.preprocess, training, recipe, state)
        result, history = distributed.together(train, *arguments, progress=context.progress)
        checkpoint.save(result, folder / "weights.safetensors", start.preprocess, training.classes)
        (folder / "history.json").write_text(dump_json(history), encoding="utf-8")

    trained = context.cache.once(name, make)
    model = checkpoint.load(trained / "weights.safetensors", v.at(start.model.variant.resolution))[0]
    history = tuple(read_json(trained / "history.json", list[Epoch]))
    return replace(start, model=model, class_names=training.classes, history=history)


def _announce(context: Context, v: Variant, start: Weights, plan: tuple[Recipe, Path] | None = None) -> None:
    """Say what is to be done with a network, and before that takes long, measure it, since weights do not change its costs.

    Raises BudgetNotMet where it misses the budget. Nothing is measured where it was chosen by measuring, where the device is not at
    hand, or where the network may be made smaller.
    """
    job, machine = context.job, context.machine
    seconds = forecast.announce(context, start.model, start.preprocess, source(job, v), plan)
    chosen = len(grid(job.variants, job.resolution)) > 1
    at_hand = context.target.here or machine is not LOCAL
    if seconds > LONG and context.budget.measured and at_hand and not chosen and job.adapt == "keep":
        search = Search.within(context, [v.at(start.variant.resolution)], start.model.classes)
        pick(search, machine=machine, progress=context.progress)


def read_labels(path: str | Path | None, classes: int) -> tuple[str, ...]:
    """Class names, one a line."""
    if path is None:
        return ()
    names = class_names(read_lines(path, LIST_BYTES), path)
    if len(names) != classes:
        raise BadInput(f"{path}: {len(names)} names for {classes} classes.")
    return names
