"""The whole job: weights or photos, a target and a budget become a bundle whose file was judged and timed.

Read `fit` first. Each step is a plain call; a gate looks at the same validation photos after each.
"""

from __future__ import annotations

import datetime
import hashlib
import math
import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from . import backends, bundle
from .bundle import Bundle
from .compilation import Compiled, compile
from .data.calibration import Calibration
from .data.frames import Footage, View
from .data.images import ImageSet, PixelFile, Preprocess, class_names, readable, unseen
from .errors import BadInput, BudgetNotMet, ToolMissing
from .files import Workspace
from .measurement.accuracy import Gate, StepReport, rank
from .measurement.latency import HERE, Machine
from .measurement.system_state import device
from .network.variants import Padding, Variant, expected_top1, grid
from .progress import SILENT, Progress
from .report import html as page
from .selection import portable
from .selection.search import Accuracy, Candidate, Choice, activations, grows, pick
from .selection.shipping import Form, Outcome, decide, loss
from .target import Budget, Target

LEARNING = 4000  # photos that a network recovers on, at most
WORTH = 1.05  # times faster: what a swap of the activation has to gain, at the interval's lower end


@dataclass(frozen=True)
class Job:
    """What is asked for. Folders are labelled photos; `calib` may be unlabelled. `max_drop` is in points of top-1.

    `activation`: keep, hardswish, relu6, relu, or auto, which swaps Swish where that is faster and stays within the gate; None
    swaps only where INT8 misses the gate without. `time_budget` is in minutes, to find INT8 that passes; `accept` ships what fails.
    """

    target: str | Path
    val: str | Path
    out: str | Path
    budget: Budget = field(default_factory=Budget)
    variants: Sequence[str] = ()
    weights: str | None = None
    train: str | Path | None = None
    calib: str | Path | None = None
    labels: str | Path | None = None
    resolution: Sequence[int] = ()
    padding: Padding | None = None
    max_drop: float = 0.5
    min_agreement: float = 97.0
    max_corrupt: float = 0.01
    calibration: str | Path = "default"
    activation: Literal["keep", "auto", "hardswish", "relu6", "relu"] | None = None
    time_budget: float = 30.0
    accept: bool = False
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
        if self.epochs is not None and self.epochs < 1:
            raise BadInput("--epochs: expected 1 or more.")
        if self.activation not in (None, "keep", "hardswish", "relu6", "relu", "auto"):
            raise BadInput(f"--activation {self.activation}: expected keep, hardswish, relu6, relu or auto.")
        if not (math.isfinite(self.time_budget) and self.time_budget > 0):
            raise BadInput(f"--time-budget {self.time_budget}: expected minutes, above 0.")
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

    @property
    def command(self) -> str:
        """The command line that asks for this."""
        asked = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        budget = asked.pop("budget")
        asked |= {f.name: getattr(budget, f.name) for f in fields(budget) if getattr(budget, f.name) != f.default}
        words = ["edgeeff", "fit"]
        for name, value in asked.items():
            option = {"variants": "variant", "latency_ms": "latency", "flip": "no-flip"}.get(name, name.replace("_", "-"))
            values = [] if isinstance(value, bool) else value if name in ("variants", "resolution") else [value]
            words += [f"--{option}", *map(str, values)]
        return shlex.join(words)


@dataclass(frozen=True)
class Fit:
    """What came out: the bundle, and everything measured on the way; `compiled` where this is a device that compiles for itself."""

    bundle: Bundle
    variant: Variant
    outcome: Outcome
    steps: list[StepReport]
    ladder: list[dict[str, Any]]
    choice: Choice | None = None
    compiled: Compiled | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "variant": self.variant.name,
            "resolution": self.variant.resolution,
            "precision": self.outcome.shipped.precision,
            "activation": self.outcome.shipped.activation,
            "remedy": self.outcome.shipped.remedy,
            "ladder": self.ladder,
            "steps": [s.to_json() for s in self.steps],
            **self.outcome.facts,
            "compiled": self.compiled.to_json() if self.compiled else None,
            "bundle": str(self.bundle.path),
            "page": str(self.bundle.path / bundle.PAGE),
            "verdict": self.outcome.verdict,
        }


@dataclass(frozen=True)
class Photos:
    """Opened, labelled alike, and disjoint by content. `calibration` sets ranges; networks recover on `learning`."""

    validation: ImageSet
    calibration: ImageSet
    learning: ImageSet
    training: ImageSet | None


def fit(job: Job, *, on: Machine = HERE, progress: Progress = SILENT) -> Fit:
    """Run the job; returns the published bundle with its figures, or raises the reason it was refused. `on` is where to measure."""
    target, out = Target.load(job.target), Path(job.out).resolve()
    budget = target.budget(job.budget)
    for runtime in (target.judge, "onnxruntime"):
        if missing := backends.get(runtime).available():
            raise ToolMissing(missing)
    if target.elsewhere and job.activation == "auto":
        raise BadInput(
            f"--activation auto weighs latencies, and {target.name} is not here to measure: name an activation, or keep."
        )
    if not target.elsewhere and on is HERE and not target.here:
        raise BadInput(f"target {target.name} is not this machine ({device()['cpu']}): --on USER@HOST measures there.")
    bundle.replaceable(out)
    photos = open_photos(job, progress)
    workspace = Workspace.open(out, fingerprint(job, target, photos))
    candidates, refusals = grid(job.variants, job.resolution), list[str]()
    swaps = activations(target, job.activation)
    known = ranking(job, candidates, photos, progress) if len(candidates) > 1 else None  # one needs no choosing
    while candidates:
        choice = pick(target, budget, candidates, *known, activations=swaps, on=on, progress=progress) if known else None
        v = choice.chosen.variant if choice else candidates[0]
        if choice and choice.disturbed:
            progress.say(f"{v.name} was chosen by what is no sound measurement: {'; '.join(choice.disturbed)}.")
        try:
            part = workspace.within(f"{v.name}-{v.resolution}")
            result = fit_variant(job, target, budget, v, choice, refusals, photos, part, on, progress)
        except BudgetNotMet as refusal:
            candidates = [c for c in candidates if not grows(v, c)]
            if not candidates:
                raise
            progress.say(f"{refusal} Trying a smaller one.")
            refusals.append(str(refusal))
            continue
        (HERE if target.elsewhere else on).verify(result.bundle.path)
        published = bundle.publish(result.bundle.path, out)
        workspace.remove()
        compiled = None
        if target.elsewhere and not backends.get(target.backend).available():  # this is the device
            compiled = compile(out, val=job.val, max_corrupt=job.max_corrupt, progress=progress)
            published = compiled.bundle
        return replace(result, bundle=published, choice=choice, compiled=compiled)
    raise AssertionError("the last candidate fits, or its refusal is raised")


def fit_variant(
    job: Job,
    target: Target,
    budget: Budget,
    v: Variant,
    choice: Choice | None,
    refusals: list[str],
    photos: Photos,
    workspace: Workspace,
    on: Machine,
    progress: Progress,
) -> Fit:
    """One variant from weights to a finished bundle in the workspace; `refusals` are those of the larger ones tried before."""
    from .network.model import predict
    from .quantization.nncf_ptq import suspicious
    from .quantization.strategies import Ladder, best, exported, reverted

    if photos.training is not None:
        Candidate(v, number_of_classes(photos.training)).require(budget)  # before it is trained
    model, preprocess, names = trained_model(job, v, photos, workspace, progress)
    v = model.variant
    Candidate(v, model.classes).require(budget)
    validation = photos.validation.labelled_for(model.classes, names)
    pixels = PixelFile(validation, preprocess, max_corrupt=job.max_corrupt, progress=progress)
    gate = Gate(pixels, max_drop=job.max_drop, min_agreement=job.min_agreement, progress=progress)

    gate.require("float", predict(model, preprocess))
    network = exported(model, preprocess, target, workspace)
    reference = backends.get("onnxruntime")
    judged = gate.require("onnx", reference.load(network.onnx, precision="float32", threads=target.threads))
    calibration = PixelFile(photos.calibration, preprocess, max_corrupt=job.max_corrupt, progress=progress)
    suspicious(calibration)
    ladder = Ladder(
        target=target,
        preprocess=preprocess,
        calibration=calibration,
        learning=photos.learning,
        gate=gate,
        workspace=workspace,
        original=network.activation,
        deadline=time.monotonic() + 60 * job.time_budget,
        swap_to=None if job.activation == "keep" else target.activation,
        estimators=Calibration.load(job.calibration).ranges,
        max_corrupt=job.max_corrupt,
        flip=job.flip,
        seed=job.seed,
        on=on,
        progress=progress,
    )
    notes: list[str] = []
    forms = [Form("float32", "onnxruntime", network.onnx, judged, network.onnx, network.activation)]
    if job.activation in ("hardswish", "relu6", "relu") and network.activation == "silu":
        forms += ladder.float_forms(network)
        network = ladder.recovered(network, job.activation)
    attempts = ladder.climb(network)
    chosen = best(attempts)
    for each in dict.fromkeys((network, chosen.network)):
        forms += ladder.float_forms(each)
    forms += ladder.integer_forms(chosen)
    left_float = reverted(attempts, chosen)
    if left_float and not target.elsewhere:
        forms.append(replace(ladder.integer_forms(attempts[0])[0], precision="int8 (all layers)"))
    if job.activation == "auto" and target.activation and chosen.network.activation == "silu":
        faster, (low, high) = ladder.gain(network, target.activation)
        notes.append(f"{target.activation} makes INT8 {faster:.2f}× ({low:.2f} to {high:.2f}) as fast here")
        if low > WORTH:
            other = ladder.climb(ladder.recovered(network, target.activation))
            attempts += other
            forms += ladder.float_forms(best(other).network) + ladder.integer_forms(best(other))
            notes[-1] += f"; recovered, it loses {loss(forms[-1].report):.2f} points in INT8."
        else:
            notes[-1] += ": not worth a swap."

    failed: list[Form] = []  # on the camera's path
    while True:
        if target.elsewhere:
            outcome = portable.decide(v, forms, target, gate, accept=job.accept, progress=progress)
        else:
            remedies = (chosen.remedy, left_float, notes)
            outcome = decide(v, forms, *remedies, target, budget, gate, accept=job.accept, on=on, progress=progress)
        shipped = outcome.shipped
        if any(shipped is form for form in failed):
            break  # accepted all the same
        seen = on_camera(gate, preprocess, target, shipped)
        if seen.passed:
            break
        failed.append(replace(shipped, report=seen))
        forms = [failed[-1] if form is shipped else form for form in forms]
    where = HERE.facts(target.judge) if target.elsewhere else on.facts(target.backend)
    facts = {
        "variant": v.name,
        "resolution": v.resolution,
        "classes": model.classes,
        "preprocess": preprocess.to_json(),
        "backend": target.judge,
        "target": target.name,
        "threads": target.threads,
        "model": outcome.shipped.file.name,
        "precision": outcome.shipped.precision,
        "budget": asdict(budget),
        "max_drop": job.max_drop,
        "min_agreement": job.min_agreement,
        "refusals": refusals,
        "steps": [r.to_json() for r in gate.reports],
        "activation": outcome.shipped.activation,
        "remedy": outcome.shipped.remedy,
        "ladder": [a.to_json() for a in attempts],
        "validation_sha256": validation.sha256,
        "calibration_sha256": photos.calibration.sha256,
        "validation_photos": len(pixels),
        "calibration_photos": len(calibration),
        "command": f"{job.command} --on {shlex.join(on.names)}" if on.names else job.command,
        "verdict": outcome.verdict,
        "device": where["device"],
        "versions": versions() | {target.judge: where["version"]},
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    facts |= outcome.facts
    progress.say("draw the page")
    drawn = page.write(workspace.root / bundle.PAGE, job, facts, outcome, gate, choice, names)
    written = bundle.write(workspace.scratch("bundle"), [*outcome.files, drawn], names, outcome.golden, facts)
    return Fit(written, v, outcome, gate.reports, facts["ladder"])


def on_camera(gate: Gate, preprocess: Preprocess, target: Target, form: Form) -> StepReport:
    """The whole path, from a camera's frame to the label: the photos as frames, shrunk and cropped by the graph itself."""
    view = View.standard(preprocess)
    see = target.runtime.watch(form.file, view, precision=form.precision, threads=target.threads)
    step = f"{form.report.step}, {view.frames.width}×{view.frames.height} frames"
    return gate.judge(step, lambda frames: np.concatenate([see(frame) for frame in frames]), Footage(gate.pixels, view))


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
    return Photos(validation, Calibration.load(job.calibration).take(source, job.seed), source.draw(LEARNING, job.seed), training)


def ranking(job: Job, candidates: list[Variant], photos: Photos, progress: Progress) -> tuple[int, Accuracy]:
    """The number of classes, and what says which of the candidates is the larger: of networks to train, their published top-1."""
    if photos.training is not None:
        return number_of_classes(photos.training), expected_top1
    return own_accuracy(job, candidates, photos, progress)


def own_accuracy(job: Job, candidates: list[Variant], photos: Photos, progress: Progress) -> tuple[int, Accuracy]:
    """How many classes trained weights have, and by resolution, how often they say what they do at their own: percent."""
    from .network import checkpoint
    from .network.model import predict

    def loaded(resolution: int | None) -> tuple[Any, Preprocess]:
        v = candidates[0].published if resolution is None else candidates[0].at(resolution)
        model, source, _ = checkpoint.load(str(job.weights), v, padding=job.padding, resolution=resolution)
        mean, std = (source.preprocess.mean, source.preprocess.std) if source.preprocess else (v.mean, v.std)
        return model, Preprocess.standard(model.variant.resolution, mean, std)

    own = loaded(None)[0].variant.resolution
    answers = {}
    for resolution in sorted({own, *(v.resolution for v in candidates)}):
        progress.say(f"{job.weights} at {resolution} px")
        model, preprocess = loaded(resolution)
        pixels = PixelFile(photos.calibration, preprocess, max_corrupt=job.max_corrupt, progress=progress)
        answers[resolution] = rank(predict(model, preprocess), pixels)[:, 0]
    return model.classes, lambda v: 100 * float((answers[v.resolution] == answers[own]).mean())


def number_of_classes(images: ImageSet) -> int:
    assert images.labels is not None
    return len(images.classes) or max(images.labels) + 1


def trained_model(
    job: Job, v: Variant, photos: Photos, workspace: Workspace, progress: Progress
) -> tuple[Any, Preprocess, tuple[str, ...]]:
    """The float network, how its photos are prepared, and its class names: loaded, fine-tuned, or trained from scratch."""
    import torch

    from .network import checkpoint
    from .network import distributed as parallel
    from .network.model import create
    from .network.train import Recipe, train

    torch.manual_seed(job.seed)  # what no weights are loaded for begins at random
    training = photos.training
    classes = number_of_classes(training) if training else None
    if job.weights:
        model, source, fresh = checkpoint.load(
            job.weights, v, classes=classes, padding=job.padding, resolution=v.resolution if job.resolution else None
        )
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
        state = workspace.root / "training.pt"
        result = parallel.together(train, model, preprocess, training, recipe, state, progress=progress)
        checkpoint.save(result, folder / "weights.safetensors", preprocess, training.classes)

    weights = workspace.once("weights", make) / "weights.safetensors"
    return checkpoint.load(weights, v.at(model.variant.resolution))[0], preprocess, training.classes


def read_labels(path: str | Path | None, classes: int) -> tuple[str, ...]:
    """Class names, one a line."""
    if path is None:
        return ()
    try:
        names = class_names(Path(path).read_text(encoding="utf-8").splitlines(), path)
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
        if k not in ("val", "out", "budget", "labels", "max_drop", "min_agreement", "variants", "activation", "accept")
    }
    facts = {"job": options, "recipe": repr(Calibration.load(job.calibration)), "target": repr(target), "versions": versions()}
    return {**facts, "weights_sha256": weights, **sets}


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("edgeeff", "openvino", "onnxruntime", "nncf", "torch", "onnx", "numpy", "pillow")}
