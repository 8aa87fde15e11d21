"""Verbs that read a bundle, done on the hosts of --on: what is sent, what comes back, and what is said of a fleet."""

from __future__ import annotations

import argparse
import contextlib
import signal
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..bundle import Bundle, publish, replaceable
from ..camera import sinks as outlets
from ..camera.loop import Result
from ..data.images import ImageSet
from ..errors import BadInput
from ..progress import TerminalProgress
from ..remote.host import Host, Live, failure, fleet
from ..remote.ssh import check
from ..report import tables as report


def elsewhere(options: argparse.Namespace, arguments: list[str], bundle: Bundle) -> dict[str, Any]:
    """A verb that reads a bundle, on every host of --on."""

    def work(host: Host) -> dict[str, Any]:
        _require_place(bundle, host, options.bundle)
        return {**host.run(arguments, _sent(options)), "bundle": options.bundle}

    return _answers(options, fleet(options.on, bundle.manifest["backend"], work, TerminalProgress()))


def compile_elsewhere(options: argparse.Namespace) -> dict[str, Any]:
    """One host's engine goes into the bundle itself; those of several into a bundle each beside it."""
    check(options.on)
    bundle = Bundle.open(options.bundle)
    if not bundle.manifest.get("forms"):
        raise BadInput(f"{options.bundle}: nothing to compile: the bundle holds a finished {bundle.manifest['backend']} file.")
    if options.val is not None:
        ImageSet.open(options.val).labelled_for(bundle.manifest["classes"], bundle.labels)
    arguments = ["compile", "bundle", "--max-corrupt", str(options.max_corrupt)]
    arguments += ["--val", "val"] if options.val is not None else []
    arguments += ["--dla", str(options.dla)] if options.dla is not None else []
    place = Path(options.bundle).resolve()
    outs = {name: place if len(set(options.on)) == 1 else place.with_name(f"{place.name}-{name}") for name in options.on}
    for out in outs.values():
        replaceable(out)

    def work(host: Host) -> dict[str, Any]:
        out = outs[host.name]
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
            result = host.run(arguments, _sent(options), bring={"bundle": Path(folder) / "bundle"})
            Bundle.open(Path(folder) / "bundle")
            publish(Path(folder) / "bundle", out)
        return {**result, "bundle": str(out)}

    return _answers(options, fleet(options.on, "tensorrt", work, TerminalProgress()))


def camera_elsewhere(options: argparse.Namespace) -> dict[str, Any]:
    """Cameras of other machines: what they see goes into the outlets here. Ctrl-C ends them all, each with its figures."""
    bundle = Bundle.open(options.bundle)
    check(options.on)
    if options.web or options.collect or "-" in options.sources:
        raise BadInput("--web, --collect and --source - are for a camera of this machine: with --on pictures stay where they are.")
    given = ("every", "top", "smooth", "threshold", "budget_ms", "seconds")
    words = {f"--{name.replace('_', '-')}": getattr(options, name) for name in given}
    arguments = [word for name, value in words.items() if value is not None for word in (name, str(value))]
    arguments += ["--roi", ",".join(map(str, options.region))] if options.region else []
    arguments += ["--size", "{}x{}".format(*options.size)] if options.size else []
    arguments += ["--nv12"] if options.nv12 else []
    ending, stop, speaking, progress = threading.Event(), threading.Event(), threading.Lock(), TerminalProgress()
    with contextlib.ExitStack() as stack:
        sinks = outlets.opened(stack, json=options.json, output=options.output, mqtt=options.mqtt, progress=progress)

        def work(host: Host) -> dict[str, Any]:
            def hear(told: dict[str, Any]) -> bool:
                if "frame" in told:
                    result = Result.from_json({**told, "source": f"{host.name} {told['source']}"})
                    with speaking:
                        for sink in sinks:
                            sink(result)
                return "frame" in told

            _require_place(bundle, host, options.bundle)
            verb = ["camera", "bundle", "--source", *options.sources, *arguments]
            return host.run(verb, _sent(options), live=Live(hear, ending))

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: (stop if ending.is_set() else ending).set())  # once more, and nothing is waited for
        answers = fleet(options.on, bundle.manifest["backend"], work, progress, stop)
    return _answers(options, answers, report.cameras_elsewhere)


def _require_place(bundle: Bundle, host: Host, path: str) -> None:
    """An engine belongs to the kind of machine that it was built on."""
    built = bundle.manifest["device"]["machine"]
    if bundle.manifest["backend"] == "tensorrt" and built != host.machine:
        raise BadInput(
            f"{host.name}: is {host.machine}, but the bundle's engine was built on {built}. "
            f"First: edgeeff compile {path} --on {host.name}"
        )


def _sent(options: argparse.Namespace) -> dict[str, Any]:
    val = getattr(options, "val", None)
    return {"bundle": Path(options.bundle)} | ({"val": Path(val)} if val is not None else {})


def _answers(
    options: argparse.Namespace, answers: list[dict[str, Any]], show: Callable[[list[dict[str, Any]]], None] = report.fleet
) -> dict[str, Any]:
    """Those of all hosts; a failed one ends the command once all are printed."""
    failed, result = failure(answers), {"hosts": answers}
    if not options.json and (len(answers) > 1 or set(answers[0]) != {"host", "error", "exit_code"}):
        show(answers)
        for answer in answers:
            if "verdict" in answer:
                print(f"{answer['host']}: {answer['verdict']}\nbundle: {answer['bundle']}")
    if failed:
        failed.result = result
        raise failed
    return result
