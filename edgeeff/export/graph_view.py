"""An ONNX model as the linter looks at it: one list of nodes, and by name of a tensor its constant, producer, readers, type, shape.

Local functions are inlined. The bodies of If, Loop and Scan stand in the same list as what surrounds them, since they see its
tensors; a name that two bodies share is made two. What Identity makes goes by the name of what it reads. Values are read from the
file, or from those beside it, when they are asked for.
"""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, TensorProto, helper, inliner, numpy_helper

from ..errors import BadInput

Q, DQ = "QuantizeLinear", "DequantizeLinear"
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
RESHAPING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
MEASURING = ("Shape", "Size")  # constant where the dimensions are
FOLDED = (  # computed where their inputs are constant: what exporters write around weights, scales and shapes
    *("Cast", "CastLike", "Transpose", *RESHAPING, *MEASURING, "Expand", "Tile", "Concat", "Split", "Slice", "Gather", "Where"),
    *("ConstantOfShape", "Range", "Clip", "Add", "Sub", "Mul", "Div", "Mod", "Sum", "Max", "Min", "Neg", "Abs", "Sign"),
    *("Sqrt", "Reciprocal", "Pow", "Exp", "Log", "Floor", "Ceil", "Round", "Not", "And", "Or", "Equal", "Less", "LessOrEqual"),
    *("Greater", "GreaterOrEqual", "ReduceMax", "ReduceMin", "ReduceMean", "ReduceSum", "ReduceProd"),
)
LARGEST_FOLDED = 2**26  # elements
MOVING = ("Transpose", *RESHAPING, "MaxPool", "Pad", "Slice", "Split", "DepthToSpace", "SpaceToDepth")


class Node:
    """An operator, with the names of its tensors as the view knows them."""

    def __init__(self, proto: onnx.NodeProto, names: Mapping[str, str]) -> None:
        self.proto, self.name, self.kind, self.domain = proto, proto.name, proto.op_type, proto.domain
        self.inputs = [names.get(i, i) for i in proto.input]
        self.outputs = [names.get(o, o) for o in proto.output]

    def attribute(self, name: str, default: Any = None) -> Any:
        return next((helper.get_attribute_value(a) for a in self.proto.attribute if a.name == name), default)

    def has(self, position: int) -> bool:
        """Whether an optional input is there."""
        return len(self.inputs) > position and bool(self.inputs[position])


class Graph:
    """A model, and the version of TensorRT that it is for.

    Types are TensorProto.DataType, shapes have None for a dimension that is not known before the graph runs.
    """

    def __init__(self, path: Path, tensorrt: tuple[int, ...]) -> None:
        self.path, self.tensorrt = path, tensorrt
        model = onnx.load(path, format="protobuf", load_external_data=False)
        if any(b"..." in term.split(b"...", 1)[-1] for term in _einsum_terms(model)):
            raise BadInput(f"{path}: an Einsum with two ellipses in one term. ONNX allows one.")  # onnx then never ends
        if model.functions:
            model = inliner.inline_local_functions(model)
        with contextlib.suppress(onnx.shape_inference.InferenceError):  # R19 says so
            model = onnx.shape_inference.infer_shapes(model)
        self.model = model
        self.nodes: list[Node] = []
        self.types: dict[str, int] = {}
        self.shapes: dict[str, list[int | None]] = {}
        self._stored: dict[str, TensorProto] = {}
        self._taken = set[str]()
        self.results = set[str]()  # what the graph, and each body in it, hands out
        self.sparse: list[str] = []
        self._add(model.graph, {})
        self.producer = {o: n for n in self.nodes for o in n.outputs if o}
        self.consumers: dict[str, list[Node]] = defaultdict(list)
        for n in self.nodes:
            for i in n.inputs:
                self.consumers[i].append(n)
        self.constants = {"", *self._stored}  # an input that is left out keeps no node from being constant
        for n in self.nodes:
            if self._folds(n):
                self.constants.update(n.outputs)
        self.pairs = [n for n in self.nodes if n.kind in (Q, DQ)]
        self.constant = lru_cache(64)(self._constant)  # not all of them: weights outside the file may exceed the memory

    def _add(self, graph: onnx.GraphProto, outer: Mapping[str, str]) -> None:
        own = {*(i.name for i in (*graph.initializer, *graph.input)), *(o for n in graph.node for o in n.output)} - {""}
        names = {**outer, **{name: f"{graph.name}/{len(self.nodes)}/{name}" if name in self._taken else name for name in own}}
        self._taken |= own
        for v in (*graph.input, *graph.output, *graph.value_info):
            name, tensor = names.get(v.name, v.name), v.type.tensor_type
            self.types[name] = tensor.elem_type
            if tensor.HasField("shape"):
                dims = tensor.shape.dim
                self.shapes[name] = [d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else None for d in dims]
        made = {o.name for o in graph.output}
        self.sparse += [i.values.name for i in graph.sparse_initializer]
        self.results |= {names.get(o, o) for o in made}
        for i in graph.initializer:
            name = names[i.name]
            self._stored[name], self.types[name], self.shapes[name] = i, i.data_type, list(i.dims)
        for proto in graph.node:
            if proto.op_type == "Identity" and len(proto.input) == 1 and made.isdisjoint(proto.output):
                names.update(dict.fromkeys(proto.output, names.get(proto.input[0], proto.input[0])))
                continue
            self.nodes.append(Node(proto, names))
            for a in proto.attribute:
                for body in (*((a.g,) if a.type == AttributeProto.GRAPH else ()), *a.graphs):
                    self._add(body, names)

    @property
    def opset(self) -> int:
        return next((o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx")), 0)

    @property
    def inputs(self) -> list[onnx.ValueInfoProto]:
        """What is fed to the graph: older files name their initializers among the inputs as well."""
        return [v for v in self.model.graph.input if v.name not in self._stored]

    def of(self, *kinds: str) -> Iterator[Node]:
        return (n for n in self.nodes if n.kind in kinds)

    def made_by(self, tensor: str, *kinds: str) -> bool:
        return tensor in self.producer and self.producer[tensor].kind in kinds

    def before(self, tensor: str, *kinds: str) -> str:
        """The tensor before any nodes of these kinds, that is, what these make of their first input."""
        seen = set[str]()
        while self.made_by(tensor, *kinds) and self.producer[tensor].inputs and tensor not in seen:
            seen.add(tensor)  # a damaged graph may be a circle
            tensor = self.producer[tensor].inputs[0]
        return tensor

    def unquantized(self, tensor: str) -> str:
        """The tensor before any Q/DQ pairs."""
        return self.before(tensor, Q, DQ)

    def dequantizer(self, tensor: str) -> Node | None:
        """The DequantizeLinear that a tensor comes from, through nothing that computes: TensorRT moves it behind those."""
        maker = self.producer.get(self.before(tensor, *MOVING))
        parts = maker.inputs if maker is not None and maker.kind == "Concat" else [tensor]
        found = [n for p in parts if (n := self.producer.get(self.before(p, *MOVING))) is not None and n.kind == DQ]
        scales = {None if (scale := self.scale(n)) is None else scale.tobytes() for n in found}
        return found[0] if len(found) == len(parts) and len(scales) == 1 else None

    def scale(self, pair: Node) -> NDArray[Any] | None:
        return self.constant(pair.inputs[1]) if pair.has(1) else None

    def weight(self, pair: Node) -> NDArray[Any] | None:
        """The constant that a pair is of: integers that only a DequantizeLinear reads, or floats in front of both."""
        return self.constant(self.unquantized(pair.inputs[0])) if pair.inputs else None

    def readers(self, tensor: str) -> list[Node]:
        """What reads a tensor, directly or behind Q/DQ pairs."""
        found, waiting = list[Node](), [tensor]
        for name in waiting:
            for n in self.consumers[name]:
                if n.kind not in (Q, DQ):
                    found.append(n)
                elif n.inputs[0] == name:
                    waiting.extend(o for o in n.outputs if o not in waiting)
        return found

    def comes_from(self, tensor: str, source: str) -> bool:
        """Whether `tensor` is computed from `source`."""
        seen, waiting = set[str](), [tensor]
        while waiting:
            if (name := waiting.pop()) == source:
                return True
            if name not in seen and name in self.producer:
                waiting.extend(self.producer[name].inputs)
            seen.add(name)
        return False

    def _folds(self, n: Node) -> bool:
        """Whether a node makes numbers that are known before the graph runs."""
        if n.kind == "Constant":
            return any(a.name != "sparse_value" for a in n.proto.attribute)
        if n.kind not in FOLDED or not any(n.inputs):
            return False
        measured = n.kind in MEASURING and None not in self.shapes.get(n.inputs[0], [None])
        return measured or self.constants.issuperset(n.inputs)

    def _constant(self, tensor: str) -> NDArray[Any] | None:
        if tensor in self._stored:
            return self._read(self._stored[tensor], tensor)
        if not tensor or tensor not in self.constants:
            return None
        n = self.producer[tensor]
        if n.kind == "Constant":
            stored = helper.get_attribute_value(n.proto.attribute[0])
            return self._read(stored, tensor) if isinstance(stored, TensorProto) else np.asarray(stored)
        if n.kind in MEASURING:
            shape = [d or 0 for d in self.shapes[n.inputs[0]]]
            values = [np.broadcast_to(np.float32(0), shape)]  # what it holds does not matter
        else:
            values = [value for i in n.inputs if (value := self.constant(i)) is not None]
        size = math.prod(LARGEST_FOLDED + 1 if d is None else d for d in self.shapes.get(tensor, [None]))
        complete = len(values) == sum(map(bool, n.inputs)) and size <= LARGEST_FOLDED
        return self._folded(n, values)[n.outputs.index(tensor)] if complete else None

    def _read(self, stored: TensorProto, name: str) -> NDArray[Any]:
        try:
            return numpy_helper.to_array(stored, str(self.path.parent))
        except (onnx.checker.ValidationError, ValueError) as error:  # missing, cut, or outside of the folder
            reason = f"the values of {name} cannot be read ({str(error).strip():.160})"
            raise BadInput(f"{self.path}: {reason}. Put the files with its external data beside it, whole.") from error

    def _folded(self, n: Node, values: list[NDArray[Any]]) -> list[NDArray[Any] | None]:
        from onnx.reference import ReferenceEvaluator

        ends = n.proto.input, n.proto.output
        reads, makes = ([helper.make_value_info(name, onnx.TypeProto()) for name in names if name] for names in ends)
        graph = helper.make_graph([n.proto], "constant", reads, makes)
        try:
            evaluator = ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)]))
            with np.errstate(all="ignore"):  # R23 finds what overflows
                made: Any = evaluator.run(None, dict(zip([v.name for v in reads], values, strict=True)))
        except Exception:  # of as many kinds as it has operators. What it does not compute counts as not constant
            return [None] * len(n.outputs)
        found = iter(made)
        return [np.asarray(next(found)) if o else None for o in n.outputs]


def _einsum_terms(model: onnx.ModelProto) -> Iterator[bytes]:
    """The terms of every Einsum equation, in bodies and functions too."""
    waiting = [*model.graph.node, *(n for f in model.functions for n in f.node)]
    while waiting:
        node = waiting.pop()
        for a in node.attribute:
            waiting.extend(n for body in (a.g, *a.graphs) for n in body.node)
            if node.op_type == "Einsum" and a.name == "equation":
                yield from a.s.replace(b"->", b",").split(b",")
