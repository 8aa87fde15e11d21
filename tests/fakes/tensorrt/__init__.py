"""What edgeeff uses of TensorRT's Python API, on ONNX Runtime: a plan is the ONNX file behind a marker. No kernel of NVIDIA's runs.

test_tensorrt.py checks the names and arguments that are used here and in the backend against NVIDIA's real bindings.
"""

import ctypes
import enum
import json

import numpy as np
from cuda.bindings import runtime as cudart

__version__ = "10.3.0"
TYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32, "tensor(int32)": np.int32}
MARKER = b"fake plan of TensorRT 10.3.0\n"


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class IProgressMonitor: ...


class NetworkDefinitionCreationFlag(enum.IntEnum):
    EXPLICIT_BATCH, STRONGLY_TYPED = range(2)


class MemoryPoolType(enum.IntEnum):
    WORKSPACE = 0


class ProfilingVerbosity(enum.IntEnum):
    LAYER_NAMES_ONLY, NONE, DETAILED = range(3)


class DeviceType(enum.IntEnum):
    GPU, DLA = range(2)


class BuilderFlag(enum.IntEnum):
    FP16 = 0
    GPU_FALLBACK = 3


class TensorIOMode(enum.IntEnum):
    NONE, INPUT, OUTPUT = range(3)


class LayerInformationFormat(enum.IntEnum):
    ONELINE, JSON = range(2)


class Tensor:
    def __init__(self, name, shape):
        self.name, self.shape = name, shape


class Network:
    onnx = b""
    num_layers = 10
    inputs = ()

    def __init__(self, flags):
        self.strongly_typed = flags == 1 << int(NetworkDefinitionCreationFlag.STRONGLY_TYPED)

    @property
    def num_inputs(self):
        return len(self.inputs)

    def get_input(self, index):
        return self.inputs[index]

    def get_layer(self, index):
        return Layer(f"layer{index}", index)


class Layer:
    def __init__(self, name, index):
        self.name, self.index = name, index


class Error:
    def code(self):
        return 4

    def node_name(self):
        return "/conv/Conv"

    def node_operator(self):
        return "Conv"

    def desc(self):
        return "this fake reads no such thing"


class OnnxParser:
    def __init__(self, network, logger):
        self.network, self.num_errors = network, 0

    def parse(self, model):
        self.network.onnx = bytes(model)
        self.num_errors = int(b"unreadable" in self.network.onnx)
        if not self.num_errors and b"no kernel" not in self.network.onnx:
            self.network.inputs = [Tensor(end.name, end.shape) for end in session(self.network.onnx).get_inputs()]
        return not self.num_errors

    def get_error(self, index):
        return Error()


class Cache:
    def __init__(self, data):
        self.data = data

    def serialize(self):
        return self.data + b"timed "


class Config:
    DLA_core = 0
    default_device_type = DeviceType.GPU

    def __init__(self):
        self.flags = set()

    def set_memory_pool_limit(self, pool, pool_size):
        assert pool == MemoryPoolType.WORKSPACE
        assert pool_size >= 64 << 20

    def create_timing_cache(self, serialized_timing_cache):
        return Cache(bytes(serialized_timing_cache))

    def set_timing_cache(self, cache, ignore_mismatch):
        self.cache = cache
        return True

    def get_timing_cache(self):
        return self.cache

    def set_flag(self, flag):
        self.flags.add(flag)

    def can_run_on_DLA(self, layer):
        return layer.index > 0


class Builder:
    num_DLA_cores = 2

    def __init__(self, logger):
        self.logger = logger

    def create_network(self, flags):
        return Network(flags)

    def create_builder_config(self):
        return Config()

    def is_network_supported(self, network, config):
        return True

    def build_serialized_network(self, network, config):
        config.progress_monitor.phase_start("Building engine", None, 2)
        if b"no kernel" in network.onnx:
            self.logger.log(ILogger.Severity.ERROR, "could not find any implementation for node /conv/Conv")
            return None
        on_dla = config.default_device_type == DeviceType.DLA
        assert network.strongly_typed != on_dla
        assert config.flags == ({BuilderFlag.FP16, BuilderFlag.GPU_FALLBACK} if on_dla else set())
        assert not (on_dla and b"QuantizeLinear" in network.onnx)
        shapes = {tensor.name: list(tensor.shape) for tensor in network.inputs}
        core = {"DLA core": config.DLA_core} if on_dla else {}
        return MARKER + json.dumps({**shapes, **core}).encode() + b"\n" + network.onnx


def session(onnx):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])


class Runtime:
    DLA_core = -1

    def __init__(self, logger): ...

    def deserialize_cuda_engine(self, serialized_engine):
        data = bytes(serialized_engine)
        if not data.startswith(MARKER):
            return None
        facts, onnx = data[len(MARKER) :].split(b"\n", 1)
        shapes = json.loads(facts)
        core = shapes.pop("DLA core", -1)
        assert self.DLA_core == core
        return Engine(onnx, shapes, core >= 0)


class Inspector:
    def get_engine_information(self, format):
        made = {"Name": "conv_head", "LayerType": "CaskConvolution", "TacticName": "sm80_int8"}
        formats = [{"Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}]
        copy = {"Name": "Reformatting CopyNode for Input Tensor 0", "LayerType": "Reformat", "Inputs": [], "Outputs": formats}
        return json.dumps({"Layers": [copy, {**made, "Inputs": formats, "Outputs": formats}], "Bindings": ["images", "logits"]})


class Engine:
    def __init__(self, onnx, shapes, on_dla):
        self.session, self.inputs, self.on_dla = session(onnx), shapes, on_dla
        self.types = {end.name: TYPES[end.type] for end in self.session.get_inputs()}
        self.output = self.session.get_outputs()[0].name
        zeros = {name: np.zeros(shape, self.types[name]) for name, shape in shapes.items()}
        self.shapes = {**shapes, self.output: self.session.run(None, zeros)[0].shape}
        self.num_io_tensors = len(self.shapes)

    def get_tensor_name(self, index):
        return list(self.shapes)[index]

    def get_tensor_mode(self, name):
        return TensorIOMode.OUTPUT if name == self.output else TensorIOMode.INPUT

    def get_tensor_shape(self, name):
        return self.shapes[name]

    def create_execution_context(self):
        return Context(self)

    def create_engine_inspector(self):
        return Inspector()


class Context:
    def __init__(self, engine):
        self.engine, self.addresses = engine, {}

    def set_input_shape(self, name, shape):
        return list(shape) == list(self.engine.get_tensor_shape(name))

    def infer_shapes(self):
        return []

    def read(self, name):
        shape, kind = self.engine.shapes[name], self.engine.types[name]
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        return np.frombuffer((ctypes.c_char * size).from_address(self.addresses[name]), kind).reshape(shape)

    def set_tensor_address(self, name, memory):
        self.addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle):
        if self.engine.on_dla and cudart.captured.get(stream_handle) is not None:
            return False

        def run():
            answer = self.engine.session.run(None, {name: self.read(name) for name in self.engine.inputs})[0]
            ctypes.memmove(self.addresses[self.engine.output], answer.ctypes.data, answer.nbytes)

        cudart.enqueue(stream_handle, run)
        return True
