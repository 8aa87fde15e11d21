"""What edgeeff uses of TensorRT's Python API, on ONNX Runtime: a plan is the ONNX file behind a marker. No kernel of NVIDIA's runs.

test_tensorrt.py checks the names and arguments that are used here and in the backend against NVIDIA's real bindings.
"""

import ctypes
import enum
import json

import numpy as np
from cuda.bindings import runtime as cudart

__version__ = "10.3.0"
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
    GPU_FALLBACK = 3


class TensorIOMode(enum.IntEnum):
    NONE, INPUT, OUTPUT = range(3)


class LayerInformationFormat(enum.IntEnum):
    ONELINE, JSON = range(2)


class Network:
    onnx = b""
    num_layers = 10

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

    def set_flag(self, flag): ...

    def can_run_on_DLA(self, layer):
        return layer.index < 4


class Builder:
    def __init__(self, logger):
        self.logger = logger

    def create_network(self, flags):
        assert flags == 1 << int(NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        return Network()

    def create_builder_config(self):
        return Config()

    def is_network_supported(self, network, config):
        return True

    def build_serialized_network(self, network, config):
        config.progress_monitor.phase_start("Building engine", None, 2)
        if b"no kernel" in network.onnx:
            self.logger.log(ILogger.Severity.ERROR, "could not find any implementation for node /conv/Conv")
            return None
        return MARKER + network.onnx


class Runtime:
    def __init__(self, logger): ...

    def deserialize_cuda_engine(self, serialized_engine):
        data = bytes(serialized_engine)
        return Engine(data[len(MARKER) :]) if data.startswith(MARKER) else None


class Inspector:
    def get_engine_information(self, format):
        made = {"Name": "conv_head", "LayerType": "CaskConvolution", "TacticName": "sm80_int8"}
        formats = [{"Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}]
        copy = {"Name": "Reformatting CopyNode for Input Tensor 0", "LayerType": "Reformat", "Inputs": [], "Outputs": formats}
        return json.dumps({"Layers": [copy, {**made, "Inputs": formats, "Outputs": formats}], "Bindings": ["images", "logits"]})


class Engine:
    num_io_tensors = 2

    def __init__(self, onnx):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        self.ends = [self.session.get_inputs()[0], self.session.get_outputs()[0]]

    def get_tensor_name(self, index):
        return self.ends[index].name

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if name == self.ends[0].name else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name):
        return next(e.shape for e in self.ends if e.name == name)

    def create_execution_context(self):
        return Context(self)

    def create_engine_inspector(self):
        return Inspector()


class Context:
    def __init__(self, engine):
        self.engine, self.addresses = engine, {}

    def set_input_shape(self, name, shape):
        return list(shape) == self.engine.get_tensor_shape(name)

    def infer_shapes(self):
        return []

    def set_tensor_address(self, name, memory):
        self.addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle):
        def run():
            images, logits = self.engine.ends
            size = int(np.prod(images.shape))
            pixels = np.frombuffer((ctypes.c_char * size).from_address(self.addresses[images.name]), np.uint8)
            answer = self.engine.session.run(None, {images.name: pixels.reshape(images.shape)})[0]
            ctypes.memmove(self.addresses[logits.name], answer.ctypes.data, answer.nbytes)

        cudart.enqueue(stream_handle, run)
        return True
