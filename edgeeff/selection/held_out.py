"""The last judgement: what ships, on photos that no choice has seen, beside the float network there.

Ranges, strategies, epochs and the shipped form were chosen on the validation photos, so their figure flatters; this one does not.
Nothing is decided by it, but that a file whose logits are no finite numbers does not ship. The other forms in INT8 that were
measured here are judged there as well, for comparison.
"""

from __future__ import annotations

from dataclasses import replace

from ..context import NetworkContext
from ..data.images import Predict
from ..errors import AccuracyGateFailed
from ..manifest import HeldOut
from ..measurement.accuracy import StepReport
from ..measurement.confidence import Calibrated
from ..network.model import EfficientNet, predict
from ..quantization.forms import Form
from .outcome import Outcome, worst_class
from .unknown import judged_on


def judge_held_out(context: NetworkContext, model: EfficientNet, class_names: tuple[str, ...], outcome: Outcome) -> Outcome:
    """The outcome with its accuracy on `--test` or the part held out of `--val`; as it was, where there is neither."""
    if context.photos.test is None:
        return outcome
    form, target = outcome.shipped, context.target
    photos = context.pixels(context.photos.test.labelled_for(model.classes, class_names), context.preprocess)
    gate = context.gate_on(photos)
    original = gate.judge("float, test photos", predict(model, context.preprocess))
    prepared = {context.preprocess: photos}

    def loaded(form: Form) -> Predict:
        return target.runtime.load(form.file, precision=form.precision, threads=target.threads, throughput=True)

    def judged(form: Form, run: Predict) -> StepReport:
        if form.preprocess not in prepared:
            prepared[form.preprocess] = context.pixels(photos.images, form.preprocess)
        return gate.on(prepared[form.preprocess]).judge(f"{form.report.step}, test photos", run)

    validated = outcome.confidence[form.precision]
    network = Calibrated(loaded(form), validated.temperature)
    report = judged(form, network)
    if report.not_finite:
        raise AccuracyGateFailed(report.refusal)
    confidence = replace(validated, judged_on="test").held_to(gate, 1, network.answers)
    forms = (sibling.form for sibling in outcome.siblings if sibling.form.precision.quantized and not sibling.form.reference)
    others = [judged(other, loaded(other)) for other in forms if other is not form]
    held_out = HeldOut(photos.images.sha256, (original, report, *others), report.differs_from(form.report))
    said = [outcome.verdict, _sentences(report, held_out.differs, form.report)]
    if confidence.errors:
        said.append(f"The {confidence.errors} there.")
    unknown = judged_on(context, outcome, prepared[form.preprocess])
    if unknown and unknown.test:
        said.append(f"Of these photos {unknown.test} get the label unknown, which are false alarms.")
    verdict = " ".join((*said, *gate.remarks))
    confidences = {**outcome.confidence, form.precision: confidence}
    return replace(outcome, held_out=held_out, verdict=verdict, confidence=confidences, unknown=unknown)


def _sentences(report: StepReport, differs: bool, validation: StepReport) -> str:
    text = f"On {report.images} photos that no choice has seen: {_loss(report)}"
    text += f".{worst_class(report)}" if report.passed else f", over what the gate allows: {report.refusal}"
    if differs:
        text += (
            f" That differs from the {_loss(validation)} of the validation photos by more than chance explains: expect the former."
        )
    return text


def _loss(report: StepReport) -> str:
    kept = f"{report.agreement:.2f}% keep the float model's label"
    return kept if report.top1 is None else f"top-1 {report.top1:.2f}, {report.change}"
