"""The whole path, from a camera's frame to the label: what ships is judged on photos as frames, shrunk and cropped by its graph.

A frame shrinks nearly to its photo, not just to it, and so a few answers change, those of the float network as well. That is no
loss by the form that ships, which is therefore compared with what the float network says of the same frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from .. import backends
from ..backends import Watch
from ..context import NetworkContext
from ..data.frames import SyntheticFrames, View
from ..measurement.accuracy import StepReport
from ..network.architecture import Variant
from ..precision import Precision
from ..quantization.forms import Form
from ..quantization.ladder import Candidates
from ..quantization.strategies import Network
from .outcome import Outcome, ship


def ship_checked(context: NetworkContext, variant: Variant, candidates: Candidates, original: Network) -> Outcome:
    """What ships, and is as accurate on a camera's frames; a form that fails there makes way for the next, but for --accept."""
    target, reference, failed = context.target, backends.get("onnxruntime"), list[Form]()
    judge_on_frames(context, "float", partial(reference.watch, original.onnx, precision=Precision.FLOAT32, threads=target.threads))
    beside = replace(context, gate=context.gate.against(context.gate.answers[-1]))
    while True:
        outcome = ship(context, variant, candidates)
        form = outcome.shipped
        if any(form is each for each in failed):
            return outcome  # --accept
        watch = partial(target.runtime.watch, form.file, precision=form.precision, threads=target.threads)
        report = judge_on_frames(beside.at(form.preprocess), form.report.step, watch)
        if report.passed:
            return outcome
        failed.append(replace(form, report=report))
        forms = tuple(failed[-1] if each is form else each for each in candidates.forms)
        candidates = replace(candidates, forms=forms)


def judge_on_frames(context: NetworkContext, step: str, watch: Callable[[View], Watch]) -> StepReport:
    """A step's accuracy on frames of the validation photos."""
    view = View.standard(context.preprocess)
    see = watch(view)
    name = f"{step}, {view.frames.width}×{view.frames.height} frames"
    frames = SyntheticFrames(context.gate.pixels, view)
    return context.gate.judge(name, lambda images: np.concatenate([see(image) for image in images]), frames)
