"""What reads a bundle, done on other hosts: several at once, each with its answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from ..bundle import Bundle, publish, replaceable
from ..camera.options import CameraJob, CameraOptions
from ..camera.result import FrameLabel
from ..camera.stats import CameraSummary
from ..data.images import ImageSet
from ..data.sources import Source
from ..errors import BadInput, EdgeeffError, Unreliable
from ..evaluation import foreign_photos, labelled
from ..files import working_folder
from ..job import BenchmarkJob, BundleJob, CompileJob, EvaluateJob, RequalifyJob
from ..option import arguments
from ..progress import SILENT, Progress
from ..records import from_json
from ..requalification import Requalification
from .fleet import Figures, HostAnswer, on_each
from .host import Host, Json, LiveOutput
from .ssh import check

B = TypeVar("B", bound=BundleJob)


def evaluate(job: EvaluateJob, hosts: Sequence[str], *, progress: Progress = SILENT) -> list[HostAnswer]:
    """The accuracy of the bundle's file on each host; the photos are sent once."""
    bundle, _ = labelled(job)
    val, photos = Source.of(Path(job.val)).sent("val")
    there = replace(_there(job), val=val)
    if job.foreign is not None:
        foreign_photos(job, bundle)  # refuses what the bundle cannot tell before anything is sent
        foreign, more = Source.of(Path(job.foreign)).sent("foreign")
        photos, there = {**photos, **more}, replace(there, foreign=foreign)
    return _read_bundle(bundle, ["eval", *arguments(there)], {"bundle": bundle.path, **photos, **_keys(job)}, hosts, progress)


def benchmark(job: BenchmarkJob, hosts: Sequence[str], *, progress: Progress = SILENT) -> list[HostAnswer]:
    """What the bundle's file costs on each host."""
    bundle = job.open()
    return _read_bundle(bundle, ["bench", *arguments(_there(job))], {"bundle": bundle.path, **_keys(job)}, hosts, progress)


def requalify(job: RequalifyJob, hosts: Sequence[str], *, progress: Progress = SILENT) -> list[HostAnswer]:
    """The bundle held to its manifest on each host; photos, where there are some, are sent once."""
    bundle, there = job.open(), _there(job)
    send = {"bundle": bundle.path, **_keys(job)}
    if job.val is not None:
        labelled(EvaluateJob(job.bundle, job.val))  # refuses photos of other classes before anything is sent
        val, photos = Source.of(Path(job.val)).sent("val")
        send, there = {**send, **photos}, replace(there, val=val)
    return _read_bundle(bundle, ["requalify", *arguments(there)], send, hosts, progress, Requalification)


def compile_bundle(job: CompileJob, hosts: Sequence[str], *, progress: Progress = SILENT) -> list[HostAnswer]:
    """Engines built on each host. One host's engine goes into the bundle itself, those of several into a bundle each beside it."""
    bundle = job.open()
    check(hosts)
    facts = bundle.manifest
    if not facts.forms:
        raise BadInput(f"{job.bundle}: nothing to compile: the bundle holds a finished {facts.backend} file.")
    send, there = {"bundle": bundle.path, **_keys(job)}, _there(job)
    if job.val is not None:
        ImageSet.open(job.val).labelled_for(facts.classes, bundle.labels)
        val, photos = Source.of(Path(job.val)).sent("val")
        send, there = {**send, **photos}, replace(there, val=val)
    place = bundle.path.resolve()
    outs = {name: place if len(set(hosts)) == 1 else place.with_name(f"{place.name}-{name}") for name in hosts}
    for out in outs.values():
        replaceable(out)

    def work(host: Host) -> Json:
        out = outs[host.name]
        with working_folder(out) as folder:
            made = folder / "bundle"
            result = host.run(["compile", *arguments(there)], send, bring={"bundle": made})
            Bundle.open(made)
            publish(made, out)
        return _with_figures(result, out, host)

    return on_each(hosts, "tensorrt", work, progress)


@dataclass(frozen=True)
class Watch:
    """Cameras of other hosts. `hear` gets each label, with the host before its source, from one thread at a time.

    Setting `ending` asks all of them to end, each with its summary; `stop` ends them without.
    """

    job: CameraJob
    options: CameraOptions
    hear: Callable[[FrameLabel], None]
    budget_ms: float | None = None
    ending: threading.Event = field(default_factory=threading.Event)
    stop: threading.Event = field(default_factory=threading.Event)


def watch(asked: Watch, hosts: Sequence[str], *, progress: Progress = SILENT) -> list[HostAnswer]:
    """The summaries of the hosts' cameras, once they have ended."""
    bundle, speaking = asked.job.open(), threading.Lock()
    check(hosts)
    if "-" in asked.job.sources:
        raise BadInput("--source - is for a camera of this machine: with --on pictures stay where they are.")
    words = ["camera", *arguments(_there(asked.job)), *arguments(asked.options)]
    words += [] if asked.budget_ms is None else ["--budget-ms", str(asked.budget_ms)]

    def work(host: Host) -> Json:
        def hear(told: Json) -> bool:
            if "frame" in told:
                label = from_json(told, FrameLabel, host.name)
                with speaking:
                    asked.hear(replace(label, source=f"{host.name} {label.source}"))
            return "frame" in told

        _require_same_machine(bundle, host)
        try:
            sent = {"bundle": bundle.path, **_keys(asked.job)}
            return _with_summary(host.run(words, sent, live=LiveOutput(hear, asked.ending)), host)
        except EdgeeffError as error:
            if isinstance(error.result, dict) and "summary" in error.result:
                _with_summary(error.result, host)
            raise

    return on_each(hosts, bundle.manifest.backend, work, progress, asked.stop)


def _keys(job: BundleJob) -> dict[str, Path]:
    """The public keys that are sent to check the bundle there as well, by their names there."""
    return {f"trusted-{i}.pem": Path(key) for i, key in enumerate(job.trusted)}


def _there(job: B) -> B:
    """The job with the names that its bundle and keys have on the host."""
    return replace(job, bundle="bundle", trusted=tuple(_keys(job)))


def _with_figures(answer: Any, bundle: Path, host: Host, kind: type = Figures) -> Json:
    """What a verb answers of a bundle, with the path that it has here; raises BadInput where it is no record of that `kind`."""
    from_json(answer, kind, host.name)
    return {**answer, "bundle": str(bundle)}


def _with_summary(answer: Json, host: Host) -> Json:
    """What a camera's verb answers; raises BadInput where its summary is none."""
    from_json(answer.get("summary"), CameraSummary, host.name)
    return answer


def _read_bundle(
    bundle: Bundle,
    words: Sequence[str],
    send: dict[str, Path],
    hosts: Sequence[str],
    progress: Progress,
    kind: type = Figures,
) -> list[HostAnswer]:
    """A verb that only reads the bundle, on every host; its answers are of that `kind`, also where it ends with an error."""

    def work(host: Host) -> Json:
        _require_same_machine(bundle, host)
        try:
            return _with_figures(host.run(words, send), bundle.path, host, kind)
        except EdgeeffError as error:
            if error.result is not None or isinstance(error, Unreliable):
                error.result = _with_figures(error.result, bundle.path, host, kind)
            raise

    return on_each(hosts, bundle.manifest.backend, work, progress)


def _require_same_machine(bundle: Bundle, host: Host) -> None:
    """An engine belongs to the kind of machine that it was built on."""
    built = bundle.manifest.device.machine
    if bundle.manifest.backend == "tensorrt" and built != host.machine:
        raise BadInput(
            f"{host.name}: is {host.machine}, but the bundle's engine was built on {built}. "
            f"First: edgeeff compile {bundle.path} --on {host.name}"
        )
