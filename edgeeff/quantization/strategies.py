"""The strategies for INT8, cheapest first. A strategy is one class, and one line in STRATEGIES."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from ..context import NetworkContext
from ..errors import AccuracyGateFailed, BudgetNotMet
from ..export import qdq, tensorrt_lint
from ..export.onnx import to_onnx
from ..measurement.system_state import device
from ..network import accelerator, checkpoint, distributed
from ..network.activations import SWAPS, Schedule
from ..network.distill import Distillation, PhotoSource, distilled
from ..network.model import EfficientNet, predict
from ..network.reduce import Reduction
from ..network.swap import swapped
from ..precision import Precision
from . import fake_quant, nncf_ptq
from .fake_quant import LayerRange

QAT = Schedule(6000, 1e-5, bf16=False)  # a network with quantizers is close to its teacher, and its steps are float32
MOST_EPOCHS = 30  # with more, a handful of photos is learned by heart
LEAST_SECONDS = 20.0  # with less left of the time budget, training is not begun
MIXED = "mixed.onnx"  # beside an INT8 graph: the same with depthwise convolutions in float
COMPARED = 64  # calibration photos on which a compiled file has to answer as its fake-quantized network does
TOLERANCE = 2.0  # times as far from its answers as those of the float network are: 1.1 in networks that amplify every rounding


@dataclass(frozen=True)
class Network:
    """A float network, its portable ONNX file, that compiled for the target, and the parts that were left out of it."""

    model: EfficientNet
    onnx: Path
    compiled: Path
    left_out: tuple[str, ...] = ()

    @property
    def activation(self) -> str:
        return self.model.variant.activation

    @property
    def reduction(self) -> Reduction:
        """What made it smaller than the original."""
        return Reduction(self.model.variant.resolution, self.left_out)

    @classmethod
    def export(cls, model: EfficientNet, context: NetworkContext) -> Network:
        name, cache, runtime = model.variant.activation, context.cache, context.target.runtime
        onnx = cache.once(f"{name}-onnx", lambda folder: to_onnx(model, context.preprocess, folder / "model.onnx")) / "model.onnx"
        compiled = cache.once(f"{name}-float", partial(runtime.compile, onnx)) / runtime.MODEL
        return cls(model, onnx, compiled)


@dataclass(frozen=True)
class Quantized:
    """An INT8 file, the network it was made of, and the layers of it that were left in float."""

    network: Network
    file: Path
    excluded_layers: tuple[str, ...] = ()


class OutOfTime(BudgetNotMet):
    """A strategy ran into the time budget."""


class Strategy(Protocol):
    """A way to an INT8 file."""

    @property
    def name(self) -> str:
        """As in the report, the manifest and the verdict."""

    def applies(self, context: NetworkContext, network: Network) -> bool:
        """Whether it can be tried for the target and the network."""

    def quantize(self, context: NetworkContext, network: Network) -> Quantized:
        """The compiled file; raises an EdgeeffError with the reason where it gives none."""


@dataclass(frozen=True)
class PerLayerPtq:
    """Ranges chosen per layer, with corrected biases, as Q/DQ pairs; the layers of largest error stay float."""

    layers_in_float: int = 0

    @property
    def name(self) -> str:
        return f"{self.layers_in_float} layers back to float" if self.layers_in_float else "ranges chosen per layer"

    def applies(self, context: NetworkContext, network: Network) -> bool:
        return self.layers_in_float < sum(1 for _ in fake_quant.layers(network.model))

    def quantize(self, context: NetworkContext, network: Network) -> Quantized:
        ranges = calibrated(context, network)
        by_error = sorted(ranges, key=lambda name: -ranges[name].error)
        excluded, kept = by_error[: self.layers_in_float], by_error[self.layers_in_float :]
        make = partial(fake_quant.fake_quantized, network.model, {name: ranges[name] for name in kept})
        return Quantized(network, _compiled(context, network, self.name, make), tuple(sorted(excluded)))


@dataclass(frozen=True)
class AccuracyControl:
    """NNCF's quantization, of which the layers that cost most agreement with the float model go back to float, one by one."""

    name: str = "accuracy control"

    def applies(self, context: NetworkContext, network: Network) -> bool:
        return context.target.scheme == "asymmetric"

    def quantize(self, context: NetworkContext, network: Network) -> Quantized:
        max_drop = context.gate.max_drop
        make = partial(
            nncf_ptq.quantize_with_accuracy_control,
            network.compiled,
            context.calibration,
            max_drop=max_drop,
            overflows=context.int8_overflows,
            check_time=partial(_check_time, context),
            progress=context.progress,
        )
        whole = first_strategy(context, network).quantize(context, network).file
        file = context.cache.once(f"{_folder(context, network, self.name)}-{max_drop:g}", make) / context.target.runtime.MODEL
        excluded = nncf_ptq.quantized_layers(whole) - nncf_ptq.quantized_layers(file)
        return Quantized(network, file, tuple(sorted(excluded)))


@dataclass(frozen=True)
class ActivationSwap:
    """Another activation in place of Swish, recovered by distillation, and then the first strategy of the scheme."""

    activation: str

    @property
    def name(self) -> str:
        return f"{self.activation}, recovered"

    def applies(self, context: NetworkContext, network: Network) -> bool:
        return network.activation == "silu" and context.swap_to == self.activation

    def quantize(self, context: NetworkContext, network: Network) -> Quantized:
        other = recovered(context, network, self.activation)
        return first_strategy(context, other).quantize(context, other)


@dataclass(frozen=True)
class QuantizationAwareTraining:
    """Training with quantizers, from the ranges chosen per layer; the float network is the teacher."""

    name: str = "quantization-aware training"

    def applies(self, context: NetworkContext, network: Network) -> bool:
        return True

    def quantize(self, context: NetworkContext, network: Network) -> Quantized:
        def train() -> EfficientNet:
            student = partial(fake_quant.fake_quantized, ranges=calibrated(context, network))
            return distilled_from(context, network.model, student, QAT, f"qat{_suffix(context)}")

        return Quantized(network, _compiled(context, network, self.name, train))


STRATEGIES: tuple[Strategy, ...] = (
    PerLayerPtq(),
    *(PerLayerPtq(layers_in_float=count) for count in (8, 16, 24)),
    AccuracyControl(),
    *(ActivationSwap(activation) for activation in SWAPS),
    QuantizationAwareTraining(),
)
"""In the order in which they are tried, as far as they apply. In B0 nearly all layers of large error are depthwise."""


def first_strategy(context: NetworkContext, network: Network) -> Strategy:
    return next(s for s in STRATEGIES if s.applies(context, network))


def calibrated(context: NetworkContext, network: Network) -> dict[str, LayerRange]:
    """Each layer's ranges, from the calibration photos; kept, as several strategies start from them."""
    photos = (context.calibration, context.recipe.ranges, context.progress)
    symmetric, overflows = context.target.scheme == "symmetric", context.int8_overflows

    def make(folder: Path) -> None:
        found = fake_quant.calibrate(network.model, *photos, symmetric=symmetric, overflows=overflows)
        torch.save({name: vars(layer) for name, layer in found.items()}, folder / "ranges.pt")

    file = context.cache.once(_folder(context, network, "ranges"), make) / "ranges.pt"
    return {name: LayerRange(**fields) for name, fields in torch.load(file, weights_only=True).items()}


def recovered(context: NetworkContext, network: Network, activation: str) -> Network:
    """The network with another activation, distilled until it answers as it did before."""

    def make(folder: Path) -> None:
        make_student = partial(swapped, activation=activation)
        student = distilled_from(context, network.model, make_student, SWAPS[activation], activation)
        checkpoint.save(student, folder / "weights.safetensors", context.preprocess, ())

    weights = context.cache.once(f"{activation}-weights", make) / "weights.safetensors"
    model = checkpoint.load(weights, network.model.variant, resolution=context.preprocess.resolution)[0]
    return replace(Network.export(model.eval(), context), left_out=network.left_out)


def distilled_from(
    context: NetworkContext,
    teacher: EfficientNet,
    student: Callable[[EfficientNet], EfficientNet],
    schedule: Schedule,
    becomes: str,
    counterparts: tuple[int, ...] = (),
) -> EfficientNet:
    """What `student` makes of the teacher, trained to answer as the teacher does, in the time that is left."""
    left = context.deadline - time.monotonic()
    if left < LEAST_SECONDS:
        raise OutOfTime(
            f"not tried: training needs at least {LEAST_SECONDS:g} seconds of the time budget, {max(left, 0):.0f} are left. "
            "Expected a longer --time-budget."
        )
    learning, job = context.photos.learning, context.job
    epochs = min(MOST_EPOCHS, max(1, round(schedule.samples / len(learning))))
    bf16 = schedule.bf16 and computes_bf16()
    recipe = Distillation(epochs, schedule.peak_lr, flip=job.flip, seed=job.seed, counterparts=counterparts, bf16=bf16)
    source = PhotoSource(learning, context.preprocess, job.max_corrupt)
    state = context.cache.root / f"{teacher.variant.activation}-to-{becomes}.pt"
    arguments = (teacher, student, source, recipe, state)
    return distributed.together(distilled, *arguments, seconds=left, progress=context.progress)[0]


def computes_bf16() -> bool:
    """Whether what networks are trained on here computes in bfloat16: the GPU, where there is one, else the CPU."""
    return accelerator.computes_bf16() if accelerator.name() else "avx512_bf16" in device().flags


def _compiled(context: NetworkContext, network: Network, strategy: str, make: Callable[[], EfficientNet]) -> Path:
    """What a strategy makes of a network, fake-quantized, as the target's file by way of the Q/DQ graph: linted, and compared.

    Sums in another order fall on other sides of a rounding, which changes logits about as much as quantization does, at most.
    Raises AccuracyGateFailed where they differ by more.
    """
    target, runtime = context.target, context.target.runtime

    def write(folder: Path) -> None:
        quantized = make()
        bare, scales = fake_quant.strip(quantized)
        plain = to_onnx(bare, context.preprocess, folder / "float.onnx")
        graph = qdq.write(plain, scales, folder / "qdq.onnx")
        if target.scheme == "symmetric":
            tensorrt_lint.require(graph, target.oldest_tensorrt)
        if any(p.depthwise_in_float for p in target.precisions):
            pointwise = {layer: s for layer, s in scales.items() if not fake_quant.is_depthwise(bare, layer)}
            qdq.write(plain, pointwise, folder / MIXED)
        plain.unlink()
        file = runtime.compile(graph, folder)
        run = runtime.load(file, precision=Precision.INT8, threads=target.threads, throughput=True)
        photos = context.calibration.rows(0, COMPARED)
        expected, without = (predict(each, context.preprocess)(photos) for each in (quantized, bare))
        by_compiling, by_quantizing = (float(np.square(logits - expected).mean() ** 0.5) for logits in (run(photos), without))
        if not by_compiling <= TOLERANCE * by_quantizing:
            raise AccuracyGateFailed(
                f"{strategy}: the logits of the compiled file differ by {by_compiling:.2g} from those of the network that was "
                f"quantized in torch, expected at most {TOLERANCE:g} times the {by_quantizing:.2g} by which that changed them."
            )

    return context.cache.once(_folder(context, network, strategy), write) / runtime.MODEL


def _check_time(context: NetworkContext) -> None:
    if time.monotonic() > context.deadline:
        raise OutOfTime("stopped: the time budget was used up.")


def _folder(context: NetworkContext, network: Network, name: str) -> str:
    """The name of a strategy's folder in the stage cache."""
    return f"{network.activation}-{name.replace(' ', '-')}{_suffix(context)}"


def _suffix(context: NetworkContext) -> str:
    """Tells files apart that are for processors whose sums overflow: where files are measured is no input of the stage cache."""
    return "-overflow-safe" if context.int8_overflows else ""
