"""The verb `camera`: labels on live frames of this machine, into the terminal, files, a broker and a page."""

from __future__ import annotations

import argparse
import contextlib
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ..camera.follow import Follower, bundle_to_run
from ..camera.loop import Camera
from ..camera.options import CameraJob, CameraOptions, OutputOptions
from ..camera.result import Event
from ..camera.sinks import FrameCollector, FrameSink, JsonLines, MqttPublisher, open_sinks
from ..camera.web import CameraPage
from ..errors import EdgeeffError
from ..progress import Progress, TerminalProgress
from . import tables
from .options import filled, progress_of


def watch(options: argparse.Namespace) -> object:
    """Label frames until the sources end, the time is over, or the process is asked to end by Ctrl-C, SIGTERM or SIGHUP.

    A page stays open after the sources' end, unless a time was given.
    """
    job, asked, outputs = filled(CameraJob, options), filled(CameraOptions, options), filled(OutputOptions, options)
    failed: Exception | None = None
    with contextlib.ExitStack() as stack:
        progress = progress_of(options)
        folder = None if job.follow is None else Path(job.follow)
        bundle, running = (job.open(), "") if folder is None else bundle_to_run(job, folder, lambda event: progress.say(str(event)))
        camera = stack.enter_context(Camera(bundle, job.sources, asked, progress))
        sinks = _sinks(stack, camera, outputs, json=options.json)
        if folder:
            tell = partial(_tell, progress, sinks)
            stack.enter_context(Follower(job, folder, camera, running, tell))
            if job.pull:
                from ..remote.pull import Puller  # ssh, of which other cameras need nothing

                stack.enter_context(Puller(job.pull, folder, tell))
        try:
            for result in camera:
                for sink in sinks:
                    sink(result)
            if outputs.web and asked.seconds is None:
                camera.progress.say("The stream has ended; the page stays open until Ctrl-C.")
                threading.Event().wait()
        except KeyboardInterrupt:
            pass  # how a camera is switched off
        except Exception as error:  # raised again below, after the figures were printed
            failed = error
        summary, failed = camera.summary(), failed or camera.failed
    if not options.json and (not failed or any(row.labels for row in summary.sources)):
        tables.cameras(summary)
    if isinstance(failed, EdgeeffError):
        failed.result = {"summary": summary}
    if failed:
        raise failed
    if outputs.budget_ms:
        camera.check_budget(outputs.budget_ms)
    return {"summary": summary}


def _tell(progress: Progress, sinks: Sequence[FrameSink], event: Event) -> None:
    """A line for people, and one in JSON to every sink that takes JSON."""
    progress.say(str(event))
    for sink in sinks:
        if isinstance(sink, JsonLines | MqttPublisher):
            sink.event(event)


def _sinks(stack: contextlib.ExitStack, camera: Camera, outputs: OutputOptions, *, json: bool) -> list[FrameSink]:
    """Everything that takes labels, open until the stack is left."""
    progress = camera.progress
    sinks: list[FrameSink] = [*open_sinks(stack, outputs, json=json, progress=progress)]
    if outputs.collect:
        folder, megabytes = Path(outputs.collect), outputs.collect_mb
        sinks.append(
            FrameCollector(folder, outputs.uncertain, megabytes=megabytes, region=camera.options.region, progress=progress)
        )
    if outputs.web:
        page = stack.enter_context(CameraPage(outputs.web, camera, outputs.budget_ms))
        TerminalProgress().say(f"watch at {page.url}")  # also with --quiet: it has the token, without which nobody sees the page
        sinks.append(page)
    return sinks
