"""The command line: one function a verb. Each parses, calls and prints; heavy libraries load inside the calls."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from ..errors import BadInput, EdgeeffError, ToolMissing
from ..progress import TerminalProgress
from ..report import tables as report
from .options import parser


def main(argv: Sequence[str] | None = None) -> int:
    options = parser().parse_args(argv)
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return _answer(options)
    from ..network import distributed as parallel

    if not parallel.join():
        return 0
    try:
        return _answer(options)
    finally:
        parallel.leave()


def _answer(options: argparse.Namespace) -> int:
    try:
        _print(VERBS[options.verb](options), options)
    except EdgeeffError as error:
        _print(error.result, options)
        return _refuse(str(error), error.exit_code)
    except ModuleNotFoundError as error:
        return _refuse(f"{error.name} is not installed: pip install 'edgeeff[fit]'", ToolMissing.exit_code)
    except KeyboardInterrupt:
        return _refuse("interrupted; the same command goes on from what was done.", 130)
    except OSError as error:
        return _refuse(f"{error.filename or 'output'}: {error.strerror or error}.", BadInput.exit_code)
    return 0


def _print(result: dict[str, Any] | None, options: argparse.Namespace) -> None:
    if options.json and result is not None:
        print(json.dumps(result, indent=options.indent))


def _refuse(line: str, code: int) -> int:
    print(f"edgeeff: {line}", file=sys.stderr)
    return code


def _filled(kind: type[Any], options: argparse.Namespace, **others: Any) -> Any:
    """A dataclass whose fields are the options of the same names."""
    return kind(**others, **{f.name: getattr(options, f.name) for f in fields(kind) if f.name not in others})


def _fit(options: argparse.Namespace) -> dict[str, Any]:
    from ..bundle import PAGE
    from ..pipeline import Job, fit
    from ..target import Budget
    from .remote import compile_elsewhere

    job: Job = _filled(Job, options, budget=_filled(Budget, options))
    with _machine(options) as on:
        result = fit(job, on=on, progress=TerminalProgress())
    if not options.json:
        if result.choice:
            report.choice(result.choice)
        outcome = result.outcome
        report.steps(result.steps, shipped=outcome.shipped.report.step)
        if len(result.ladder) > 1:
            report.ladder(result.ladder)
        if outcome.siblings:
            report.siblings(outcome.siblings, outcome.shipped)
            report.hosts(next(s.figures for s in outcome.siblings if s.form is outcome.shipped), options.percentile)
        path = result.bundle.path
        print(f"{outcome.verdict}\n\nbundle: {path}    check it again: edgeeff verify {path}")
        print(f"report: {path / PAGE}")
        if result.compiled:
            report.engines(result.compiled)
        elif result.bundle.manifest.get("forms") and not options.on:
            print(f"Copy it to the device, and there: edgeeff compile {path.name} --val PHOTOS; or from here, with --on USER@HOST")
    if options.on and result.bundle.manifest.get("forms"):
        there = argparse.Namespace(**{**vars(options), "bundle": options.out, "dla": None})
        try:
            return {**result.to_json(), "compiled": compile_elsewhere(there)}
        except EdgeeffError as error:
            error.result = {**result.to_json(), "compiled": error.result}
            raise
    return result.to_json()


def _pick(options: argparse.Namespace) -> dict[str, Any]:
    from ..network.variants import grid
    from ..selection.search import activations, pick
    from ..target import Budget, Target

    target = Target.load(options.target)
    budget = target.budget(_filled(Budget, options))
    with _machine(options) as on:
        choice = pick(
            target,
            budget,
            grid(options.variants, options.resolution),
            classes=options.classes,
            activations=activations(target, options.activation),
            exhaustive=options.all,
            on=on,
            progress=TerminalProgress(),
        )
    if not options.json:
        report.choice(choice)
        if choice.chosen.forms:
            report.hosts(choice.chosen.forms[0].figures, budget.percentile)
        chosen = choice.chosen.variant
        print(f"{chosen.name} at {chosen.resolution} px is the largest within {budget} on {target.name}.{_doubts(choice)}")
    return {
        "chosen": choice.chosen.to_json(),
        "candidates": [c.to_json() for c in choice.table],
        "frontier": [[c.variant.name, c.variant.resolution] for c in choice.frontier],
        "budget": str(budget),
        "disturbed": list(choice.disturbed),
    }


def _machine(options: argparse.Namespace) -> Any:
    """Where to measure: here, or the hosts of --on, for as long as they are needed."""
    from ..measurement.latency import HERE
    from ..target import Target

    if not options.on:
        return contextlib.nullcontext(HERE)
    from ..remote.host import machine

    return machine(options.on, Target.load(options.target).backend, TerminalProgress())


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    from pathlib import Path

    from ..measurement.latency import answer

    return answer(options.backend, Path(options.request) if options.request else None, TerminalProgress())


def _doubts(choice: Any) -> str:
    if choice.chosen.predicted:
        return " Predicted from other networks on that device, not measured."
    why = "; ".join(choice.disturbed)
    return f" The machine is too noisy to rely on that: {why}. Repeat it when it is idle." if why else ""


def _profile(options: argparse.Namespace) -> dict[str, Any]:
    from ..network.variants import grid
    from ..selection import latency_model as predict
    from ..selection.search import profile
    from ..target import Target

    target = Target.load(options.target)
    path = predict.path(target.name)
    with _machine(options) as on:
        models = profile(target, grid(options.variants, options.resolution), path=path, on=on, progress=TerminalProgress())
    if not options.json:
        rows = [[form, f"{100 * m.median:.1f}", f"{100 * m.worst:.1f}", str(len(m.errors))] for form, m in models.items()]
        report.table(["form", "median error %", "worst %", "networks"], rows, title="each network predicted from the others")
        print(path)
    return {"file": str(path), "forms": {form: {"median": m.median, "worst": m.worst} for form, m in models.items()}}


def _variants(options: argparse.Namespace) -> dict[str, Any]:
    from ..network.variants import VARIANTS, variant

    rows: list[dict[str, Any]] = []
    for name in options.variant or VARIANTS:
        v = variant(name).at(options.resolution)
        cost = v.cost(options.classes)
        facts = {"variant": v.name, "resolution": v.resolution, "top1": v.top1, "padding": v.padding, "activation": v.activation}
        rows.append({**facts, "params": cost.params, "flops": cost.flops, "activations": cost.activations})
    if not options.json:
        lines = [
            [
                r["variant"],
                str(r["resolution"]),
                f"{r['params'] / 1e6:.2f}",
                f"{r['flops'] / 1e9:.3f}",
                f"{r['activations'] / 1e6:.2f}",
                f"{r['top1']:.1f}" if r["top1"] else "",
                r["activation"],
                r["padding"],
            ]
            for r in rows
        ]
        report.table(["variant", "px", "M params", "GFLOPs", "M activations", "ImageNet %", "activation", "padding"], lines)
    return {"variants": rows}


def _targets(options: argparse.Namespace) -> dict[str, Any]:
    from dataclasses import asdict

    from ..target import all_targets

    found = all_targets()
    if not options.json:
        lines = [
            [t.name, t.backend, f"{t.latency_ms:g}" if t.latency_ms else "", ", ".join(t.precisions), t.description] for t in found
        ]
        report.table(["target", "backend", "default ms", "precisions", "device"], lines)
    return {"targets": [asdict(t) for t in found]}


def _eval(options: argparse.Namespace) -> dict[str, Any]:
    from ..bundle import Bundle
    from ..data.images import ImageSet, PixelFile
    from ..measurement.accuracy import Gate
    from .remote import elsewhere

    bundle = Bundle.open(options.bundle)
    images = ImageSet.open(options.val).labelled_for(bundle.manifest["classes"], bundle.labels)
    if images.labels is None:
        raise BadInput(f"{options.val}: unlabelled photos. Expected DIR/CLASS/*.jpg or labels.txt.")
    if options.on:
        return elsewhere(options, ["eval", "bundle", "--val", "val", "--max-corrupt", str(options.max_corrupt)], bundle)
    progress = TerminalProgress()
    start = time.monotonic()
    pixels = PixelFile(images, bundle.preprocess, max_corrupt=options.max_corrupt, progress=progress)
    decoding = time.monotonic() - start
    result = Gate(pixels, max_drop=100, progress=progress).judge("bundle", bundle.load(throughput=True))
    facts = {
        "bundle": options.bundle,
        "precision": bundle.manifest["precision"],
        "top1": result.top1,
        "top5": result.top5,
        "images": result.images,
        "decode_seconds": decoding,
        "seconds": result.seconds,
        "images_per_second": result.images / (decoding + result.seconds),
    }
    if not options.json:
        speed = f"{facts['images_per_second']:.0f} a second with decoding"
        print(f"top-1 {result.top1:.2f}%  top-5 {result.top5:.2f}%  {result.images} photos, {speed}")
    return facts


def _bench(options: argparse.Namespace) -> dict[str, Any]:
    from ..bundle import Bundle
    from ..measurement.latency import HERE, Compiled, Request
    from ..measurement.system_state import device
    from ..target import Budget
    from .remote import elsewhere

    if options.rounds < 2:
        raise BadInput("--rounds: expected 2 or more, for an interval.")
    bundle = Bundle.open(options.bundle)
    if options.on:
        return elsewhere(options, ["bench", "bundle", "--rounds", str(options.rounds)], bundle)
    facts = bundle.manifest
    form = Compiled(facts["backend"], bundle.path / facts["model"], facts["precision"], bundle.preprocess.resolution)
    everything = Budget(fps=1, memory_mb=1e9)
    costs = HERE.costs(Request({"": form}, everything, facts["threads"], options.rounds), TerminalProgress())
    figures, timed = costs.figures[""], costs.figures[""].latency
    if not options.json:
        print(f"p50 {timed.p50:.2f} ms ({timed.ci[0]:.2f} to {timed.ci[1]:.2f})  p90 {timed.p90:.2f}  p99 {timed.p99:.2f}", end="")
        print(f"  first {timed.first:.2f}  {figures.fps:.0f} frames per second  {figures.memory_mb:.0f} MB of memory")
        if costs.disturbed:
            print(f"Not a sound measurement, twice: {'; '.join(costs.disturbed)}.")
    result = {"bundle": options.bundle, "precision": facts["precision"], **figures.to_json(), "device": device()}
    return {**result, "conditions": costs.conditions, "disturbed": list(costs.disturbed)}


def _compile(options: argparse.Namespace) -> dict[str, Any]:
    from ..compilation import compile
    from .remote import compile_elsewhere

    if options.on:
        return compile_elsewhere(options)
    compiled = compile(
        options.bundle, val=options.val, dla=options.dla, max_corrupt=options.max_corrupt, progress=TerminalProgress()
    )
    if not options.json:
        report.engines(compiled)
    return compiled.to_json()


def _camera(options: argparse.Namespace) -> dict[str, Any]:
    import signal
    from pathlib import Path

    from ..bundle import Bundle
    from ..camera import sinks as outlets
    from ..camera.loop import Camera
    from ..camera.web import Web
    from .remote import camera_elsewhere

    if options.on:
        return camera_elsewhere(options)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    progress = TerminalProgress()
    asked = {name: getattr(options, name) for name in ("region", "every", "nv12", "size", "smooth", "threshold", "top")}
    asked["seconds"] = options.seconds or math.inf
    with contextlib.ExitStack() as stack:
        camera = stack.enter_context(Camera(Bundle.open(options.bundle), options.sources, **asked, progress=progress))
        sinks = outlets.opened(stack, json=options.json, output=options.output, mqtt=options.mqtt, progress=progress)
        if options.collect:
            sinks.append(
                outlets.Collector(
                    Path(options.collect), options.uncertain, megabytes=options.collect_mb, region=options.region, progress=progress
                )
            )
        if options.web:
            web = stack.enter_context(Web(options.web, camera))
            progress.say(f"watch at {web.url}")
            sinks.append(web)
        failed: Exception | None = None
        try:
            for result in camera:
                for sink in sinks:
                    sink(result)
        except KeyboardInterrupt:
            pass  # how a camera is switched off
        except Exception as error:  # raised again below, once the figures are told
            failed = error
        summary, failed = camera.summary(), failed or camera.failed
    if not options.json and (not failed or any(row["labels"] for row in summary["sources"])):
        report.cameras(summary)
    if isinstance(failed, EdgeeffError):
        failed.result = {"summary": summary}
    if failed:
        raise failed
    if options.budget_ms:
        camera.hold(options.budget_ms)
    return {"summary": summary}


def _lint(options: argparse.Namespace) -> dict[str, Any]:
    from dataclasses import asdict
    from pathlib import Path

    from ..export.tensorrt_lint import RULES, lint

    findings = lint(Path(options.model), options.tensorrt)
    errors = sum(f.error for f in findings)
    version = ".".join(map(str, options.tensorrt))
    if not options.json:
        if findings:
            report.findings(findings)
        print(f"{options.model}: {len(RULES)} rules for TensorRT {version}, {errors} errors, {len(findings) - errors} warnings.")
    result = {"model": options.model, "tensorrt": version, "findings": [asdict(f) for f in findings]}
    if errors:
        raise BadInput(f"{options.model}: TensorRT {version} would refuse or misread it: {errors} errors.", result)
    return result


def _inspect(options: argparse.Namespace) -> dict[str, Any]:
    from dataclasses import asdict
    from pathlib import Path

    from ..bundle import Bundle
    from ..data.images import ImageSet, PixelFile
    from ..quantization.layer_error import inspect, plot

    bundle, progress = Bundle.open(options.bundle), TerminalProgress()
    if options.engine:
        return _inspect_engine(bundle, options)
    images = None
    if options.images:
        images = next(PixelFile(ImageSet.open(options.images).draw(64), bundle.preprocess, progress=progress).batches(64))
    errors = inspect(bundle, images, progress=progress)
    if options.plot:
        plot(errors, Path(options.plot))
    if not options.json:
        report.layers(errors[: options.top])
    return {"bundle": options.bundle, "layers": [{**asdict(e), "adds": e.adds} for e in errors]}


def _inspect_engine(bundle: Any, options: argparse.Namespace) -> dict[str, Any]:
    from dataclasses import asdict

    from ..backends import tensorrt

    file = bundle.path / tensorrt.LAYERS
    if not file.is_file():
        raise BadInput(f"{options.bundle}: holds no TensorRT engine. On the device, edgeeff compile makes one.")
    layers = tensorrt.read_layers(file.read_text(encoding="utf-8"))
    if not options.json:
        report.engine_layers(layers)
    return {"bundle": options.bundle, "layers": [{**asdict(layer), "reformat": layer.reformat} for layer in layers]}


def _verify(options: argparse.Namespace) -> dict[str, Any]:
    from ..bundle import Bundle

    bundle = Bundle.open(options.bundle)
    off = bundle.verify()
    if not options.json:
        files = len(bundle.manifest["files"])
        differences = f"golden images differ by {off['images']:.4f} standard deviations, the camera's path by {off['frames']:.3f}"
        print(f"{options.bundle}: {files} files match; {differences}. Good.")
    return {"bundle": options.bundle, "files": len(bundle.manifest["files"]), "golden_difference": off, "ok": True}


def _doctor(options: argparse.Namespace) -> dict[str, Any]:
    from dataclasses import asdict

    from .doctor import examine

    findings = examine()
    if not options.json:
        report.table(
            ["", "found", "", "what to do"], [[f.what, f.found, "ok" if f.ok else "!", "" if f.ok else f.remedy] for f in findings]
        )
    return {"findings": [asdict(f) for f in findings]}


VERBS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "fit": _fit,
    "pick": _pick,
    "profile": _profile,
    "variants": _variants,
    "targets": _targets,
    "eval": _eval,
    "bench": _bench,
    "compile": _compile,
    "camera": _camera,
    "lint": _lint,
    "inspect": _inspect,
    "verify": _verify,
    "measure": _measure,
    "doctor": _doctor,
}
