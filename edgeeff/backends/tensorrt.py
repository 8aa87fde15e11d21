"""TensorRT on an NVIDIA GPU: a plan, built on the very device it runs on from a strongly typed ONNX graph. Versions 10.3 to 11.x.

Precision is a property of the graph (Q/DQ pairs, FP16 baked in), so one sequence of calls builds every form. The build runs in a
process of its own, which may be killed for memory without taking this one along. Beside a plan lies `model.engine.json`, which says
what it was built by and for; a plan from elsewhere is refused.

https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api/
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..data.frames import GRAPH, View
from ..data.images import Pixels, Predict
from ..errors import BadInput, BuildFailed, ToolMissing
from ..files import cache_folder, temporary_folder, write_whole
from ..precision import Precision
from ..progress import SILENT, Progress
from ..records import from_json, parse_json, read_json, to_json
from ..sysfs import jetson_linux
from . import LayerTime, Watch, _cuda
from ._engine import Engine, logger, runtime

PRECISIONS = (Precision.FLOAT32, Precision.FP16, Precision.INT8_FP16, Precision.INT8_MIXED)
MODEL = "model.engine"
JUDGE = "onnxruntime"  # runs the graphs where no TensorRT is
FEATURES = False

OLDEST, UNKNOWN = (10, 3), (12,)
LAYERS = "layers.json"  # what the engine inspector says, beside a plan
REHEARSAL = "tensorrt_rtx_bindings"
HARMLESS = r"scales to fp32"  # of an INT8 convolution whose rest is FP16: TensorRT-RTX keeps its scales in float32
LEVEL = 3  # builder optimization level: TensorRT's default; on Orin level 2 was reported not to find every kernel
MIB = 1 << 20


@dataclass(frozen=True)
class Origin:
    """What a plan was built by and for. It runs with the same `tensorrt`, `compute_capability` and `machine` only."""

    tensorrt: str
    compute_capability: str
    machine: str
    l4t: str
    driver: str
    onnx_sha256: str
    plan_sha256: str
    workspace: int
    level: int
    dla: int | None

    @property
    def place(self) -> str:
        return f"TensorRT {self.tensorrt}, compute capability {self.compute_capability}, {self.machine}"


@dataclass(frozen=True)
class BuildRequest:
    """What the building process is asked for: a plan of a graph with `workspace` bytes of GPU memory to choose kernels in.

    `plan`: where to write it; None only tries whether it can be built. `shapes` are of inputs that the graph leaves open. `dla`:
    the core to build for; None is the GPU. `cache`: kernel timings, read and written. `library`: the module to build with.
    """

    graph: Path
    workspace: int
    plan: Path | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dla: int | None = None
    cache: Path | None = None
    library: str = "tensorrt"

    @property
    def command(self) -> list[str]:
        """What starts the building process."""
        return [sys.executable, "-m", "edgeeff.backends.tensorrt", json.dumps(to_json(self))]


@dataclass(frozen=True)
class Layer:
    """One layer of an engine: the precision it computes in, and whether it only changes a tensor's format."""

    name: str
    kind: str
    precision: str
    tactic: str

    @property
    def reformat(self) -> bool:
        return self.kind == "Reformat" or self.name.startswith("Reformatting CopyNode")


def available() -> str | None:
    if not find_spec("tensorrt"):
        return (
            "TensorRT is not installed: on a Jetson `sudo apt install python3-libnvinfer` and make the environment with "
            "`python3 -m venv --system-site-packages`; elsewhere pip install tensorrt."
        )
    try:
        _tensorrt()
        _cuda.runtime()
    except ToolMissing as error:
        return str(error)
    return None


def version() -> str:
    return str(_tensorrt().__version__)


def supported(precision: Precision) -> bool:
    return precision in PRECISIONS


def compile(onnx: Path, folder: Path) -> Path:
    return build(onnx, folder)


def files(model: Path) -> list[Path]:
    return [model, _origin_file(model)]


def load(model: Path, *, precision: Precision, threads: int = 0, throughput: bool = False) -> Predict:
    """A GPU runs one image after the other, however many wait: `threads` and `throughput` change nothing."""
    return Engine(*_opened(model))


def watch(model: Path, view: View, *, precision: Precision, threads: int = 0) -> Watch:
    """Frames are shrunk on the GPU as well, by a plan of its own in front of the model's."""
    trt, cuda, plan, dla = _opened(model)
    engine = Engine(trt, cuda, plan, dla, _shrinking(trt, cuda, view), view.constants)
    return lambda frame: engine(view.part(frame)[None])


def layer_times(model: Path, image: Pixels, *, precision: Precision, threads: int = 0) -> list[LayerTime]:
    """None: kernels that run as one CUDA graph are not timed one by one."""
    return []


def build(onnx: Path, folder: Path, *, dla: int | None = None, progress: Progress = SILENT) -> Path:
    """Build `model.engine` in `folder`, in a process of its own, with its origin and its layers beside it."""
    trt, cuda, plan = _tensorrt(), _cuda.runtime(), folder / MODEL
    request = BuildRequest(onnx, _workspace(Path("/proc/meminfo")), plan, dla=dla, cache=_timing_cache(trt, cuda))
    run_build(request.command, onnx.name, progress)
    origin = Origin(
        **_here(trt, cuda),
        onnx_sha256=_sha256(onnx.read_bytes()),
        plan_sha256=_sha256(plan.read_bytes()),
        workspace=request.workspace,
        level=LEVEL,
        dla=dla,
    )
    _origin_file(plan).write_text(json.dumps(asdict(origin), indent=1) + "\n", encoding="utf-8")
    return plan


def _shrinking(trt: Any, cuda: Any, view: View) -> bytes:
    """The plan that shrinks such frames: built at the first, within seconds, and kept."""
    shapes = _shapes(view)
    facts = [_here(trt, cuda), shapes, LEVEL, _sha256(GRAPH.read_bytes())]
    plan = cache_folder() / f"frames-{_sha256(json.dumps(facts).encode())[:16]}.engine"
    if not plan.exists():
        plan.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(plan.parent) as folder:
            request = BuildRequest(GRAPH, 64 * MIB, folder / MODEL, shapes)
            run_build(request.command, GRAPH.name, SILENT)
            os.replace(folder / MODEL, plan)
    return plan.read_bytes()


def _shapes(view: View) -> dict[str, tuple[int, ...]]:
    part: dict[str, tuple[int, ...]] = {"part": (view.rows.shape[1], len(view.columns), 3)}
    return part | {name: array.shape for name, array in view.constants.items()}


def can_rehearse() -> bool:
    return bool(find_spec(REHEARSAL))


def rehearsal_version() -> str:
    return metadata.version("tensorrt-rtx-cu13-libs")


def rehearse(onnx: Path, *, view: View | None = None, progress: Progress = SILENT) -> list[str]:
    """Parse and build by TensorRT-RTX, which has NVIDIA's own parser and typing and needs no GPU; returns what it warns of.

    frames.GRAPH gets the shapes of a `view`.

    It chooses no kernels and is laxer than TensorRT: a graph it refuses is wrong, one it takes may still be slow, or fail there.
    """
    request = BuildRequest(onnx, 256 * MIB, shapes=_shapes(view) if view else {}, library=REHEARSAL)
    return [w for w in run_build(request.command, onnx.name, progress) if not re.search(HARMLESS, w)]


def run_build(command: list[str], name: str, progress: Progress) -> list[str]:
    """Run the building process, show its progress, and say why it ended if it did not end well; returns TensorRT's warnings."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    reason, warnings = "", []
    try:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("{"):
                message = json.loads(line)
                reason = message.get("failed", reason)
                warnings += message.get("warnings", [])
                if "phase" in message:
                    progress.say(f"TensorRT builds {name}: {message['phase']}")
        _, errors = child.communicate()
    finally:
        child.kill()
        child.wait()
    if child.returncode in (-9, 137):
        raise BuildFailed(
            f"{name}: the build was killed, most likely for memory (exit 137). Add swap: sudo fallocate -l 8G /swapfile && "
            "sudo chmod 600 /swapfile && sudo mkswap /swapfile && sudo swapon /swapfile; close other programs; run it again."
        )
    if child.returncode:
        last = (errors.strip().splitlines() or ["no message"])[-1]
        raise BuildFailed(f"{name}: {reason or f'the build ended with exit {child.returncode} ({last[:200]})'}")
    return warnings


def build_plan(trt: Any, request: BuildRequest, *, log: Any, monitor: Any) -> tuple[Any, Any]:
    """The serialized plan and the timing cache; raises BuildFailed with TensorRT's own words."""
    builder = trt.Builder(log)
    weak = request.dla is not None and _numbers(trt) < (11,)  # for the DLA, TensorRT 10 documents no strongly typed networks
    network = builder.create_network(0 if weak else 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(request.graph.read_bytes()):
        found = [parser.get_error(i) for i in range(parser.num_errors)]
        reasons = [f"{error.node_operator()} {error.node_name()}: {error.desc()}" for error in found]
        raise BuildFailed(f"TensorRT cannot read the graph: {'; '.join(reasons) or log.last()}")
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        tensor.shape = request.shapes.get(tensor.name, tensor.shape)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request.workspace)
    config.builder_optimization_level = LEVEL
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.progress_monitor = monitor
    timings = request.cache.read_bytes() if request.cache and request.cache.is_file() else b""
    config.set_timing_cache(config.create_timing_cache(timings), False)
    if request.dla is not None:
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = request.dla
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
        if weak:
            config.set_flag(trt.BuilderFlag.FP16)
        _require_coverage(network, config)
    if not builder.is_network_supported(network, config):
        raise BuildFailed(f"TensorRT does not support this network here: {log.last()}")
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildFailed(f"TensorRT found no engine: {log.last()}")
    return plan, config.get_timing_cache().serialize()


def require_dla(core: int) -> None:
    """Raise ToolMissing where NVIDIA supports no DLA in this version of TensorRT, or this device has no such core.

    https://docs.nvidia.com/deeplearning/tensorrt/11.4.1/inference-library/work-with-dla.html
    """
    trt = _tensorrt()
    if (10, 8) <= _numbers(trt) < (11, 4, 1):
        raise ToolMissing(
            f"--dla {core}: TensorRT {trt.__version__} does not support the DLA. 10.3 to 10.7 do (JetPack 6: Orin NX, AGX Orin), "
            "and 11.4.1 or newer (JetPack 7.2.2 or newer: AGX Orin). Leave --dla out: the GPU runs every form."
        )
    cores = trt.Builder(logger(trt)).num_DLA_cores
    if core >= cores:
        found = f"{cores} DLA cores, numbered from 0" if cores else "no DLA: Orin NX and AGX Orin have one or two cores"
        raise ToolMissing(f"--dla {core}: this device has {found}. Leave --dla out: the GPU runs every form.")


DLA_COVERAGE = 0.9  # of the layers; what falls back to the GPU costs two copies each time


def _require_coverage(network: Any, config: Any) -> None:
    """Refuse a network of which too little runs on the DLA: TensorRT would let the GPU do the rest and not say so."""
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    outside = [layer.name for layer in layers if not config.can_run_on_DLA(layer)]
    coverage = 1 - len(outside) / max(1, len(layers))
    if coverage < DLA_COVERAGE:
        raise BuildFailed(
            f"the DLA can run {coverage:.0%} of {len(layers)} layers, expected {DLA_COVERAGE:.0%}; not {', '.join(outside[:5])} … "
            "Use the GPU, or a Lite variant: it has no squeeze-and-excitation, whose pools the DLA does not run."
        )


def read_layers(text: str) -> list[Layer]:
    """The engine inspector's JSON as layers; its form differs between TensorRT 10 and 11."""
    layers = []
    for entry in json.loads(text)["Layers"]:
        if isinstance(entry, str):  # an engine that keeps names only
            layers.append(Layer(entry, "", "", ""))
            continue
        tensors = [*entry.get("Inputs", []), *entry.get("Outputs", [])]
        formats = [" ".join(str(t.get(k, "")) for k in ("Format/Datatype", "Format", "Datatype", "DataType")) for t in tensors]
        found = {name for f in formats for name, pattern in PATTERNS.items() if re.search(pattern, f, re.IGNORECASE)}
        precision = "→".join(p for p in PATTERNS if p in found)
        layers.append(Layer(entry.get("Name", ""), entry.get("LayerType", ""), precision, entry.get("TacticName", "")))
    return layers


PATTERNS = {"int8": r"\bint8\b", "fp16": r"\b(fp16|half)\b", "float32": r"\b(fp32|float)\b", "uint8": r"\buint8\b"}


def _monitor(trt: Any, say: Callable[[str], None]) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                say(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return True  # false would cancel

        def phase_finish(self, phase_name: str) -> None: ...

    return Monitor()


def _build_process(request: BuildRequest) -> int:
    """What the building process does: plan, layers and timing cache to files; progress, warnings and reasons as JSON lines."""

    def tell(**message: Any) -> None:
        print(json.dumps(message), flush=True)

    trt = _tensorrt() if request.library == "tensorrt" else importlib.import_module(request.library)
    log, monitor = logger(trt), _monitor(trt, lambda phase: tell(phase=phase))
    try:
        serialized, timings = build_plan(trt, request, log=log, monitor=monitor)
    except BuildFailed as error:
        tell(failed=str(error))
        return 1
    tell(warnings=sorted({message for _, message in log.messages}))
    if request.plan:
        request.plan.write_bytes(memoryview(serialized))
        engine = runtime(trt, log, request.dla).deserialize_cuda_engine(serialized)
        if engine is not None:
            inspector = engine.create_engine_inspector()
            text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
            request.plan.with_name(LAYERS).write_text(text, encoding="utf-8")
    if request.cache:
        request.cache.parent.mkdir(parents=True, exist_ok=True)
        write_whole(request.cache, bytes(memoryview(timings)))
    return 0


def _opened(model: Path) -> tuple[Any, Any, bytes, int | None]:
    """TensorRT, CUDA, a plan that is theirs, and the DLA core it is for."""
    trt, cuda, plan = _tensorrt(), _cuda.runtime(), model.read_bytes()
    return trt, cuda, plan, _own(model, plan, trt, cuda).dla


def _own(model: Path, plan: bytes, trt: Any, cuda: Any) -> Origin:
    """The origin of a plan that was made here; raises BadInput for any other."""
    try:
        origin = read_json(_origin_file(model), Origin)
    except BadInput as error:
        raise BadInput(f"{model}: nothing says where this plan is from ({error}) Run `edgeeff compile` here.") from error
    if origin.plan_sha256 != _sha256(plan):
        raise BadInput(f"{model}: not the plan that {_origin_file(model).name} describes. Run `edgeeff compile` here again.")
    here = _here(trt, cuda)
    if any(getattr(origin, key) != here[key] for key in ("tensorrt", "compute_capability", "machine")):
        now = f"TensorRT {here['tensorrt']}, compute capability {here['compute_capability']}, {here['machine']}"
        raise BadInput(f"{model}: built for {origin.place}; here is {now}. Plans do not travel: run `edgeeff compile` here.")
    return origin


def moved(model: Path) -> dict[str, tuple[str, str]]:
    """What a plan may outlive, by name: as it was where the plan was built, and as it is here."""
    trt, cuda, plan = _tensorrt(), _cuda.runtime(), model.read_bytes()
    origin, here = _own(model, plan, trt, cuda), _here(trt, cuda)
    return {"driver": (origin.driver, here["driver"]), "Jetson Linux": (origin.l4t, here["l4t"])}


def _here(trt: Any, cuda: Any) -> dict[str, str]:
    return {
        "tensorrt": str(trt.__version__),
        "compute_capability": cuda.compute_capability(),
        "machine": platform.machine(),
        "l4t": jetson_linux() or "",
        "driver": cuda.driver(),
    }


def _tensorrt() -> Any:
    try:
        import tensorrt as trt
    except ImportError as error:
        raise ToolMissing(f"TensorRT cannot be loaded: {error}") from error
    if not OLDEST <= _numbers(trt) < UNKNOWN:
        raise ToolMissing(f"TensorRT {trt.__version__}: expected 10.3 or newer, below 12. JetPack 6.1 and later bring it.")
    return trt


def _numbers(trt: Any) -> tuple[int, ...]:
    """The version as three numbers."""
    return tuple(int(n) for n in re.findall(r"\d+", trt.__version__)[:3])


def _workspace(meminfo: Path) -> int:
    """Bytes for TensorRT's scratch memory: an eighth of what is free, from 64 MiB to 1 GiB. A Jetson's GPU shares the host's."""
    free = re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text()) if meminfo.exists() else None
    return min(1024 * MIB, max(64 * MIB, int(free[1]) * 1024 // 8)) if free else 256 * MIB


def _timing_cache(trt: Any, cuda: Any) -> Path:
    """Kernel timings outlive a build: the next is faster, and chooses the same kernels."""
    return cache_folder() / f"timing-{trt.__version__}-sm{cuda.compute_capability()}.cache"


def _origin_file(model: Path) -> Path:
    return model.with_name(f"{model.name}.json")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    sys.exit(_build_process(from_json(parse_json(sys.argv[1]), BuildRequest, "build request")))
