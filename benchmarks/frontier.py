"""What a user might pick instead of an EfficientNet: other networks in the same precisions, through the same runtime, by one clock.

Networks have random weights, which latency does not depend on; the top-1 beside it is what others published for the float32 network
with the weights named (frontier.csv). How much of it INT8 costs is not measured. They are compiled and quantized as a fit's
candidates are, and all are timed in one run of interleaved blocks. An hour later all are timed again.
"""

from __future__ import annotations

import csv
import html
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from peers.compare import ENVIRONMENTS, Refused, contents, environment, run

from edgeeff.backends import openvino
from edgeeff.data.images import noise
from edgeeff.files import write_whole
from edgeeff.manifest import digest
from edgeeff.measurement.latency import Run, measure, ratio
from edgeeff.precision import Precision
from edgeeff.progress import TerminalProgress
from edgeeff.quantization.nncf_ptq import quiet_nncf, scheme
from edgeeff.report.charts import Point, scatter

HERE = Path(__file__).parent
NETWORKS = HERE / "frontier.csv"
TIMM = "timm_export"
SOURCES = {
    "timm": "timm's results/results-imagenet.csv, of 2026-08-08",
    "tensorflow": "the README of EfficientNet-Lite, github.com/tensorflow/tpu, models/official/efficientnet/lite",
}
"""Of the published top-1. From timm: the best at that resolution by weights that learned from ImageNet-1k's photos alone; HGNetV2
has none such, as it is distilled on more. RepViT, FastViT and LeViT are distilled from larger networks too."""
YARDSTICK = "efficientnet_b0@224 float32"
APART = 3600.0  # seconds from one run to the next
RUNS = 2
ROUNDS = 12


@dataclass(frozen=True)
class Network:
    """One row of frontier.csv. `variant` is edgeeff's name of it, empty outside of the family."""

    network: str
    px: int
    weights: str
    top1: float
    mparams: float
    gmacs: float
    variant: str
    source: str

    @property
    def name(self) -> str:
        return f"{self.network}@{self.px}"

    @classmethod
    def all(cls) -> list[Network]:
        numbers = {"px": int, "top1": float, "mparams": float, "gmacs": float}
        with NETWORKS.open(newline="") as file:
            return [cls(**{key: numbers.get(key, str)(text) for key, text in row.items()}) for row in csv.DictReader(file)]


def measured() -> dict[str, Any]:
    """Every network with its latencies in each precision, in each run; or why it has none. What is made and timed is kept."""
    folder = ENVIRONMENTS / "frontier" / contents(*HERE.glob(f"peers/{TIMM}.*"))
    folder.mkdir(parents=True, exist_ok=True)
    forms, refused = built(folder)
    key = digest({"openvino": openvino.version(), "forms": {name: sorted(map(str, files)) for name, files in forms.items()}})[:16]
    passes: list[dict[str, Any]] = []
    for number in range(RUNS):
        kept = folder / f"{key}-{number}.json"
        if not kept.exists():
            if passes and (seconds := passes[-1]["begun"] + APART - time.time()) > 0:
                print(f"The next run begins in {seconds / 60:.0f} minutes.", file=sys.stderr)
                time.sleep(seconds)
            write_whole(kept, json.dumps(timed(forms)).encode())
        passes.append(json.loads(kept.read_text()))
    rows = []
    for network in Network.all():
        row: dict[str, Any] = {**vars(network), "name": network.name}
        if network.name in refused:
            row["refused"] = refused[network.name]
        row["forms"] = {
            str(precision): {
                "size_mb": sum(file.stat().st_size for file in openvino.files(model)) / 1e6,
                "runs": [each["forms"][f"{network.name} {precision}"] for each in passes],
            }
            for precision, model in forms.get(network.name, {}).items()
        }
        rows.append(row)
    runs = [{key: each[key] for key in ("begun", "noise")} for each in passes]
    return {"networks": rows, "runs": runs, "yardstick": YARDSTICK, "sources": SOURCES}


def built(folder: Path) -> tuple[dict[str, dict[Precision, Path]], dict[str, str]]:
    """The files of each network by precision, made where they are missing, and the last words of what could not be made."""
    progress, forms, refused = TerminalProgress(), dict[str, dict[Precision, Path]](), dict[str, str]()
    for network in Network.all():
        own = folder / network.name
        try:
            if not own.exists():
                progress.say(f"{network.name}: export and quantize")
                with tempfile.TemporaryDirectory(dir=folder) as temporary:
                    export(network, Path(temporary) / "made")
                    (Path(temporary) / "made").rename(own)
        except Refused as error:
            refused[network.name] = str(error)
            continue
        precisions = [p for p in openvino.PRECISIONS if openvino.supported(p)]
        forms[network.name] = {p: own / ("int8" if p.quantized else "float") / openvino.MODEL for p in precisions}
    return forms, refused


def export(network: Network, folder: Path) -> None:
    """The IRs of a network, in float and in INT8."""
    for name in ("float", "int8"):
        (folder / name).mkdir(parents=True)
    onnx = folder / "model.onnx"
    run([environment(TIMM), HERE / f"peers/{TIMM}.py", network.network, network.px, onnx])
    plain = openvino.compile(onnx, folder / "float")
    with quiet_nncf() as nncf:
        import openvino as ov

        advanced = nncf.AdvancedQuantizationParameters(disable_bias_correction=True)
        photo, options = nncf.Dataset([noise(network.px)]), {"subset_size": 1, "advanced_parameters": advanced, **scheme(nncf)}
        openvino.save(nncf.quantize(ov.Core().read_model(plain), photo, **options), folder / "int8")
    onnx.unlink()


def timed(forms: dict[str, dict[Precision, Path]]) -> dict[str, Any]:
    """One run over all: milliseconds, and how many times as fast each is as the yardstick."""
    begun, runs = time.time(), dict[str, Run]()
    for name, files in forms.items():
        image = noise(int(name.rpartition("@")[2]))
        for precision, file in files.items():
            runs[f"{name} {precision}"] = partial(openvino.load(file, precision=precision), image)
    result = measure(runs, rounds=ROUNDS, progress=TerminalProgress())
    yardstick = result.latencies[YARDSTICK]
    speeds = {name: ratio(yardstick, latency) for name, latency in result.latencies.items()}
    return {
        "begun": begun,
        "noise": result.noise,
        "forms": {
            name: {"p50": latency.p50, "p90": latency.p90, "speed": speeds[name].times, "ci": speeds[name].ci}
            for name, latency in result.latencies.items()
        },
    }


def mean(form: dict[str, Any], key: str) -> float:
    """That of the runs."""
    return statistics.mean(each[key] for each in form["runs"])


def best(networks: list[dict[str, Any]], precision: str) -> list[dict[str, Any]]:
    """The networks that no other one beats in both latency and top-1 in that precision, the fastest first."""
    having = [n for n in networks if precision in n["forms"]]
    found: list[dict[str, Any]] = []
    for n in sorted(having, key=lambda n: (mean(n["forms"][precision], "p50"), -n["top1"])):
        if not found or n["top1"] > found[-1]["top1"]:
            found.append(n)
    return found


def published(result: dict[str, Any]) -> dict[str, Any]:
    """What `edgeeff pick --rivals` reads, of a file of results."""
    networks = [
        {
            **{key: n[key] for key in ("network", "weights", "top1", "mparams", "gmacs", "variant")},
            "resolution": n["px"],
            "source": result["measured"]["sources"][n["source"]],
            "forms": {
                precision: {"p50": round(mean(form, "p50"), 3), "size_mb": round(form["size_mb"], 2)}
                for precision, form in n["forms"].items()
            },
        }
        for n in result["measured"]["networks"]
        if n["forms"]
    ]
    device = result["device"]
    processor = f"{device['cores']} cores of an {device['cpu']} ({', '.join(device['flags'])})"
    return {"processor": processor, "date": result["date"], "backend": "openvino", "networks": networks}


LEFT, RIGHT, BOTTOM, TOP = 44.0, 940.0, 720.0, 24.0
STYLE = """
text { font: 12px system-ui, "Segoe UI", Roboto, "Liberation Sans", sans-serif; fill: #1a1a1a; }
.soft { fill: #666; } .plate { fill: #fff; } .grid { stroke: #e4e4e4; } .axis { stroke: #999; }
.front { fill: none; stroke: #0b6e4f; }
.mark { fill: #fff; stroke: #666; stroke-width: 1.5; } .family { fill: #0b6e4f; stroke: #0b6e4f; } .name { font-weight: 650; }
"""


def picture(networks: list[dict[str, Any]], precision: str) -> str:
    """Published top-1 against latency in one precision, as SVG; the line joins those that none beats in both."""
    having = [n for n in networks if precision in n["forms"]]
    names = Counter(n["network"] for n in having)
    labels = [n["variant"] or (n["network"] if names[n["network"]] == 1 else n["name"]) for n in having]
    points = [
        Point(mean(n["forms"][precision], "p50"), None, None, n["top1"], label, bool(n["variant"]), False)
        for n, label in zip(having, labels, strict=True)
    ]
    plot = scatter(points, None, (LEFT, RIGHT, BOTTOM, TOP))
    assert plot
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 {BOTTOM + 42:g}" role="img">',
        f"<title>Published ImageNet top-1 against latency in {precision}, of EfficientNets (filled) and other networks</title>",
        f"<style>{STYLE}</style>",
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for tick in plot.y.ticks:
        y = plot.y(tick)
        lines.append(
            f'<path class="grid" d="M{LEFT} {y}H{RIGHT}"/><text class="soft" x="{LEFT - 6}" y="{y + 4}" text-anchor="end">'
        )
        lines.append(f"{tick:g}</text>")
    for tick in plot.x.ticks:
        x = plot.x(tick)
        lines.append(f'<path class="axis" d="M{x} {BOTTOM}v4"/><text class="soft" x="{x}" y="{BOTTOM + 18}" text-anchor="middle">')
        lines.append(f"{tick:g}</text>")
    lines.append(f'<path class="axis" d="M{LEFT} {BOTTOM}H{RIGHT}"/><text class="soft" x="2" y="12">ImageNet top-1, %</text>')
    note = f"p50 latency of {precision}, ms, logarithmic" if plot.x.log else f"p50 latency of {precision}, ms"
    lines.append(f'<text class="soft" x="{RIGHT}" y="{BOTTOM + 36}" text-anchor="end">{note}</text>')
    lines.append(f'<polyline class="front" points="{plot.line}"/>')
    for mark in plot.marks:
        left, top, right, bottom = mark.covered
        lines.append(f'<rect class="plate" x="{left}" y="{top}" width="{right - left:.1f}" height="{bottom - top:.1f}"/>')
    for mark in plot.marks:
        kind, words = ("mark family", ' class="name"') if mark.point.good else ("mark", "")
        lines.append(f'<circle class="{kind}" cx="{mark.cx}" cy="{mark.cy}" r="4"/>')
        lines.append(f'<text{words} x="{mark.tx}" y="{mark.ty}">{html.escape(mark.point.label)}</text>')
    return "\n".join([*lines, "</svg>", ""])
