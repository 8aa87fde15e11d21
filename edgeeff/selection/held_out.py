"""The last judgement: what ships, on photos that no choice has seen, beside the float network there.

Ranges, strategies, epochs and the shipped form were chosen on the validation photos, so their figure flatters; this one does not.
Nothing is decided by it.
"""

from __future__ import annotations

from dataclasses import replace

from ..context import NetworkContext
from ..manifest import HeldOut
from ..measurement.accuracy import Gate, StepReport
from ..network.model import EfficientNet, predict
from .outcome import Outcome


def judge_held_out(context: NetworkContext, model: EfficientNet, class_names: tuple[str, ...], outcome: Outcome) -> Outcome:
    """The outcome with its accuracy on `--test` or the part held out of `--val`; as it was, where there is neither."""
    if context.photos.test is None:
        return outcome
    form, target, job = outcome.shipped, context.target, context.job
    photos = context.pixels(context.photos.test.labelled_for(model.classes, class_names), context.preprocess)
    gate = Gate(photos, max_drop=job.max_drop, min_agreement=job.min_agreement, progress=context.progress)
    original = gate.judge("float, test photos", predict(model, context.preprocess))
    run = target.runtime.load(form.file, precision=form.precision, threads=target.threads, throughput=True)
    prepared = photos if form.preprocess == context.preprocess else context.pixels(photos.images, form.preprocess)
    report = gate.on(prepared).judge(f"{form.report.step}, test photos", run)
    held_out = HeldOut(photos.images.sha256, (original, report), report.differs_from(form.report))
    return replace(outcome, held_out=held_out, verdict=f"{outcome.verdict} {_sentences(held_out, form.report)}")


def _sentences(held_out: HeldOut, validation: StepReport) -> str:
    report = held_out.steps[-1]
    text = f"On {report.images} photos that no choice has seen: {_loss(report)}"
    text += "." if report.passed else ", over what the gate allows."
    if held_out.differs:
        text += (
            f" That differs from the {_loss(validation)} of the validation photos by more than chance explains: expect the former."
        )
    return text


def _loss(report: StepReport) -> str:
    if report.drop is None or report.drop_ci is None:
        return f"{report.agreement:.2f}% keep the float model's label"
    return f"top-1 {report.top1:.2f}, drop {report.drop:+.2f} points ({report.drop_ci[0]:+.2f} to {report.drop_ci[1]:+.2f})"
