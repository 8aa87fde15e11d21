"""INT8 by the cheapest strategy that passes the gate: each is tried only when those before it missed, while there is time."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..context import NetworkContext
from ..errors import AccuracyGateFailed, EdgeeffError
from ..export import fp16, tensorrt_lint
from ..manifest import AttemptRecord, ReductionRecord
from ..measurement.accuracy import StepReport
from ..measurement.benchmark import BenchmarkRequest, CompiledModel
from ..measurement.confidence import expected_drop
from ..measurement.latency import WORTH, ratio
from ..network.activations import SWAPS
from ..network.model import predict
from ..network.reduce import Reduction
from ..network.swap import swapped
from ..precision import Precision
from ..progress import spoken
from .forms import Form
from .random_weights import kept_for_timing
from .reduction import Plan, find_last, listed, plan, recovered_as
from .strategies import MIXED, STRATEGIES, Network, Quantized, Strategy, first_strategy, recovered

COARSER = "Without VNNI instructions sums of 8-bit products overflow, so INT8 weights are coarser, but for depthwise convolutions."


@dataclass(frozen=True)
class Attempt:
    """What came of one strategy, and how it was judged. Without a file, `note` says why there is none."""

    strategy: str
    activation: str
    seconds: float
    quantized: Quantized | None = None
    report: StepReport | None = None
    routine: bool = False
    note: str = ""

    @property
    def loss(self) -> float:
        return float("inf") if self.report is None else self.report.loss

    @property
    def record(self) -> AttemptRecord:
        r = self.report
        figures = (r.top1, r.drop, r.agreement, r.passed) if r else (None, None, None, None)
        network = self.quantized.network if self.quantized else None
        smaller = (network.model.variant.resolution, network.left_out) if network else ()
        return AttemptRecord(self.strategy, self.activation, round(self.seconds, 1), self.note, *figures, *smaller)


@dataclass(frozen=True)
class Candidates:
    """Every form of the model that was judged, the attempts at INT8, what is to be said beside, and what makes it smaller."""

    forms: tuple[Form, ...]
    attempts: tuple[Attempt, ...]
    notes: tuple[str, ...] = ()
    reductions: tuple[ReductionRecord, ...] = ()


def quantize(context: NetworkContext, network: Network, judged: StepReport) -> Candidates:
    """Every form that may ship, judged. `network` is as exported, and `judged` its accuracy in ONNX Runtime."""
    job, target = context.job, context.target
    forms, original = [_onnx_form(context, network, judged)], network
    if job.activation in SWAPS and network.activation == "silu":
        forms += float_forms(context, network)
        network = recovered(context, network, job.activation)
    attempts = climb(context, network)
    chosen = best(attempts)
    for each in dict.fromkeys((network, _made_of(chosen))):
        forms += float_forms(context, each)
    forms += integer_forms(context, chosen)
    if forms[-1].excluded_layers and attempts[0].quantized and not target.compiles_on_device:
        forms.append(replace(integer_forms(context, attempts[0])[0], reference=True))
    notes = [COARSER] if context.int8_overflows else []
    if job.activation == "auto" and target.activation and _made_of(chosen).activation == "silu":
        note, faster = _swap_where_it_pays(context, network, target.activation)
        if faster:
            attempts += faster
            forms += float_forms(context, _made_of(best(faster))) + integer_forms(context, best(faster))
            note += f"; recovered, it loses {forms[-1].report.loss:.2f} points in INT8."
            chosen = min((best(faster), chosen), key=lambda attempt: not (attempt.report and attempt.report.passed))
        notes.append(note)
    found = Candidates(tuple(forms), tuple(attempts), tuple(notes))
    return _with_smaller(context, original, _made_of(chosen), found) if job.adapt == "auto" else found


def climb(context: NetworkContext, network: Network, strategies: Sequence[Strategy] = STRATEGIES) -> list[Attempt]:
    """The attempts, in order, up to the first that passes; raises what is wrong where none gives a file.

    The first strategy has to give one, but that its file may be refused for its answers, as one that does not compute numbers.
    """
    attempts: list[Attempt] = []
    for strategy in (s for s in strategies if s.applies(context, network)):
        if attempts:
            _say_why(context, attempts[-1], strategy)
        if attempts and time.monotonic() > context.deadline:
            attempts.append(Attempt(strategy.name, network.activation, 0.0, note="not tried: the time budget was used up"))
            break
        start = time.monotonic()
        try:
            made = strategy.quantize(context, network)
            report = judge(context, Precision.INT8, made.network, made.file, strategy.name if attempts else "")
        except EdgeeffError as reason:
            if not attempts and not isinstance(reason, AccuracyGateFailed):
                raise
            attempts.append(Attempt(strategy.name, network.activation, time.monotonic() - start, note=str(reason)))
            continue
        seconds = time.monotonic() - start
        attempts.append(Attempt(strategy.name, made.network.activation, seconds, made, report, routine=not attempts))
        if report.passed:
            break
    if not any(attempt.report for attempt in attempts):
        raise AccuracyGateFailed(attempts[0].note)
    return attempts


def _say_why(context: NetworkContext, missed: Attempt, following: Strategy) -> None:
    """Why a strategy was not enough, what is tried instead, and what is left of the time budget.

    What is tried next is expected to take as long as the last one did.
    """
    why, report = missed.note, missed.report
    if report:
        why = report.refusal
        if report.drop is not None and report.drop > context.gate.max_drop:
            lost = round(report.drop * report.images / 100)
            why = f"drop {report.drop:+.2f} > {context.gate.max_drop:g} ({lost} of {report.images} photos)"
    left = max(context.deadline - time.monotonic(), 0)
    then = f"next: {following.name}, {spoken(left)} left" if left else "no time is left for another strategy"
    context.progress.say(f"{missed.strategy}: {why.rstrip('.')}; {then}")
    context.progress.expect(min(missed.seconds, left))


def best(attempts: list[Attempt]) -> Attempt:
    """The one that passed, which is the last; otherwise the one that loses least."""
    return min((a for a in attempts if a.report), key=lambda a: (not (a.report and a.report.passed), a.loss))


def float_forms(context: NetworkContext, network: Network, among: Collection[Precision] | None = None) -> list[Form]:
    """A network in the target's float precisions, or in those of them that are named."""
    forms = []
    for precision in context.target.usable() if among is None else among:
        if not precision.quantized and (precision, context.target.judge) != (Precision.FLOAT32, "onnxruntime"):
            file = _in_precision(context, network, network.compiled, precision)
            report = judge(context, precision, network, file)
            forms.append(_form(context, network, precision, file, report))
    return forms


def integer_forms(context: NetworkContext, attempt: Attempt) -> list[Form]:
    """What a strategy gave, in the target's integer precisions."""
    made, forms = attempt.quantized, []
    assert made is not None
    assert attempt.report is not None
    for precision in context.target.usable():
        if precision.quantized:
            file = _in_precision(context, made.network, made.file, precision)
            same = precision is Precision.INT8  # as it was judged in the climb
            report = attempt.report if same else judge(context, precision, made.network, file)
            form = _form(context, made.network, precision, file, report)
            forms.append(replace(form, strategy=attempt.strategy, routine=attempt.routine, excluded_layers=made.excluded_layers))
    return forms


def judge(context: NetworkContext, precision: Precision, network: Network, file: Path, strategy: str = "") -> StepReport:
    """The accuracy of a file in one precision, as a step of the fit."""
    run = context.target.runtime.load(file, precision=precision, threads=context.target.threads, throughput=True)
    activation = f" {network.activation}" if network.activation != context.original.activation else ""
    smaller = f", {network.model.variant.resolution} px" if network.model.variant.resolution != context.original.resolution else ""
    reduced = f", {len(network.left_out)} parts out" if network.left_out else ""
    return context.gate.judge(f"{precision}{activation}{smaller}{reduced}{f' ({strategy})' if strategy else ''}", run)


def gain(context: NetworkContext, network: Network, activation: str) -> tuple[float, tuple[float, float]]:
    """How many times faster INT8 is with another activation, and the 95% interval: weights do not matter to that."""
    target = context.target
    models: dict[str, CompiledModel] = {}
    for name, each in {"now": network.model, "then": swapped(network.model, activation)}.items():
        file = kept_for_timing(context, each.variant.activation, each, context.preprocess, [Precision.INT8])[Precision.INT8]
        models[name] = CompiledModel(target.backend, file, Precision.INT8, context.preprocess.resolution)
    metrics = context.machine.benchmark(BenchmarkRequest(models, threads=target.threads), context.progress).metrics
    return ratio(metrics["now"].latency, metrics["then"].latency)


def _swap_where_it_pays(context: NetworkContext, network: Network, activation: str) -> tuple[str, list[Attempt]]:
    """What another activation gains, in words, and where that is worth it, the attempts with the recovered network."""
    faster, (low, high) = gain(context, network, activation)
    note = f"{activation} makes INT8 {faster:.2f}× ({low:.2f} to {high:.2f}) as fast here"
    if low <= WORTH:
        return f"{note}: not worth a swap.", []
    return note, climb(context, recovered(context, network, activation))


def _with_smaller(context: NetworkContext, original: Network, start: Network, whole: Candidates) -> Candidates:
    """`whole`, and smaller networks, as far as they pass the gate in a precision that is nearly the fastest, and can be expected
    to on other photos."""
    attempts, forms, notes, planned = list(whole.attempts), list(whole.forms), list(whole.notes), Plan()
    starts = [start]
    precisions = [f.precision for f in forms if f.onnx == start.onnx and f.file != f.onnx and f.report.passed]

    def passes(to: Reduction) -> bool:
        aside, network = recovered_as(context, original, starts, to)
        made = float_forms(aside, network, planned.precisions)
        if any(precision.quantized for precision in planned.precisions):
            try:
                tried = climb(aside, network, [first_strategy(aside, network)])  # what it lost before INT8 no strategy gives back
                attempts.extend(tried)
                made += integer_forms(aside, best(tried))
            except AccuracyGateFailed as refusal:
                notes.append(f"Made smaller, {listed(to)}, it was refused: {refusal}")
        forms.extend(made)
        passed = any(form.report.passed for form in made)
        if passed:
            starts.append(network)
        elif made:
            notes.append(min((form.report for form in made), key=lambda report: report.loss).refusal)
        return passed

    try:
        planned = plan(context, start, list(dict.fromkeys(precisions)) or [Precision.INT8])
        notes.append(planned.reason)
        context.progress.say(planned.reason)
        if planned.reductions:
            exact = predict(original.model, context.preprocess)
            context = replace(context, gate=context.gate.expecting(expected_drop(context.gate, exact)))
        find_last(planned.reductions, passes)
    except EdgeeffError as reason:
        notes.append(f"It was not made smaller any further: {reason}")
    return Candidates(tuple(forms), tuple(attempts), tuple(notes), planned.options)


def _made_of(attempt: Attempt) -> Network:
    assert attempt.quantized is not None
    return attempt.quantized.network


def _onnx_form(context: NetworkContext, network: Network, judged: StepReport) -> Form:
    """The portable file itself, which ships where the target runs that."""
    ships = context.target.judge == "onnxruntime" and Precision.FLOAT32 in context.target.precisions
    form = _form(context, network, Precision.FLOAT32, network.onnx, judged)
    return replace(form, runtime="onnxruntime", reference=not ships)


def _form(context: NetworkContext, network: Network, precision: Precision, file: Path, report: StepReport) -> Form:
    return Form(
        precision=precision,
        runtime=context.target.judge,
        file=file,
        report=report,
        onnx=network.onnx,
        activation=network.activation,
        preprocess=context.preprocess,
        left_out=network.left_out,
    )


def _in_precision(context: NetworkContext, network: Network, file: Path, precision: Precision) -> Path:
    """The file for a precision: where FP16 is a property of the graph, one with it baked in."""
    if precision.rest != "fp16":
        return file
    source = file.with_name(MIXED) if precision.depthwise_in_float else file

    def write(folder: Path) -> None:
        keep = fp16.overflowing(network.onnx, context.calibration, context.progress)
        tensorrt_lint.require(fp16.write(source, folder / f"{precision}.onnx", keep), context.target.oldest_tensorrt)

    return context.cache.once(f"{file.parent.name}-{precision}", write) / f"{precision}.onnx"
