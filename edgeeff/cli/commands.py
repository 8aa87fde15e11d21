"""The verbs: a function each, which calls the library, prints tables for people, and returns what --json prints.

Heavy libraries are imported inside the functions.
"""

from __future__ import annotations

import argparse
import contextlib
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import job_file
from ..errors import BadInput, EdgeeffError, Unreliable, printable
from ..job import (
    BenchmarkJob,
    BundleJob,
    CompileJob,
    EvaluateJob,
    ImproveJob,
    Job,
    LabelJob,
    PickJob,
    ProfileJob,
    RequalifyJob,
    RollbackJob,
    SignJob,
)
from ..machine import LOCAL, Machine
from ..progress import TerminalProgress
from ..records import to_json
from . import tables
from .options import filled, parser, progress_of

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..pipeline import Fit
    from ..selection.search import Choice


def _fit(options: argparse.Namespace) -> object:
    return _fitted(filled(Job, options), options)


def _improve(options: argparse.Namespace) -> object:
    asked = filled(ImproveJob, options)
    bundle = asked.open()
    words = job_file.words(Path(asked.job or bundle.path / job_file.NAME))
    before = filled(Job, parser().parse_args(["fit", *words]))
    return _fitted(asked.fit(before, bundle), options)


def _fitted(job: Job, options: argparse.Namespace) -> object:
    from ..pipeline import fit

    with _machine(options, job.target) as machine, progress_of(options).whole() as progress:
        result = fit(job, machine=machine, progress=progress)
    graphs = bool(result.manifest.forms)
    if not options.json:
        tables.fit(result)
        if graphs and not result.compiled and not options.on:
            name = result.bundle.path.name
            val = "" if job.photos else " --val PHOTOS"  # all of --photos would judge by what was trained on
            print(f"Copy it to the device, and there: edgeeff compile {name}{val}; or from here, with --on USER@HOST")
    told = fit_json(result)
    if not (options.on and graphs):
        return told
    from .remote import compile_on

    try:
        compiled = compile_on(CompileJob(job.out, val=job.val, max_corrupt=job.max_corrupt), options)
    except EdgeeffError as error:
        error.result = {**told, "compiled": error.result}
        raise
    return {**told, "compiled": compiled}


def fit_json(result: Fit) -> dict[str, object]:
    """A fit as --json prints it."""
    facts = result.manifest.to_json()
    names = [
        "variant",
        "resolution",
        "precision",
        "activation",
        "remedy",
        "ladder",
        "steps",
        "held_out",
        "confidence",
        "unknown",
        "improvement",
        "latency_ms",
    ]
    if result.manifest.forms:
        names += ["forms", "rehearsals"]
    else:
        names += [*(result.manifest.metrics.to_json() if result.manifest.metrics else ()), "conditions", "disturbed", "siblings"]
        names += ["reverted_layers", "left_out"]
    return {
        **{name: facts[name] for name in names},
        "compiled": compilation_json(result.compiled) if result.compiled else None,
        "bundle": str(result.bundle.path),
        "page": str(result.bundle.report),
        "verdict": facts["verdict"],
    }


def compilation_json(result: Any) -> dict[str, object]:
    facts = {"bundle": str(result.bundle.path), "precision": str(result.shipped.precision)}
    return {**facts, "engines": to_json(result.engines), "verdict": result.verdict}


def _pick(options: argparse.Namespace) -> object:
    from ..selection.candidates import Search
    from ..selection.search import pick

    search = Search.of(filled(PickJob, options))
    with _machine(options, options.target) as machine:
        choice = pick(search, machine=machine, progress=progress_of(options))
    if not options.json:
        tables.choice(choice)
        if choice.chosen.fastest:
            tables.hosts(choice.chosen.fastest.metrics, search.budget.percentile)
        chosen = choice.chosen.variant
        within = f"{search.budget} on {search.target.name}"
        print(f"{chosen.name} at {chosen.resolution} px is the largest within {within}.{_doubts(choice)}")
        if choice.rivals:
            tables.rivals(choice.rivals, search.budget)
    return {
        "chosen": choice.chosen.to_json(),
        "candidates": [c.to_json() for c in choice.table],
        "frontier": [[c.variant.name, c.variant.resolution] for c in choice.frontier],
        "budget": str(search.budget),
        "disturbed": list(choice.noise),
        "rivals": [rival.to_json() for rival in choice.rivals.found] if choice.rivals else None,
    }


def _doubts(choice: Choice) -> str:
    if choice.chosen.predicted:
        return " Predicted from other networks on that device, not measured."
    why = "; ".join(choice.noise)
    return f" The machine is too noisy to rely on that: {why}. Repeat it when it is idle." if why else ""


def _profile(options: argparse.Namespace) -> object:
    from ..selection import latency_model
    from ..selection.candidates import Search
    from ..selection.search import profile

    search = Search.everything(filled(ProfileJob, options))
    path = latency_model.path(search.target.name)
    with _machine(options, options.target) as machine:
        models = profile(search, path, machine=machine, progress=progress_of(options))
    if not options.json:
        tables.latency_models(models)
        print(path)
    forms = {f"{form.precision} {form.activation}": {"median": m.median, "worst": m.worst} for form, m in models.items()}
    return {"file": str(path), "forms": forms}


def _machine(options: argparse.Namespace, target: str | Path) -> contextlib.AbstractContextManager[Machine]:
    """Where to measure: here, or the hosts of --on, for as long as they are needed."""
    if not options.on:
        return contextlib.nullcontext(LOCAL)
    from ..remote.fleet import machine
    from ..target import Target

    return machine(options.on, Target.load(target).backend, progress_of(options))


def _measure(options: argparse.Namespace) -> object:
    from ..measurement.benchmark import BenchmarkRequest, benchmark

    facts = to_json(LOCAL.facts(options.backend))
    if not options.request:
        return facts
    result = benchmark(BenchmarkRequest.read(Path(options.request)), progress_of(options))
    return {**facts, "figures": result.metrics, "conditions": result.states, "disturbed": result.noise}


def _variants(options: argparse.Namespace) -> object:
    from ..network.variants import VARIANTS, variant

    networks = [variant(name).at(options.resolution) for name in options.variant or VARIANTS]
    if not options.json:
        tables.variants(networks, options.classes)
    rows = []
    for v in networks:
        facts = {
            "variant": v.name,
            "resolution": v.resolution,
            "top1": v.top1,
            "padding": v.padding,
            "activation": v.activation,
            "weights": v.hub,
        }
        rows.append({**facts, **asdict(v.cost(options.classes))})
    return {"variants": rows}


def _targets(options: argparse.Namespace) -> object:
    from ..target import all_targets

    found = all_targets()
    if not options.json:
        tables.targets(found)
    return {"targets": found}


def _eval(options: argparse.Namespace) -> object:
    from ..evaluation import evaluate

    job = filled(EvaluateJob, options)
    if options.on:
        from .remote import evaluate_on

        return evaluate_on(job, options)
    result = evaluate(job, progress=progress_of(options))
    if not options.json:
        speed = f"{result.images_per_second:.0f} a second with decoding"
        balanced = "" if result.balanced is None else f"  mean of the classes {result.balanced:.2f}%"
        calibrated = f"calibration error {result.reliability.error:.2f}%"
        print(f"top-1 {result.top1:.2f}%  top-5 {result.top5:.2f}%{balanced}  {calibrated}  {result.images} photos, {speed}")
        if result.false_alarms:
            found = f"{result.foreign} of {result.foreign.photos} foreign photos, and " if result.foreign else ""
            print(f"unknown: {found}{result.false_alarms} of these {result.images} photos, which are false alarms")
    return result


def _bench(options: argparse.Namespace) -> object:
    from ..evaluation import benchmark_bundle

    job = filled(BenchmarkJob, options)
    if options.on:
        from .remote import benchmark_on

        return benchmark_on(job, options)
    result = benchmark_bundle(job, progress=progress_of(options))
    if not options.json:
        tables.benchmark(result)
    facts = to_json(result)
    told = {**facts, **facts.pop("metrics")}
    if result.disturbed:
        raise Unreliable(f"{job.bundle}: not a sound measurement, twice: {'; '.join(result.disturbed)}. Repeat it when idle.", told)
    return told


def _compile(options: argparse.Namespace) -> object:
    from ..compilation import compile_bundle

    job = filled(CompileJob, options)
    if options.on:
        from .remote import compile_on

        return compile_on(job, options)
    compiled = compile_bundle(job, progress=progress_of(options))
    if not options.json:
        tables.engines(compiled)
    return compilation_json(compiled)


def _lint(options: argparse.Namespace) -> object:
    from ..export.dla_lint import fallbacks
    from ..export.tensorrt_lint import RULES, lint

    more = [fallbacks] if options.dla else []
    findings = lint(Path(options.model), options.tensorrt, more)
    errors = sum(f.error for f in findings)
    version = ".".join(map(str, options.tensorrt))
    if not options.json:
        if findings:
            tables.findings(findings)
        rules, warnings = len(RULES) + len(more), len(findings) - errors
        print(f"{options.model}: {rules} rules for TensorRT {version}, {errors} errors, {warnings} warnings.")
    result = {"model": options.model, "tensorrt": version, "findings": findings}
    if errors:
        raise BadInput(f"{options.model}: TensorRT {version} would refuse or misread it: {errors} errors.", result)
    return result


def _inspect(options: argparse.Namespace) -> object:
    from ..bundle import Bundle
    from ..data.images import ImageSet, PixelFile
    from ..quantization.layer_error import inspect, plot

    bundle, progress = Bundle.open(options.bundle), progress_of(options)
    if options.engine:
        return _inspect_engine(bundle, options)
    images = None
    if options.images:
        images = next(PixelFile(ImageSet.open(options.images).draw(64), bundle.preprocess, progress=progress).batches(64))
    errors = inspect(bundle, images, progress=progress)
    if options.plot:
        plot(errors, Path(options.plot))
    if not options.json:
        tables.layers(errors[: options.top])
    return {"bundle": options.bundle, "layers": errors}


def _inspect_engine(bundle: Bundle, options: argparse.Namespace) -> object:
    from ..backends import tensorrt

    file = bundle.path / tensorrt.LAYERS
    if not file.is_file():
        raise BadInput(f"{options.bundle}: holds no TensorRT engine. On the device, edgeeff compile makes one.")
    try:
        layers = tensorrt.read_layers(file.read_text(encoding="utf-8"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput(f"{file}: is not what TensorRT writes of an engine ({type(error).__name__}). Compile it again.") from error
    if not options.json:
        tables.engine_layers(layers)
    return {"bundle": options.bundle, "layers": [{**asdict(layer), "reformat": layer.reformat} for layer in layers]}


def _verify(options: argparse.Namespace) -> object:
    job = filled(BundleJob, options)
    bundle = job.open()
    off, files = bundle.verify(), len(bundle.manifest.files)
    if not options.json:
        differences = f"golden images differ by {off['images']:.4f} standard deviations, the camera's path by {off['frames']:.3f}"
        signed = " signed by a trusted key," if job.trusted else ""
        print(f"{options.bundle}:{signed} {files} files match; {differences}. Good.")
    return {"bundle": options.bundle, "files": files, "golden_difference": off, "ok": True}


def _requalify(options: argparse.Namespace) -> object:
    from ..requalification import requalify

    job = filled(RequalifyJob, options)
    if options.on:
        from .remote import requalify_on

        return requalify_on(job, options)
    result = requalify(job, progress=progress_of(options))
    if not options.json:
        tables.requalification(result)
        print(result.verdict)
    if error := result.error:
        error.result = result
        raise error
    return result


def _sign(options: argparse.Namespace) -> object:
    from ..bundle import Bundle

    job = filled(SignJob, options)
    key = Bundle.open(job.bundle).sign(job.key)
    if not options.json:
        print(f"{job.bundle}: signed by {key}")
    return {"bundle": job.bundle, "key": key}


def _report(options: argparse.Namespace) -> object:
    from ..report.html import redraw

    path = redraw(Path(options.bundle))
    if not options.json:
        print(path)
    return {"bundle": options.bundle, "page": str(path)}


def _doctor(options: argparse.Namespace) -> object:
    from .doctor import examine

    findings = examine()
    if not options.json:
        tables.examination(findings)
    return {"findings": findings}


def _completion(options: argparse.Namespace) -> object:
    from .completion import script

    text = script(options.shell)
    if not options.json:
        print(text)
    return {"shell": options.shell, "script": text}


def _camera(options: argparse.Namespace) -> object:
    if options.on:
        from .remote import watch_on

        return watch_on(options)
    from .camera import watch

    return watch(options)


def _label(options: argparse.Namespace) -> object:
    from ..labelling import labelling

    page_of = labelling(filled(LabelJob, options), progress=progress_of(options))
    with page_of as page, contextlib.suppress(KeyboardInterrupt):  # how sorting ends
        TerminalProgress().say(f"sort the photos at {page.url}")  # also with --quiet: it has the token
        threading.Event().wait()
    if not options.json:
        counts = ", ".join(f"{name} {count}" for name, count in page.summary.classes.items() if count) or "none sorted"
        print(printable(f"{page.summary.labels}: {counts}; {page.summary.left} of {page.summary.photos} photos left"))
    return page.summary


def _rollback(options: argparse.Namespace) -> object:
    from ..camera.follow import rollback

    folder = Path(filled(RollbackJob, options).folder)
    state = rollback(folder)
    if not options.json:
        name = folder / state.running if state.running else "the bundle that the camera was started with"
        print(f"{folder}: the camera goes back to {name}, and does not try the other one again.")
    return {"folder": folder, "running": state.running}


VERBS: dict[str, Callable[[argparse.Namespace], object]] = {
    "fit": _fit,
    "improve": _improve,
    "pick": _pick,
    "profile": _profile,
    "variants": _variants,
    "targets": _targets,
    "eval": _eval,
    "bench": _bench,
    "compile": _compile,
    "camera": _camera,
    "rollback": _rollback,
    "label": _label,
    "lint": _lint,
    "inspect": _inspect,
    "verify": _verify,
    "requalify": _requalify,
    "sign": _sign,
    "report": _report,
    "measure": _measure,
    "doctor": _doctor,
    "completion": _completion,
}
