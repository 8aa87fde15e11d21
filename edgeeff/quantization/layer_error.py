"""Which layers hurt: every layer's output in INT8 against the same layer in float, on the same photos."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends import openvino as runtime
from ..backends import refusal
from ..bundle import Bundle
from ..data.images import Pixels
from ..errors import BadInput
from ..files import user_path, write_whole
from ..progress import SILENT, Progress

LAYERS = ("Convolution", "GroupConvolution", "MatMul")
QUANTIZED, FLOAT = "#a8361c", "#8a949c"  # colours of a layer's bar
REARRANGING = ("Transpose", "Reshape", "Squeeze", "Convert")  # Convert: the rest of the graph computes in FP16


@dataclass(frozen=True)
class LayerError:
    """One layer. Errors are squared, in percent of the float signal's power: of the input as it arrives, and of the output. What
    the layer itself `adds` is the difference.

    `low`, `high`: the range kept of the input (None: it stays float); `largest` is the largest magnitude of the float input, and
    `outliers` the percentage of values outside the range.
    """

    layer: str
    bits: int
    low: float | None
    high: float | None
    largest: float
    outliers: float
    arrives: float
    leaves: float
    adds: float


def inspect(bundle: Bundle, images: Pixels | None = None, *, progress: Progress = SILENT) -> list[LayerError]:
    """Every layer, the one that adds most error first; on the bundle's golden photos, or on `images` `(N, R, R, 3)` uint8."""
    if not bundle.manifest.precision.quantized:
        raise BadInput(f"{bundle.path}: ships {bundle.manifest.precision}: it has no INT8 layers to inspect.")
    images = bundle.golden()["images"] if images is None else images
    graph, compiled = bundle.path / "model.onnx", bundle.path / bundle.manifest.model
    if graph.name not in bundle.manifest.files:
        raise BadInput(f"{bundle.path}: holds no {graph.name} to compare with. Fit or copy it again.")
    try:
        return compare(graph, compiled, images, progress=progress)
    except (RuntimeError, ValueError, IndexError) as error:  # files that are no networks, or not the same one
        raise refusal("OpenVINO", "run", compiled, error) from error


def compare(float_file: Path, integer_file: Path, images: Pixels, *, progress: Progress = SILENT) -> list[LayerError]:
    """Every layer of the two files, the one that adds most error first, on `images` `(N, R, R, 3)` uint8."""
    exact, integer = _read(float_file), _read(integer_file)
    layers = {name: (node, other) for name, node in _layers(integer).items() if (other := _layers(exact).get(name))}
    sums = {name: np.zeros(6) for name in layers}
    largest = dict.fromkeys(layers, 0.0)
    ranges = {name: _range(node) for name, (node, _) in layers.items()}
    ours = _Probe(integer, [(_before(node), _output(node)) for node, _ in layers.values()])
    theirs = _Probe(exact, [(_before(node), _output(node)) for _, node in layers.values()])
    for image in progress.track(images, "inspect", len(images)):
        for name, (x, y), (float_x, float_y) in zip(layers, ours(image), theirs(image), strict=True):
            low, high = ranges[name] or (-np.inf, np.inf)
            outside = ((float_x < low) | (float_x > high)).sum()
            powers = [float(np.square(a).sum()) for a in (x - float_x, float_x, y - float_y, float_y)]
            sums[name] += [*powers, outside, float_x.size]
            largest[name] = max(largest[name], float(np.abs(float_x).max()))
    found = []
    for name, (error_in, power_in, error_out, power_out, outside, count) in sums.items():
        low, high = ranges[name] or (None, None)  # type: ignore[assignment]
        arrives, leaves = (float(100 * e / max(p, 1e-20)) for e, p in ((error_in, power_in), (error_out, power_out)))
        bits, outliers = 8 if ranges[name] else 32, float(100 * outside / count)
        found.append(LayerError(name, bits, low, high, largest[name], outliers, arrives, leaves, adds=leaves - arrives))
    return sorted(found, key=lambda e: -e.adds)


def plot(errors: list[LayerError], path: Path) -> None:
    """Write an SVG: a bar a layer, in the order of the error that it adds, with title, axis and legend."""
    widest = max([1e-9, *(e.adds for e in errors)])
    step = next(s for s in (m * 10.0 ** math.floor(math.log10(widest)) for m in (1, 0.5, 0.2)) if widest >= 3 * s)
    bottom = 70 + 18 * len(errors)
    rows = [
        '<rect width="100%" height="100%" fill="#fff"/>',
        '<text x="12" y="22" font-size="15" font-weight="bold">Error that each layer adds</text>',
    ]
    for left, colour, words in ((12, QUANTIZED, "in INT8"), (92, FLOAT, "left in float")):
        rows.append(f'<rect x="{left}" y="36" width="12" height="12" fill="{colour}"/><text x="{left + 18}" y="46">{words}</text>')
    for i in range(math.floor(widest / step) + 1):
        x = 320 + 400 * i * step / widest
        rows.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="60" y2="{bottom}" stroke="#ddd"/>')
        rows.append(f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{i * step:.3g}</text>')
    rows.append(f'<text x="320" y="{bottom + 32}">squared error, % of the power of the float signal</text>')
    for i, e in enumerate(errors):
        y, width = 74 + 18 * i, max(0.0, 400 * e.adds / widest)
        rows.append(f'<text x="312" y="{y}" text-anchor="end">{escape(e.layer)}</text>')
        rows.append(f'<rect x="320" y="{y - 10}" width="{width:.1f}" height="12" fill="{QUANTIZED if e.bits == 8 else FLOAT}"/>')
        rows.append(f'<text x="{326 + width:.1f}" y="{y}" stroke="#fff" stroke-width="3" paint-order="stroke">{e.adds:.3f}%</text>')
    size = f'width="820" height="{bottom + 44}"'
    text = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">{"".join(rows)}</svg>\n'
    with user_path(path, "written"):
        write_whole(path, text.encode())


class _Probe:
    """A model that also gives tensors from its inside."""

    def __init__(self, model: Any, wanted: list[tuple[Any, Any]]) -> None:
        import openvino

        model.add_outputs(list({_key(output): None for pair in wanted for output in pair}))
        places = {_key(result.get_node().input_value(0)): i for i, result in enumerate(model.outputs)}
        self.pairs = [(places[_key(x)], places[_key(y)]) for x, y in wanted]
        config = {"INFERENCE_PRECISION_HINT": "f32"}
        self.compiled = openvino.Core().compile_model(model, "CPU", config)

    def __call__(self, image: Pixels) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        results = self.compiled({0: image[None]})
        return [(results[a], results[b]) for a, b in self.pairs]


def _key(output: Any) -> tuple[str, int]:
    return output.get_node().get_friendly_name(), output.get_index()


def _read(path: Path) -> Any:
    from openvino._offline_transformations import apply_moc_transformations

    model = runtime.read(path)
    if path.suffix == ".onnx":
        apply_moc_transformations(model, cf=True, smart_reshape=False)
    return model


def _layers(model: Any) -> Mapping[str, Any]:
    return {_name(op): op for op in model.get_ordered_ops() if op.get_type_name() in LAYERS}


def _name(op: Any) -> str:
    from ..export.onnx import module_path

    return module_path(str(op.get_friendly_name()).removesuffix("/WithoutBiases")).removeprefix("model.")


def _output(op: Any) -> Any:
    """The layer's output, with its bias where the next operation adds one."""
    following = list(op.output(0).get_target_inputs())
    if len(following) == 1 and following[0].get_node().get_type_name() == "Add":
        add = following[0].get_node()
        if add.input_value(1).get_node().get_type_name() in ("Constant", "Reshape", "Convert"):
            return add.output(0)
    return op.output(0)


def _quantizer(op: Any) -> Any:
    """The FakeQuantize on a layer's data input, also where that is only rearranged in between; None where it stays float."""
    node = op.input_value(0).get_node()
    while node.get_type_name() in REARRANGING:
        node = node.input_value(0).get_node()
    return node if node.get_type_name() == "FakeQuantize" else None


def _before(op: Any) -> Any:
    """The layer's data input, before it is quantized and rearranged."""
    source = op.input_value(0)
    while source.get_node().get_type_name() in (*REARRANGING, "FakeQuantize"):
        source = source.get_node().input_value(0)
    return source


def _range(op: Any) -> tuple[float, float] | None:
    quantizer = _quantizer(op)
    if quantizer is None:
        return None
    low, high = (float(np.asarray(quantizer.input_value(i).get_node().get_data()).ravel()[0]) for i in (1, 2))
    return low, high
