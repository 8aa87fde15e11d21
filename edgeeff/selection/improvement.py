"""A bundle's network goes on learning from frames that a camera collected, and is held to the bundle that it comes of.

It is its own teacher: the teacher sees every photo in the light that it was trained in, the student in that light or in that of
the frames. So each block of the student comes to give for a frame what it gave for the same frame in its own light. Photos that the
network knows are learned from beside the frames, lest it forget them. Where frames have labels, they count as well.

What ships is judged on photos that nothing was learned from, beside the bundle before: old ones, and frames. Frames without
labels are judged by what the network says of them in its own light, which is no truth.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ..bundle import Bundle
from ..context import Context, NetworkContext
from ..data.images import UNLABELLED, ImageSet, PixelFile, Predict
from ..data.light import Relighting, relit
from ..errors import AccuracyGateFailed
from ..export.onnx import from_onnx
from ..manifest import Improvement
from ..measurement.accuracy import Gate, StepReport, rank
from ..network import checkpoint, distributed
from ..network.architecture import Variant
from ..network.distill import Distillation, PhotoSource, distilled
from ..network.model import EfficientNet, predict
from ..network.reduce import Reduction, reduced_variant
from ..network.variants import variant
from .outcome import Outcome

JUDGING = 0.25  # of the frames, or of those with labels, are not learned from: they judge
OLD = 800  # photos, at most, that are learned from beside the frames
SAMPLES, PEAK_LR = 8000, 5e-5  # photos, each counted as often as it is seen, and the highest learning rate
LABELS = 1.0  # weight of the labels beside the teacher's answers
MODEL = "model.onnx"


@dataclass(frozen=True)
class Improving:
    """What an improvement begins with. `learning` and `judging` are parts of the frames; UNLABELLED are labels of those without."""

    context: Context
    before: Bundle
    teacher: EfficientNet
    learning: ImageSet
    judging: ImageSet

    @classmethod
    def of(cls, context: Context, bundle: str | Path) -> Improving:
        """Raises BadInput for a bundle that has no network to go on with, and for labels that are none of its classes."""
        before, collected = Bundle.open(bundle), context.photos.collected
        assert collected is not None  # a job that improves has frames
        facts = before.manifest
        teacher = from_onnx(before.path / MODEL, network_of(before), facts.classes)
        *others, last = (each.labelled_for(facts.classes, before.labels) for each in collected.sets)
        learning, judging = last.split(JUDGING, context.job.seed)  # only frames with labels judge, where there are any
        return cls(context, before, teacher, _together([*others, learning]), judging)

    @cached_property
    def light(self) -> Relighting:
        """Between that of the calibration photos and that of the frames."""
        own, preprocess = self.context.photos.calibration, self.before.preprocess
        return Relighting.between(self.context.pixels(own, preprocess), self.context.pixels(self.learning, preprocess))

    def learn(self) -> EfficientNet:
        """The network, which has learned from the frames; it is kept in the stage cache."""
        context, job, preprocess = self.context, self.context.job, self.before.preprocess

        def make(folder: Path) -> None:
            facts = self.before.manifest
            known = context.photos.learning.draw(OLD, job.seed)
            if known.labels:
                known = known.labelled_for(facts.classes, self.before.labels)
            photos = _together([known, self.learning])
            context.progress.say(f"learn from {len(self.learning)} frames and {len(known)} photos that the network knows")
            labels = LABELS if photos.labels else 0.0
            epochs = max(1, round(SAMPLES / len(photos)))
            recipe = Distillation(epochs, PEAK_LR, flip=job.flip, seed=job.seed, labels=labels, light=self.light)
            source = PhotoSource(photos, preprocess, job.max_corrupt)
            state = context.cache.root / "improvement.pt"
            arguments = (self.teacher, copy.deepcopy, source, recipe, state)
            made = distributed.together(distilled, *arguments, seconds=60 * job.time_budget, progress=context.progress)
            checkpoint.save(made[0], folder / "weights.safetensors", preprocess, self.before.labels)

        weights = context.cache.once("improved", make) / "weights.safetensors"
        return checkpoint.load(weights, self.teacher.variant)[0].eval()

    def judge(self, outcome: Outcome) -> Outcome:
        """The outcome with what came of it; raises AccuracyGateFailed, but for --accept, where it lost on old photos or frames."""
        context, form = self.context, outcome.shipped
        target, preprocess = context.target, form.preprocess
        shipped = target.runtime.load(form.file, precision=form.precision, threads=target.threads, throughput=True)
        photos = (context.photos.test or context.photos.validation).labelled_for(self.before.manifest.classes, self.before.labels)
        frames = context.pixels(self.judging, preprocess)
        labelled = frames.images.labels is not None
        if not labelled:
            own = predict(self.teacher, preprocess)
            said = rank(lambda pixels: own(relit(pixels, self.light.to_own)), frames)[:, 0]
            frames.images = replace(frames.images, labels=tuple(said.tolist()))
        old = self._beside(shipped, context.pixels(photos, preprocess), context.job.max_drop, "old photos")
        new = self._beside(shipped, frames, 0.0, "frames")
        refusals = [after.refusal for _, after in (old, new) if not after.passed]
        if refusals and not context.job.accept:
            raise AccuracyGateFailed(f"no better than {context.job.improve}: {' '.join(refusals)}")
        made = Improvement(
            before=self.before.manifest.date,
            frames=len(self.learning) + len(self.judging),
            labelled=labelled,
            left_out=context.photos.collected.left_out if context.photos.collected else 0,
            old=old,
            new=new,
        )
        return replace(outcome, improvement=made, verdict=f"{outcome.verdict} {made}")

    def _beside(self, shipped: Predict, photos: PixelFile, max_drop: float, what: str) -> tuple[StepReport, StepReport]:
        """The bundle before and what ships now, on the same photos."""
        gate = Gate(photos, max_drop=max_drop, min_agreement=self.context.job.min_agreement, progress=self.context.progress)
        return gate.judge(f"before, {what}", self.before.load(throughput=True)), gate.judge(f"improved, {what}", shipped)


def network_of(bundle: Bundle) -> Variant:
    """The variant of a bundle's network, without what was left out of it."""
    facts = bundle.manifest
    whole = replace(variant(facts.variant), activation=facts.activation)
    return reduced_variant(whole, Reduction(facts.resolution, facts.left_out))


def judge_improved(context: NetworkContext, outcome: Outcome) -> Outcome:
    """The outcome, of a job that improves a bundle held to that; of any other as it was."""
    return Improving.of(context, context.job.improve).judge(outcome) if context.job.improve else outcome


def _together(sets: list[ImageSet]) -> ImageSet:
    """All photos; where some have labels, UNLABELLED stands for those of the others."""
    paths = tuple(photo for each in sets for photo in each.paths)
    if all(each.labels is None for each in sets):
        return ImageSet(sets[0].root, paths, None)
    labels = (label for each in sets for label in (each.labels or (UNLABELLED,) * len(each)))
    return ImageSet(sets[0].root, paths, tuple(labels))
