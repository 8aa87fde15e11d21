"""Builds small quantized ONNX graphs, piece by piece: what a test of the linter has to say is the piece that is wrong."""

import contextlib

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

INT8 = np.int8


class Net:
    """A graph in the making: every method adds nodes, and gives back the name of its output."""

    def __init__(self, opset=19, ir=9, dtype=np.float32, constants=False, shape=(1, 16, 8, 8), inputs=None, domains=()):
        self.opset, self.ir, self.dtype, self.constants = opset, ir, dtype, constants
        self.nodes, self.initializers, self.functions, self.domains = [], [], [], list(domains)
        elem = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self.inputs = inputs or [helper.make_tensor_value_info("x", elem, shape)]
        self.outputs = None  # declared outputs, else as inferred
        self.edit = lambda model: None
        self.count = 0
        self.random = np.random.default_rng(7)

    def name(self, kind):
        self.count += 1
        return f"{kind}_{self.count}"

    def const(self, value, dtype=None, node=None):
        tensor = value if isinstance(value, TensorProto) else numpy_helper.from_array(np.asarray(value, dtype or self.dtype))
        name = tensor.name = self.name("c")
        if self.constants if node is None else node:
            self.nodes.append(helper.make_node("Constant", [], [name], name=name + "_node", value=tensor))
        else:
            self.initializers.append(tensor)
        return name

    def op(self, kind, *inputs, outputs=1, domain="", **attributes):
        names = [self.name(kind) for _ in range(outputs)]
        inputs = [i if isinstance(i, str) else self.const(i) for i in inputs]
        self.nodes.append(helper.make_node(kind, inputs, names, name=f"{names[0]}_node", domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def q(self, x, scale=0.05, zero=0, kind=INT8, **attributes):
        return self._linear("QuantizeLinear", x, scale, zero, kind, attributes)

    def dq(self, x, scale=0.05, zero=0, kind=INT8, **attributes):
        return self._linear("DequantizeLinear", x, scale, zero, kind, attributes)

    def _linear(self, op, x, scale, zero, kind, attributes):
        if not isinstance(scale, str):
            shape = np.shape(scale)
            scale = self.const(scale)
            if zero is not None and not isinstance(zero, str) and np.shape(zero) == ():
                zero = np.full(shape, zero)
        if zero is not None and not isinstance(zero, str):
            zero = self.const(zero, kind)
        return self.op(op, x, scale, *([] if zero is None else [zero]), **attributes)

    def pair(self, x, scale=0.05, zero=0, **options):
        if not isinstance(scale, str):
            zero = np.full(np.shape(scale), zero) if isinstance(zero, int) else zero
            scale = self.const(scale)
        options["zero"] = zero
        return self.dq(self.q(x, scale, **options), scale, **options)

    def floats(self, *shape):
        return self.random.uniform(-1, 1, shape).astype(self.dtype)

    def ints(self, *shape):
        return self.random.integers(-127, 128, shape).astype(INT8)

    def weight(self, shape, axis=0, channels=None, scale=None, form="int8", zero=0, values=None, kind=INT8):
        """A quantized weight; `channels` scales along `axis`, or one scale if axis is None."""
        attributes = {} if axis is None else {"axis": axis}
        if scale is None:
            scale = np.full(() if axis is None else (channels or shape[axis],), 0.01)
        if form == "int8":
            return self.dq(self.const(self.ints(*shape) if values is None else values, kind), scale, zero, kind, **attributes)
        w = self.const(self.floats(*shape) if values is None else values)
        s = scale if isinstance(scale, str) else self.const(scale)
        z = self.const(np.full(np.shape(scale), zero), kind)
        return self.dq(self.q(w, s, z, **attributes), s, z, **attributes)

    def conv(self, x="x", cin=16, cout=16, k=1, group=1, data=0.05, weight=None, bias=0.1, kind="Conv", **options):
        """A convolution with pairs on data and weight; data=None leaves the data in float."""
        shape = (cin, cout // group, k, k) if kind == "ConvTranspose" else (cout, cin // group, k, k)
        x = self.pair(x, data) if data is not None else x
        weight = weight or self.weight(shape, **options)
        bias = [] if bias is None else [bias if isinstance(bias, str) else np.full(cout, bias)]
        return self.op(kind, x, weight, *bias, kernel_shape=[k, k], pads=[k // 2] * 4, group=group)

    def floatconv(self, x="x", cin=16, cout=16, k=1, group=1):
        return self.conv(x, cin, cout, k, group, data=None, weight=self.const(self.floats(cout, cin // group, k, k)))

    def relu(self, x):
        return self.op("Relu", x)

    def swish(self, x):
        return self.op("Mul", x, self.op("Sigmoid", x))

    def body(self):
        """A graph inside this one, for If, Loop and Scan: names stay unique."""
        inner = Net(self.opset, self.ir, self.dtype, constants=True)
        inner.count = self.count + 1000
        return inner

    def graph(self, outputs, name="body", inputs=(), infos=None):
        infos = infos or [helper.make_empty_tensor_value_info(o) for o in outputs]
        return helper.make_graph(self.nodes, name, list(inputs), infos, self.initializers)

    def model(self, output) -> ModelProto:
        """The graph that ends with `output`, or with several: of the types and shapes that onnx infers."""
        names = [output] if isinstance(output, str) else output
        outputs = self.outputs or [helper.make_empty_tensor_value_info(o) for o in names]
        graph = helper.make_graph(self.nodes, "net", self.inputs, outputs, self.initializers)
        imports = [helper.make_opsetid("", self.opset), *[helper.make_opsetid(d, 1) for d in self.domains]]
        model = helper.make_model(graph, opset_imports=imports, ir_version=self.ir, functions=self.functions)
        if self.outputs is None:
            inferred = {}
            with contextlib.suppress(onnx.shape_inference.InferenceError):  # of the graphs whose types are wrong
                inferred = {o.name: o for o in onnx.shape_inference.infer_shapes(model, data_prop=True).graph.output}
            for o in model.graph.output:
                known = inferred.get(o.name)
                if known is None or (
                    known.type.WhichOneof("value") == "tensor_type" and not known.type.tensor_type.HasField("shape")
                ):
                    known = helper.make_tensor_value_info(o.name, TensorProto.FLOAT, (1, 16, 8, 8))
                o.CopyFrom(known)
        self.edit(model)
        return model
