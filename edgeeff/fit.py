"""The whole job: weights or photos, a target and a budget become a bundle whose file was judged and timed.

Read `fit` first. Each step is a plain call; a gate looks at the same validation photos after each.
"""

from __future__ import annotations

import datetime
import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from . import backends, bundle
from .accuracy import Gate, StepReport
from .bench import device
from .bundle import Bundle
from .errors import BadInput, BudgetNotMet, ToolMissing
from .images import ImageSet, PixelFile, Preprocess, readable, unseen
from .pick import Candidate, Choice, pick
from .progress import SILENT, Progress
from .target import Budget, Target
from .variants import VARIANTS, Padding, Variant, variant
from .verdict import Form, Ladder, Sibling, best, explain, timed
from .workspace import Workspace


@dataclass(frozen=True)
class Job:
    """What is asked for. Folders are labelled photos; `calib` may be unlabelled. `max_drop` is in points of top-1."""

    target: str | Path
    val: str | Path
    out: str | Path
    budget: Budget = field(default_factory=Budget)
    variants: Sequence[str] = ()
    weights: str | None = None
    train: str | Path | None = None
    calib: str | Path | None = None
    labels: str | Path | None = None
    resolution: int | None = None
    padding: Padding | None = None
    max_drop: float = 0.5
    min_agreement: float = 97.0
    max_corrupt: float = 0.01
    calibration_images: int = 300
    epochs: int | None = None
    lr: float | None = None
    flip: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.max_drop) and 0 <= self.max_drop <= 100):
            raise BadInput(f"--max-drop {self.max_drop}: expected 0 to 100 points.")
        if not 0 <= self.min_agreement <= 100:
            raise BadInput(f"--min-agreement {self.min_agreement}: expected 0 to 100 percent.")
        if not 0 <= self.max_corrupt < 1:
            raise BadInput(f"--max-corrupt {self.max_corrupt}: expected a share from 0 to below 1.")
        if (self.epochs is not None and self.epochs < 1) or self.calibration_images < 1:
            raise BadInput("--epochs and --calibration-images: expected 1 or more.")
        if self.lr is not None and not 0 < self.lr <= 1:
            raise BadInput(f"--lr {self.lr}: expected a rate above 0, at most 1.")
        if not self.train and not self.weights:
            raise BadInput("nothing to fit: give --weights (a trained checkpoint), --train (labelled photos), or both.")
        if self.labels and self.train:
            raise BadInput("--labels name the classes of weights; with --train the folders' names do.")
        if not self.train and not self.calib:
            raise BadInput(
                "INT8 needs photos for its ranges, not the validation ones: give --calib DIR (unlabelled will do) or --train DIR."
            )
        if self.weights and len(self.variants) != 1:
            raise BadInput("--weights belong to one variant: name it with --variant.")


@dataclass(frozen=True)
class Fit:
    """What came out: the bundle, and everything measured on the way."""

    bundle: Bundle
    variant: Variant
    shipped: Sibling
    steps: list[StepReport]
    siblings: list[Sibling]
    verdict: str
    choice: Choice | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "variant": self.variant.name,
            "resolution": self.variant.resolution,
            "precision": self.shipped.form.precision,
            "steps": [s.to_json() for s in self.steps],
            "latency_ms": self.shipped.latency.to_json(),
            "siblings": [s.to_json() for s in self.siblings],
            "bundle": str(self.bundle.path),
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class Photos:
    """Opened, labelled alike, and disjoint by content."""

    validation: ImageSet
    calibration: ImageSet
    training: ImageSet | None


def fit(job: Job, *, progress: Progress = SILENT) -> Fit:
    """Run the job; returns the published bundle with its figures, or raises the reason it was refused."""
    target, out = Target.load(job.target), Path(job.out).resolve()
    budget = job.budget if not job.budget.empty else replace(job.budget, latency_ms=target.latency_ms)
    for runtime in (target.backend, "onnxruntime"):
        if missing := backends.get(runtime).available():
            raise ToolMissing(missing)
    bundle.replaceable(out)
    photos = open_photos(job, progress)
    choice, variants = choose(job, target, budget, photos, progress)
    workspace = Workspace.open(out, fingerprint(job, target, photos))
    for i, candidate in enumerate(variants):
        try:
            result = fit_variant(job, target, budget, candidate, photos, workspace.within(candidate.name), progress)
        except BudgetNotMet as refusal:
            if i + 1 == len(variants):
                raise
            progress.say(f"{refusal} Trying {variants[i + 1].name}.")
            continue
        published = bundle.publish(result.bundle.path, out)
        workspace.remove()
        return replace(result, bundle=published, choice=choice)
    raise AssertionError("a choice holds at least one variant")


def fit_variant(
    job: Job, target: Target, budget: Budget, v: Variant, photos: Photos, workspace: Workspace, progress: Progress
) -> Fit:
    """One variant from weights to a finished bundle in the workspace."""
    from .export import to_onnx
    from .model import predict

    model, preprocess, names = trained_model(job, v, photos, workspace, progress)
    v = model.variant
    if broken := Candidate(v, model.classes).over(budget):
        raise BudgetNotMet(f"{v.name} at {v.resolution} px needs {' and '.join(broken)}; the budget is {budget}.")
    validation = photos.validation.labelled_for(model.classes, names)
    pixels = PixelFile(validation, preprocess, max_corrupt=job.max_corrupt, progress=progress)
    gate = Gate(pixels, max_drop=job.max_drop, min_agreement=job.min_agreement, progress=progress)

    gate.require("float", predict(model, preprocess))
    onnx = workspace.once("onnx", lambda folder: to_onnx(model, preprocess, folder / "model.onnx")) / "model.onnx"
    judged = gate.require("onnx", backends.get("onnxruntime").load(onnx, precision="float32", threads=target.threads))
    plain = workspace.once("float", partial(target.runtime.compile, onnx)) / "model.xml"
    ladder = quantized(job, target, plain, photos.calibration, preprocess, gate, workspace, progress)
    forms = [Form("float32", "onnxruntime", onnx, judged)]
    for precision in target.usable():
        file = ladder.file if precision.startswith("int8") else plain
        run = target.runtime.load(file, precision=precision, threads=target.threads, throughput=True)
        forms.append(Form(precision, target.backend, file, ladder.report if precision == "int8" else gate.judge(precision, run)))
    if ladder.reverted:
        forms.append(Form("int8 (all layers)", target.backend, ladder.whole, ladder.whole_report))
    siblings = timed(target, forms, next(pixels.batches(1)), progress)
    shipped = best(v, siblings, target, budget, gate)
    verdict = explain(shipped, siblings, ladder, budget, gate)

    facts = {
        "variant": v.name,
        "resolution": v.resolution,
        "classes": model.classes,
        "preprocess": preprocess.to_json(),
        "backend": target.backend,
        "target": target.name,
        "threads": target.threads,
        "model": shipped.form.file.name,
        "precision": shipped.form.precision,
        "budget": asdict(budget),
        "max_drop": job.max_drop,
        "steps": [r.to_json() for r in gate.reports],
        "latency_ms": shipped.latency.to_json(),
        "siblings": [s.to_json() for s in siblings],
        "remedy": ladder.remedy,
        "reverted_layers": ladder.reverted,
        "validation_sha256": validation.sha256,
        "calibration_sha256": photos.calibration.sha256,
        "verdict": verdict,
        "device": device(),
        "versions": versions(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    golden = next(pixels.batches(bundle.GOLDEN))
    folder = workspace.scratch("bundle")
    written = bundle.write(folder, target.runtime.files(shipped.form.file), onnx, names, golden, facts)
    return Fit(written, v, shipped, gate.reports, siblings, verdict)


def open_photos(job: Job, progress: Progress) -> Photos:
    validation = ImageSet.open(job.val)
    training = ImageSet.open(job.train) if job.train else None
    if training is not None:
        if training.labels is None:
            raise BadInput(f"{job.train}: unlabelled photos cannot train. Expected DIR/CLASS/*.jpg or labels.txt.")
        training = readable(training, max_corrupt=job.max_corrupt, progress=progress)
        training = unseen(training, validation, allowed=0.01, progress=progress)
        if set(training.labels or ()) != set(range(max(2, number_of_classes(training)))):
            raise BadInput(f"{job.train}: expected photos of at least two classes, numbered from 0 without gaps.")
        validation = validation.labelled_for(number_of_classes(training), training.classes)
    source = unseen(ImageSet.open(job.calib), validation) if job.calib else training
    assert source is not None
    return Photos(validation, source.draw(job.calibration_images, job.seed), training)


def choose(job: Job, target: Target, budget: Budget, photos: Photos, progress: Progress) -> tuple[Choice | None, list[Variant]]:
    """The variants to try, largest first. A single named one needs no choosing: its own file is measured later."""
    wanted = [variant(name).at(job.resolution) for name in job.variants] or [v.at(job.resolution) for v in VARIANTS.values()]
    if len(wanted) == 1:
        return None, wanted
    assert photos.training is not None  # weights belong to one variant
    choice = pick(target, budget, wanted, classes=number_of_classes(photos.training), progress=progress)
    return choice, [c.variant for c in choice.fitting]


def number_of_classes(images: ImageSet) -> int:
    assert images.labels is not None
    return len(images.classes) or max(images.labels) + 1


def trained_model(
    job: Job, v: Variant, photos: Photos, workspace: Workspace, progress: Progress
) -> tuple[Any, Preprocess, tuple[str, ...]]:
    """The float network, how its photos are prepared, and its class names: loaded, fine-tuned, or trained from scratch."""
    from . import checkpoint
    from .model import create
    from .train import Recipe, train

    training = photos.training
    classes = number_of_classes(training) if training else None
    if job.weights:
        model, source, fresh = checkpoint.load(job.weights, v, classes=classes, padding=job.padding, resolution=job.resolution)
        if fresh:
            progress.say(f"{job.weights}: initialised afresh: {', '.join(fresh)}")
        preprocess = source.preprocess or Preprocess.standard(model.variant.resolution, v.mean, v.std)
        if preprocess.resolution != model.variant.resolution:
            preprocess = Preprocess.standard(model.variant.resolution, preprocess.mean, preprocess.std)
        names = source.class_names or read_labels(job.labels, model.classes)
    else:
        model, preprocess, names = (
            create(v, classes=classes or 1000, padding=job.padding),
            Preprocess.standard(v.resolution, v.mean, v.std),
            (),
        )
    if training is None:
        return model, preprocess, names or (photos.validation.classes if len(photos.validation.classes) == model.classes else ())
    changes = {k: value for k, value in (("epochs", job.epochs), ("lr", job.lr)) if value is not None}
    recipe = (Recipe.fine_tune if job.weights else Recipe.from_scratch)(**changes, flip=job.flip, seed=job.seed)

    def make(folder: Path) -> None:
        result = train(model, preprocess, training, recipe, workspace.root / "training.pt", progress=progress)
        checkpoint.save(result, folder / "weights.safetensors", preprocess, training.classes)

    weights = workspace.once("weights", make) / "weights.safetensors"
    return checkpoint.load(weights, v.at(model.variant.resolution))[0], preprocess, training.classes


def quantized(
    job: Job,
    target: Target,
    plain: Path,
    calibration: ImageSet,
    preprocess: Preprocess,
    gate: Gate,
    workspace: Workspace,
    progress: Progress,
) -> Ladder:
    """INT8 by the first remedy that passes the gate; when none does, by the one that loses least."""
    from .quantize import REMEDIES, quantize, quantized_layers, suspicious

    pixels = PixelFile(calibration, preprocess, max_corrupt=job.max_corrupt, progress=progress)
    suspicious(pixels)
    tried: list[tuple[str, Path, StepReport]] = []
    for remedy in REMEDIES:
        make = partial(quantize, plain, pixels, remedy=remedy, max_drop=job.max_drop, progress=progress)
        limit = f"-{job.max_drop:g}" if remedy == "accuracy control" else ""
        file = workspace.once(remedy.replace(" ", "-") + limit, make) / "model.xml"
        run = target.runtime.load(file, precision="int8", threads=target.threads, throughput=True)
        tried.append((remedy, file, gate.judge("int8" if not tried else f"int8 ({remedy})", run)))
        if tried[-1][2].passed:
            break
    _, whole, whole_report = tried[0]
    remedy, file, report = min(tried, key=lambda t: (not t[2].passed, -t[2].agreement if t[2].drop is None else t[2].drop))
    reverted = sorted(quantized_layers(whole) - quantized_layers(file))
    return Ladder(remedy, file, report, whole, whole_report, reverted)


def read_labels(path: str | Path | None, classes: int) -> tuple[str, ...]:
    """Class names, one a line."""
    if path is None:
        return ()
    try:
        names = tuple(Path(path).read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot read the class names ({error}).") from error
    if len(names) != classes:
        raise BadInput(f"{path}: {len(names)} names for {classes} classes.")
    return names


def fingerprint(job: Job, target: Target, photos: Photos) -> dict[str, Any]:
    """Everything the intermediate results depend on."""
    local = job.weights is not None and Path(job.weights).is_file()
    weights = hashlib.sha256(Path(str(job.weights)).read_bytes()).hexdigest() if local else None
    sets = {k: s.sha256 if s else None for k, s in vars(photos).items() if k != "validation"}
    options = {
        k: val
        for k, val in asdict(job).items()
        if k not in ("val", "out", "budget", "labels", "max_drop", "min_agreement", "variants")
    }
    return {"job": options, "weights_sha256": weights, "target": repr(target), **sets, "versions": versions()}


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("edgeeff", "openvino", "onnxruntime", "nncf", "torch", "onnx", "numpy", "pillow")}
