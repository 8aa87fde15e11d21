"""The page of a fit: alone, true to its JSON, safe with foreign names, and readable in a browser."""

import itertools
import json
import re
import shlex
import shutil
import subprocess
from dataclasses import fields
from html import escape
from pathlib import Path

import numpy as np
import pytest
from pages import Reader, facts, photos, require_true_figures

from edgeeff import Budget, Bundle, Job, diagnostics
from edgeeff.budget import KINDS
from edgeeff.bundle import REPORT
from edgeeff.cli.options import parser
from edgeeff.data.preprocess import Preprocess
from edgeeff.diagnostics import Diagnostics
from edgeeff.manifest import Manifest
from edgeeff.records import from_json, to_json
from edgeeff.report import charts
from edgeeff.report import html as page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def html(fitted) -> str:
    return (fitted[0] / REPORT).read_text(encoding="utf-8")


@pytest.fixture
def data(html: str) -> dict:
    return facts(html)


def render(data: dict, thumbnails: list[str]) -> str:
    """The page of the JSON that another one held."""
    mistakes = [{**m, "thumbnail": t} for m, t in zip(data["mistakes"], thumbnails, strict=False)]
    told = from_json({**data, "mistakes": mistakes}, Diagnostics, "diagnostics")
    return page.render(Manifest.from_json(data, "manifest"), told)


def chosen_of_three(data: dict) -> dict:
    """The facts as of a choice among three variants, of which one was not measured."""
    rows = []
    for name, top1, figure in (("lite0", 75.1, 2.0), ("b0", 77.1, None), ("b1", 79.1, 9.0)):
        latency = figure and {"p50": figure, "p90": figure, "p99": figure, "rounds": [figure]}
        latency = latency and latency | {key: [figure - 0.1, figure + 0.1] for key in ("ci", "ci90", "ci99")}
        row = {"variant": name, "resolution": 32, "accuracy": top1, "gflops": 0.1, "mparams": 4.0, "published": True}
        row |= {"precision": "int8" if figure else None, "latency_ms": latency, "size_mb": 4.0 if figure else None}
        row |= {"activation": None, "disturbed": [], "predicted": False}
        rows.append({**row, "over": ["p50 9.00 ms"] if name == "b1" else []})
    return {**data, "candidates": rows, "budget": {**data["budget"], "latency_ms": 5.0}}


def test_the_page_is_vouched_for_and_printed(fitted) -> None:
    bundle = Bundle.open(fitted[0])
    assert REPORT in bundle.manifest.files
    assert fitted[1]["page"] == str(bundle.path / REPORT)


def test_the_page_loads_nothing_and_runs_nothing(html: str) -> None:
    reader = Reader(html)
    assert not reader.open
    assert [a for a in reader.addresses if not a.startswith("data:image/jpeg;base64,")] == []
    assert reader.tags.count("script") == 1  # the JSON
    assert not re.search(r"@import|url\((?!#)", html)
    assert not {"link", "iframe", "object", "embed", "base", "form"} & set(reader.tags)


def test_every_figure_is_the_json_s(html: str, fitted) -> None:
    figures = require_true_figures(html).figures
    steps, siblings = fitted[1]["steps"], fitted[1]["siblings"]
    assert {f"steps.{i}.top1" for i in range(len(steps))} <= set(figures)
    assert {f"siblings.{i}.latency_ms.p50" for i in range(len(siblings))} <= set(figures)
    assert {"variant", "resolution", "precision", "verdict", "validation_sha256", "calibration_sha256", "latency_ms.p99"} <= set(
        figures
    )
    assert {"layer_times.layers.14.milliseconds", "confusion.matrix.9.9", "mistakes.0.probability"} <= set(figures)
    assert {"by_class.9.photos", "confusion.pairs.0.photos", "change"} <= set(figures)


def test_the_json_is_the_manifest_and_more(data: dict, fitted) -> None:
    manifest = json.loads((fitted[0] / "manifest.json").read_text())
    for key in set(manifest) - {"files", "digest", "schema"}:
        assert data[key] == manifest[key], key
    for i, sibling in enumerate(manifest["siblings"]):
        assert data["siblings"][i] == sibling
    shipped = manifest["siblings"][data["shipped_sibling"]]
    assert shipped["latency_ms"] == manifest["latency_ms"]
    assert data["steps"][data["shipped_step"]]["top1"] == shipped["top1"]


def test_the_shipped_file_s_own_answers_are_counted(data: dict, fitted, digits: Path) -> None:
    from edgeeff.data.images import ImageSet, PixelFile

    bundle = Bundle.open(fitted[0])
    images = ImageSet.open(digits / "val").labelled_for(10, bundle.labels)
    logits = bundle.load(throughput=True)(PixelFile(images, bundle.preprocess).rows(0, len(images)))
    labels, said = np.array(images.labels), logits.argmax(1)
    matrix = np.array(data["confusion"]["matrix"])
    assert matrix.sum() == 300
    assert matrix.trace() == (labels == said).sum()
    assert (matrix.sum(1) == np.bincount(labels)).all()
    first = data["mistakes"][0]
    row = [p.relative_to(digits / "val").as_posix() for p in images.paths].index(first["file"])
    wrong = bundle.probabilities(logits).max(1)[labels != said]
    assert (labels[row], said[row]) == (first["label"], first["prediction"])
    assert first["probability"] == pytest.approx(wrong.max(), abs=1e-4)  # the same kernels, in other batches
    assert data["confusion"]["wrong"] == len(wrong)


def test_foreign_names_stay_text(data: dict, html: str) -> None:
    evil = "</script><script>alert(1)</script>"
    data["class_names"] = [evil, *data["class_names"][1:]]
    data["mistakes"][0] |= {"file": f'"><img src=x onerror=alert(1)>{evil}', "label": 0}
    data["command"] = data["commands"][0] = f"edgeeff fit --val {evil}"
    again = render(data, photos(html))
    reader = require_true_figures(again)
    assert reader.tags.count("script") == 1
    assert facts(again)["class_names"][0] == evil
    assert evil in reader.text  # shown, as text


def test_candidates_that_were_not_measured_are_listed_and_not_drawn(data: dict, html: str) -> None:
    again = render(chosen_of_three(data), photos(html))
    require_true_figures(again)
    drawing, listed = again.split("</svg>")[0], again.split("<tbody>")[1].split("</tbody>")[0]
    assert "lite0</text>" in drawing
    assert "b1</text>" in drawing
    assert "b0</text>" not in drawing
    assert listed.count("not measured") == 1
    assert listed.count("over: ") == 1
    assert "budget</text>" in drawing


def test_larger_variants_that_were_refused_say_why(data: dict, html: str) -> None:
    data["refusals"] = ["b1 at 32 px does not meet p50 ≤ 5 ms."]
    reader = require_true_figures(render(data, photos(html)))
    assert "Tried before and refused: b1 at 32 px does not meet p50 ≤ 5 ms." in reader.text


def test_the_class_that_loses_most_and_the_reason_of_a_refusal_are_shown(data: dict, html: str) -> None:
    worst = {"label": 3, "name": "</td><b>three", "photos": 30, "before": 90.0, "after": 56.67}
    for step in data["steps"]:
        step["balanced"] = 81.25
    data["steps"][2] |= {"worst_class": worst, "passed": False, "refusal": "int8: class '</td><b>three' 90.00 → 56.67"}
    data["max_class_drop"] = 12.5
    reader = require_true_figures(render(data, photos(html)))
    assert "</td><b>three: 90.00 to 56.67, 30 photos" in reader.text  # as text
    assert "int8: class '</td><b>three' 90.00 → 56.67" in reader.text
    assert "no class of 5 photos or more over 12.5" in reader.text
    assert {"steps.2.worst_class.after", "steps.2.balanced", "steps.0.balanced", "max_class_drop"} <= set(reader.figures)


def test_a_choice_by_cost_alone_draws_the_forms(data: dict, html: str) -> None:
    unmeasured = chosen_of_three(data)
    for row in unmeasured["candidates"]:
        row |= {"precision": None, "latency_ms": None, "size_mb": None}
    again = render(unmeasured, photos(html))
    assert again.count("not measured") == 3
    assert "int8</text>" in again.split("</svg>")[0]


def test_the_interval_drawn_is_that_of_the_budgets_percentile(data: dict) -> None:
    for percentile, key in ((50, "ci"), (90, "ci90"), (99, "ci99")):
        manifest = Manifest.from_json({**data, "budget": {**data["budget"], "percentile": percentile}}, "manifest")
        drawn = page._points(manifest, Diagnostics((), (), 0))
        for point, sibling in zip(drawn, data["siblings"], strict=True):
            assert [point.low, point.high] == sibling["latency_ms"][key]


def test_without_labels_there_are_no_confusions(data: dict) -> None:
    for report in (*data["steps"], *data["siblings"]):
        report |= {"top1": None, "drop": None, "drop_ci": None}
    for report in data["steps"]:
        report |= {"top5": None}
    again = render({**data, "confusion": None, "mistakes": []}, [])
    reader = require_true_figures(again)
    assert "Most confident errors" not in reader.text
    assert "have no labels" in reader.text
    assert not [p for p in reader.figures if p.endswith(("top1", "drop"))]


def test_an_unlabelled_fit_draws_its_page(unlabelled: Path, run, tmp_path: Path) -> None:
    from edgeeff.network import checkpoint, model

    network = model.create("lite0", classes=10, resolution=32)
    preprocess = Preprocess.standard(32, network.variant.mean, network.variant.std)
    checkpoint.save(network, tmp_path / "w.safetensors", preprocess, tuple("0123456789"))
    done = run(
        *("fit", "--target", "host-cpu", "--latency", 500, "--variant", "lite0", "--weights", tmp_path / "w.safetensors"),
        *("--calib", unlabelled / "train", "--val", unlabelled / "val", "--min-agreement", 0, "--out", tmp_path / "out"),
    )
    assert done.returncode == 0, done.stderr
    assert f"report: {tmp_path / 'out' / REPORT}" in done.stdout
    reader = require_true_figures((tmp_path / "out" / REPORT).read_text(encoding="utf-8"))
    assert "Most confident errors" not in reader.text
    assert "layer_times.layers.0.milliseconds" in reader.figures


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"passed": True, "proven": True}, "the whole interval lies within the allowed drop"),
        ({"passed": True, "proven": False, "needed": 900}, "photos cannot prove a drop within 7.5; about 900 would"),
        ({"passed": True, "proven": False, "needed": None}, "photos cannot prove a drop within 7.5"),
        ({"passed": False, "proven": False, "refusal": "int8: no."}, "it fails the gate"),
    ],
)
def test_the_first_screen_answers_what_how_fast_how_accurate_and_whether_it_is_proven(
    data: dict, html: str, changes, answer
) -> None:
    data["max_drop"] = 7.5
    data["steps"][data["shipped_step"]] |= {**changes, "drop": -0.49, "drop_ci": [-1.2, 0.2]}
    head = require_true_figures(render(data, photos(html))).text.partition("Accuracy against latency")[0]
    for question in ("What is it?", "How fast?", "How accurate?", "Proven?"):
        assert question in head
    assert "gain 0.49 points (-0.20 to +1.20) against float" in head
    assert answer in head


def test_a_training_of_several_epochs_has_its_curve(data: dict, html: str) -> None:
    assert len(data["training"]) == 1
    assert data["training"][0]["loss"] > 0
    assert "Loss on the training photos" not in html
    again = render({**data, "training": [{"loss": loss} for loss in (2.5, 1.25, 1.0)]}, photos(html))
    curve = re.search(r'class="curve" points="(.*?)"', again)
    assert curve
    heights = [float(point.split(",")[1]) for point in curve[1].split()]
    assert len(heights) == 3
    assert heights == sorted(heights)  # downwards
    assert "from 2.500 to 1.000" in require_true_figures(again).text


def test_the_matrix_is_shaded_on_its_diagonal_too(data: dict, html: str) -> None:
    rule = re.search(r"td\.right \{(.*?)\}", html)
    assert rule
    assert "background" not in rule[1]
    shares = [float(s) for s in re.findall(r'class="right" style="--share:([\d.]+)"', html)]
    assert shares == [round(0.5 * row[i] / sum(row), 2) for i, row in enumerate(data["confusion"]["matrix"])]
    assert max(shares) > 0


def test_the_histogram_has_p99_within_it_and_beyond(data: dict, html: str) -> None:
    for beyond in (False, True):
        data["latency_ms"]["p99"] = data["latency_ms"]["histogram"][1] + (0.5 if beyond else 0)
        section = render(data, photos(html)).split("How the runs were spread")[1].split("</svg>")[0]
        assert f"p99 {data['latency_ms']['p99']:.2f}</text>" in section


def test_no_line_crosses_a_label() -> None:
    points = [
        charts.Point(1.0 + i, 0.9 + i, 1.2 + i, 70.0 + i * (6 - i), f"a variant {i}", good=True, chosen=False) for i in range(4)
    ]
    for frame in (page.FRAME, page.NARROW):
        drawn = charts.scatter(points, 2.4, frame)
        ends = [tuple(map(float, pair.split(","))) for pair in drawn.line.split()]
        assert len(ends) > 2
        for mark in drawn.marks:
            left, top, right, bottom = mark.covered
            assert left <= mark.tx <= right
            assert not left < drawn.x(drawn.limit) < right
            for (ax, ay), (bx, by) in itertools.pairwise(ends):
                along = [(ax + (bx - ax) * i / 200, ay + (by - ay) * i / 200) for i in range(201)]
                assert not [p for p in along if left < p[0] < right and top < p[1] < bottom]


def test_lines_of_the_grid_begin_below_the_labels(html: str) -> None:
    """In the drawings that have a label above each row."""
    for drawing in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        if segments := re.search(r'class="grid" d="(.*?)"', drawing):
            tops = [float(y) for y in re.findall(r"M[\d.]+ ([\d.]+)v", segments[1])]
            labels = [float(y) for y in re.findall(r'<text class="(?:name)?" x="1[24]" y="([\d.]+)"', drawing)]
            assert len(tops) == len(labels) > 1
            assert all(baseline + 4 < top for baseline, top in zip(labels, tops, strict=True))


def test_a_class_has_its_recall_and_precision() -> None:
    labels, said = np.array([0, 0, 0, 2, 2, 2, 2]), np.array([0, 1, diagnostics.NO_ANSWER, 2, 2, 2, 0])
    worst, best = diagnostics.class_rows(labels, said)
    assert (worst.label, worst.photos, worst.got, worst.right) == (0, 3, 2, 1)
    assert (worst.recall, worst.precision) == (pytest.approx(100 / 3), 50)
    assert (best.label, best.recall, best.precision) == (2, 75, 100)
    assert diagnostics.ClassRow(1, 3, 0, 0).precision is None
    assert len(diagnostics.class_rows(np.arange(100), np.zeros(100, int))) == diagnostics.CLASSES


def test_few_classes_have_the_matrix_and_the_pairs() -> None:
    found = diagnostics.confusion(np.array([0, 0, 1]), np.array([1, 1, 1]), 2)
    assert found.matrix == ((0, 2), (0, 1))
    assert [(p.label, p.prediction, p.photos, p.of) for p in found.pairs] == [(0, 1, 2, 2)]


def test_many_classes_are_listed_by_their_confusions() -> None:
    labels, said = np.array([3, 3, 3, 7, 7, 8]), np.array([3, 9, 9, 7, 8, 8])
    found = to_json(diagnostics.confusion(labels, said, 1000))
    assert not found["matrix"]
    assert found["wrong"] == 3
    assert found["pairs"][0] == {"label": 3, "prediction": 9, "photos": 2, "of": 3}


def test_photos_are_shown_as_the_network_saw_them() -> None:
    import base64
    import io

    from PIL import Image

    pixels = np.zeros((300, 300, 3), np.uint8)
    pixels[..., 2] = 250  # in BGR: red
    preprocess = Preprocess(300, 300, (0, 0, 0), (1, 1, 1), colour="BGR")
    uri = diagnostics.thumbnail(pixels, preprocess)
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert image.size == (128, 128)
    red, _, blue = image.getpixel((64, 64))
    assert red > 200 > 50 > blue


@pytest.mark.parametrize(
    "job",
    [
        Job("host-cpu", "o'ut", "my val", Budget(latency_ms=4.5), ("b0",), weights="w.pth", calib="c", max_drop=1.0),
        Job(
            "gpu", "v", "o", Budget(gflops=0.25, percentile=90), ("b0", "b1"), train="t", flip=False, accept=True, epochs=3, lr=1e-4
        ),
        Job("x.yaml", "o", "v", train="t", resolution=(64, 96), activation="auto", seed=3, max_corrupt=0.0, calibration="min-max"),
    ],
)
def test_the_command_asks_for_the_same(job: Job) -> None:
    options = parser().parse_args(shlex.split(job.command)[1:])
    for field in fields(job):
        if field.name in ("variants", "resolution"):
            assert tuple(getattr(options, field.name)) == tuple(getattr(job, field.name))
        elif field.name != "budget":
            assert getattr(options, field.name) == getattr(job, field.name), field.name
    assert Budget(percentile=options.percentile, **{name: getattr(options, name) for name in KINDS}) == job.budget


def test_marks_and_labels_stay_inside_the_frame() -> None:
    names = [f"variant-{i}" for i in range(12)]
    points = [
        charts.Point(1.0 + i % 3 * 0.01, 0.9, 40.0 * (i == 0) + 1.2, 70.0 + i // 2, name, good=True, chosen=False)
        for i, name in enumerate(names)
    ]
    left, right, bottom, top = page.FRAME
    drawn = charts.scatter(points, 2.0, page.FRAME)
    for p in drawn.marks:
        assert left <= p.cx <= right
        assert top <= p.cy <= bottom
    assert drawn.limit == 2.0
    assert charts.scatter(points, 5000.0, page.FRAME).limit is None  # it would squeeze the rest into a corner
    assert charts.axis([3.0, 3.0], 0, 100)(3.0) == 50  # a single value has an axis too


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("many", [False, True])
def test_a_browser_shows_it_without_complaint_or_sideways_scrolling(
    data, html: str, width: int, many: bool, tmp_path: Path
) -> None:
    if many:  # long names, and a fit that chose among variants
        names = [f"a class with a rather long name, number {i}" for i in range(10)]
        html = render({**chosen_of_three(data), "class_names": names, "command": "edgeeff " * 40}, photos(html))
    frame = f'<!doctype html><body><iframe style="width:{width}px;height:900px" srcdoc="{escape(html)}"></iframe>'
    script = """<script>onload = () => {
      const page = document.querySelector("iframe").contentDocument.documentElement;
      document.body.dataset.widths = [page.scrollWidth, page.clientWidth, page.querySelectorAll("section").length];
    }</script>"""
    (tmp_path / "frame.html").write_text(frame + script, encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0", "--dump-dom"]
    profile = [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width + 100},1000"]
    done = subprocess.run([*command, *profile, (tmp_path / "frame.html").as_uri()], capture_output=True, text=True, timeout=120)
    assert ":CONSOLE" not in done.stderr, done.stderr
    content, box, sections = map(int, re.search(r'data-widths="(\d+),(\d+),(\d+)"', done.stdout).groups())
    assert content <= box
    assert sections >= 6
