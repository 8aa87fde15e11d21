"""Which layers of an ONNX graph a Jetson's DLA runs, by NVIDIA's documentation; TensorRT silently gives the GPU the others.

On the device TensorRT itself is asked (`can_run_on_DLA`); it refuses more than this, as not all its limits are documented.
https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/dla-layer-restrictions.html
https://github.com/NVIDIA/Deep-Learning-Accelerator-SW/blob/main/operators/README.md
"""

from __future__ import annotations

from .finding import Finding, Findings
from .graph_view import DQ, Graph, Node, Q

# Operators that TensorRT maps to the DLA of an Orin. Not among them: global means, hard sigmoid and swish, casts, flatten.
OPERATORS = {
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "LRN"),
    *("Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "Tanh"),
    *("Add", "Sub", "Mul", "Sum", "Max", "Div", "Pow"),
    *("AveragePool", "MaxPool", "GlobalMaxPool"),
    *("Concat", "Slice", "Split", "Reshape", "Transpose", "Resize", "Softmax"),
}
KERNEL, STRIDE, CHANNELS = 32, 8, 8192  # of a convolution, at most


def fallbacks(g: Graph) -> Findings:
    """A finding for each layer that runs on the GPU instead, and an error where INT8 is asked for by Q/DQ pairs."""
    if g.pairs:
        found = f"{len(g.pairs)} Q/DQ nodes: the DLA takes implicit quantization only"
        yield Finding("DLA", True, g.pairs[0].name, found, "Lint the fp16 form: `compile --dla` builds no other")
    for n in g.nodes:
        if n.kind not in ("Constant", Q, DQ) and (reason := _reason(g, n)):
            yield Finding("DLA", False, n.name, f"{n.kind} runs on the GPU: {reason}", "Each such layer costs two copies")


def _reason(g: Graph, n: Node) -> str:
    """Why the DLA does not run a layer; empty where nothing documented speaks against it."""
    if n.kind not in OPERATORS:
        return "an operator that the DLA does not have"
    if n.kind in ("Gemm", "MatMul") and g.constant(n.inputs[1]) is None:
        return "its second input is not constant"
    weight = g.constant(n.inputs[1]) if n.kind in ("Conv", "ConvTranspose") else None
    if weight is not None:
        kernel, strides = weight.shape[2:], n.attribute("strides", [1, 1])
        if len(kernel) != 2 or max(kernel) > KERNEL or max(strides) > STRIDE or max(weight.shape[:2]) > CHANNELS:
            found = f"kernel {'×'.join(map(str, kernel))}, strides {'×'.join(map(str, strides))}, {max(weight.shape[:2])} channels"
            return f"{found}; the DLA has two dimensions, kernels up to {KERNEL}, strides up to {STRIDE}, {CHANNELS} channels"
    return ""
