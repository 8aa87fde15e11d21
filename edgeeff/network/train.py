"""Training on labelled photos, from published weights or from scratch.

AdamW, one warm-up and a cosine, label smoothing, random crops, mirroring and colours; the result is the exponential moving average
(EMA) of the weights. Seeded; the state is saved after every epoch, and an interrupted run resumes from there with the same outcome.

A small share of the photos of each class is held back: no step learns from them, nothing is chosen by them, and they show after
every epoch how the average does on photos that it has not learnt.
"""

from __future__ import annotations

import copy
import math
import os
import random
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple, dataclass
from itertools import chain, count, islice, pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..data.crops import random_box
from ..data.images import ImageSet, PixelFile, Pixels
from ..data.photos import Photo
from ..data.preprocess import INTERPOLATIONS, Preprocess, open_photo, upright_rgb
from ..errors import EdgeeffError
from ..progress import SILENT, Progress
from . import accelerator
from . import distributed as parallel
from .accelerator import accelerated
from .learner import Learner
from .model import Deployed, EfficientNet, channels_last

DECAY = 0.998  # of the average of the weights, at each step
HELD_BACK, MOST_HELD_BACK = 0.05, 500  # share and number of the photos; none of a class of fewer than 11
TIMED_STEPS = 3


@dataclass(frozen=True)
class Recipe:
    """How to train. `lr` is the peak learning rate; `flip` mirrors photos at random (not for digits, text or arrows)."""

    epochs: int
    lr: float
    batch: int = 32
    flip: bool = True
    smoothing: float = 0.1
    weight_decay: float = 0.02
    stochastic_depth: float = 0.1
    seed: int = 0

    @classmethod
    def fine_tune(cls, epochs: int | None, lr: float | None, *, flip: bool, seed: int) -> Recipe:
        """For published weights; None stands for the usual 10 epochs and learning rate of 0.001."""
        return cls(10 if epochs is None else epochs, 1e-3 if lr is None else lr, flip=flip, seed=seed)

    @classmethod
    def from_scratch(cls, epochs: int | None, lr: float | None, *, flip: bool, seed: int) -> Recipe:
        """For random weights; None stands for the usual 40 epochs and learning rate of 0.003."""
        return cls(40 if epochs is None else epochs, 3e-3 if lr is None else lr, flip=flip, seed=seed)


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to: the mean of its batches' losses, which the network is trained on, with smoothed labels, and the top-1
    accuracy on the photos that are held back, in percent; None without such photos."""

    loss: float
    right: float | None = None


def train(
    model: EfficientNet, preprocess: Preprocess, images: ImageSet, recipe: Recipe, checkpoint: Path, *, progress: Progress = SILENT
) -> tuple[EfficientNet, list[Epoch]]:
    """Train on `images`; returns the averaged network, in eval mode, and its epochs. `checkpoint` stores the state between.

    Raises EdgeeffError where the loss becomes infinite or NaN.
    """
    progress = progress if parallel.rank() == 0 else SILENT
    with accelerated(model):
        torch.manual_seed(recipe.seed)
        learner = _learner(model, preprocess, recipe)
        student = learner.network
        held_back, images = apart(images, recipe.seed)
        unseen = PixelFile(held_back, preprocess) if held_back else None
        batches = max(1, len(images) // recipe.batch)
        history: list[Epoch] = []
        if checkpoint.exists():
            history = [Epoch(*each) for each in learner.resume(checkpoint)["epochs"]]
        done = len(history)
        if done:
            progress.say(f"train: resumed after epoch {done} of {recipe.epochs}")
        replica = parallel.replicate(student)
        start = time.monotonic()
        for epoch in range(done, recipe.epochs):
            torch.manual_seed(recipe.seed + epoch)
            student.train()
            losses = []
            loader = _batches(images, preprocess, recipe, epoch)
            for i, (pixels, labels) in enumerate(progress.track(loader, f"epoch {epoch + 1}/{recipe.epochs}", batches)):
                size = parallel.total([len(labels)])[0]
                loss = _loss(replica, pixels, labels, recipe.smoothing) * (len(labels) * parallel.world() / size)
                learner.step(loss, recipe.lr * _schedule(epoch * batches + i, recipe.epochs * batches))
                losses.append(loss.item())
            mean = sum(parallel.total(losses)) / len(losses) / parallel.world()
            if not math.isfinite(mean):
                raise EdgeeffError(f"training diverged in epoch {epoch + 1}: the loss is {mean}. Lower --lr (now {recipe.lr:g}).")
            history.append(Epoch(mean, _right(learner.averaged, unseen) if unseen else None))
            if parallel.rank() == 0:
                learner.save(checkpoint, {"epochs": [astuple(each) for each in history]})
            left = (time.monotonic() - start) / (epoch + 1 - done) * (recipe.epochs - epoch - 1)
            right = f"{history[-1].right:.0f}% of {len(unseen)} held-back photos right, " if unseen else ""
            progress.say(f"epoch {epoch + 1}/{recipe.epochs}: loss {mean:.3f}, {right}{left / 60:.1f} min left")
            progress.expect(left)
        return learner.averaged.model.eval().cpu(), history


def apart(images: ImageSet, seed: int) -> tuple[ImageSet, ImageSet]:
    """The photos that are held back from training, and the others."""
    held_back, others = images.parts((min(HELD_BACK, MOST_HELD_BACK / len(images)),), seed)
    return held_back, others


def finished_epochs(checkpoint: Path) -> int:
    """How many epochs of an interrupted training are done."""
    return len(torch.load(checkpoint, map_location="cpu", weights_only=True)["epochs"]) if checkpoint.exists() else 0


def epoch_seconds(model: EfficientNet, preprocess: Preprocess, images: ImageSet, recipe: Recipe) -> float:
    """About how long an epoch of `train` takes here, by the time of some steps of a copy, decoding and augmenting included."""
    _, images = apart(images, recipe.seed)
    copied = copy.deepcopy(model)
    with accelerated(copied):
        learner = _learner(copied, preprocess, recipe)
        learner.network.train()
        starts = []
        batches = chain.from_iterable(_batches(images, preprocess, recipe, epoch) for epoch in count())
        for pixels, labels in islice(batches, TIMED_STEPS + 1):
            loss = _loss(learner.network, pixels, labels, recipe.smoothing)
            learner.step(loss, recipe.lr)
            loss.item()  # waits for a GPU
            starts.append(time.monotonic())
    return max(1, len(images) // recipe.batch) * statistics.median(later - earlier for earlier, later in pairwise(starts))


def training_resolution(resolution: int) -> int:
    """The size of training crops: 5/7 of the size the network is used at, up to the next multiple of 32.

    Random crops show objects larger than the centre crop does; training at a smaller size evens that out, and costs half.
    Source: Touvron et al. 2019, arXiv:1906.06423.
    """
    return 32 * math.ceil(resolution * 5 / 7 / 32)


def _learner(model: EfficientNet, preprocess: Preprocess, recipe: Recipe) -> Learner[Deployed]:
    """What trains `model` in place."""
    student = channels_last(Deployed(model, preprocess))
    learner = Learner(student, _optimizer(student, recipe), DECAY)
    learner.averaged.eval()
    model.set_stochastic_depth(recipe.stochastic_depth)
    return learner


@torch.inference_mode()
def _right(network: torch.nn.Module, photos: PixelFile) -> float:
    """Percent of the photos that get their label."""
    answers = torch.cat([network(torch.from_numpy(batch)).argmax(1).cpu() for batch in photos.batches(32)])
    return 100 * float((answers == torch.tensor(photos.images.labels)).float().mean())


def _loss(student: torch.nn.Module, pixels: Pixels, labels: Tensor, smoothing: float) -> Tensor:
    with accelerator.autocast(accelerator.computes_bf16()):
        answer = student(torch.from_numpy(pixels))
    return F.cross_entropy(answer.float(), labels.to(answer.device), label_smoothing=smoothing)


def _optimizer(module: torch.nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW that decays the weights of the convolutions and the classifier, but not biases and batch norms."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=recipe.lr,
    )


def _schedule(step: int, steps: int) -> float:
    """Share of the peak rate: linear over the first tenth, then half a cosine to zero."""
    warm = max(1, steps // 10)
    return (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _batches(images: ImageSet, preprocess: Preprocess, recipe: Recipe, epoch: int) -> Iterator[tuple[Pixels, Tensor]]:
    """Shuffled, augmented batches of one epoch, two decoded ahead while the network computes; a short last one is left out."""
    rng = random.Random(f"{recipe.seed}-{epoch}")
    order = rng.sample(range(len(images)), len(images))
    chunks = [order[i : i + recipe.batch] for i in range(0, len(order), recipe.batch)]
    if len(chunks) > 1 and len(chunks[-1]) < recipe.batch:
        chunks.pop()
    assert images.labels is not None
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pending: list[tuple[list[Future[Pixels]], Tensor]] = []
        for chunk in chunks:
            own = parallel.share([(i, rng.random()) for i in chunk])
            jobs = [pool.submit(_augmented, images.paths[i], preprocess, recipe.flip, seed) for i, seed in own]
            pending.append((jobs, torch.tensor([images.labels[i] for i, _ in own])))
            if len(pending) > 2:
                yield _collect(*pending.pop(0))
        for batch in pending:
            yield _collect(*batch)


def _collect(jobs: list[Future[Pixels]], labels: Tensor) -> tuple[Pixels, Tensor]:
    return np.stack([job.result() for job in jobs]), labels


def _augmented(photo: Photo, preprocess: Preprocess, flip: bool, seed: float) -> Pixels:
    """A random crop, mirrored and recoloured at random: `(r, r, 3)` uint8 at the training resolution r."""
    rng = random.Random(seed)
    side = training_resolution(preprocess.resolution)
    with open_photo(photo) as opened:
        opened.draft("RGB", (2 * side, 2 * side))  # lets libjpeg decode a large photo at a fraction of its size
        image = upright_rgb(opened)
    image = image.resize((side, side), INTERPOLATIONS[preprocess.interpolation], random_box(rng, *image.size))
    if flip and rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(image, np.float32)
    grey = pixels.mean(-1, keepdims=True)
    brightness, contrast, saturation = (rng.uniform(0.7, 1.3) for _ in range(3))
    pixels = (grey + (pixels - grey) * saturation - 128) * contrast + 128 * brightness
    out: Pixels = pixels.clip(0, 255).astype(np.uint8)
    return out if preprocess.colour == "RGB" else out[..., ::-1]
