"""The verbs with --on: what they print of the hosts' answers, and how they end where a host failed."""

from __future__ import annotations

import argparse
import contextlib
import signal
from collections.abc import Callable, Sequence

from .. import remote
from ..camera.options import CameraJob, CameraOptions, OutputOptions
from ..camera.result import FrameLabel
from ..camera.sinks import open_sinks
from ..errors import BadInput, printable
from ..job import BenchmarkJob, CompileJob, EvaluateJob, RequalifyJob
from ..remote import HostAnswer
from ..remote.fleet import failure
from . import tables
from .options import filled, progress_of


def evaluate_on(job: EvaluateJob, options: argparse.Namespace) -> dict[str, object]:
    return _answers(options, remote.evaluate(job, options.on, progress=progress_of(options)))


def benchmark_on(job: BenchmarkJob, options: argparse.Namespace) -> dict[str, object]:
    return _answers(options, remote.benchmark(job, options.on, progress=progress_of(options)))


def compile_on(job: CompileJob, options: argparse.Namespace) -> dict[str, object]:
    return _answers(options, remote.compile_bundle(job, options.on, progress=progress_of(options)))


def requalify_on(job: RequalifyJob, options: argparse.Namespace) -> dict[str, object]:
    answers = remote.requalify(job, options.on, progress=progress_of(options))
    return _answers(options, answers, tables.requalified_elsewhere)


def watch_on(options: argparse.Namespace) -> dict[str, object]:
    """Cameras of other machines: their labels go into the sinks here. Ctrl-C ends them all, each with its summary."""
    outputs, progress = filled(OutputOptions, options), progress_of(options)
    if outputs.web or outputs.collect or options.follow:
        raise BadInput("--web, --collect and --follow are for a camera of this machine: with --on pictures stay where they are.")
    with contextlib.ExitStack() as stack:
        sinks = open_sinks(stack, outputs, json=options.json, progress=progress)

        def hear(label: FrameLabel) -> None:
            for sink in sinks:
                sink(label)

        asked = remote.Watch(filled(CameraJob, options), filled(CameraOptions, options), hear, outputs.budget_ms)
        for number in (signal.SIGINT, signal.SIGTERM):  # a second one does not wait for the summaries
            signal.signal(number, lambda *_: (asked.stop if asked.ending.is_set() else asked.ending).set())
        answers = remote.watch(asked, options.on, progress=progress)
    return _answers(options, answers, tables.cameras_elsewhere)


def _answers(
    options: argparse.Namespace, answers: list[HostAnswer], show: Callable[[Sequence[HostAnswer]], None] = tables.fleet
) -> dict[str, object]:
    """Those of all hosts; a failed one ends the command once all are printed."""
    failed = failure(answers)
    result: dict[str, object] = {"hosts": [answer.to_json() for answer in answers]}
    if not options.json and (len(answers) > 1 or answers[0].error is None or answers[0].result):
        show(answers)
        for answer in answers:
            if "verdict" in answer.result:
                print(printable(f"{answer.host}: {answer.result['verdict']}"))
                print(printable(f"bundle: {answer.result['bundle']}"))
    if failed:
        failed.result = result
        raise failed
    return result
