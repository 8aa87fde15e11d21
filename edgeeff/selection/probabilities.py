"""What the probabilities of that which ships are worth: a temperature for each file, fitted on the validation photos as it runs."""

from __future__ import annotations

from dataclasses import replace

from ..context import NetworkContext
from ..measurement.accuracy import Answers
from ..measurement.confidence import Confidence, measure_confidence
from ..precision import Precision
from .outcome import Outcome


def calibrate(context: NetworkContext, outcome: Outcome) -> Outcome:
    """The outcome with a temperature for each form that goes into the bundle, and its calibration error."""
    shipped, target = outcome.shipped, context.target
    gate = context.at(shipped.preprocess).gate
    found, answers = dict[Precision, Confidence](), dict[Precision, Answers]()
    for form in outcome.going or (shipped,):
        run = target.runtime.load(form.file, precision=form.precision, threads=target.threads, throughput=True)
        step = gate.reports.index(form.report)
        found[form.precision], answers[form.precision] = measure_confidence(gate, step, run, form.name)
    verdict = f"{outcome.verdict} {found[shipped.precision].sentence}"
    return replace(outcome, confidence=found, answers=answers[shipped.precision], verdict=verdict)
