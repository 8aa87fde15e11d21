"""The page of a fit: what was measured, for people, in one HTML file that loads nothing and runs nothing.

`facts` collects, `render` draws by the template `report.html.j2`. Every figure on the page is looked up in the facts by its path
and carries that path as `data-path`; the facts lie in the page as JSON.
"""

from __future__ import annotations

import base64
import io
import json
import math
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .. import backends
from ..data.images import Pixels, Preprocess
from ..measurement.accuracy import Gate
from ..measurement.latency import ratio
from ..selection.search import Choice
from ..selection.shipping import Outcome
from ..target import LIMITS, Budget

if TYPE_CHECKING:
    from markupsafe import Markup

    from ..pipeline import Job

TEMPLATE = "report.html.j2"
LAYERS = 15  # of each table
PHOTOS = 8  # that layers are compared on
MATRIX = 20  # classes; with more, the most frequent confusions are listed instead
PAIRS = 15
MISTAKES = 12
THUMBNAIL = 128  # pixels
FRAME = (46.0, 404.0, 232.0, 16.0)  # of the scatter: left, right, bottom, top


def write(
    path: Path, job: Job, manifest: dict[str, Any], outcome: Outcome, gate: Gate, choice: Choice | None, names: Sequence[str]
) -> Path:
    """The page, written: of the fit that gave `manifest` and `outcome`; `names` are the classes'."""
    wrong = mistakes(gate, outcome)
    photos = [thumbnail(gate.pixels.rows(i, 1)[0], gate.pixels.preprocess) for i in wrong]
    data = facts(job, manifest, outcome, gate, choice, names, wrong)
    path.write_text(render(data, photos), encoding="utf-8", errors="backslashreplace")  # a file's name may be no UTF-8
    return path


def facts(
    job: Job,
    manifest: dict[str, Any],
    outcome: Outcome,
    gate: Gate,
    choice: Choice | None,
    names: Sequence[str],
    wrong: Sequence[int],
) -> dict[str, Any]:
    """The manifest, and what the page shows beyond it; `wrong` are the photos to show as mistakes."""
    budget = Budget(**manifest["budget"])
    siblings = outcome.siblings
    base = min((s.latency for s in siblings if s.form.precision == "float32"), key=lambda m: m.p50, default=None)
    speeds = [ratio(base, s.latency) for s in siblings] if base else []
    step = gate.reports.index(outcome.shipped.report)
    said, labels, root = gate.answers[step], gate.labels, gate.pixels.images.root
    return {
        **manifest,
        "commands": commands(job, manifest["command"], elsewhere=not siblings, labelled=labels is not None),
        "class_names": list(names),
        "shipped_step": step,
        "shipped_sibling": next((i for i, s in enumerate(siblings) if s.form is outcome.shipped), None),
        "speeds": [{"times": times, "ci": interval} for times, interval in speeds],
        "candidates": [
            {**c.to_json(), "published": c.variant.top1 is not None and c.variant == c.variant.published, "over": c.over(budget)}
            for c in (choice.table if choice else ())
        ],
        "layer_times": layer_times(manifest, outcome) if siblings else None,
        "layer_errors": layer_errors(outcome),
        "confusion": None if labels is None else confusion(labels, said.classes, manifest["classes"]),
        "mistakes": [
            {
                "label": int(labels[i]),
                "prediction": int(said.classes[i]),
                "probability": float(said.probabilities[i]),
                "file": str(gate.pixels.images.paths[i].relative_to(root)),
            }
            for i in wrong
            if labels is not None
        ],
    }


def commands(job: Job, fitted: str, *, elsewhere: bool, labelled: bool) -> list[str]:
    """What makes the bundle again, and what checks it."""
    out, val = str(job.out), ["--val", str(job.val)]
    lines = [["compile", out, *val]] if elsewhere else []
    lines += [["verify", out], *([["eval", out, *val]] if labelled else []), ["bench", out]]
    return [fitted, *(shlex.join(["edgeeff", *words]) for words in lines)]


def mistakes(gate: Gate, outcome: Outcome) -> list[int]:
    """The photos that the shipped form is wrong about, those it is surest of first."""
    if gate.labels is None:
        return []
    said = gate.answers[gate.reports.index(outcome.shipped.report)]
    wrong = np.flatnonzero(said.classes != gate.labels)
    return [int(i) for i in wrong[np.argsort(-said.probabilities[wrong], kind="stable")][:MISTAKES]]


def confusion(labels: NDArray[Any], predicted: NDArray[Any], classes: int) -> dict[str, Any]:
    """How many photos are wrong, and of few classes the matrix (a row a label), of many the most frequent confusions."""
    wrong = int((labels != predicted).sum())
    if classes <= MATRIX:
        matrix = np.zeros((classes, classes), int)
        np.add.at(matrix, (labels, predicted), 1)
        return {"wrong": wrong, "matrix": matrix.tolist(), "pairs": []}
    counts = Counter((int(a), int(b)) for a, b in zip(labels, predicted, strict=True) if a != b)
    pairs = [{"label": a, "prediction": b, "photos": n, "of": int((labels == a).sum())} for (a, b), n in counts.most_common(PAIRS)]
    return {"wrong": wrong, "matrix": [], "pairs": pairs}


def layer_times(manifest: dict[str, Any], outcome: Outcome) -> dict[str, Any]:
    """The shipped file's slowest layers, in milliseconds and percent of all layers together."""
    form = outcome.shipped
    image = outcome.golden["images"][:1]
    timed = backends.get(form.runtime).layer_times(form.file, image, precision=form.precision, threads=manifest["threads"])
    total = sum(layer.milliseconds for layer in timed)
    shown = [
        {**asdict(layer), "layer": short(layer.layer), "percent": 100 * layer.milliseconds / total} for layer in timed[:LAYERS]
    ]
    return {"count": len(timed), "total_ms": total, "layers": shown}


def layer_errors(outcome: Outcome) -> dict[str, Any] | None:
    """The layers of an INT8 form that add most error, compared with its own float network."""
    from ..quantization.layer_error import compare

    if not outcome.shipped.precision.startswith("int8"):
        return None
    photos = outcome.golden["images"][:PHOTOS]
    errors = compare(outcome.shipped.onnx, outcome.shipped.file, photos)
    return {"photos": len(photos), "count": len(errors), "layers": [{**asdict(e), "adds": e.adds} for e in errors[:LAYERS]]}


def short(name: str) -> str:
    """A runtime's name of a layer as the network's module; of an operation between modules, what follows the network's name."""
    from ..export.onnx import module_path

    node = name.split("/WithoutBiases")[0]
    return module_path(node).removeprefix("model").strip(".") or node.split("/")[-1]


def thumbnail(pixels: Pixels, preprocess: Preprocess) -> str:
    """A photo as the network saw it, `(H, W, 3)`, as a JPEG data URI of at most 128 px."""
    image = Image.fromarray(pixels if preprocess.colour == "RGB" else np.ascontiguousarray(pixels[..., ::-1]))
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def render(data: dict[str, Any], photos: Sequence[str]) -> str:
    """The HTML; `photos` are the mistakes' data URIs, in their order."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    data = json.loads(json.dumps(data))  # lists for tuples: paths count into what the page holds

    def figure(path: str, form: str = "", tag: str = "span") -> Markup:
        value: Any = data
        for key in path.split("."):
            value = value[int(key)] if isinstance(value, list) else value[key]
        if value is None:
            return Markup("–")
        return Markup("<{0} data-path='{1}'>{2}</{0}>").format(Markup(tag), path, format(value, form))

    def name(index: int) -> str:
        return data["class_names"][index] if data["class_names"] else f"class {index}"

    environment = Environment(
        autoescape=True,
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"indent": 1}
    return environment.get_template(TEMPLATE).render(
        d=data,
        fig=figure,
        name=name,
        photos=photos,
        axis=axis,
        frontier=scatter(points(data), data["budget"]["latency_ms"], FRAME),
        labels=[label(s, data) for s in data.get("siblings", [])],
        shown_limit=shown_limit,
        is_chosen=is_chosen,
        limits=[(key, unit) for key, unit in LIMITS.items() if key != "latency_ms"],
        unlimited=not any(data["budget"][key] for key in LIMITS),
    )


def named(candidate: dict[str, Any]) -> str:
    """A candidate's short name: with its resolution where that is not its usual one."""
    return candidate["variant"] if candidate["published"] else f"{candidate['variant']} {candidate['resolution']}"


def is_chosen(candidate: dict[str, Any], data: dict[str, Any]) -> bool:
    return all(candidate[key] == data[key] for key in ("variant", "resolution"))


def points(data: dict[str, Any]) -> list[dict[str, Any]]:
    """What the frontier draws: the candidates that were measured, or without a choice the forms of the one variant."""
    percentile = data["budget"]["percentile"]

    def placed(row: dict[str, Any], height: float, label: str, good: bool, chosen: bool) -> dict[str, Any]:
        latency = row["latency_ms"]
        low, high = latency[{50: "ci", 90: "ci90", 99: "ci99"}[percentile]]
        where = {"x": latency[f"p{percentile}"], "low": low, "high": high, "y": height}
        return {**where, "label": label, "good": good, "chosen": chosen}

    if measured := [c for c in data["candidates"] if c["latency_ms"]]:
        return [placed(c, c["accuracy"], named(c), not c["over"], is_chosen(c, data)) for c in measured]
    return [
        placed(s, s["agreement"] if s["top1"] is None else s["top1"], label(s, data), s["passed"], i == data["shipped_sibling"])
        for i, s in enumerate(data.get("siblings", []))
    ]


def label(sibling: dict[str, Any], data: dict[str, Any]) -> str:
    """A form's short name: what tells it from its siblings."""
    activation = "" if len({s["activation"] for s in data["siblings"]}) == 1 else f", {sibling['activation']}"
    runtime = "" if sibling["runtime"] == data["backend"] else f", {sibling['runtime']}"
    return f"{sibling['precision']}{activation}{runtime}"


@dataclass(frozen=True)
class Axis:
    """From values to positions in a drawing; `ticks` are round values."""

    low: float
    high: float
    start: float
    end: float
    log: bool
    ticks: tuple[float, ...]

    def __call__(self, value: float) -> float:
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 1)


def axis(values: Iterable[float], start: float, end: float, *, zero: bool = False, log: bool = False, room: float = 0.08) -> Axis:
    """One that shows all `values` with some room around, from `zero` on if asked."""
    found = [v for v in values if v is not None] + [0.0] * zero
    low, high = min(found), max(found)
    if log:
        grow = (high / low) ** room
        low, high = low / grow, high * grow
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [step * 10.0**power for power in powers for step in (1, 2, 5)]
    else:
        spread = (high - low) or abs(high) or 1.0
        low, high = low - (0 if zero and low == 0 else room * spread), high + room * spread
        rough = (high - low) / 6
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough)
        ticks = [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return Axis(low, high, start, end, log, tuple(round(t, 9) for t in ticks if low <= t <= high))


def shown_limit(limit: float | None, values: Iterable[float]) -> float | None:
    """A limit worth drawing: one so far off that it would squeeze the values is left to the text."""
    found = list(values)
    return limit if limit and min(found) / 3 <= limit <= 3 * max(found) else None


def scatter(points: list[dict[str, Any]], limit: float | None, box: tuple[float, float, float, float]) -> dict[str, Any]:
    """Where to draw points (`x`, `low`, `high`, `y`, `label`) in `box` (left, right, bottom, top): axes, labels, Pareto line."""
    if not points:
        return {}
    left, right, bottom, top = box
    xs = [v for p in points for v in (p["x"], p["low"], p["high"]) if v is not None]
    limit = shown_limit(limit, xs)
    xs += [limit] if limit else []
    x, y = axis(xs, left, right, log=max(xs) > 8 * min(xs)), axis((p["y"] for p in points), bottom, top, room=0.12)
    drawn = [{**p, "cx": x(p["x"]), "cy": y(p["y"])} for p in points]
    best, line = -math.inf, []
    for p in sorted(drawn, key=lambda p: (p["x"], -p["y"])):
        if p["y"] > best:
            best = p["y"]
            line.append(f"{p['cx']},{p['cy']}")
    taken = [(p["cx"] - 6, p["cy"] - 6, p["cx"] + 6, p["cy"] + 6) for p in drawn]
    taken += [(x(p["low"]), p["cy"] - 2, x(p["high"]), p["cy"] + 2) for p in drawn if p["low"] is not None]
    for p in sorted(drawn, key=lambda p: p["cx"]):
        width = 6.5 * len(p["label"])
        places = [  # of the text's baseline, by its left end: beside, above, below the point
            *((p["cx"] + 9, p["cy"] + 4), (p["cx"] - 9 - width, p["cy"] + 4)),
            *((p["cx"] + a, p["cy"] + d) for d in (-10, 18, -24, 32) for a in (-width / 2, -6, 6 - width)),
        ]
        boxes = [(a, b - 10, a + width, b + 3) for a, b in places]
        inside = [i for i, b in enumerate(boxes) if b[0] >= left and b[2] <= right + 8 and b[1] >= top - 12 and b[3] <= bottom]
        i = min(inside or [0], key=lambda i: sum(_overlap(boxes[i], other) for other in taken))
        taken.append(boxes[i])
        p["tx"], p["ty"] = (round(v, 1) for v in places[i])
    return {"x": x, "y": y, "points": drawn, "line": " ".join(line), "limit": limit}


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
