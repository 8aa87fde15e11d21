"""What the stages of a fit share: the job, the device, the photos, and where finished work is kept."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

from . import backends
from .budget import Budget
from .bundle import Bundle, replaceable
from .data.calibration import Calibration
from .data.collected import Collected
from .data.images import ImageSet, PixelFile, readable, unseen
from .data.preprocess import Preprocess
from .errors import BadInput, ToolMissing
from .files import StageCache, read_file, user_path
from .job import Job
from .machine import LOCAL, Machine
from .measurement.accuracy import Gate
from .measurement.system_state import device
from .network.architecture import Variant
from .network.checkpoint import CHECKPOINT_BYTES
from .progress import Progress
from .target import Target

TEST, VALIDATION = 0.15, 0.15  # shares of --photos that judge once, and every step; the others train
LEARNING = 4000  # photos that a network recovers on, at most
NOT_INPUTS = (
    "val",
    "test",
    "hold_out",
    "out",
    "budget",
    "labels",
    "max_drop",
    "max_class_drop",
    "min_agreement",
    "false_alarms",
    "variants",
    "activation",
    "adapt",
    "accept",
    "log",
)


@dataclass(frozen=True)
class Photos:
    """Opened, labelled alike, and disjoint by content. `calibration` sets ranges, networks recover on `learning`, and `test` judges
    what ships, once, after every choice. A bundle is improved by those that a camera `collected`."""

    validation: ImageSet
    calibration: ImageSet
    learning: ImageSet
    training: ImageSet | None
    test: ImageSet | None = None
    collected: Collected | None = None

    def __str__(self) -> str:
        """How many there are of each kind, by class where they have labels."""
        sets = {"training": self.training, "calibration": self.calibration if self.training is None else None}
        sets |= {"validation": self.validation, "test": self.test}
        classes = f"{self.classes} classes; " if self.classes else ""
        return f"photos: {classes}{'; '.join(f'{name} {_counted(each)}' for name, each in sets.items() if each)}"

    @property
    def classes(self) -> int | None:
        """How many the training photos have."""
        return None if self.training is None else _number_of_classes(self.training)


@dataclass(frozen=True, kw_only=True)
class Context:
    """What every stage needs. `machine` is where latency is measured; `cache` keeps what is finished, for the same job only."""

    job: Job
    target: Target
    budget: Budget
    recipe: Calibration
    photos: Photos
    machine: Machine
    cache: StageCache
    progress: Progress

    @classmethod
    def of(cls, job: Job, machine: Machine, progress: Progress) -> Context:
        """Everything opened and checked; raises the reason why the job cannot be done before anything is trained or measured."""
        if job.log:
            job.log.require()
        target = Target.load(job.target)
        _require_device(job, target, machine)
        out = Path(job.out).resolve()
        if older := replaceable(out):
            made = f"{older.variant} at {older.resolution} px, {older.precision}, of {older.date}"
            progress.say(f"{job.out} holds a bundle ({made}): it stays until this fit is done, which then replaces it.")
        recipe = Calibration.load(job.calibration)
        photos = open_photos(job, recipe, progress)
        progress.say(str(photos))
        return cls(
            job=job,
            target=target,
            budget=job.budget if job.adapt == "auto" else target.budget(job.budget),
            recipe=recipe,
            photos=photos,
            machine=machine,
            cache=StageCache.open(out, _inputs(job, target, recipe, photos)),
            progress=progress,
        )

    @property
    def trains_with(self) -> str | None:
        """The activation that a network with Swish is trained with instead: that of the form that is to ship. None: Swish."""
        if self.photos.training is None or self.job.activation == "keep":
            return None
        return self.target.activation if self.job.activation in (None, "auto") else self.job.activation

    @property
    def int8_overflows(self) -> bool:
        """Whether OpenVINO's INT8 sums can overflow where files are judged or where they are measured."""
        return self.target.judge == "openvino" and (
            device().int8_overflows or self.machine.facts(self.target.judge).device.int8_overflows
        )

    def gate_on(self, pixels: PixelFile) -> Gate:
        """A gate with the job's limits; its first step is the float network."""
        job = self.job
        return Gate(
            pixels,
            max_drop=job.max_drop,
            min_agreement=job.min_agreement,
            max_class_drop=job.max_class_drop,
            progress=self.progress,
        )

    def pixels(self, images: ImageSet, preprocess: Preprocess) -> PixelFile:
        """Photos decoded once for a network."""
        return PixelFile(images, preprocess, max_corrupt=self.job.max_corrupt, progress=self.progress)


@dataclass(frozen=True, kw_only=True)
class NetworkContext(Context):
    """What the stages need that work on one trained network. `original` is the variant as it was trained; `deadline`, of
    time.monotonic(), ends the search for INT8. `prepared` are the calibration and the validation photos, decoded for each network.
    """

    preprocess: Preprocess
    calibration: PixelFile
    gate: Gate
    original: Variant
    deadline: float
    prepared: dict[Preprocess, tuple[PixelFile, PixelFile]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.prepared[self.preprocess] = self.calibration, self.gate.pixels

    def at(self, preprocess: Preprocess) -> NetworkContext:
        """For the same network in another resolution: the same photos, prepared for that once."""
        if preprocess not in self.prepared:
            sets = self.calibration.images, self.gate.pixels.images
            self.prepared[preprocess] = self.pixels(sets[0], preprocess), self.pixels(sets[1], preprocess)
        calibration, validation = self.prepared[preprocess]
        return replace(self, preprocess=preprocess, calibration=calibration, gate=self.gate.on(validation))

    @property
    def swap_to(self) -> str | None:
        """The activation that the network may be given where INT8 misses the gate."""
        return None if self.job.activation == "keep" else self.target.activation


def open_photos(job: Job, recipe: Calibration, progress: Progress) -> Photos:
    """The photos of a job; raises BadInput where they do not suit each other."""
    training, validation, test = _opened(job)
    if training is not None:
        judging = [validation, test] if job.hold_out and test else [validation]
        training = _training(job, training, judging, progress)
        validation = validation.labelled_for(_number_of_classes(training), training.classes)
    source = unseen(ImageSet.open(job.calib), validation) if job.calib else training
    assert source is not None  # a job has one of the two
    unlabelled = unseen(ImageSet.open(job.unlabelled), validation) if job.unlabelled else None
    if test is not None:
        for other in filter(None, (validation, source, training, unlabelled)):
            unseen(test, other)
    learning = source.joined(unlabelled) if unlabelled else source
    collected = _collected(job, [validation, *([test] if test else [])], progress)
    return Photos(validation, recipe.take(source, job.seed), learning.draw(LEARNING, job.seed), training, test, collected)


def _collected(job: Job, judging: Sequence[ImageSet], progress: Progress) -> Collected | None:
    """The frames to improve a bundle by; raises BadInput where they are too few, or where some of them judge."""
    if not job.collected:
        return None
    listing = Path(job.frame_labels) if job.frame_labels else None
    found = Collected.open(Path(job.collected), listing, max_corrupt=job.max_corrupt, progress=progress)
    for frames in found.sets:
        for photos in judging:
            unseen(frames, photos)
    labelled = f"; {len(found.labelled)} with labels" if found.labelled else ""
    progress.say(f"frames: {sum(map(len, found.sets))} different ones{labelled}; {found.left_out} like others, left out")
    return found


def _opened(job: Job) -> tuple[ImageSet | None, ImageSet, ImageSet | None]:
    """The photos that train, those that judge every step, and those that judge once."""
    if job.photos:
        return _split(job, ImageSet.open(job.photos))
    assert job.val is not None  # a job has one of the two
    validation = ImageSet.open(job.val)
    training = ImageSet.open(job.train) if job.train else None
    test = ImageSet.open(job.test) if job.test else None
    if job.hold_out:
        validation, test = _held_out(job, validation)
    return training, validation, test


def _split(job: Job, photos: ImageSet) -> tuple[ImageSet, ImageSet, ImageSet]:
    """One folder's photos as `_opened` gives them; raises BadInput where a class has too few for that."""
    if photos.labels is None:
        raise BadInput(f"{photos.root}: unlabelled photos cannot train. Expected DIR/CLASS/*.jpg or labels.txt.")
    test, validation, training = photos.parts((TEST, VALIDATION), job.seed, least=1)
    for label, count in sorted(Counter(photos.labels).items()):
        if not all(label in (part.labels or ()) for part in (test, validation, training)):
            raise BadInput(
                f"{photos.root}: class {photos.name(label)!r} has {count} photos, too few to train on and to judge by. "
                "Expected 3 different ones or more in each class."
            )
    return training, validation, test


def _held_out(job: Job, photos: ImageSet) -> tuple[ImageSet, ImageSet]:
    """The photos that judge every step, and those that judge once; raises BadInput where that leaves none on one side."""
    validation, test = photos.split(job.hold_out, job.seed)
    if not validation or not test:
        raise BadInput(f"--hold-out {job.hold_out:g} of {len(photos)} photos leaves none on one side. Give more photos.")
    return validation, test


def versions() -> dict[str, str]:
    """Of everything that a result depends on."""
    return {name: version(name) for name in ("edgeeff", "openvino", "onnxruntime", "nncf", "torch", "onnx", "numpy", "pillow")}


def _training(job: Job, training: ImageSet, judging: Sequence[ImageSet], progress: Progress) -> ImageSet:
    """The training photos that can be read and are in none of the sets that judge."""
    if training.labels is None:
        raise BadInput(f"{training.root}: unlabelled photos cannot train. Expected DIR/CLASS/*.jpg or labels.txt.")
    training = readable(training, max_corrupt=job.max_corrupt, progress=progress)
    for photos in judging:
        training = unseen(training, photos, allowed=0.01, progress=progress)
    if set(training.labels or ()) != set(range(max(2, _number_of_classes(training)))):
        raise BadInput(f"{training.root}: expected photos of at least two classes, numbered from 0 without gaps.")
    return training


def _number_of_classes(images: ImageSet) -> int:
    return len(images.classes) or max(images.labels or (0,)) + 1


def _counted(images: ImageSet) -> str:
    """The number of photos, and those of the smallest and the largest class, such as "720 (40 of rose to 80 of tulip)"."""
    if images.labels is None:
        return str(len(images))
    counts = Counter(images.labels)
    least, most = min(counts, key=lambda label: counts[label]), max(counts, key=lambda label: counts[label])
    if counts[least] == counts[most]:
        return f"{len(images)} ({counts[least]} of each class)"
    return f"{len(images)} ({counts[least]} of {images.name(least)} to {counts[most]} of {images.name(most)})"


def _require_device(job: Job, target: Target, machine: Machine) -> None:
    for runtime in (target.judge, "onnxruntime"):
        if missing := backends.get(runtime).available():
            raise ToolMissing(missing)
    if target.compiles_on_device and job.hold_out and not backends.get(target.backend).available():
        raise BadInput("--hold-out: engines are chosen by all of --val here. Give --test, other photos.")
    if target.compiles_on_device and "auto" in (job.activation, job.adapt):
        option = "activation" if job.activation == "auto" else "adapt"
        raise BadInput(f"--{option} auto compares latencies, and {target.name} is not here to measure: choose another.")
    if not target.compiles_on_device and machine is LOCAL and not target.here:
        raise BadInput(f"target {target.name} is not this machine ({device().cpu}): --on USER@HOST measures there.")


def _inputs(job: Job, target: Target, recipe: Calibration, photos: Photos) -> dict[str, object]:
    """Everything that the intermediate results depend on."""
    weights = None
    if job.weights is not None:
        with user_path(job.weights, "read"):
            local = Path(job.weights).is_file()
        weights = hashlib.sha256(read_file(job.weights, CHECKPOINT_BYTES)).hexdigest() if local else None
    improved = Bundle.open(job.improve).manifest.date if job.improve else None
    sets = {k: s.sha256 if s else None for k, s in vars(photos).items() if k not in ("validation", "test")}
    options = {k: repr(value) for k, value in asdict(job).items() if k not in NOT_INPUTS}
    facts = {"job": options, "recipe": repr(recipe), "target": repr(target), "versions": versions()}
    return {**facts, "weights_sha256": weights, "improved": improved, **sets}
