"""The model card of a bundle: a Markdown file with YAML front matter, as the Hugging Face hub shows one.

It is a pure function of the manifest and the class names, and needs no library that a device lacks. Names, commands and sentences
of a manifest are anybody's text: in it they are code or escaped, and never become markup.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import yaml

from .budget import KINDS
from .errors import printable
from .manifest import FormRecord, Manifest
from .measurement.accuracy import StepReport

NAME = "README.md"
CLASSES = 100  # names that are listed; labels.txt has them all
MARKUP = re.compile(r"[\\`*_{}\[\]<>#|~&$!@]|(?<=www)\.|:(?=//)")
FIRST = re.compile(r"^(\d*)([-+=:]|[.)](?!\S))")  # what makes a line a list, a heading or a table

PYTHON = """\
import edgeeff
from PIL import Image

bundle = edgeeff.Bundle.open("my-model")  # checks every hash
predict = bundle.load()
pixels = bundle.preprocess(Image.open("photo.jpg"))  # ({0}, {0}, 3) uint8
probabilities = bundle.probabilities(predict(pixels[None]))[0]
print(bundle.names[probabilities.argmax()], probabilities.max())
"""


def render(manifest: Manifest, class_names: Sequence[str]) -> str:
    """The Markdown."""
    m = manifest
    sections = {
        "Use": _use(m),
        "Input and classes": _input(m, class_names),
        "Accuracy": _accuracy(m),
        "Latency": _latency(m),
        "Probabilities": _probabilities(m),
        "Limits": _limits(m),
        "How it was made": _made(m),
    }
    title = f"{text(m.variant)} at {m.resolution} px, {m.precision}, for {text(m.target)}"
    about = (
        f"An EfficientNet for image classification, made by edgeeff for a device. It runs in {m.precision}, with the activation "
        f"{text(m.activation)}, by {text(m.backend)}: `{m.model}`."
    )
    if m.forms and not m.engines:
        about = (
            f"An EfficientNet for image classification, made by edgeeff for a device that compiles for itself: the graph of "
            f"{m.precision} and others lie here, and `edgeeff compile` makes an engine of them there."
        )
    parts = [f"---\n{_front_matter(m)}---\n\n# {title}", about, f"What the fit says: {text(m.verdict)}"]
    parts += [f"## {name}\n\n{body}" for name, body in sections.items()]
    return "\n\n".join(parts) + "\n"


def text(value: object) -> str:
    """Anybody's text as one line of Markdown that shows it, and is nothing else."""
    line = _line(str(value))
    return FIRST.sub(r"\1\\\2", MARKUP.sub(r"\\\g<0>", line))


def code(value: str) -> str:
    """Anybody's text as code within a line."""
    line = printable(value)
    fence = "`" * (_longest_run(line) + 1)
    return f"{fence} {line} {fence}" if line.startswith(("`", " ")) or line.endswith(("`", " ")) else f"{fence}{line}{fence}"


def block(value: str, language: str = "") -> str:
    """Anybody's text as lines of code."""
    fence = "`" * max(3, _longest_run(value) + 1)
    return f"{fence}{language}\n{value.rstrip()}\n{fence}"


def _line(value: str) -> str:
    """In one line, where line breaks are spaces."""
    return printable(" ".join(value.split()))


def _longest_run(value: str) -> int:
    return max(map(len, re.findall("`+", value)), default=0)


def _front_matter(m: Manifest) -> str:
    """What is known to a hub. No licence: that of the weights is not known. No `model-index`: the photos are no published set."""
    tags = ("efficientnet", m.variant, str(m.precision), "tensorrt" if m.forms else m.backend, "edge")
    data = {
        "pipeline_tag": "image-classification",
        "library_name": "edgeeff",
        "tags": [_line(tag) for tag in tags],
    }
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=10**6)  # a tag of two lines could end the front matter


def _use(m: Manifest) -> str:
    commands = ["edgeeff verify my-model                      # hashes, and the golden photos replayed"]
    if m.forms:
        commands = ["edgeeff compile my-model --val PHOTOS        # on the device, once: builds, judges and times engines"]
    commands += [
        "edgeeff eval my-model --val PHOTOS           # accuracy on labelled photos",
        "edgeeff camera my-model --source 0           # labels on a live camera",
    ]
    said = "`my-model` is this folder, and edgeeff is installed with what runs it; `edgeeff doctor` says what is missing."
    return f"{said}\n\n{block(chr(10).join(commands))}\n\n{block(PYTHON.format(m.resolution), 'python')}"


def _input(m: Manifest, class_names: Sequence[str]) -> str:
    p = m.preprocess
    said = (
        f"Input: `images`, uint8 (1, {p.resolution}, {p.resolution}, 3), {p.colour}. The photo is shrunk until its short side is "
        f"{p.resize} pixels ({p.interpolation}), and the centre {p.resolution} × {p.resolution} is cropped; mean and standard "
        f"deviation are applied in the graph. Output: logits (1, {m.classes}).\n\n{m.classes} classes"
    )
    if not class_names:
        return f"{said}, which have no names here."
    more = f"\n- … and {len(class_names) - CLASSES} more, in `labels.txt`" if len(class_names) > CLASSES else ""
    return f"{said}, by output:\n\n" + "\n".join(f"- {i}: {code(name)}" for i, name in enumerate(class_names[:CLASSES])) + more


def _accuracy(m: Manifest) -> str:
    engine = next((e for e in m.engines if e.precision is m.precision), None)
    form = m.shipped_form
    if engine and engine.accuracy:
        photos = f"{engine.accuracy.images} photos (SHA-256 `{engine.photos_sha256}`), by which the engine was judged on the device"
        lines = [f"On {photos}: {_step(engine.accuracy)}."]
    elif engine and engine.difference is not None:
        lines = [
            f"The engine was not judged on photos. It answers as its graph did, off by {engine.difference:.3f} standard deviations."
        ]
    else:
        lines = []
    if form:
        what = (
            "the graph that the engine was built from"
            if engine
            else "the graph, in ONNX Runtime"
            if m.forms
            else "the file that ships"
        )
        lines.append(
            f"Of {what}, on {m.validation_photos} validation photos (SHA-256 `{m.validation_sha256}`), by which it was chosen: "
            f"{_judged(form)}."
        )
    if m.held_out:
        whose = "the graph, in ONNX Runtime" if m.forms else "the file that ships"
        differs = "That differs from the validation photos by more than chance explains. " if m.held_out.differs else ""
        lines.append(
            f"Of {whose}, on {m.held_out.steps[1].images} test photos (SHA-256 `{m.held_out.photos_sha256}`), which no choice "
            f"has seen: {_step(m.held_out.steps[1])}. {differs}The float32 network there: {_top1(m.held_out.steps[0].top1)}."
        )
    else:
        lines.append("There were no test photos.")
    lines.append("Intervals are of 95%, and of the difference from the float32 network on the same photos.")
    return "\n\n".join(lines)


def _judged(form: FormRecord) -> str:
    gate = "passes the gate" if form.passed else "fails the gate"
    if form.top1 is None or form.drop is None or form.drop_ci is None:
        return f"{form.agreement:.2f}% keep the label of the float32 network, which {gate}; the photos have no labels"
    return f"{_top1(form.top1)}, {form.drop:+.2f} points lost ({form.drop_ci[0]:+.2f} to {form.drop_ci[1]:+.2f}), which {gate}"


def _step(step: StepReport) -> str:
    if step.top1 is None:
        return f"{step.agreement:.2f}% keep the label of the float32 network; the photos have no labels"
    return f"{_top1(step.top1)}, {step.change}" if step.change else _top1(step.top1)


def _top1(top1: float | None) -> str:
    return "no labels" if top1 is None else f"top-1 {top1:.2f}%"


def _latency(m: Manifest) -> str:
    if m.metrics is None:
        return "Not measured: the device compiles for itself, and measures then."
    t = m.metrics.latency
    lines = [
        "| one photo | ms | 95% interval |",
        "|---|---|---|",
        *(
            f"| {name} | {value:.2f} | {low:.2f} to {high:.2f} |"
            for name, value, (low, high) in (("p50", t.p50, t.ci), ("p90", t.p90, t.ci90), ("p99", t.p99, t.ci99))
        ),
    ]
    costs = [
        f"{figure:.{KINDS[name].decimals}f} {KINDS[name].unit}" for name, figure in m.metrics.costs.items() if figure is not None
    ]
    threads = f"{m.threads} threads" if m.threads else "as many threads as the runtime chooses"
    device = f"Measured on {text(m.device.cpu)}, {m.device.cores} cores, {text(m.device.os)}, with {threads}."
    said = ["\n".join(lines), device + (f" Also: {', '.join(costs)}." if costs else "")]
    if m.metrics.hosts:
        said.append(f"That is the slowest of {', '.join(map(text, m.metrics.hosts))}.")
    for when, state in zip(("before", "after"), m.conditions, strict=False):
        facts = [f"load {state.load:.2f}"]
        facts += [f"{state.clock:.0f} MHz"] if state.clock else []
        facts += [f"{state.temperature:.0f} °C"] if state.temperature else []
        facts += [f"power mode {text(state.power_mode)}"] if state.power_mode else []
        said.append(f"The machine {when} that: {', '.join(facts)}.")
    if m.disturbed:
        said.append(f"It cannot be relied on: {text('; '.join(m.disturbed))}.")
    return "\n\n".join(said)


def _probabilities(m: Manifest) -> str:
    said = f"A probability is the softmax of the logits divided by {m.temperature:.3g}."
    if m.confidence is None:
        return f"{said} No temperature was fitted."
    return f"{said} {text(m.confidence.sentence)} That was found on the {m.confidence.judged_on} photos."


def _limits(m: Manifest) -> str:
    lines = [
        f"It gives one of {m.classes} classes to any photo; photos of other things get one as well."
        if m.unknown is None
        else f"{text(m.unknown.sentence)} That does not find every photo of something else."
    ]
    if m.unknown and m.unknown.test:
        lines.append(f"Of {m.unknown.test.photos} test photos {m.unknown.test} get that label, which are false alarms.")
    lines += [
        f"Precision and {'graph' if m.forms else 'file'} were chosen on the {m.validation_photos} validation photos: accuracy on "
        "them is a little too high, and says nothing about other cameras, light or places.",
        "Latency holds for that device, in that state; `edgeeff bench` measures another.",
        "Accuracy for groups of people, and the effect of photos made to deceive it, were not examined.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _made(m: Manifest) -> str:
    training = f"{m.training_photos} photos (SHA-256 `{m.training_sha256}`) trained it; " if m.training_photos else ""
    said = (
        f"{training}{m.calibration_photos} photos (SHA-256 `{m.calibration_sha256}`) set the ranges of INT8. `fit.yaml` has the "
        f"options as well, and `sbom.json` the packages. Made on {text(m.date)}."
    )
    rows = "\n".join(f"| {text(name)} | {text(number)} |" for name, number in m.versions.items())
    return f"{block(m.command)}\n\n{said}\n\n| package | version |\n|---|---|\n{rows}"
