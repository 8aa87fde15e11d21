"""The last stage of a fit: manifest, diagnostics and report beside the files, checked once more, and moved to their place."""

from __future__ import annotations

import datetime
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from . import backends, bundle, card, job_file, sbom
from .bundle import DIAGNOSTICS, REPORT, Bundle
from .compilation import Compilation, compile_bundle
from .context import Context, NetworkContext, versions
from .diagnostics import diagnose
from .job import CompileJob
from .machine import LOCAL
from .manifest import Manifest
from .measurement.picture_statistics import PictureStatistics
from .quantization.ladder import Candidates
from .records import dump_json
from .report import html
from .selection.outcome import Outcome
from .selection.search import Choice
from .weights import Weights


@dataclass(frozen=True)
class Made:
    """Everything that a fit has made of one variant; `refusals` are those of the larger ones tried before."""

    weights: Weights
    choice: Choice | None
    candidates: Candidates
    outcome: Outcome
    refusals: tuple[str, ...]


def write(context: NetworkContext, made: Made) -> Bundle:
    """The bundle, complete, in the stage cache."""
    manifest = describe(context, made)
    context.progress.say("diagnose the shipped file and draw the report")
    weights = made.weights
    diagnostics = diagnose(context, made.outcome, made.choice, manifest, weights.class_names, weights.history)
    folder = context.cache.scratch("bundle")
    (folder / DIAGNOSTICS).write_text(dump_json(diagnostics), encoding="utf-8")
    (folder / REPORT).write_text(html.render(manifest, diagnostics), encoding="utf-8")
    (folder / card.NAME).write_text(card.render(manifest, weights.class_names), encoding="utf-8")
    (folder / sbom.NAME).write_text(dump_json(sbom.bill()), encoding="utf-8")
    (folder / job_file.NAME).write_text(job_file.dump(context.job, Path(context.job.out).resolve()), encoding="utf-8")
    outcome = made.outcome
    return bundle.write(folder, outcome.files, weights.class_names, outcome.golden, manifest, outcome.known)


def publish(context: Context, made: Bundle) -> Bundle:
    """The bundle at its place, after its golden photos got the same answers where it was measured."""
    (LOCAL if context.target.compiles_on_device else context.machine).verify(made.path)
    published = bundle.publish(made.path, Path(context.job.out).resolve())
    context.cache.remove()
    return published


def compile_here(context: Context, published: Bundle) -> Compilation | None:
    """Engines of a bundle's graphs, where this machine is a device that compiles for itself."""
    if not context.target.compiles_on_device or backends.get(context.target.backend).available():
        return None
    job = CompileJob(published.path, val=context.job.val, max_corrupt=context.job.max_corrupt)
    return compile_bundle(job, progress=context.progress)


def describe(context: NetworkContext, made: Made) -> Manifest:
    """What the bundle says of itself."""
    job, target, gate, outcome = context.job, context.target, context.gate, made.outcome
    training = context.photos.training
    shipped, model, measured = outcome.shipped, made.weights.model, outcome.measured
    machine = LOCAL if target.compiles_on_device else context.machine
    facts = machine.facts(target.judge)
    hosts = f" --on {shlex.join(context.machine.names)}" if context.machine.names else ""
    return Manifest(
        variant=made.weights.variant.name,
        resolution=context.preprocess.resolution,
        classes=model.classes,
        preprocess=context.preprocess,
        backend=target.judge,
        target=target.name,
        threads=target.threads,
        model=shipped.file.name,
        precision=shipped.precision,
        activation=shipped.activation,
        remedy=shipped.strategy,
        budget=context.budget,
        max_drop=job.max_drop,
        max_class_drop=job.max_class_drop,
        min_agreement=job.min_agreement,
        refusals=made.refusals,
        steps=tuple(gate.reports),
        ladder=tuple(attempt.record for attempt in made.candidates.attempts),
        validation_sha256=gate.pixels.images.sha256,
        training_sha256=training.sha256 if training else "",
        training_photos=len(training or ()),
        calibration_sha256=context.photos.calibration.sha256,
        validation_photos=len(gate.pixels),
        calibration_photos=len(context.calibration),
        command=job.command + hosts,
        verdict=outcome.verdict,
        device=facts.device,
        versions=versions() | {target.judge: facts.version},
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        reverted_layers=shipped.excluded_layers,
        left_out=shipped.left_out,
        reductions=made.candidates.reductions,
        conditions=measured.states if measured else (),
        disturbed=measured.noise if measured else (),
        siblings=tuple(s.form.record(s.metrics) for s in outcome.siblings),
        forms=tuple(
            replace(form.record(file=form.file.name), confidence=outcome.confidence.get(form.precision)) for form in outcome.going
        ),
        rehearsals=outcome.rehearsals,
        metrics=outcome.metrics,
        held_out=outcome.held_out,
        confidence=outcome.confidence.get(shipped.precision),
        unknown=outcome.unknown,
        calibration_statistics=calibration_statistics(context, outcome),
        improvement=outcome.improvement,
    )


def calibration_statistics(context: NetworkContext, outcome: Outcome) -> PictureStatistics | None:
    """What a camera is compared with: the calibration photos as the network that ships sees them, and its answers."""
    form, target = outcome.shipped, context.target
    run = target.runtime.load(form.file, precision=form.precision, threads=target.threads, throughput=True)
    return PictureStatistics.of(context.calibration, run)
