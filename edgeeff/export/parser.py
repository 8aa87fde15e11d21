"""What TensorRT's ONNX parser does not read: operators, attributes, and inputs that have to be constant. The linter's rule R11.

https://github.com/onnx/onnx-tensorrt/blob/release/10.15-GA/docs/operators.md
"""

from __future__ import annotations

from collections.abc import Iterator

from .graph_view import Graph, Node

UNREAD = (  # "N" in operators.md
    *("AffineGrid", "Bernoulli", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "CenterCropPad", "Col2Im"),
    *("Compress", "ConvInteger", "DFT", "Det", "DynamicQuantizeLinear", "ImageDecoder", "MatMulInteger", "MaxRoiPool", "MaxUnpool"),
    *("MelWeightMatrix", "Multinomial", "NegativeLogLikelihoodLoss", "Optional", "OptionalGetElement", "OptionalHasElement"),
    *("QLinearConv", "QLinearMatMul", "RegexFullMatch", "SoftmaxCrossEntropyLoss", "StringConcat", "StringNormalizer"),
    *("StringSplit", "TfIdfVectorizer", "Unique", "ConcatFromSequence", "SplitToSequence", "SequenceAt", "SequenceConstruct"),
    *("SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap", "TensorScatter"),
)
SINCE = {  # in operators.md of that version for the first time, as far as it is public
    **dict.fromkeys(("Attention", "RMSNormalization", "RotaryEmbedding"), (10, 15)),
    **dict.fromkeys(("BlackmanWindow", "HammingWindow", "HannWindow", "STFT"), (10, 15)),
    "Swish": (11,),
}
RESTRICTED = (  # operators.md: operators, an attribute, the values it may have
    (("AveragePool", "MaxPool", "LpPool"), "dilations", (1,)),
    (("LpPool",), "p", (1, 2)),
    (("Resize",), "antialias", (0,)),
    (("Resize",), "keep_aspect_ratio_policy", (b"stretch",)),
    (
        ("Resize",),
        "coordinate_transformation_mode",
        (b"half_pixel", b"pytorch_half_pixel", b"tf_half_pixel_for_nn", b"asymmetric", b"align_corners"),
    ),
    (("ScatterND", "ScatterElements"), "reduction", (b"none",)),
    (("Attention",), "softcap", (0.0,)),
    (("TopK",), "sorted", (1,)),
    (("LSTM",), "input_forget", (0,)),
    (("LSTM",), "layout", (0,)),
)
ONE_OUTPUT = ("MaxPool", "LayerNormalization", "Attention")
REDUCTIONS = (
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSum", "ReduceSumSquare"),
    *("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd"),
)
CONSTANT = {  # operators.md: "must be an initializer", "must be a build-time constant"; by the position of the input
    **dict.fromkeys((*REDUCTIONS, "Squeeze", "Unsqueeze", "CumSum", "OneHot"), 1),
    "Dropout": 2,
    **dict.fromkeys(("Slice", "Pad"), 3),
}


def unread(g: Graph, n: Node) -> Iterator[tuple[str, str]]:
    """What of a node is not read, and the remedy."""
    if n.kind in UNREAD:
        yield f"{n.kind} is not read", "Export Q/DQ pairs around float operators on tensors"
    if g.tensorrt < (since := SINCE.get(n.kind, ())):
        found = f"{n.kind} is read from TensorRT {'.'.join(map(str, since))} on"
        yield found, "Export it as simpler operators: Swish as Sigmoid and Mul"
    if n.kind in ONE_OUTPUT and any(n.outputs[1:]):
        yield f"{n.kind} is read with one output only", "Compute the others by other operators"
    for kinds, name, taken in RESTRICTED:
        value = n.attribute(name, taken[0]) if n.kind in kinds else taken[0]
        if not set(value if isinstance(value, list) else [value]) <= set(taken):
            yield f"{n.kind} is not read with this {name}", "Export it without"
    if reason := _unreadable(g, n):
        yield f"{n.kind} {reason}", "Export it otherwise, or as simpler operators"


def _unreadable(g: Graph, n: Node) -> str:
    """What of a node's inputs and bodies the parser does not read (onnxOpImporters.cpp, onnxOpCheckers.cpp); else nothing."""
    position = CONSTANT.get(n.kind) if n.kind not in ("Slice", "Pad") or g.tensorrt < (10, 15) else None
    if position is not None and n.has(position):
        value = g.constant(n.inputs[position])
        if value is None:
            return f"computes its input {position + 1}, which has to be constant"
        if n.kind == "Dropout" and value.any():
            return "drops values, as in training"
    if n.kind == "Constant" and any(a.name in ("sparse_value", "value_string", "value_strings") for a in n.proto.attribute):
        return "holds strings or a sparse tensor"
    if n.kind == "Loop" and not n.has(1) and n.proto.attribute:
        body = n.attribute("body")
        if len(body.input) > 1 and any(body.input[1].name in inner.input for inner in body.node):
            return "has no condition, but its body reads one"
    if n.kind == "If" and len(branches := [a.g for a in n.proto.attribute]) == 2:
        for results in zip(*(b.output for b in branches), strict=False):
            tensors = [r.type.tensor_type for r in results]
            if all(t.HasField("shape") for t in tensors) and len({len(t.shape.dim) for t in tensors}) == 2:
                return "has branches that give tensors of different rank"
    return ""
