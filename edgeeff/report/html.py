"""The report of a fit for people: one HTML file that loads nothing and runs nothing.

It is a pure function of the bundle's manifest and diagnostics. Every figure in it carries its path in them as `data-path`, and they
lie in the file as JSON.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import bundle, card
from ..budget import KINDS
from ..bundle import DIAGNOSTICS, REPORT, Bundle
from ..diagnostics import CLASSES, CandidateRow, Diagnostics
from ..errors import BadInput
from ..files import working_folder
from ..manifest import FormRecord, Manifest
from ..measurement.by_class import LEAST_PHOTOS
from ..measurement.latency import Latency, speedups
from ..precision import Precision
from ..records import read_json, to_json
from .charts import Box, Point, axis, scatter, shown_limit

if TYPE_CHECKING:
    from markupsafe import Markup

TEMPLATE = "report.html.j2"
FRAME: Box = (46.0, 948.0, 330.0, 24.0)  # of the scatter plot: left, right, bottom, top
NARROW: Box = (46.0, 346.0, 250.0, 24.0)  # on a phone


def render(manifest: Manifest, diagnostics: Diagnostics) -> str:
    """The HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    data = document(manifest, diagnostics)

    def figure(path: str, form: str = "", tag: str = "span") -> Markup:
        value: Any = data
        for key in path.split("."):
            value = value[int(key)] if isinstance(value, list) else value[key]
        if value is None:
            return Markup("–")
        return Markup("<{0} data-path='{1}'>{2}</{0}>").format(Markup(tag), path, format(value, form))

    def class_name(index: int) -> str:
        return diagnostics.class_names[index] if diagnostics.class_names else f"class {index}"

    points, limit = _points(manifest, diagnostics), manifest.budget.latency_ms
    frontiers = {"wide": scatter(points, limit, FRAME), "narrow": scatter(points, limit, NARROW)}
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
        name=class_name,
        photos=[mistake.thumbnail for mistake in diagnostics.mistakes],
        axis=axis,
        frames={"wide": FRAME, "narrow": NARROW},
        frontiers=frontiers,
        labels=[_label(form, manifest) for form in manifest.siblings],
        details=[_detail(form, manifest) for form in manifest.siblings],
        shown_limit=shown_limit,
        chosen=[_is_chosen(candidate, manifest) for candidate in diagnostics.candidates],
        smaller=[record.name for record in manifest.made_smaller_by],
        limits=[(name, kind) for name, kind in KINDS.items() if name != "latency_ms"],
        unlimited=not manifest.budget.limits,
        least=LEAST_PHOTOS,
        rates=diagnostics.by_class,
        most_classes=CLASSES,
    )


def document(manifest: Manifest, diagnostics: Diagnostics) -> Mapping[str, object]:
    """The JSON that the report shows: manifest and diagnostics, and what follows from them."""
    siblings = [form.metrics.latency for form in manifest.siblings if form.metrics]
    speeds = speedups(siblings, [form.precision is Precision.FLOAT32 for form in manifest.siblings if form.metrics])
    data = {
        **manifest.to_json(),
        **to_json(diagnostics),
        "shipped_sibling": manifest.shipped,
        "speeds": [{"times": speed.times, "ci": speed.ci} for speed in speeds if speed],  # of all, or of none
        "change": manifest.steps[diagnostics.shipped_step].change,
    }
    for mistake in data["mistakes"]:
        del mistake["thumbnail"]  # shown beside, once
    plain: Mapping[str, object] = json.loads(json.dumps(data))  # lists for tuples: paths count into them
    return plain


def redraw(path: Path) -> Path:
    """Draw a bundle's report and model card again, from what the bundle holds; raises BadInput where it holds no diagnostics."""
    source = Bundle.open(path)
    if DIAGNOSTICS not in source.manifest.files:
        raise BadInput(f"{path}: holds no {DIAGNOSTICS}: it was made by an edgeeff before 0.2. Fit again.")
    text = render(source.manifest, read_json(source.path / DIAGNOSTICS, Diagnostics))
    with working_folder(source.path.resolve()) as folder:
        copy = Path(shutil.copytree(source.path, folder / "bundle"))
        (copy / REPORT).write_text(text, encoding="utf-8")
        (copy / card.NAME).write_text(card.render(source.manifest, source.labels), encoding="utf-8")
        bundle.seal(copy, source.manifest)
        return bundle.publish(copy, source.path.resolve()).path / REPORT


def _points(manifest: Manifest, diagnostics: Diagnostics) -> list[Point]:
    """What the frontier draws: the candidates that were measured, or without a choice the forms of the one variant."""
    percentile, shipped = manifest.budget.percentile, manifest.shipped

    def point(latency: Latency, height: float, label: str, good: bool, chosen: bool) -> Point:
        low, high = {50: latency.ci, 90: latency.ci90, 99: latency.ci99}[percentile]
        return Point(latency.at(percentile), low, high, height, label, good, chosen)

    measured = [
        point(c.latency_ms, c.accuracy or 0.0, _short_name(c), not c.over, _is_chosen(c, manifest))
        for c in diagnostics.candidates
        if c.latency_ms
    ]
    return measured or [
        point(f.metrics.latency, f.agreement if f.top1 is None else f.top1, _label(f, manifest), f.passed, i == shipped)
        for i, f in enumerate(manifest.siblings)
        if f.metrics
    ]


def _short_name(candidate: CandidateRow) -> str:
    """A candidate's name: with its resolution where that is not its usual one."""
    return candidate.variant if candidate.published else f"{candidate.variant} {candidate.resolution}"


def _is_chosen(candidate: CandidateRow, manifest: Manifest) -> bool:
    return (candidate.variant, candidate.resolution) == (manifest.variant, manifest.resolution)


def _detail(form: FormRecord, manifest: Manifest) -> str:
    """What sets a form apart from another of its precision and activation."""
    pixels = "" if len({f.resolution for f in manifest.siblings}) == 1 else f"{form.resolution} px"
    return ", ".join(filter(None, (pixels, form.detail)))


def _label(form: FormRecord, manifest: Manifest) -> str:
    """A form's short name: what tells it from its siblings."""
    activation = "" if len({f.activation for f in manifest.siblings}) == 1 else f", {form.activation}"
    pixels = "" if len({f.resolution for f in manifest.siblings}) == 1 else f", {form.resolution} px"
    runtime = "" if form.runtime == manifest.backend else f", {form.runtime}"
    return f"{form.name}{activation}{pixels}{runtime}"
