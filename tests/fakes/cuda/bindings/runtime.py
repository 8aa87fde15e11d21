"""What edgeeff uses of cuda-bindings, on the host: device memory is host memory, a graph is the list of what was captured."""

import ctypes
import enum


class cudaError_t(enum.IntEnum):
    cudaSuccess, cudaErrorInvalidValue, cudaErrorMemoryAllocation = range(3)


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyHostToHost, cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost = range(3)


class cudaStreamCaptureMode(enum.IntEnum):
    cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal = range(2)


class cudaDeviceAttr(enum.IntEnum):
    cudaDevAttrComputeCapabilityMajor = 75
    cudaDevAttrComputeCapabilityMinor = 76


OK = cudaError_t.cudaSuccess
memory = {}
captured = {}


def enqueue(stream, work):
    if captured.get(stream) is not None:
        captured[stream].append(work)
    else:
        work()


def cudaMalloc(size):
    buffer = ctypes.create_string_buffer(size)
    memory[ctypes.addressof(buffer)] = buffer
    return OK, ctypes.addressof(buffer)


cudaMallocHost = cudaMalloc


def cudaStreamCreateWithFlags(flags):
    return OK, 7


def cudaStreamSynchronize(stream):
    return (OK,)


def cudaMemcpyAsync(dst, src, count, kind, stream):
    enqueue(stream, lambda: ctypes.memmove(dst, src, count))
    return (OK,)


def cudaStreamBeginCapture(stream, mode):
    captured[stream] = []
    return (OK,)


def cudaStreamEndCapture(stream):
    work, captured[stream] = captured[stream], None
    return OK, work


def cudaGraphInstantiate(graph, flags):
    return OK, graph


def cudaGraphLaunch(graph, stream):
    for work in graph:
        work()
    return (OK,)


def cudaDeviceGetAttribute(attr, device):
    return OK, 8 if attr == cudaDeviceAttr.cudaDevAttrComputeCapabilityMajor else 7


def cudaDriverGetVersion():
    return OK, 12060


def cudaGetErrorName(error):
    return OK, error.name.encode()
