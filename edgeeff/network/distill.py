"""Distillation from the float network: after an activation swap, and as quantization-aware training. Labels are not needed.

The output of each of the student's blocks is matched to that of the teacher's, and so is the distribution of the logits. Matching
the logits alone made V2-B0 less accurate on 1000 photos (82.0 → 79.7); matching the blocks as well recovered all of it. Batch norms
keep their statistics. Both see the same random crop of a photo; where the student's resolution is lower, its blocks are matched to
the teacher's at that resolution, and its logits to those that the teacher gives at its own.

Sources: Romero et al. 2014, arXiv:1412.6550 (matching hidden layers); Hinton et al. 2015, arXiv:1503.02531 (matching logits).
"""

from __future__ import annotations

import copy
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ..data.crops import Box, random_box
from ..data.images import UNLABELLED, ImageSet, PixelFile, Pixels
from ..data.light import Relighting
from ..data.preprocess import INTERPOLATIONS, Preprocess
from ..errors import BadInput
from ..progress import SILENT, Progress
from . import accelerator
from . import distributed as parallel
from .accelerator import accelerated
from .folding import Folded
from .learner import Learner
from .model import EfficientNet

MIN_PHOTOS = 32
EVALUATION_BATCH = 32


class Sample(NamedTuple):
    """A photo by its index, whether it is mirrored, what is seen of it: a part, in pixels, or None for the centre, and whether the
    student sees it in the light of a camera's frames, where there is another."""

    photo: int
    mirrored: bool
    box: Box | None = None
    as_frame: bool = False


class Views(NamedTuple):
    """Samples as the student and as the teacher see them, `(N, H, W, 3)` uint8, and their labels `(N,)`, where there are any, of
    which UNLABELLED is none."""

    student: Tensor
    teacher: Tensor
    labels: Tensor | None


@dataclass(frozen=True)
class Distillation:
    """How to distil. `lr` is the peak of one cycle; `flip` mirrors photos at random; the averaged weights lag by `average` steps.
    `bf16` computes in bfloat16 what can be; the weights stay in float32.

    `held_back` is the share of the photos that no step learns from: the epoch that does best on them is kept. `labels` is the
    weight of the photos' own labels beside the teacher's logits. `counterparts` are the teacher's blocks, by index, whose outputs
    those of the student have to give; empty: the same. With `light` some of the photos are a camera's frames, and that is between
    their light and the others': the teacher sees every photo in its own, and the student in either.
    """

    epochs: int = 3
    lr: float = 5e-5
    batch: int = 16
    flip: bool = True
    average: int = 10
    held_back: float = 0.1
    labels: float = 0.0
    seed: int = 0
    counterparts: tuple[int, ...] = ()
    bf16: bool = False
    light: Relighting | None = None


@dataclass(frozen=True)
class Recovery:
    """Loss on the held-back photos before and after, finished epochs, seconds, and why it ended early if it did."""

    before: float
    after: float
    epochs: int
    seconds: float
    note: str = ""


@dataclass(frozen=True)
class PhotoSource:
    """Photos that are not decoded yet, as another process can be sent them."""

    images: ImageSet
    preprocess: Preprocess
    max_corrupt: float = 0.01


@dataclass
class _State:
    """Finished epochs, the loss on the held-back photos at first and at its least, and the weights with the least."""

    epochs: int
    before: float
    least: float
    best: dict[str, Tensor]


def distil(
    student: EfficientNet,
    teacher: EfficientNet,
    photos: PixelFile,
    recipe: Distillation,
    checkpoint: Path,
    *,
    seconds: float = math.inf,
    progress: Progress = SILENT,
) -> Recovery:
    """Train `student` in place to give the teacher's outputs. It ends as the best of its epochs, and at worst as it began.

    `photos` are at least as large as the teacher's resolution: of larger ones the networks see parts, and the centre when judged.
    `checkpoint` stores the state between epochs. After `seconds` it stops, the learning rate having gone down to zero by then.
    Raises BadInput for too few photos, and for a teacher whose blocks have other shapes.
    """
    if len(photos) < MIN_PHOTOS:
        raise BadInput(
            f"{photos.images.root}: {len(photos)} photos are too few to distil from: expected {MIN_PHOTOS}, unlabelled will do."
        )
    progress = progress if parallel.rank() == 0 else SILENT
    start = time.monotonic()
    torch.manual_seed(recipe.seed)
    held_back, learning = _split(len(photos), recipe)
    with accelerated(student, teacher):
        matching = Matching(student, teacher, photos, recipe)
        matching.measure(held_back)
        weights = [p for p in student.parameters() if p.requires_grad]
        learner = Learner(student, torch.optim.AdamW(weights, lr=recipe.lr, weight_decay=0.0), 1 - 1 / recipe.average)
        if checkpoint.exists():
            saved = learner.resume(checkpoint)
            state = _State(saved["epochs"], saved["before"], saved["least"], saved["best"])
            progress.say(f"distil: resumed after epoch {state.epochs} of {recipe.epochs}")
        else:
            loss = matching.evaluate(student, held_back)
            state = _State(0, loss, loss, copy.deepcopy(student.state_dict()))
            progress.say(f"distil: {len(learning)} photos; on {len(held_back)} others the loss is {loss:.4f}")
        run = _Run(learner, matching, parallel.replicate(matching), learning, recipe, start, seconds, progress)
        note = ""
        while state.epochs < recipe.epochs:
            note = run.epoch(state.epochs)
            loss = matching.evaluate(learner.averaged, held_back)
            if loss < state.least:
                state.least, state.best = loss, copy.deepcopy(learner.averaged.state_dict())
            if note:
                progress.say(f"distil: {note}; kept the best so far, {state.least:.4f}")
                break
            state.epochs += 1
            progress.say(f"distil {state.epochs}/{recipe.epochs}: {loss:.4f} on the held-back photos")
            if parallel.rank() == 0:
                learner.save(checkpoint, vars(state))
        student.load_state_dict(state.best)
    return Recovery(state.before, state.least, state.epochs, time.monotonic() - start, note)


def distilled(
    teacher: EfficientNet,
    student: Callable[[EfficientNet], EfficientNet],
    source: PhotoSource,
    recipe: Distillation,
    checkpoint: Path,
    *,
    seconds: float,
    progress: Progress = SILENT,
) -> tuple[EfficientNet, Recovery]:
    """`distil` from what every process can be sent; `student` makes one of the teacher."""
    learner = student(teacher)
    quiet = progress if parallel.rank() == 0 else SILENT
    photos = PixelFile(source.images, source.preprocess.uncropped, max_corrupt=source.max_corrupt, progress=quiet)
    return learner, distil(learner, teacher, photos, recipe, checkpoint, seconds=seconds, progress=progress)


@dataclass(frozen=True)
class _Run:
    """The epochs of one distillation. `loss` is `matching`, in as many processes as there are."""

    learner: Learner[EfficientNet]
    matching: Matching
    loss: nn.Module
    photos: list[int]
    recipe: Distillation
    start: float
    seconds: float
    progress: Progress

    def epoch(self, number: int) -> str:
        """Learn once from every photo; returns why it ended early, or an empty string."""
        recipe, size = self.recipe, min(self.recipe.batch, len(self.photos))
        batches = len(self.photos) // size
        looks = self._looks(number, batches, size)
        for i, own in enumerate(self.progress.track(looks, f"distil {number + 1}/{recipe.epochs}", batches)):
            step, steps, spent = number * batches + i, recipe.epochs * batches, (time.monotonic() - self.start) / self.seconds
            behind = spent > (step + 1) / steps  # while the time lasts, the clock changes nothing: the same weights each time
            lr = recipe.lr * _one_cycle(spent if behind else step / steps)
            loss = self.loss(own) * (len(own.student) * parallel.world() / size)
            late, broken = parallel.total([spent > 1, not math.isfinite(loss.item())])
            if late or broken:
                return "the time was up" if late else f"the loss became {loss.item()} in epoch {number + 1}"
            self.learner.step(loss, lr)
        return ""

    def _looks(self, number: int, batches: int, size: int) -> Iterator[Views]:
        """This process's part of each batch of an epoch; the next is prepared while the network computes."""
        rng, side = random.Random(f"{self.recipe.seed}-{number}"), self.matching.photos.preprocess.resolution
        order = rng.sample(self.photos, len(self.photos))
        samples = [Sample(i, self.recipe.flip and rng.random() < 0.5, random_box(rng, side, side)) for i in order]
        if self.recipe.light:
            samples = [sample._replace(as_frame=rng.random() < 0.5) for sample in samples]
        shares = [parallel.share(samples[i * size : (i + 1) * size]) for i in range(batches)]
        with ThreadPoolExecutor(1) as pool:
            following = pool.submit(self.matching.views, shares[0])
            for share in (*shares[1:], None):
                views = following.result()
                if share is not None:
                    following = pool.submit(self.matching.views, share)
                yield views


class Matching(nn.Module):
    """The loss of some samples: the sum over blocks of MSE / the teacher's variance, plus the KL divergence of the logits."""

    def __init__(self, student: EfficientNet, teacher: EfficientNet, photos: PixelFile, recipe: Distillation) -> None:
        super().__init__()
        self.student = Folded(student, photos.preprocess)
        # In a tuple, so that its parameters are not this module's.
        self._teacher = (Folded(teacher, photos.preprocess, learns=False),)
        self._resolutions = student.variant.resolution, teacher.variant.resolution
        self.photos, self._recipe = photos, recipe
        self.variances: list[float] = []

    @torch.no_grad()
    def measure(self, samples: Sequence[Sample]) -> None:
        """Set the scale of each block from some samples. Raises BadInput for a teacher whose blocks have other shapes."""
        views = self.views(samples[:EVALUATION_BATCH])
        theirs, ours = self._of_teacher(views), _outputs(self.student, views.student)
        shapes = [[tuple(o.shape[1:]) for o in outputs] for outputs in (ours, theirs)]
        if shapes[0] != shapes[1]:
            differ = [f"{a} for {b}" for a, b in zip(*shapes, strict=False) if a != b] or [
                f"{len(shapes[1])} blocks for {len(shapes[0])}"
            ]
            raise BadInput(f"the teacher has another shape than the student: {differ[0]}. Expected the same variant and classes.")
        self.variances = [float(output.var()) for output in theirs[:-1]]

    def views(self, samples: Sequence[Sample]) -> Views:
        """The samples' photos, at the resolution of either network."""
        smaller, larger = self._resolutions
        theirs = torch.from_numpy(np.stack([self._view(sample._replace(as_frame=False), larger) for sample in samples]))
        ours = theirs
        if smaller != larger or any(sample.as_frame for sample in samples):
            ours = torch.from_numpy(np.stack([self._view(sample, smaller) for sample in samples]))
        labels = self.photos.images.labels
        return Views(ours, theirs, None if labels is None else torch.tensor([labels[sample.photo] for sample in samples]))

    def forward(self, views: Views, student: Folded | None = None) -> Tensor:
        with accelerator.autocast(self._recipe.bf16):
            with torch.no_grad():
                *blocks, logits = self._of_teacher(views)
            *mine, answer = _outputs(student or self.student, views.student)
        loss = F.kl_div(answer.float().log_softmax(1), logits.float().log_softmax(1), log_target=True, reduction="batchmean")
        for a, b, variance in zip(mine, blocks, self.variances, strict=True):
            loss = loss + F.mse_loss(a.float(), b.float()) / variance
        if self._recipe.labels:
            assert views.labels is not None
            labels = views.labels.to(answer.device)
            wrong = F.cross_entropy(answer.float(), labels, ignore_index=UNLABELLED, reduction="sum")
            loss = loss + self._recipe.labels * wrong / len(answer)
        return loss

    @torch.no_grad()
    def evaluate(self, student: EfficientNet, samples: Sequence[Sample]) -> float:
        """The mean loss of `student`; each sample counts once, whatever the number of processes."""
        network = Folded(student, self.photos.preprocess, learns=False)
        own = parallel.share(samples)
        chunks = [own[i : i + EVALUATION_BATCH] for i in range(0, len(own), EVALUATION_BATCH)]
        losses, counted = parallel.total([sum(float(self(self.views(c), network)) * len(c) for c in chunks), len(own)])
        return losses / counted

    def _of_teacher(self, views: Views) -> list[Tensor]:
        """What the student's blocks have to give, and the logits."""
        same_size = views.student.shape == views.teacher.shape
        *blocks, logits = _outputs(self._teacher[0], views.teacher if same_size else views.student)
        if not same_size:
            logits = self._teacher[0](views.teacher)
        return [*(blocks[i] for i in self._recipe.counterparts or range(len(blocks))), logits]

    def _view(self, sample: Sample, resolution: int) -> Pixels:
        pixels, prepared = self.photos.rows(sample.photo, 1)[0], self.photos.preprocess
        margin = (len(pixels) - self._resolutions[1]) / 2
        box = sample.box or (margin, margin, len(pixels) - margin, len(pixels) - margin)
        filtered = Image.fromarray(pixels).resize((resolution, resolution), INTERPOLATIONS[prepared.interpolation], box)
        seen = np.asarray(filtered)
        if self._recipe.light:
            seen = self._recipe.light.seen(seen, self.photos.images.paths[sample.photo], as_frame=sample.as_frame)
        return seen[:, ::-1] if sample.mirrored else seen


def _split(photos: int, recipe: Distillation) -> tuple[list[Sample], list[int]]:
    """The samples that judge every epoch, and the indices of the photos to learn from; the same ones for the same seed."""
    order = random.Random(recipe.seed).sample(range(photos), photos)
    held_back = max(MIN_PHOTOS // 2, round(recipe.held_back * photos))
    lights = (False, True) if recipe.light else (False,)
    return [Sample(i, False, as_frame=light) for i in order[:held_back] for light in lights], order[held_back:]


def _outputs(network: Folded, images: Tensor) -> list[Tensor]:
    """The output of every block, and the logits."""
    outputs: list[Tensor] = []
    hooks = [b.register_forward_hook(lambda module, inputs, output: outputs.append(output)) for b in network.blocks]
    try:
        logits = network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return [*outputs, logits]


def _one_cycle(share: float) -> float:
    """Share of the peak learning rate at a share of the run: linearly up over the first three tenths, then half a cosine to zero.

    Source: Smith & Topin 2017, arXiv:1708.07120.
    """
    return 0.04 + 3.2 * share if share < 0.3 else 0.5 * (1 + math.cos(math.pi * (min(share, 1.0) - 0.3) / 0.7))
