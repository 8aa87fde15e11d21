"""FP16 baked into a graph, as strongly typed TensorRT networks want it: weights, biases, constants and scales, explicit casts.

Stays float32: what comes before the first convolution (it works on pixels), pools (they sum thousands of numbers), whatever
`overflowing` finds, and layers whose inputs are so small that FP16 could not hold their scale. Inputs and outputs keep their types.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..data.images import PixelFile
from ..files import write_whole
from ..progress import SILENT, Progress

POOLS = ("GlobalAveragePool", "ReduceMean", "AveragePool")
PAIRS = ("QuantizeLinear", "DequantizeLinear")
LARGEST = float(np.finfo(np.float16).max)
LEAST_SCALE = float(np.finfo(np.float16).tiny)  # subnormal scales have few digits
MARGIN = 4  # photos in the field may reach this many times further than those at hand
LOOKED_AT = 32  # photos


def overflowing(model: Path, photos: PixelFile, progress: Progress = SILENT) -> dict[str, float]:
    """Nodes of a float graph whose outputs come within a factor of 4 of FP16's largest number, and how far they reach."""
    import onnxruntime

    graph = onnx.load(model)
    floats = [o for n in graph.graph.node if n.op_type != "Constant" for o in n.output]
    known = {o.name for o in graph.graph.output}
    graph.graph.output.extend(helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in floats if o not in known)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    largest: dict[str, float] = dict.fromkeys(floats, 0.0)
    count = min(LOOKED_AT, len(photos))
    for i in progress.track(range(count), "range of FP16", count):
        for name, value in zip(floats, session.run(floats, {"images": photos.rows(i, 1)}), strict=True):
            largest[name] = max(largest[name], float(np.abs(value).max()))
    maker = {o: n for n in graph.graph.node for o in n.output}
    return {maker[o].name: reach for o, reach in largest.items() if reach * MARGIN > LARGEST}


def write(model: Path, path: Path, keep: Collection[str] = ()) -> Path:
    """Write `model`, float or with Q/DQ pairs, in FP16; the nodes named in `keep` stay float32."""
    proto = onnx.load(model)
    graph = proto.graph
    _constants_to_initializers(graph)
    constants = {i.name: i for i in graph.initializer}
    singles = _singles(graph, constants, set(keep))
    _raise_least_scales(graph, constants, singles)

    nodes: list[onnx.NodeProto] = []
    types = {i.name: i.type.tensor_type.elem_type for i in graph.input}
    cast: set[str] = set()

    def as_type(tensor: str, wanted: int) -> str:
        suffix = "half" if wanted == TensorProto.FLOAT16 else "single"
        name = f"{tensor}_{suffix}"
        if name not in cast:
            cast.add(name)
            if tensor in constants:
                value = numpy_helper.to_array(constants[tensor]).astype(np.float16)
                graph.initializer.append(numpy_helper.from_array(value, name))
            else:
                nodes.append(helper.make_node("Cast", [tensor], [name], f"{tensor}_to_{suffix}", to=wanted))
        return name

    for n in graph.node:
        wanted = TensorProto.FLOAT if n.name in singles else TensorProto.FLOAT16
        floats = (TensorProto.FLOAT, TensorProto.FLOAT16)
        for i, tensor in enumerate(n.input):
            actual = constants[tensor].data_type if tensor in constants else types.get(tensor)
            if actual in floats and actual != wanted:
                n.input[i] = as_type(tensor, wanted)
        for o in n.output:
            types[o] = TensorProto.INT8 if n.op_type == "QuantizeLinear" else wanted
        nodes.append(n)
    for output in graph.output:
        if types[output.name] == TensorProto.FLOAT16:
            inner = f"{output.name}_half"
            for n in nodes:
                n.input[:] = [inner if i == output.name else i for i in n.input]
                n.output[:] = [inner if o == output.name else o for o in n.output]
            nodes.append(helper.make_node("Cast", [inner], [output.name], f"{output.name}_to_single", to=TensorProto.FLOAT))
    del graph.node[:]
    graph.node.extend(nodes)
    read = {i for n in nodes for i in n.input}
    kept = [i for i in graph.initializer if i.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.value_info[:]
    proto = onnx.shape_inference.infer_shapes(proto, strict_mode=True, check_type=True)
    onnx.checker.check_model(proto, full_check=True)
    write_whole(path, proto.SerializeToString())
    return path


def _constants_to_initializers(graph: onnx.GraphProto) -> None:
    for n in [n for n in graph.node if n.op_type == "Constant"]:
        tensor = numpy_helper.to_array(helper.get_node_attr_value(n, "value"))
        graph.initializer.append(numpy_helper.from_array(tensor, n.output[0]))
        graph.node.remove(n)


def _singles(graph: onnx.GraphProto, constants: Mapping[str, Any], keep: set[str]) -> set[str]:
    """Names of the nodes that stay float32."""
    singles = keep | {n.name for n in graph.node if n.op_type in POOLS}
    pixels = {i.name for i in graph.input}
    for n in graph.node:
        inputs = [i for i in n.input if i not in constants]
        if n.op_type not in ("Conv", *PAIRS) and inputs and pixels.issuperset(inputs):
            singles.add(n.name)
            pixels.update(n.output)
        if n.op_type in ("Conv", "Gemm") and any(_reach(constants[i]) > LARGEST for i in n.input if i in constants):
            singles.add(n.name)
        if n.op_type == "QuantizeLinear" and numpy_helper.to_array(constants[n.input[1]]).min() < LEAST_SCALE:
            singles.add(n.name)
    readers: dict[str, list[onnx.NodeProto]] = {}
    for n in graph.node:
        for i in n.input:
            readers.setdefault(i, []).append(n)
    changed = True
    while changed:  # a pair is in the type of the layers that read it, and these in one type
        before = len(singles)
        for n in graph.node:
            if n.op_type in PAIRS:
                after = [r for r in readers.get(n.output[0], []) if r.op_type in ("Conv", "Gemm", *PAIRS)]
                if n.name in singles or any(r.name in singles for r in after):
                    singles.update((n.name, *(r.name for r in after)))
        changed = len(singles) > before
    return singles


def _reach(constant: onnx.TensorProto) -> float:
    value = numpy_helper.to_array(constant)
    return float(np.abs(value).max()) if value.dtype == np.float32 and value.size else 0.0


def _raise_least_scales(graph: onnx.GraphProto, constants: dict[str, onnx.TensorProto], singles: set[str]) -> None:
    """Weights whose scale FP16 can hardly hold are rounded to multiples of one that it can."""
    for n in graph.node:
        if n.op_type == "DequantizeLinear" and n.input[0] in constants and n.name not in singles:
            scale = numpy_helper.to_array(constants[n.input[1]])
            raised = np.maximum(scale, np.float32(LEAST_SCALE))
            if (raised != scale).any():
                weight = numpy_helper.to_array(constants[n.input[0]]).astype(np.float32)
                ratio = (scale / raised).reshape(-1, *[1] * (weight.ndim - 1))
                constants[n.input[0]].CopyFrom(numpy_helper.from_array(np.rint(weight * ratio).astype(np.int8), n.input[0]))
                constants[n.input[1]].CopyFrom(numpy_helper.from_array(raised, n.input[1]))
