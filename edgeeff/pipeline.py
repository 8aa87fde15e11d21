"""The whole job: weights or photos, a target and a budget become a bundle whose file was judged and measured.

Read `fit` first: choose → prepare weights → quantize → ship → check on frames → calibrate → learn the known → judge → publish."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from . import backends, publishing, tracking
from .bundle import Bundle
from .compilation import Compilation
from .context import Context, NetworkContext
from .errors import BudgetNotMet
from .files import space_in
from .job import Job
from .machine import LOCAL, Machine
from .manifest import Manifest
from .measurement.accuracy import StepReport
from .network.architecture import Variant
from .network.model import predict
from .network.variants import grid
from .precision import Precision
from .progress import SILENT, Progress
from .quantization.ladder import quantize
from .quantization.nncf_ptq import refuse_blank
from .quantization.strategies import Network, OutOfTime
from .selection.candidates import Candidate, Search
from .selection.held_out import judge_held_out
from .selection.improvement import judge_improved
from .selection.on_frames import ship_checked
from .selection.outcome import Outcome
from .selection.probabilities import calibrate
from .selection.search import Choice, grows, pick
from .selection.unknown import learn_known
from .weights import Ranking, Weights, prepare_weights, ranking


@dataclass(frozen=True)
class Fit:
    """The bundle, what the fit measured (`manifest`), and `compiled` where this is a device that compiles for itself."""

    bundle: Bundle
    manifest: Manifest
    outcome: Outcome
    choice: Choice | None = None
    compiled: Compilation | None = None


def fit(job: Job, *, machine: Machine = LOCAL, progress: Progress = SILENT) -> Fit:
    """Run the job; returns the published bundle with its figures, or raises the reason why there is none.

    `machine` is where latency is measured. Where the largest variant that should fit misses the budget, the next smaller is tried.
    """
    context = Context.of(job, machine, progress)
    with context.cache:
        candidates, refusals = grid(job.variants, job.resolution), list[str]()
        ranked = ranking(context, candidates)
        while True:
            variant, choice = choose(context, candidates, ranked)
            try:
                with space_in(context.cache.root):
                    return fit_variant(context, variant, choice, refusals)
            except BudgetNotMet as refusal:
                candidates = [c for c in candidates if not grows(variant, c)]
                if not candidates or isinstance(refusal, OutOfTime):
                    raise
                progress.say(f"{refusal} Trying a smaller one.")
                refusals.append(str(refusal))


def fit_variant(context: Context, variant: Variant, choice: Choice | None, refusals: list[str]) -> Fit:
    """One variant from weights to a published bundle; `refusals` are those of the larger ones tried before."""
    stage = replace(context, cache=context.cache.within(f"{variant.name}-{variant.resolution}"))
    Candidate(variant, context.photos.classes or 1).require(context.budget)  # before it is loaded or trained
    weights = prepare_weights(stage, variant)
    Candidate(weights.variant, weights.model.classes).require(context.budget)
    judged, network, report = judge_float(stage, weights)
    candidates = quantize(judged, network, report)
    shipped = learn_known(judged, calibrate(judged, ship_checked(judged, weights.variant, candidates, network)))
    outcome = judge_improved(judged, judge_held_out(judged, weights.model, weights.class_names, shipped))
    made = publishing.Made(weights, choice, candidates, outcome, tuple(refusals))
    bundle = publishing.publish(context, publishing.write(judged.at(outcome.shipped.preprocess), made))
    compiled = publishing.compile_here(context, bundle)
    tracking.write(context.job, final := compiled.bundle if compiled else bundle)
    return Fit(final, bundle.manifest, outcome, choice, compiled)


def choose(context: Context, candidates: list[Variant], ranked: Ranking | None) -> tuple[Variant, Choice | None]:
    """The largest of the candidates within the budget, and how it was chosen; a single one needs no choosing."""
    if ranked is None:
        return candidates[0], None
    search = Search.within(context, candidates, ranked.classes, ranked.accuracy)
    choice = pick(search, machine=context.machine, progress=context.progress)
    if choice.noise:
        name, reasons = choice.chosen.variant.name, "; ".join(choice.noise)
        context.progress.say(f"{name} was chosen by measurements that cannot be relied on: {reasons}.")
    return choice.chosen.variant, choice


def judge_float(context: Context, weights: Weights) -> tuple[NetworkContext, Network, StepReport]:
    """The float network judged in torch, exported, and judged in ONNX Runtime: the gate's baseline, and the first step after it."""
    job, model, target = context.job, weights.model, context.target
    validation = context.photos.validation.labelled_for(model.classes, weights.class_names)
    pixels = context.pixels(validation, weights.preprocess)
    gate = context.gate_on(pixels)
    gate.require("float", predict(model, weights.preprocess))
    if weights.usual:
        usual = context.pixels(validation, weights.usual)
        gate.judge(f"float, crop {weights.usual.crop:.3g}", predict(model, weights.usual), usual)
    judged = NetworkContext(
        **vars(context),
        preprocess=weights.preprocess,
        calibration=context.pixels(context.photos.calibration, weights.preprocess),
        gate=gate,
        original=weights.variant,
        deadline=time.monotonic() + 60 * job.time_budget,
    )
    network = Network.export(model, judged)
    reference = backends.get("onnxruntime")
    report = gate.require("onnx", reference.load(network.onnx, precision=Precision.FLOAT32, threads=target.threads))
    refuse_blank(judged.calibration)
    return judged, network, report
