"""The dozen CUDA calls that running an engine takes, by cuda-bindings or, where that is missing, by torch."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import ToolMissing, Unreachable

Array = NDArray[Any]


class Cuda(Protocol):
    """Addresses and streams are plain integers; pinned arrays can be copied while the CPU goes on."""

    def malloc(self, size: int) -> int: ...
    def pinned(self, shape: tuple[int, ...], dtype: Any) -> Array: ...
    def stream(self) -> int: ...
    def synchronize(self, stream: int) -> None: ...
    def copy_in(self, address: int, array: Array, stream: int) -> None: ...
    def copy_out(self, array: Array, address: int, stream: int) -> None: ...
    def capture(self, stream: int, function: Callable[[], None]) -> Any: ...
    def launch(self, graph: Any, stream: int) -> None: ...
    def compute_capability(self) -> str: ...
    def driver(self) -> str: ...


def runtime() -> Cuda:
    """The first that is installed."""
    try:
        from cuda.bindings import runtime as library
    except ImportError:
        try:
            from cuda import cudart as library
        except ImportError:
            return _by_torch()
    return Bindings(library)


def _by_torch() -> Cuda:
    try:
        import torch
    except ImportError as error:
        raise ToolMissing("nothing here can call CUDA: pip install 'edgeeff[tensorrt]' (cuda-bindings).") from error
    if not torch.cuda.is_available():
        raise ToolMissing("this torch has no CUDA: pip install 'edgeeff[tensorrt]' (cuda-bindings).")
    return Torch(torch)


class Bindings:
    """cuda-bindings. https://nvidia.github.io/cuda-python/cuda-bindings/latest/module/runtime.html"""

    def __init__(self, library: Any) -> None:
        self.cudart = library

    def _checked(self, result: tuple[Any, ...]) -> Any:
        error, *values = result
        if int(error) != 0:
            name = self.cudart.cudaGetErrorName(error)[1]
            raise Unreachable(f"CUDA: {name.decode() if isinstance(name, bytes) else name}. Is there a GPU, and its driver?")
        return values[0] if values else None

    def malloc(self, size: int) -> int:
        return int(self._checked(self.cudart.cudaMalloc(size)))

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> Array:
        size = prod(shape) * np.dtype(dtype).itemsize
        address = int(self._checked(self.cudart.cudaMallocHost(size)))
        return np.frombuffer((ctypes.c_char * size).from_address(address), dtype).reshape(shape)

    def stream(self) -> int:
        return int(self._checked(self.cudart.cudaStreamCreateWithFlags(1)))  # cudaStreamNonBlocking

    def synchronize(self, stream: int) -> None:
        self._checked(self.cudart.cudaStreamSynchronize(stream))

    def copy_in(self, address: int, array: Array, stream: int) -> None:
        kind = self.cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._checked(self.cudart.cudaMemcpyAsync(address, array.ctypes.data, array.nbytes, kind, stream))

    def copy_out(self, array: Array, address: int, stream: int) -> None:
        kind = self.cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._checked(self.cudart.cudaMemcpyAsync(array.ctypes.data, address, array.nbytes, kind, stream))

    def capture(self, stream: int, function: Callable[[], None]) -> Any:
        mode = self.cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._checked(self.cudart.cudaStreamBeginCapture(stream, mode))
        try:
            function()
        finally:
            graph = self._checked(self.cudart.cudaStreamEndCapture(stream))
        return self._checked(self.cudart.cudaGraphInstantiate(graph, 0))

    def launch(self, graph: Any, stream: int) -> None:
        self._checked(self.cudart.cudaGraphLaunch(graph, stream))

    def compute_capability(self) -> str:
        kinds = self.cudart.cudaDeviceAttr
        wanted = kinds.cudaDevAttrComputeCapabilityMajor, kinds.cudaDevAttrComputeCapabilityMinor
        return ".".join(str(self._checked(self.cudart.cudaDeviceGetAttribute(kind, 0))) for kind in wanted)

    def driver(self) -> str:
        number = int(self._checked(self.cudart.cudaDriverGetVersion()))
        return f"CUDA {number // 1000}.{number % 1000 // 10}"


class Torch:
    """torch, where it comes with CUDA."""

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.kept: dict[int, Any] = {}  # what an integer stands for

    def _keep(self, address: int, thing: Any) -> int:
        self.kept[address] = thing
        return address

    def malloc(self, size: int) -> int:
        memory = self.torch.empty(size, dtype=self.torch.uint8, device="cuda")
        return self._keep(memory.data_ptr(), memory)

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> Array:
        memory = self.torch.empty(prod(shape) * np.dtype(dtype).itemsize, dtype=self.torch.uint8, pin_memory=True)
        array: Array = memory.numpy().view(dtype).reshape(shape)
        self._keep(array.ctypes.data, memory)
        return array

    def stream(self) -> int:
        stream = self.torch.cuda.Stream()
        return self._keep(stream.cuda_stream, stream)

    def synchronize(self, stream: int) -> None:
        self.kept[stream].synchronize()

    def copy_in(self, address: int, array: Array, stream: int) -> None:
        self._copy(self.kept[address], self.kept[array.ctypes.data], stream)

    def copy_out(self, array: Array, address: int, stream: int) -> None:
        self._copy(self.kept[array.ctypes.data], self.kept[address], stream)

    def _copy(self, to: Any, source: Any, stream: int) -> None:
        with self.torch.cuda.stream(self.kept[stream]):
            to.copy_(source, non_blocking=True)

    def capture(self, stream: int, function: Callable[[], None]) -> Any:
        graph = self.torch.cuda.CUDAGraph()
        with self.torch.cuda.graph(graph, stream=self.kept[stream]):
            function()
        return graph

    def launch(self, graph: Any, stream: int) -> None:
        with self.torch.cuda.stream(self.kept[stream]):
            graph.replay()

    def compute_capability(self) -> str:
        return ".".join(map(str, self.torch.cuda.get_device_capability(0)))

    def driver(self) -> str:
        return f"CUDA {self.torch.version.cuda} (of torch)"
