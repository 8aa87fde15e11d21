"""torch → ONNX, and back: one float graph with the preprocessing inside, uint8 `(1, R, R, 3)` in, `(1, classes)` logits out."""

from __future__ import annotations

import io
import warnings
from itertools import pairwise
from pathlib import Path

import onnx
import torch

from ..data.preprocess import Preprocess
from ..errors import BadInput
from ..files import read_file, write_whole
from ..network.architecture import Padding, Variant
from ..network.model import Deployed, EfficientNet, SameConv2d

MOST_BYTES = 2 << 30  # of an ONNX file, as protobuf has it
OPSET = 20  # the newest that TensorRT 10.x reads
FRAMES = f"""
<ir_version: 9, opset_import: ["": {OPSET}]>
frames (uint8[h, w, 3] part, float[r, h] rows, float[w, r] columns, int32[3] order) => (uint8[1, r, r, 3] images)
<int64[2] flat = {{0, -1}}, int64[3] split = {{0, -1, 3}}, float low = {{0}}, float high = {{255}}, int64[1] first = {{0}}>
{{
    pixels = Cast <to = 1> (part)
    lines = Reshape (pixels, flat)
    short = MatMul (rows, lines)
    apart = Reshape (short, split)
    turned = Transpose <perm = [0, 2, 1]> (apart)
    narrow = MatMul (turned, columns)
    small = Transpose <perm = [0, 2, 1]> (narrow)
    ordered = Gather <axis = 2> (small, order)
    whole = Round (ordered)
    bounded = Clip (whole, low, high)
    picture = Unsqueeze (bounded, first)
    images = Cast <to = 2> (picture)
}}
"""  # frames.GRAPH as text: rows · part · columns. TensorRT has uint8 at the very ends only.


def to_onnx(model: EfficientNet, preprocess: Preprocess, path: Path) -> Path:
    """Write the portable file. Batch norms are folded, pads are attributes of their convolutions, every shape is static."""
    deployed = Deployed(model, preprocess).eval()
    side = preprocess.resolution
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the TorchScript exporter announces its retirement at every call
        torch.onnx.export(
            deployed,
            (torch.zeros(1, side, side, 3, dtype=torch.uint8),),
            buffer,  # type: ignore[arg-type]  # takes a file object, whatever its annotation says
            input_names=["images"],
            output_names=["logits"],
            opset_version=OPSET,
            dynamo=False,
        )
    graph = onnx.load_from_string(buffer.getvalue())
    fold_pads(graph.graph, deployed)
    drop_identities(graph.graph)
    graph = onnx.shape_inference.infer_shapes(graph, strict_mode=True)
    onnx.checker.check_model(graph, full_check=True)
    write_whole(path, graph.SerializeToString())
    return path


def from_onnx(path: Path, variant: Variant, classes: int) -> EfficientNet:
    """The network that `to_onnx` wrote, with the same answers: its batch norms, which were folded, only add the biases.

    `variant` is that of the file, without what was left out of it. Raises BadInput for a file of another network.
    """
    graph = onnx.load_from_string(read_file(path, MOST_BYTES, follow=False)).graph
    weights = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    layers = {module_path(n.name).removeprefix("model."): n for n in graph.node if n.op_type in ("Conv", "Gemm")}
    pads = [list(a.ints) for node in layers.values() for a in node.attribute if a.name == "pads"]  # top, left, bottom, right
    padding: Padding = "same" if any(each[:2] != each[2:] for each in pads) else "symmetric"
    model = EfficientNet(variant, classes, padding, variant.bn_eps)
    state, biases = model.state_dict(), _biases(model)
    if odd := sorted(set(biases) ^ set(layers)):
        raise BadInput(f"{path}: {odd[0]} is a layer either of the file or of {variant.name}, not of both. Fit again.")
    for name, node in layers.items():
        for key, constant in zip((f"{name}.weight", biases[name]), node.input[1:3], strict=True):
            tensor = torch.from_numpy(weights[constant].copy())
            if state[key].shape != tensor.shape:
                raise BadInput(f"{path}: {key} is {tuple(tensor.shape)}, expected {tuple(state[key].shape)}. Fit again.")
            state[key].copy_(tensor)
    return model.eval()


def _biases(model: EfficientNet) -> dict[str, str]:
    """By the name of each layer, what is added to its output: its own bias, or that of the batch norm after it, which is made to
    scale nothing."""
    found, layer = dict[str, str](), ""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_var is not None
            module.running_var.fill_(1 - module.eps)
            found[layer] = f"{name}.bias"
        elif isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            layer, found[name] = name, f"{name}.bias"
    return found


def frames_graph() -> bytes:
    """What lies in frames.GRAPH."""
    graph = onnx.parser.parse_model(FRAMES)
    onnx.checker.check_model(graph, full_check=True)
    return bytes(graph.SerializeToString(deterministic=True))


def fold_pads(graph: onnx.GraphProto, deployed: torch.nn.Module) -> None:
    """Make TensorFlow's SAME pads attributes of their convolutions, instead of Pad nodes with the arithmetic of their amounts."""
    producer = {output: node for node in graph.node for output in node.output}
    for conv in [n for n in graph.node if n.op_type == "Conv"]:
        module = deployed.get_submodule(module_path(conv.name))
        if isinstance(module, SameConv2d):
            left, right, top, bottom = module.pads
            next(a for a in conv.attribute if a.name == "pads").ints[:] = [top, left, bottom, right]
            conv.input[0] = producer[conv.input[0]].input[0]


def module_path(node: str) -> str:
    """The module that an exported node came of: `/model/blocks/blocks.1/blocks.1.0/conv_exp/Conv` → `model.blocks.1.0.conv_exp`."""
    scopes = node.strip("/").split("/")
    return ".".join(a for a, b in pairwise(scopes) if not b.startswith(f"{a}."))


def drop_identities(graph: onnx.GraphProto) -> None:
    """Remove Identity nodes, which the exporter puts before equal constants, and what nothing reads any more."""
    sources = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "Identity"}
    for node in graph.node:
        node.input[:] = [sources.get(name, name) for name in node.input]
    producer = {output: node for node in graph.node for output in node.output}
    live: list[str] = [o.name for o in graph.output]
    for name in live:
        if name in producer:
            live.extend(i for i in producer[name].input if i not in live)
    kept = [n for n in graph.node if set(n.output) & set(live)]
    del graph.node[:]
    graph.node.extend(kept)
