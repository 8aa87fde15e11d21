"""The command line: one function a verb. Each parses, calls and prints; heavy libraries load inside the calls."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from typing import Any

from . import report
from .errors import BadInput, EdgeeffError, ToolMissing
from .progress import TerminalProgress

EXIT_CODES = """exit codes: 0 done · 2 bad input · 3 budget not met · 4 accuracy gate failed · 5 tool missing
            6 hub or device unreachable · 7 engine not built · 8 measurement disturbed
            130 interrupted (the same command goes on from there)"""


def main(argv: Sequence[str] | None = None) -> int:
    options = parser().parse_args(argv)
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return _answer(options)
    from . import parallel

    if not parallel.join():
        return 0
    try:
        return _answer(options)
    finally:
        parallel.leave()


def _answer(options: argparse.Namespace) -> int:
    try:
        result: dict[str, Any] = options.run(options)
    except EdgeeffError as error:
        return _refuse(str(error), error.exit_code)
    except ModuleNotFoundError as error:
        return _refuse(f"{error.name} is not installed: pip install 'edgeeff[fit]'", ToolMissing.exit_code)
    except KeyboardInterrupt:
        return _refuse("interrupted; the same command goes on from what was done.", 130)
    except OSError as error:
        return _refuse(f"{error.filename or 'output'}: {error.strerror or error}.", BadInput.exit_code)
    if options.json:
        print(json.dumps(result, indent=1))
    return 0


def _refuse(line: str, code: int) -> int:
    print(f"edgeeff: {line}", file=sys.stderr)
    return code


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="edgeeff",
        description="The largest EfficientNet within a device's budget, in INT8, proven on your photos and measured on the device.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = top.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, run: Any, help: str) -> argparse.ArgumentParser:
        p = verbs.add_parser(name, help=help, description=help)
        p.add_argument("--json", action="store_true", help="one JSON object on standard output")
        p.set_defaults(run=run)
        return p

    p = verb("fit", _fit, "weights or labelled photos → a verified bundle within the budget")
    _budget_options(p)
    p.add_argument("--variant", nargs="+", default=[], metavar="NAME", help="the variant, or those to choose from (default: all)")
    p.add_argument("--weights", metavar="FILE", help="checkpoint: .safetensors, .pth, or hf-hub:owner/name")
    p.add_argument("--train", metavar="DIR", help="labelled photos to train on: DIR/CLASS/*.jpg or labels.txt")
    p.add_argument("--val", required=True, metavar="DIR", help="photos that judge every step; no step learns from them")
    p.add_argument("--calib", metavar="DIR", help="photos that set the INT8 ranges (default: the training photos)")
    p.add_argument("--out", required=True, metavar="DIR", help="the bundle to write")
    p.add_argument("--max-drop", type=float, default=0.5, metavar="POINTS", help="top-1 points a step may lose (default 0.5)")
    p.add_argument(
        "--activation",
        choices=["keep", "hardswish", "relu6", "relu", "auto"],
        help="swap Swish and recover on --calib or --train (default: where INT8 fails without; auto: also where it is faster)",
    )
    p.add_argument(
        "--time-budget", type=float, default=30.0, metavar="MIN", help="minutes for finding INT8 that passes the gate (default 30)"
    )
    p.add_argument("--accept", action="store_true", help="ship the best within the budget even if it fails the accuracy gate")
    p.add_argument(
        "--min-agreement", type=float, default=97.0, metavar="PERCENT", help="the gate for unlabelled --val (default 97)"
    )
    p.add_argument("--labels", metavar="FILE", help="class names, one a line, for weights that do not name theirs")
    p.add_argument(
        "--padding", choices=["symmetric", "same"], help="of the weights, where the file does not say (default: the variant's)"
    )
    p.add_argument(
        "--calibration", default="default", metavar="RECIPE", help="how photos set the ranges: a name from calib/, or a YAML file"
    )
    p.add_argument("--max-corrupt", type=float, default=0.01, metavar="SHARE", help="unreadable photos tolerated (default 0.01)")
    p.add_argument("--epochs", type=int, help="of training (default: 10 from weights, 40 from scratch)")
    p.add_argument("--lr", type=float, help="peak learning rate (default: 0.001 from weights, 0.003 from scratch)")
    p.add_argument("--no-flip", action="store_true", help="train without mirroring: digits, text, arrows")
    p.add_argument("--seed", type=int, default=0)

    p = verb("pick", _pick, "the largest variant within the budget, timed here with random weights")
    _budget_options(p)
    p.add_argument("--variant", nargs="+", default=[], metavar="NAME", help="candidates (default: all)")
    p.add_argument("--classes", type=_classes, default=1000)
    p.add_argument("--activation", choices=["keep", "auto", "hardswish", "relu6", "relu"], default="keep", help="as fit would swap")
    p.add_argument("--all", action="store_true", help="measure every candidate instead of searching, and show the frontier")

    p = verb("profile", _profile, "measure many variants here, so that others can be predicted where this device is not at hand")
    p.add_argument("--target", required=True, help="a name from `edgeeff targets`; the model is written beside its file")
    p.add_argument("--variant", nargs="+", default=[], metavar="NAME", help="what to measure (default: all)")
    p.add_argument("--resolution", type=int, nargs="+", default=[], metavar="PX", help="input sizes (default: each variant's)")
    p.add_argument("--on", metavar="USER@HOST", help="measure there, over ssh, with nothing installed but python3 and rsync")

    p = verb("variants", _variants, "the family: parameters, multiply-adds and activations of each at its resolution")
    p.add_argument("variant", nargs="*", help="names, or phiX for a compound coefficient (default: all)")
    p.add_argument("--resolution", type=int)
    p.add_argument("--classes", type=_classes, default=1000)

    verb("targets", _targets, "the devices edgeeff knows")

    p = verb("eval", _eval, "accuracy of a bundle's compiled file on labelled photos")
    p.add_argument("bundle")
    p.add_argument("--val", required=True, metavar="DIR")
    p.add_argument("--max-corrupt", type=float, default=0.01, metavar="SHARE")
    _on_option(p)

    p = verb("bench", _bench, "latency of a bundle's compiled file on this machine")
    p.add_argument("bundle")
    p.add_argument("--rounds", type=int, default=8)
    _on_option(p)

    p = verb("compile", _compile, "on the device: a bundle's graphs become engines; the fastest that passes ships")
    p.add_argument("bundle")
    p.add_argument("--val", metavar="DIR", help="labelled photos to judge the engines on (default: the bundle's golden ones)")
    p.add_argument("--dla", type=int, metavar="CORE", help="build for a DLA core; refused where it runs under 90%% of the layers")
    p.add_argument("--max-corrupt", type=float, default=0.01, metavar="SHARE", help="unreadable photos tolerated (default 0.01)")
    _on_option(p)

    p = verb("lint", _lint, "will TensorRT build this ONNX graph, and run it in INT8?")
    p.add_argument("model", metavar="MODEL.onnx")
    p.add_argument("--tensorrt", type=_version, default=(10, 3), metavar="VERSION", help="the version to build with (default 10.3)")

    p = verb("inspect", _inspect, "which layers of a bundle lose most in INT8: float against INT8 on the same photos")
    p.add_argument("bundle")
    p.add_argument("--images", metavar="DIR", help="photos to compare on (default: the bundle's golden ones)")
    p.add_argument("--plot", metavar="FILE", help="also draw the errors as SVG")
    p.add_argument("--top", type=int, default=15, metavar="N", help="layers to list (default 15)")
    p.add_argument("--engine", action="store_true", help="list the layers of a TensorRT engine instead, as it was built")

    p = verb("verify", _verify, "re-hash a bundle's files and replay its golden images")
    p.add_argument("bundle")

    p = verb("measure", _measure, "what a fit elsewhere asks of this machine, by --on: always JSON")
    p.add_argument("backend")
    p.add_argument("request", nargs="?", help="the folder that came with the question (default: only what this machine is)")
    p.set_defaults(json=True)

    verb("doctor", _doctor, "what this machine has and what is missing")
    return top


def _classes(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text!r}: expected 2 or more")
    return int(text)


def _version(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"1[01](\.\d+)*", text):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a version from 10.3 to 11, like 10.3")
    return tuple(int(n) for n in text.split("."))


def _budget_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--target", required=True, help="a name from `edgeeff targets`, or a YAML file")
    p.add_argument(
        "--latency", type=float, metavar="MS", help="milliseconds for one photo (default: the target's, when no budget is given)"
    )
    p.add_argument(
        "--percentile", type=int, choices=[50, 90, 99], default=50, help="the percentile --latency is held to (default 50)"
    )
    p.add_argument("--fps", type=float, help="frames a second, at least, many in flight")
    p.add_argument("--gflops", type=float, help="billions of multiply-adds")
    p.add_argument("--mparams", type=float, help="millions of parameters")
    p.add_argument("--size-mb", type=float, help="megabytes of the compiled file")
    p.add_argument("--memory-mb", type=float, help="megabytes that a process needs at most to load and run it")
    p.add_argument("--energy-mj", type=float, help="millijoules for one photo, where the device has a power sensor")
    p.add_argument("--resolution", type=int, nargs="+", default=[], metavar="PX", help="input sizes (default: each variant's)")
    p.add_argument("--on", metavar="USER@HOST", help="measure there, over ssh, with nothing installed but python3 and rsync")


def _on_option(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--on",
        nargs="+",
        default=[],
        metavar="USER@HOST",
        help="do it there, over ssh, with nothing installed but python3 and rsync",
    )


def _budget(options: argparse.Namespace) -> Any:
    from .target import Budget

    return Budget(
        latency_ms=options.latency,
        percentile=options.percentile,
        gflops=options.gflops,
        mparams=options.mparams,
        size_mb=options.size_mb,
        fps=options.fps,
        memory_mb=options.memory_mb,
        energy_mj=options.energy_mj,
    )


def _fit(options: argparse.Namespace) -> dict[str, Any]:
    from .bundle import PAGE
    from .fit import Job, fit

    job = Job(
        target=options.target,
        val=options.val,
        out=options.out,
        budget=_budget(options),
        variants=tuple(options.variant),
        weights=options.weights,
        train=options.train,
        calib=options.calib,
        labels=options.labels,
        resolution=tuple(options.resolution),
        padding=options.padding,
        max_drop=options.max_drop,
        min_agreement=options.min_agreement,
        max_corrupt=options.max_corrupt,
        calibration=options.calibration,
        activation=options.activation,
        time_budget=options.time_budget,
        accept=options.accept,
        epochs=options.epochs,
        lr=options.lr,
        flip=not options.no_flip,
        seed=options.seed,
    )
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
        path = result.bundle.path
        print(f"{outcome.verdict}\n\nbundle: {path}    check it again: edgeeff verify {path}")
        print(f"report: {path / PAGE}")
        if result.compiled:
            report.engines(result.compiled)
        elif result.bundle.manifest.get("forms") and not options.on:
            print(f"Copy it to the device, and there: edgeeff compile {path.name} --val PHOTOS; or from here, with --on USER@HOST")
    if options.on and result.bundle.manifest.get("forms"):
        there = argparse.Namespace(**{**vars(options), "bundle": options.out, "on": [options.on], "dla": None})
        return {**result.to_json(), "compiled": _compile_elsewhere(there)}
    return result.to_json()


def _pick(options: argparse.Namespace) -> dict[str, Any]:
    from .pick import activations, pick
    from .target import Target
    from .variants import grid

    target = Target.load(options.target)
    budget = target.budget(_budget(options))
    with _machine(options) as on:
        choice = pick(
            target,
            budget,
            grid(options.variant, options.resolution),
            classes=options.classes,
            activations=activations(target, options.activation),
            exhaustive=options.all,
            on=on,
            progress=TerminalProgress(),
        )
    if not options.json:
        report.choice(choice)
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
    """Where to measure: here, or the host of --on, for as long as it is needed."""
    from .bench import HERE
    from .target import Target

    if not options.on:
        return contextlib.nullcontext(HERE)
    from .remote import Host
    from .ssh import check

    check([options.on])
    return Host.connect(options.on, Target.load(options.target).backend, TerminalProgress())


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    from pathlib import Path

    from .bench import answer

    return answer(options.backend, Path(options.request) if options.request else None, TerminalProgress())


def _doubts(choice: Any) -> str:
    if choice.chosen.predicted:
        return " Predicted from other networks on that device, not measured."
    why = "; ".join(choice.disturbed)
    return f" The machine is too noisy to rely on that: {why}. Repeat it when it is idle." if why else ""


def _profile(options: argparse.Namespace) -> dict[str, Any]:
    from . import predict
    from .pick import profile
    from .target import Target
    from .variants import grid

    target = Target.load(options.target)
    path = predict.path(target.name)
    with _machine(options) as on:
        models = profile(target, grid(options.variant, options.resolution), path=path, on=on, progress=TerminalProgress())
    if not options.json:
        rows = [[form, f"{100 * m.median:.1f}", f"{100 * m.worst:.1f}", str(len(m.errors))] for form, m in models.items()]
        report.table(["form", "median error %", "worst %", "networks"], rows, title="each network predicted from the others")
        print(path)
    return {"file": str(path), "forms": {form: {"median": m.median, "worst": m.worst} for form, m in models.items()}}


def _variants(options: argparse.Namespace) -> dict[str, Any]:
    from .variants import VARIANTS, variant

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

    from .target import all_targets

    found = all_targets()
    if not options.json:
        lines = [
            [t.name, t.backend, f"{t.latency_ms:g}" if t.latency_ms else "", ", ".join(t.precisions), t.description] for t in found
        ]
        report.table(["target", "backend", "default ms", "precisions", "device"], lines)
    return {"targets": [asdict(t) for t in found]}


def _eval(options: argparse.Namespace) -> dict[str, Any]:
    from .accuracy import Gate
    from .bundle import Bundle
    from .images import ImageSet, PixelFile

    bundle = Bundle.open(options.bundle)
    images = ImageSet.open(options.val).labelled_for(bundle.manifest["classes"], bundle.labels)
    if images.labels is None:
        raise BadInput(f"{options.val}: unlabelled photos. Expected DIR/CLASS/*.jpg or labels.txt.")
    if options.on:
        return _elsewhere(options, ["eval", "bundle", "--val", "val", "--max-corrupt", str(options.max_corrupt)], bundle)
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
    from .bench import HERE, Compiled, Request
    from .bundle import Bundle
    from .conditions import device
    from .target import Budget

    if options.rounds < 2:
        raise BadInput("--rounds: expected 2 or more, for an interval.")
    bundle = Bundle.open(options.bundle)
    if options.on:
        return _elsewhere(options, ["bench", "bundle", "--rounds", str(options.rounds)], bundle)
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
    from .compile import compile

    if options.on:
        return _compile_elsewhere(options)
    compiled = compile(
        options.bundle, val=options.val, dla=options.dla, max_corrupt=options.max_corrupt, progress=TerminalProgress()
    )
    if not options.json:
        report.engines(compiled)
    return compiled.to_json()


def _elsewhere(options: argparse.Namespace, arguments: list[str], bundle: Any) -> dict[str, Any]:
    """A verb that reads a bundle, on every host of --on."""
    from .remote import Host, fleet

    engine = bundle.manifest["device"]["machine"] if bundle.manifest["backend"] == "tensorrt" else ""

    def work(host: Host) -> dict[str, Any]:
        if engine and engine != host.machine:
            raise BadInput(
                f"{host.name}: is {host.machine}, but the bundle's engine was built on {engine}. "
                f"First: edgeeff compile {options.bundle} --on {host.name}"
            )
        return {**host.run(arguments, _sent(options)), "bundle": options.bundle}

    return _answers(options, fleet(options.on, bundle.manifest["backend"], work, TerminalProgress()))


def _compile_elsewhere(options: argparse.Namespace) -> dict[str, Any]:
    """One host's engine goes into the bundle itself; those of several into a bundle each beside it."""
    import tempfile
    from pathlib import Path

    from .bundle import Bundle, publish, replaceable
    from .images import ImageSet
    from .remote import Host, fleet
    from .ssh import check

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


def _sent(options: argparse.Namespace) -> dict[str, Any]:
    from pathlib import Path

    val = getattr(options, "val", None)
    return {"bundle": Path(options.bundle)} | ({"val": Path(val)} if val is not None else {})


def _answers(options: argparse.Namespace, answers: list[dict[str, Any]]) -> dict[str, Any]:
    """Those of all hosts; a failed one ends the command once all are printed."""
    from .remote import failure

    failed = failure(answers)
    if not options.json and (len(answers) > 1 or not failed):
        report.fleet(answers)
        for answer in answers:
            if "verdict" in answer:
                print(f"{answer['host']}: {answer['verdict']}\nbundle: {answer['bundle']}")
    if failed:
        if options.json:
            print(json.dumps({"hosts": answers}, indent=1))
        raise failed
    return {"hosts": answers}


def _lint(options: argparse.Namespace) -> dict[str, Any]:
    from dataclasses import asdict
    from pathlib import Path

    from .lint import RULES, lint

    findings = lint(Path(options.model), options.tensorrt)
    errors = sum(f.error for f in findings)
    version = ".".join(map(str, options.tensorrt))
    if not options.json:
        if findings:
            report.findings(findings)
        print(f"{options.model}: {len(RULES)} rules for TensorRT {version}, {errors} errors, {len(findings) - errors} warnings.")
    result = {"model": options.model, "tensorrt": version, "findings": [asdict(f) for f in findings]}
    if errors:
        if options.json:
            print(json.dumps(result, indent=1))
        raise BadInput(f"{options.model}: TensorRT {version} would refuse or misread it: {errors} errors.")
    return result


def _inspect(options: argparse.Namespace) -> dict[str, Any]:
    from dataclasses import asdict
    from pathlib import Path

    from .bundle import Bundle
    from .images import ImageSet, PixelFile
    from .inspect import inspect, plot

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

    from .backends import tensorrt

    file = bundle.path / tensorrt.LAYERS
    if not file.is_file():
        raise BadInput(f"{options.bundle}: holds no TensorRT engine. On the device, edgeeff compile makes one.")
    layers = tensorrt.read_layers(file.read_text(encoding="utf-8"))
    if not options.json:
        report.engine_layers(layers)
    return {"bundle": options.bundle, "layers": [{**asdict(layer), "reformat": layer.reformat} for layer in layers]}


def _verify(options: argparse.Namespace) -> dict[str, Any]:
    from .bundle import Bundle

    bundle = Bundle.open(options.bundle)
    difference = bundle.verify()
    if not options.json:
        files = len(bundle.manifest["files"])
        print(f"{options.bundle}: {files} files match; golden images differ by {difference:.4f} standard deviations. Good.")
    return {"bundle": options.bundle, "files": len(bundle.manifest["files"]), "golden_difference": difference, "ok": True}


def _doctor(options: argparse.Namespace) -> dict[str, Any]:
    from dataclasses import asdict

    from .doctor import examine

    findings = examine()
    if not options.json:
        report.table(
            ["", "found", "", "what to do"], [[f.what, f.found, "ok" if f.ok else "!", "" if f.ok else f.remedy] for f in findings]
        )
    return {"findings": [asdict(f) for f in findings]}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
