"""Measure what docs/benchmarks.md shows: `python benchmarks/run.py [NAME ...]`; results/NAME.json holds what, where and when.

Needs the photos and weights that data.md lists and data.py checks; --data names their folder.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import compare
import data as data_files
import numpy as np
import result_files

from edgeeff.budget import Budget
from edgeeff.bundle import Bundle
from edgeeff.context import versions
from edgeeff.data.images import ImageSet
from edgeeff.data.photos import SUFFIXES
from edgeeff.errors import BadInput, ToolMissing
from edgeeff.measurement.system_state import device
from edgeeff.precision import Precision
from edgeeff.records import to_json

HERE = Path(__file__).parent
MINUTES = 30.0  # of a camera faster than the model
EDGEEFF = [sys.executable, "-m", "edgeeff"]


def edgeeff(*arguments: object, env: dict[str, str] | None = None) -> dict[str, Any]:
    """One command with --json, and its seconds."""
    start = time.monotonic()
    done = subprocess.run([*EDGEEFF, *map(str, arguments), "--json"], stdout=subprocess.PIPE, text=True, check=True, env=env)
    return {**json.loads(done.stdout), "total_seconds": round(time.monotonic() - start, 1)}


def imagenet(data: Path, variant: str, weights: str, *options: object, target: str = "host-cpu") -> dict[str, Any]:
    """A published checkpoint → INT8: calibrated on 300 of the 1000 photos, recovered on all of them, judged on the other 1300.

    Of those, TEST_PHOTOS judge what ships once, at the end, and the others every step.
    """
    with tempfile.TemporaryDirectory() as folder:
        val, test = linked_halves(data / "images/ilsvrc-val-1300", Path(folder))
        return edgeeff(
            *("fit", "--target", target, *unlimited(options), "--variant", variant, "--weights", data / "weights" / weights),
            *("--calib", data / "images/imagenet-samples-1000", "--val", val, "--test", test),
            *("--out", Path(folder) / "bundle", *options),
        )


def unlimited(options: tuple[object, ...]) -> tuple[object, ...]:
    """A latency that any form meets, in place of the target's own; a network is made smaller as far as the gate allows."""
    return () if "--adapt" in options else ("--latency", 100)


def reduced_symmetric(data: Path) -> dict[str, Any]:
    """V2-B0 with Hardswish in the symmetric scheme, made smaller by its latency here; and whether NVIDIA's builder takes that."""
    from edgeeff.backends import tensorrt

    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        options = ("--activation", "hardswish", *SMALLER, "--out", bundle)
        fit = imagenet(data, *V2_B0, *options, target="tensorrt-qdq")
        remarks = tensorrt.rehearse(bundle / Bundle.open(bundle).manifest.model)
        return {**fit, "tensorrt_rtx": "; ".join(remarks) or "built"}


def linked_halves(photos: Path, folder: Path) -> tuple[Path, Path]:
    """The photos that judge every step, and TEST_PHOTOS, as folders of links."""
    val, test = data_files.halves(ImageSet.open(photos))
    return data_files.linked(val, folder / "val"), data_files.linked(test, folder / "test")


def transfer(data: Path, name: str, *options: object, target: str = "host-cpu") -> dict[str, Any]:
    """B0's backbone fine-tuned on one of the folders of photos, and quantized."""
    return fine_tuned(data, data / "images" / name, *options, target=target)


def fine_tuned(data: Path, photos: Path, *options: object, target: str = "host-cpu") -> dict[str, Any]:
    """B0's backbone fine-tuned on PHOTOS/train, and quantized."""
    with tempfile.TemporaryDirectory() as folder:
        return edgeeff(
            *("fit", "--target", target, *unlimited(options), "--variant", "b0", "--padding", "same"),
            *("--weights", data / "weights/b0-imagenet-backbone.pth", "--train", photos / "train"),
            *("--val", photos / "val", "--hold-out", data_files.HELD_OUT, "--out", Path(folder) / "bundle", *options),
        )


def calibrated(data: Path) -> dict[str, Any]:
    """How far probabilities can be believed, on test photos: a published checkpoint, and two networks that are fine-tuned here.

    Of the two also how many photos of other things get the label unknown: of each other's, and of ImageNet's.
    """
    images = data / "images"
    fits, foreign = {"v2-b0": imagenet(data, *V2_B0)}, dict[str, Any]()
    with tempfile.TemporaryDirectory() as folder:
        for name, other in (("flowers12", "trashnet"), ("trashnet", "flowers12")):
            bundle = Path(folder) / name
            fits[name] = transfer(data, name, "--max-drop", 5, "--out", bundle)
            foreign[name] = {
                things: edgeeff("eval", bundle, "--val", images / name / "val", "--foreign", photos)["foreign"]
                for things, photos in ((other, images / other / "val"), ("ImageNet", images / "imagenet-samples-1000"))
            }
    return {
        name: {
            "precision": fit["precision"],
            "unknown": fit["unknown"],
            "foreign": foreign.get(name, {}),
            "top1": fit["held_out"]["steps"][1]["top1"],
            **fit["confidence"],
        }
        for name, fit in fits.items()
    }


def unknown(data: Path) -> dict[str, Any]:
    """How many flowers of six kinds get the label unknown from a network for six other kinds; and what telling costs."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        kinds = sorted(path.name for path in (data / "images/flowers12/train").iterdir())
        for i, kind in enumerate(kinds):
            for part in ("train", "val"):
                link = folder / "photos" / ("known" if i % 2 == 0 else "near") / part / kind
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(data / "images/flowers12" / part / kind)
        bundle = folder / "bundle"
        fit = fine_tuned(data, folder / "photos/known", "--max-drop", 5, "--out", bundle)
        near = edgeeff("eval", bundle, "--val", folder / "photos/known/val", "--foreign", folder / "photos/near/val")["foreign"]
    with fitted(data) as (bundle, _):
        return {"unknown": fit["unknown"], "near": near, "cost": telling_costs(bundle)}


def telling_costs(bundle: Bundle, rounds: int = 40, block: int = 50) -> dict[str, float]:
    """By how many percent more processor time a photo takes whose distance is told, with the interval of the rounds' median."""
    from edgeeff.measurement.latency import Latency, ratio

    side = bundle.preprocess.resolution
    image = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
    ways = {"told": bundle.load_scored(), "untold": bundle.load()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name in sorted(ways, reverse=turn % 2 == 0):
            start = time.process_time()
            for _ in range(block):
                ways[name](image)
            seconds[name].append((time.process_time() - start) / block)
    told, untold = (Latency(0, 0, 0, (0, 0), tuple(seconds[name])) for name in ("told", "untold"))
    found = ratio(told, untold)
    return {"percent": 100 * (found.times - 1), "low": 100 * (found.ci[0] - 1), "high": 100 * (found.ci[1] - 1)}


def against_swish(data: Path, name: str, seed: int = 0) -> dict[str, Any]:
    """A network fine-tuned and made smaller, against one fine-tuned with Swish in float32: on test photos, timed in one run."""
    from edgeeff import backends
    from edgeeff.data.images import PixelFile
    from edgeeff.machine import LOCAL
    from edgeeff.measurement.accuracy import Gate
    from edgeeff.measurement.benchmark import BenchmarkRequest, CompiledModel
    from edgeeff.measurement.latency import ratio
    from edgeeff.progress import TerminalProgress

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        swish = transfer(data, name, "--activation", "keep", "--max-drop", 5, "--seed", seed, "--out", folder / "swish")
        smaller = transfer(
            *(data, name, "--adapt", "auto", "--max-drop", 1, "--time-budget", 8, "--seed", seed, "--out", folder / "smaller")
        )
        (folder / "float").mkdir()
        compiled = backends.get("openvino").compile(folder / "swish/model.onnx", folder / "float")
        before, after = (Bundle.open(folder / each).manifest for each in ("swish", "smaller"))
        models = {
            "OpenVINO": CompiledModel("openvino", compiled, Precision.FLOAT32, before.resolution),
            "ONNX Runtime": CompiledModel("onnxruntime", folder / "swish/model.onnx", Precision.FLOAT32, before.resolution),
            "smaller": CompiledModel("openvino", folder / "smaller" / after.model, after.precision, after.resolution),
        }
        timed = LOCAL.benchmark(BenchmarkRequest(models, rounds=20), TerminalProgress()).metrics
        test = ImageSet.open(data / "images" / name / "val").split(data_files.HELD_OUT, seed)[1]
        gate = Gate(PixelFile(test, before.preprocess), max_drop=0.5)
        gate.judge("float32, Swish", models["OpenVINO"].load(throughput=True))
        gate.on(PixelFile(test, after.preprocess)).judge("made smaller", models["smaller"].load(throughput=True))
    speeds = {runtime: ratio(timed[runtime].latency, timed["smaller"].latency) for runtime in ("OpenVINO", "ONNX Runtime")}
    return {
        "swish": swish,
        "smaller": smaller,
        "p50_ms": {each: metrics.latency.p50 for each, metrics in timed.items()},
        "speeds": {runtime: [times, *interval] for runtime, (times, interval) in speeds.items()},
        "steps": to_json(gate.reports),
        "seconds": [swish["total_seconds"], smaller["total_seconds"]],
    }


def pick(data: Path) -> dict[str, Any]:
    """Every variant measured once; twenty random budgets searched, against the answer of measuring all; then a search in full."""
    from edgeeff.network.variants import VARIANTS
    from edgeeff.selection.candidates import Search
    from edgeeff.selection.search import pick
    from edgeeff.target import Target

    results: dict[str, Any] = {"budgets": []}
    host, family = Target.load("host-cpu"), list(VARIANTS.values())
    with tempfile.TemporaryDirectory() as folder:
        complete = {**os.environ, "XDG_CACHE_HOME": folder}
        results["all"] = summary(edgeeff("pick", "--target", "host-cpu", "--latency", 5, "--all", env=complete))
        memory = Path(folder) / "edgeeff/measurements.json"
        fastest, slowest = (f(results["all"]["p50"].values()) for f in (min, max))
        chance = random.Random(0)
        for _ in range(20):
            budget = Budget(latency_ms=round(math.exp(chance.uniform(math.log(1.1 * fastest), math.log(1.1 * slowest))), 2))
            searched = pick(Search(host, budget, tuple(family)), memory=memory)
            every = pick(Search(host, budget, tuple(family), exhaustive=True), memory=memory)
            measured = sum(bool(c.forms) for c in searched.table)
            chosen = [choice.chosen.variant.name for choice in (searched, every)]
            results["budgets"].append({"latency_ms": budget.latency_ms, "chosen": chosen, "measured": measured})
        with tempfile.TemporaryDirectory() as empty:
            search = {**os.environ, "XDG_CACHE_HOME": empty}
            arguments = ("pick", "--target", "host-cpu", "--latency", 10)
            results["10 ms"] = {name: summary(edgeeff(*arguments, env=search)) for name in ("search", "again")}
    return results


def noise(data: Path) -> dict[str, Any]:
    """The same pick twenty times from nothing remembered, on a machine of whose cores one is busy with something else."""
    runs = []
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        for _ in range(20):
            with tempfile.TemporaryDirectory() as empty:
                variants = ("--variant", "lite0", "lite2", "b1", "b3", "--resolution", 160)
                environment = {**os.environ, "XDG_CACHE_HOME": empty}
                run = edgeeff("pick", "--target", "host-cpu", "--latency", 3, *variants, env=environment)
            runs.append({"chosen": run["chosen"]["variant"], "disturbed": run["disturbed"]})
    finally:
        busy.kill()
        busy.wait()
    return {"runs": runs}


def predicted(backend: str) -> dict[str, Any]:
    """Every variant's float32 latency in a runtime from the others', on one thread and on two."""
    from edgeeff.network.variants import VARIANTS
    from edgeeff.progress import TerminalProgress
    from edgeeff.selection.candidates import Search
    from edgeeff.selection.search import profile
    from edgeeff.target import Target

    results = {}
    host = Target.load("host-cpu")
    for threads in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            scheme = "symmetric" if backend == "onnxruntime" else "asymmetric"
            target = replace(
                host, backend=backend, threads=threads, precisions=(Precision.FLOAT32,), scheme=scheme, activation=None
            )
            search = Search(target, Budget(), tuple(VARIANTS.values()))
            models = profile(search, Path(folder) / "model.json", progress=TerminalProgress())
            for form, model in models.items():
                facts = {"median": model.median, "worst": model.worst, "errors": dict(model.errors), "costs": model.costs}
                results[f"{backend}, {threads} threads, {form.precision}"] = facts
    return results


def trained(data: Path) -> dict[str, Any]:
    """V2-B0 in the symmetric scheme, post-training and trained (QAT): the Q/DQ graph, and the same compiled by OpenVINO."""
    from edgeeff import Job, backends
    from edgeeff.context import NetworkContext, Photos
    from edgeeff.data.calibration import Calibration
    from edgeeff.data.images import PixelFile
    from edgeeff.data.preprocess import Preprocess
    from edgeeff.files import StageCache
    from edgeeff.machine import LOCAL
    from edgeeff.measurement.accuracy import Gate
    from edgeeff.network import checkpoint
    from edgeeff.network.model import predict
    from edgeeff.network.variants import variant
    from edgeeff.progress import TerminalProgress
    from edgeeff.quantization.ladder import judge
    from edgeeff.quantization.strategies import Network, PerLayerPtq, QuantizationAwareTraining
    from edgeeff.target import Target

    v, target, progress = variant("v2-b0"), Target.load("tensorrt-qdq"), TerminalProgress()
    model = checkpoint.load(data / "weights/v2_b0-imagenet.pth", v)[0].eval()
    preprocess = Preprocess.standard(v.resolution, v.mean, v.std)
    learning = ImageSet.open(data / "images/imagenet-samples-1000")
    gate = Gate(PixelFile(ImageSet.open(data / "images/ilsvrc-val-1300"), preprocess), max_drop=0.1, progress=progress)
    gate.judge("float", predict(model, preprocess))
    seconds = {}
    with tempfile.TemporaryDirectory() as temporary:
        context = NetworkContext(
            job=Job("tensorrt-qdq", "out", "val", variants=("v2-b0",), weights="weights", calib="calib"),
            target=target,
            budget=Budget(),
            recipe=Calibration.load("default"),
            photos=Photos(gate.pixels.images, learning, learning, None),
            machine=LOCAL,
            cache=StageCache(Path(temporary)),
            progress=progress,
            preprocess=preprocess,
            calibration=PixelFile(learning.draw(300), preprocess),
            gate=gate,
            original=model.variant,
            deadline=time.monotonic() + 3600,
        )
        network, openvino = Network.export(model, context), backends.get("openvino")
        for name, strategy in (("post-training", PerLayerPtq()), ("quantization-aware", QuantizationAwareTraining())):
            start = time.monotonic()
            file = strategy.quantize(context, network).file
            seconds[name] = round(time.monotonic() - start, 1)
            judge(context, Precision.INT8, network, file, name)
            compiled = openvino.compile(file, context.cache.scratch(f"openvino {name}"))
            gate.judge(f"int8 ({name}) in OpenVINO", openvino.load(compiled, precision=Precision.INT8, throughput=True))
    return {"steps": to_json(gate.reports), "seconds": seconds}


def summary(run: dict[str, Any]) -> dict[str, Any]:
    p50 = {c["variant"]: c["latency_ms"]["p50"] for c in run["candidates"] if c["latency_ms"]}
    return {"chosen": run["chosen"]["variant"], "seconds": run["total_seconds"], "timed": len(p50), "p50": p50}


def throughput(data: Path) -> dict[str, Any]:
    """`edgeeff eval` against OpenVINO's benchmark_app in throughput mode on the same file, in turn, three times; memory too."""
    photos = data / "images/ilsvrc-val-1300"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        edgeeff(
            *(
                "fit",
                "--target",
                "host-cpu",
                "--latency",
                100,
                "--variant",
                "v2-b0",
                "--weights",
                data / "weights/v2_b0-imagenet.pth",
            ),
            *("--calib", data / "images/imagenet-samples-1000", "--val", photos, "--out", folder / "bundle"),
        )
        manifest = json.loads((folder / "bundle/manifest.json").read_text())
        precision = "bf16" if Precision(manifest["precision"]).rest == "bf16" else "f32"
        app = [Path(sys.executable).with_name("benchmark_app"), "-m", folder / "bundle/model.xml", "-hint", "throughput"]
        app += ["-infer_precision", precision, "-t", "8"]
        ours, decoding, theirs = [], [], []
        for _ in range(3):
            run = edgeeff("eval", folder / "bundle", "--val", photos)
            ours.append(run["images"] / run["seconds"])
            decoding.append(run["images_per_second"])
            output = subprocess.run(list(map(str, app)), capture_output=True, text=True, check=True).stdout
            theirs.append(float(re.search(r"Throughput:\s+([\d.]+)", output)[1]))  # type: ignore[index]
        memory = {}
        for times in (1, 4):
            lines = (photos / "labels.txt").read_text().splitlines()
            many = folder / f"many{times}"
            many.mkdir()
            for line in lines:
                name = line.split("\t")[0]
                for i in range(times):
                    (many / f"{i}-{name}").symlink_to(photos / name)
            (many / "labels.txt").write_text("\n".join(f"{i}-{line}" for line in lines for i in range(times)))
            code = "import resource as r; from edgeeff.cli import main; main(); print(r.getrusage(r.RUSAGE_SELF).ru_maxrss)"
            command = [sys.executable, "-c", code, "eval", str(folder / "bundle"), "--val", str(many)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            memory[times * len(lines)] = int(done.stdout.split()[-1]) // 1024
    return {
        "eval": ours,
        "eval_with_decoding": decoding,
        "benchmark_app": theirs,
        "ratios": [a / b for a, b in zip(ours, theirs, strict=True)],
        "ratios_with_decoding": [a / b for a, b in zip(decoding, theirs, strict=True)],
        "peak_mb_by_images": memory,
    }


def remote(data: Path, host: str) -> dict[str, Any]:
    """V2-B0 fitted here, by measuring on a host, and the same through a connection that is killed all the time."""
    import remote

    return remote.compare(lambda out, *options: bundle_of(data, out, *options), host)


def bundle_of(data: Path, out: Path, *options: object) -> dict[str, Any]:
    """V2-B0 as a bundle to go on with."""
    return edgeeff(
        *("fit", "--target", "host-cpu", "--latency", 100, "--variant", V2_B0[0], "--weights", data / "weights" / V2_B0[1]),
        *("--calib", data / "images/imagenet-samples-1000", "--val", data / "images/ilsvrc-val-1300", "--out", out, *options),
    )


@contextmanager
def fitted(data: Path) -> Iterator[tuple[Bundle, dict[str, Any]]]:
    """The same for as long as it is needed, with what its fit said."""
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "bundle"
        answer = bundle_of(data, out)
        yield Bundle.open(out), answer


def camera(data: Path) -> dict[str, Any]:
    """V2-B0 in INT8 behind a camera: the whole path's accuracy, ages by source and size, sharing."""
    import camera

    with fitted(data) as (bundle, answer):
        return {
            "steps": answer["steps"],
            "precision": str(bundle.manifest.precision),
            "ages": camera.ages(bundle, frames(data)),
            "sharing": camera.sharing(bundle),
        }


def drift(data: Path) -> dict[str, Any]:
    """What a camera with V2-B0 in INT8 says of changes of the light, the lens and the place, and of none."""
    import drift

    with fitted(data) as (bundle, _):
        return drift.measured(bundle, data)


def improve(data: Path) -> dict[str, Any]:
    """B0 fine-tuned on photos of waste, and what 200 unlabelled frames under another lamp give back: the compiled files, judged."""
    import improve

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        photos = improve.prepared(data / "images/trashnet", folder)
        network = ("--variant", "b0", "--resolution", 160, "--padding", "same", "--epochs", 4, "--max-drop", 2)
        weights = ("--weights", data / "weights/b0-imagenet-backbone.pth", "--target", "host-cpu", "--latency", 100)
        own = ("--train", photos["train"], "--val", photos["val"], "--test", photos["test"])
        bundles = {name: folder / name for name in ("before", "improved")}
        edgeeff("fit", *network, *weights, *own, "--out", bundles["before"])
        made = edgeeff("improve", bundles["before"], "--collected", photos["frames"], "--out", bundles["improved"])
        found = {
            name: {
                light: edgeeff("eval", bundle, "--val", photos[test]) for light, test in (("own", "test"), ("lamp", "lamp-test"))
            }
            for name, bundle in bundles.items()
        }
    top1 = {name: {light: each["top1"] for light, each in lights.items()} for name, lights in found.items()}
    lost = top1["before"]["own"] - top1["before"]["lamp"]
    back = (top1["improved"]["lamp"] - top1["before"]["lamp"]) / lost
    return {
        "top1": top1,
        "photos": found["before"]["own"]["images"],
        "back": back,
        "improvement": made["improvement"],
        "seconds": made["total_seconds"],
    }


def clients(data: Path) -> dict[str, Any]:
    """The page of a camera, without and with 100 clients."""
    import camera

    with fitted(data) as (bundle, _):
        return camera.clients(bundle, frames(data)[0])


@contextmanager
def small() -> Iterator[Bundle]:
    """Lite0 at 32 px, trained on digits: what a camera of this machine does is not the model's time."""
    import digits

    with tempfile.TemporaryDirectory() as temporary:
        photos, out = Path(temporary) / "photos", Path(temporary) / "bundle"
        digits.write(photos, each=30)
        network = ("--variant", "lite0", "--resolution", 32, "--epochs", 1, "--no-flip", "--max-drop", 20, "--latency", 500)
        edgeeff("fit", "--target", "host-cpu", *network, "--train", photos / "train", "--val", photos / "val", "--out", out)
        yield Bundle.open(out)


def hostile_clients(data: Path) -> dict[str, Any]:
    """The page of a camera with a small model, without and with clients that say nothing or speak no HTTP."""
    import camera

    with small() as bundle:
        return camera.hostile_clients(bundle)


def together(data: Path) -> dict[str, Any]:
    """A small model behind two cameras, with everything that takes their labels, under limits: twenty minutes."""
    import together

    with small() as bundle:
        return together.measured(bundle.path, 1200)


def follow(data: Path) -> dict[str, Any]:
    """A small model behind a camera that follows a folder of bundles, while they come and while it is killed."""
    import follow

    with small() as bundle:
        return follow.measured(bundle.path)


def fetch(data: Path) -> dict[str, Any]:
    """The same camera, whose bundles come from another host."""
    import follow

    with small() as bundle:
        return follow.fetched(bundle.path)


OPEN = """
import sys, time
from edgeeff import Bundle
start = time.process_time()
Bundle.open(sys.argv[1], trusted=sys.argv[2:] or None)
print(1000 * (time.process_time() - start))
"""


def signatures(data: Path) -> dict[str, Any]:
    """Processor milliseconds that opening a bundle takes in a new process, in turn without and with the check of its signature."""
    with small() as bundle, tempfile.TemporaryDirectory() as folder:
        private, public = Path(folder) / "key", Path(folder) / "key.pem"
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
        subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
        bundle.sign(private)
        return opened(bundle.path, public)


def opened(bundle: Path, key: Path, turns: int = 20) -> dict[str, Any]:
    times: dict[str, list[float]] = {"without": [], "with": []}
    for _ in range(turns):
        for name, keys in (("without", []), ("with", [key])):
            command = [sys.executable, "-c", OPEN, bundle, *keys]
            times[name].append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    middle = {name: statistics.median(each) for name, each in times.items()}
    return {"milliseconds": times, "added": round(middle["with"] - middle["without"], 1)}


def hostile(data: Path) -> dict[str, Any]:
    """The inputs that the tests of tests/faults try, by file, and how many of them are not handled cleanly."""
    counts: dict[str, Counter[str]] = {"tried": Counter(), "failing": Counter()}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "tests.xml"
        command = [sys.executable, "-m", "pytest", "tests/faults", "-n", "2", "--dist", "loadfile", f"--junitxml={report}"]
        subprocess.run(command, cwd=HERE.parent, stdout=sys.stderr, check=True)
        for test in ElementTree.parse(report).iter("testcase"):
            for each in test.iter("property"):
                counts[each.attrib["name"].split()[-1]][test.attrib["classname"].split(".")[-1]] += int(each.attrib["value"])
    return {name: dict(found) for name, found in counts.items()}


def frames(data: Path) -> list[Path]:
    """Photos for a camera to see."""
    photos = sorted((data / "images/ilsvrc-val-1300").iterdir())
    return [photo for photo in photos if photo.suffix.lower() in SUFFIXES][:100]


def overload(data: Path) -> dict[str, Any]:
    """V2-B0 behind a camera of 60 frames a second, slowed to ten labels a second: half an hour."""
    import camera

    with fitted(data) as (bundle, _):
        return camera.overload(bundle, MINUTES)


def v4l2(data: Path) -> dict[str, Any]:
    """V2-B0 behind the kernel's own virtual camera, in a virtual machine."""
    import v4l2

    with fitted(data) as (bundle, _):
        return v4l2.run(bundle.path)


def peers(data: Path, network: str, weights: str) -> dict[str, Any]:
    """edgeeff's INT8 beside that of other tools, judged on the photos that no choice has seen."""
    from peers import compare

    with tempfile.TemporaryDirectory() as folder:
        _, test = linked_halves(data / "images/ilsvrc-val-1300", Path(folder))
        return compare.compare(data, network, weights, test)


def peers_cpu(data: Path, name: str) -> dict[str, Any]:
    """edgeeff beside other tools on this CPU."""
    from peers import cpu, tasks

    with tempfile.TemporaryDirectory() as folder:
        return cpu.compare(tasks.task(data, name, Path(folder)))


def gpu(data: Path) -> dict[str, Any]:
    """V2-B0 on a GPU without TensorRT."""
    import gpu

    gpu.require()
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        fit = imagenet(data, *V2_B0, "--out", bundle, target="gpu")
        _, test = data_files.halves(ImageSet.open(data / "images/ilsvrc-val-1300"))
        return {"fit_seconds": fit["total_seconds"], **gpu.measured(bundle, data, test)}


def gpu_training(data: Path) -> dict[str, Any]:
    """Trainings on a GPU and on the CPU beside it."""
    import gpu

    gpu.require()
    return gpu.trainings(data)


def ptq(data: Path) -> dict[str, Any]:
    """Post-training INT8 by edgeeff and by NNCF, on test photos."""
    import ptq

    calibration = ImageSet.open(data / "images/imagenet-samples-1000")
    _, test = data_files.halves(ImageSet.open(data / "images/ilsvrc-val-1300"))
    networks = {"lite0": "lite0-imagenet.pth", V2_B0[0]: V2_B0[1]}
    return {name: ptq.measured(name, data / "weights" / file, calibration, test) for name, file in networks.items()}


def frontier(data: Path) -> dict[str, Any]:
    """Networks that a user might pick instead, timed twice, an hour apart."""
    import frontier

    return frontier.measured()


V2_B0 = ("v2-b0", "v2_b0-imagenet.pth")
SMALLER = ("--adapt", "auto", "--max-drop", 3, "--time-budget", 18)
SCRIPTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "v2-b0": lambda data: imagenet(data, *V2_B0),
    "lite0": lambda data: imagenet(data, "lite0", "lite0-imagenet.pth", "--max-drop", 1),
    "flowers12": lambda data: against_swish(data, "flowers12"),
    "trashnet": lambda data: against_swish(data, "trashnet"),
    **{
        f"{name}-seed-{seed}": partial(against_swish, name=name, seed=seed) for name in ("flowers12", "trashnet") for seed in (1, 2)
    },
    "hardswish": lambda data: imagenet(data, *V2_B0, "--activation", "hardswish", "--max-drop", 1),
    "hardswish-symmetric": lambda data: imagenet(data, *V2_B0, "--activation", "hardswish", target="tensorrt-qdq"),
    "relu": lambda data: imagenet(data, *V2_B0, "--activation", "relu", "--time-budget", 20, "--accept"),
    "min-max-symmetric": lambda data: imagenet(
        data, *V2_B0, "--calibration", "min-max", "--activation", "keep", "--time-budget", 0.01, "--accept", target="tensorrt-qdq"
    ),
    "v2-b0-symmetric": lambda data: imagenet(data, *V2_B0, target="tensorrt-qdq"),
    "lite0-symmetric": lambda data: imagenet(data, "lite0", "lite0-imagenet.pth", target="tensorrt-qdq"),
    "flowers12-symmetric": lambda data: transfer(data, "flowers12", target="tensorrt-qdq"),
    "trashnet-symmetric": lambda data: transfer(data, "trashnet", target="tensorrt-qdq"),
    "reduced": lambda data: imagenet(data, *V2_B0, "--activation", "auto", *SMALLER),
    "reduced-lite0": lambda data: imagenet(data, "lite0", "lite0-imagenet.pth", "--activation", "auto", *SMALLER),
    "reduced-symmetric": reduced_symmetric,
    "trained": trained,
    "calibrated": calibrated,
    "unknown": unknown,
    "v2-b0-auto": lambda data: imagenet(data, *V2_B0, "--activation", "auto"),
    "v2-b0-jetson": lambda data: imagenet(data, *V2_B0, target="jetson-orin-nano-8gb"),
    "peers-v2-b0": lambda data: peers(data, *V2_B0),
    "peers-lite0": lambda data: peers(data, "lite0", "lite0-imagenet.pth"),
    "frontier": frontier,
    "ptq": ptq,
    "gpu": gpu,
    "gpu-training": gpu_training,
    **{f"peers-cpu-{name}": partial(peers_cpu, name=name) for name in data_files.CPU_TASKS},
    "camera": camera,
    "clients": clients,
    "drift": drift,
    "follow": follow,
    "fetch": fetch,
    "improve": improve,
    "hostile": hostile,
    "hostile-clients": hostile_clients,
    "signatures": signatures,
    "overload": overload,
    "together": together,
    "v4l2": v4l2,
    "pick": pick,
    "noise": noise,
    "predicted": lambda data: predicted("openvino"),
    "predicted-onnxruntime": lambda data: predicted("onnxruntime"),
    "throughput": throughput,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SCRIPTS)} (default: all)")
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared/data")
    parser.add_argument("--results", type=Path, default=result_files.FOLDER, help="where to write: one folder for a machine")
    parser.add_argument("--on", metavar="USER@HOST", help="also run `remote`, on that host")
    parser.add_argument(
        "--compare",
        type=Path,
        metavar="OLD",
        help="measure nothing: what differs between the results in that folder and those here",
    )
    options = parser.parse_args()
    if options.compare:
        try:
            compare.compare(options.compare, result_files.FOLDER)
        except BadInput as error:
            parser.error(str(error))
        return
    if options.on:
        SCRIPTS["remote"] = lambda data: remote(data, options.on)
    if not options.data.is_dir():
        parser.error(f"{options.data}: no such folder; --data names the photos and weights")
    for name in options.names or SCRIPTS:
        print(f"== {name}", file=sys.stderr)
        try:
            found = SCRIPTS[name](options.data.resolve())
        except ToolMissing as error:
            if options.names:
                parser.error(f"{name}: {error}")
            print(f"{name} is left out: {error}", file=sys.stderr)
            continue
        facts = {
            "device": to_json(device()),
            "versions": versions(),
            "date": datetime.date.today().isoformat(),
        }
        result_files.write(options.results / f"{name}.json", {"measured": found, **facts})
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
