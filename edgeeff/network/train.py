"""Training on a labelled folder: from published weights, or from scratch.

AdamW, one warm-up and a cosine, label smoothing, random crops, flips and colours, an average of the weights (EMA) as the result.
Seeded; saved after every epoch, and resumed from there with the same outcome as a run that was not interrupted.
"""

from __future__ import annotations

import copy
import io
import math
import os
import random
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..data.images import INTERPOLATIONS, ImageSet, Pixels, Preprocess, upright_rgb
from ..errors import EdgeeffError
from ..files import write_whole
from ..progress import SILENT, Progress
from . import distributed as parallel
from .model import Deployed, EfficientNet, channels_last


@dataclass(frozen=True)
class Recipe:
    """How to train. `lr` is the peak; `flip` mirrors photos at random (not for digits, text or arrows)."""

    epochs: int
    lr: float
    batch: int = 32
    flip: bool = True
    smoothing: float = 0.1
    weight_decay: float = 0.02
    stochastic_depth: float = 0.1
    seed: int = 0

    @classmethod
    def fine_tune(cls, **changes: Any) -> Recipe:
        return cls(**{"epochs": 10, "lr": 1e-3, **changes})

    @classmethod
    def from_scratch(cls, **changes: Any) -> Recipe:
        return cls(**{"epochs": 40, "lr": 3e-3, **changes})


def train(
    model: EfficientNet, preprocess: Preprocess, images: ImageSet, recipe: Recipe, checkpoint: Path, *, progress: Progress = SILENT
) -> EfficientNet:
    """Train on all of `images`; returns the averaged network, in eval mode. `checkpoint` holds the state between epochs."""
    progress = progress if parallel.rank() == 0 else SILENT
    torch.manual_seed(recipe.seed)
    student = channels_last(Deployed(model, preprocess))
    average = copy.deepcopy(student).eval()
    model.set_stochastic_depth(recipe.stochastic_depth)
    optimizer = torch.optim.AdamW(_groups(student, recipe.weight_decay), lr=recipe.lr)
    batches = max(1, len(images) // recipe.batch)
    steps = recipe.epochs * batches
    done = 0
    state: dict[str, Any] = {"student": student, "average": average, "optimizer": optimizer}
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        done = saved["epochs"]
        for name, part in state.items():
            part.load_state_dict(saved[name])
        progress.say(f"train: resumed after epoch {done} of {recipe.epochs}")
    replica = parallel.replicate(student)
    start = time.monotonic()
    for epoch in range(done, recipe.epochs):
        torch.manual_seed(recipe.seed + epoch)
        student.train()
        losses = []
        loader = _batches(images, preprocess, recipe, epoch)
        for i, (pixels, labels) in enumerate(progress.track(loader, f"epoch {epoch + 1}/{recipe.epochs}", batches)):
            step = epoch * batches + i
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * _schedule(step, steps)
            size = parallel.total([len(labels)])[0]
            loss = _loss(replica, pixels, labels, recipe.smoothing) * (len(labels) * parallel.world() / size)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(student.parameters(), 5.0)
            optimizer.step()
            _follow(average, student, min(0.998, (1 + step) / (10 + step)))
            losses.append(loss.item())
        mean = sum(parallel.total(losses)) / len(losses) / parallel.world()
        if not math.isfinite(mean):
            raise EdgeeffError(f"training diverged in epoch {epoch + 1}: the loss is {mean}. Lower --lr (now {recipe.lr:g}).")
        buffer = io.BytesIO()
        torch.save({"epochs": epoch + 1, **{name: part.state_dict() for name, part in state.items()}}, buffer)
        if parallel.rank() == 0:
            write_whole(checkpoint, buffer.getvalue())
        left = (time.monotonic() - start) / (epoch + 1 - done) * (recipe.epochs - epoch - 1)
        progress.say(f"epoch {epoch + 1}/{recipe.epochs}: loss {mean:.3f}, {left / 60:.1f} min left")
    trained = average.model
    assert isinstance(trained, EfficientNet)
    return trained.eval()


def training_resolution(resolution: int) -> int:
    """The size of training crops: 5/7 of the size the network is used at, up to the next multiple of 32.

    Random crops show objects larger than the centre crop does; training at a smaller size evens that out, and costs half.
    Source: Touvron et al. 2019, arXiv:1906.06423.
    """
    return 32 * math.ceil(resolution * 5 / 7 / 32)


def _loss(student: torch.nn.Module, pixels: Pixels, labels: Tensor, smoothing: float) -> Tensor:
    return F.cross_entropy(student(torch.from_numpy(pixels)), labels, label_smoothing=smoothing)


def _groups(module: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay the convolutions' and the classifier's weights; not biases and batch norms."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _schedule(step: int, steps: int) -> float:
    """Share of the peak rate: linear over the first tenth, then half a cosine to zero."""
    warm = max(1, steps // 10)
    return (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


@torch.no_grad()
def _follow(average: torch.nn.Module, student: torch.nn.Module, decay: float) -> None:
    for mean, value in zip(average.state_dict().values(), student.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


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


def _augmented(path: Path, preprocess: Preprocess, flip: bool, seed: float) -> Pixels:
    """A random crop of 35–100% of the area, mirrored and recoloured at random: `(r, r, 3)` uint8 at the training resolution r.

    Source: Szegedy et al. 2014, arXiv:1409.4842, §6 (crops).
    """
    rng = random.Random(seed)
    side = training_resolution(preprocess.resolution)
    with Image.open(path) as opened:
        opened.draft("RGB", (2 * side, 2 * side))  # lets libjpeg decode a large photo at a fraction of its size
        image = upright_rgb(opened)
    width, height = image.size
    area = width * height * rng.uniform(0.35, 1)
    aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    w, h = min(width, round(math.sqrt(area * aspect)) or 1), min(height, round(math.sqrt(area / aspect)) or 1)
    left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
    image = image.resize((side, side), INTERPOLATIONS[preprocess.interpolation], (left, top, left + w, top + h))
    if flip and rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(image, np.float32)
    grey = pixels.mean(-1, keepdims=True)
    brightness, contrast, saturation = (rng.uniform(0.7, 1.3) for _ in range(3))
    pixels = (grey + (pixels - grey) * saturation - 128) * contrast + 128 * brightness
    out: Pixels = pixels.clip(0, 255).astype(np.uint8)
    return out if preprocess.colour == "RGB" else out[..., ::-1]
