"""INT8 by the cheapest remedy that passes the gate: each is tried only when those before it missed, while there is time.

    post-training → full bias correction → quantile ranges → layers back to float → another activation, recovered → training (QAT)

The symmetric scheme chooses ranges per layer and corrects biases from the first rung on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..data.calibration import ESTIMATORS
from ..data.images import ImageSet, PixelFile, Preprocess
from ..errors import AccuracyGateFailed, BudgetNotMet, EdgeeffError
from ..export import fp16 as half
from ..export import qdq
from ..export import tensorrt_lint as lint
from ..export.onnx import to_onnx
from ..files import Workspace
from ..measurement.accuracy import Gate, StepReport, rank
from ..measurement.latency import HERE, Compiled, Machine, Request, ratio
from ..network import checkpoint
from ..network import distributed as parallel
from ..network.activations import swapped
from ..network.distill import Distillation, distilled
from ..network.model import EfficientNet, predict
from ..network.variants import Activation
from ..progress import SILENT, Progress
from ..selection.shipping import Form, loss
from ..target import Target
from . import fake_quant as fakequant
from . import nncf_ptq as quantize

LOOKS_AND_RATE = {"hardswish": (3000, 5e-5), "relu6": (28_000, 3e-4), "relu": (28_000, 3e-4), "qat": (6000, 1e-5)}
"""How long a network is distilled, in photos looked at, and the peak rate: the closer it is to its teacher, the less of both."""

MOST_EPOCHS = 30  # more would teach it a handful of photos by heart
LEAST = 20.0  # seconds: with less left, training is not begun
MIXED = "mixed.onnx"  # depthwise convolutions in float: on GPUs they gain little from INT8, or lose
SAME = 97.0  # percent of the calibration photos that a compiled file and the network it came from have to label alike


@dataclass(frozen=True)
class Network:
    """A float network, its portable file, and that compiled for the target."""

    model: EfficientNet
    onnx: Path
    plain: Path

    @property
    def activation(self) -> str:
        return self.model.variant.activation


@dataclass(frozen=True)
class Attempt:
    """One remedy's file, what it was made of, and how it was judged. `file` is None where it gave none; `note` says why."""

    remedy: str
    network: Network
    file: Path | None
    report: StepReport | None
    seconds: float
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        facts = {"remedy": self.remedy, "activation": self.network.activation, "seconds": round(self.seconds, 1), "note": self.note}
        return {**facts, **({k: asdict(self.report)[k] for k in ("top1", "drop", "agreement", "passed")} if self.report else {})}


class OutOfTime(EdgeeffError):
    """A remedy ran into the time budget."""

    exit_code = BudgetNotMet.exit_code


@dataclass(frozen=True)
class Ladder:
    """What every rung needs. `deadline` is of time.monotonic(); `learning` are the photos, unlabelled, that networks recover on.

    `original` is the activation the network came with, `swap_to` the one it may be given.
    """

    target: Target
    preprocess: Preprocess
    calibration: PixelFile
    learning: ImageSet
    gate: Gate
    workspace: Workspace
    original: str
    deadline: float
    swap_to: Activation | None
    estimators: tuple[str, ...] = ESTIMATORS
    max_corrupt: float = 0.01
    flip: bool = True
    seed: int = 0
    on: Machine = HERE
    progress: Progress = SILENT
    known: dict[str, dict[str, fakequant.Range]] = field(default_factory=dict)

    def climb(self, network: Network) -> list[Attempt]:
        """The attempts, in order, up to the first that passes."""
        attempts: list[Attempt] = []
        for remedy, attempt in self.rungs(network):
            if attempts and time.monotonic() > self.deadline:
                attempts.append(Attempt(remedy, network, None, None, 0.0, "not tried: the time was up"))
                break
            start = time.monotonic()
            try:
                made, file = attempt()
                report = self.judged("int8", made, file, remedy if attempts else "")
            except EdgeeffError as reason:
                if not attempts:
                    raise
                attempts.append(Attempt(remedy, network, None, None, time.monotonic() - start, str(reason)))
                continue
            attempts.append(Attempt(remedy, made, file, report, time.monotonic() - start))
            if report.passed:
                break
        return attempts

    def judged(self, precision: str, network: Network, file: Path, remedy: str = "") -> StepReport:
        run = self.target.runtime.load(file, precision=precision, threads=self.target.threads, throughput=True)
        activation = f" {network.activation}" if network.activation != self.original else ""
        return self.gate.judge(f"{precision}{activation}{f' ({remedy})' if remedy else ''}", run)

    def float_forms(self, network: Network) -> list[Form]:
        """A network in the target's float precisions."""
        forms = []
        for precision in self.target.usable():
            if not precision.startswith("int8") and (precision, self.target.judge) != ("float32", "onnxruntime"):
                file = self._with(precision, network.plain, network)
                report = self.judged(precision, network, file)
                forms.append(Form(precision, self.target.judge, file, report, network.onnx, network.activation))
        return forms

    def integer_forms(self, attempt: Attempt) -> list[Form]:
        """What a remedy gave, in the target's integer precisions."""
        assert attempt.file is not None
        assert attempt.report is not None
        network, forms = attempt.network, []
        for precision in self.target.usable():
            if precision.startswith("int8"):
                file = self._with(precision, attempt.file, network)
                report = attempt.report if precision == "int8" else self.judged(precision, network, file)
                forms.append(Form(precision, self.target.judge, file, report, network.onnx, network.activation, attempt.remedy))
        return forms

    def _with(self, precision: str, file: Path, network: Network) -> Path:
        """The file for a precision: where that is a property of the graph, one with it baked in."""
        if file.suffix != ".onnx" or precision in ("float32", "int8"):
            return file
        source = file.with_name(MIXED) if precision == "int8-mixed" else file

        def write(folder: Path) -> None:
            keep = half.overflowing(network.onnx, self.calibration, self.progress)
            lint.require(half.write(source, folder / f"{precision}.onnx", keep), self.target.oldest_tensorrt)

        return self.workspace.once(f"{file.parent.name}-{precision}", write) / f"{precision}.onnx"

    def rungs(self, network: Network) -> Iterator[tuple[str, Callable[[], tuple[Network, Path]]]]:
        for remedy in self.post_training():
            yield remedy, partial(self.quantized, network, remedy)
        if self.swap_to and network.activation == "silu":
            yield f"{self.swap_to}, recovered", partial(self.swapped, network, self.swap_to)
        yield "quantization-aware training", partial(self.trained, network)

    def post_training(self) -> tuple[str, ...]:
        return tuple(fakequant.REMEDIES) if self.target.scheme == "symmetric" else quantize.REMEDIES

    def quantized(self, network: Network, remedy: str) -> tuple[Network, Path]:
        """The compiled INT8 file by a remedy that trains nothing."""
        limit = f"-{self.gate.max_drop:g}" if remedy == quantize.REMEDIES[-1] else ""
        name = f"{network.activation}-{remedy.replace(' ', '-')}{limit}"
        if self.target.scheme == "symmetric":
            return network, self._compiled(name, lambda: self._post_trained(network, remedy))
        make = partial(
            quantize.quantize,
            network.plain,
            self.calibration,
            remedy=remedy,
            max_drop=self.gate.max_drop,
            on_time=self.on_time,
            progress=self.progress,
        )
        return network, self.workspace.once(name, make) / "model.xml"

    def _post_trained(self, network: Network, remedy: str) -> EfficientNet:
        ranges = self.ranges(network)
        worst = sorted(ranges, key=lambda name: -ranges[name].error)
        return fakequant.fake_quantized(network.model, {name: ranges[name] for name in worst[fakequant.REMEDIES[remedy] :]})

    def ranges(self, network: Network) -> dict[str, fakequant.Range]:
        if network.activation not in self.known:
            photos = (self.calibration, self.estimators, self.progress)
            self.known[network.activation] = fakequant.calibrate(network.model, *photos)
        return self.known[network.activation]

    def swapped(self, network: Network, activation: Activation) -> tuple[Network, Path]:
        return self.quantized(self.recovered(network, activation), self.post_training()[0])

    def recovered(self, network: Network, activation: Activation) -> Network:
        """The network with another activation, distilled until it answers as it did before."""

        def make(folder: Path) -> None:
            student = self._distilled(network.model, partial(swapped, activation=activation), activation)
            checkpoint.save(student, folder / "weights.safetensors", self.preprocess, ())

        weights = self.workspace.once(f"{activation}-weights", make) / "weights.safetensors"
        model = checkpoint.load(weights, network.model.variant, resolution=self.preprocess.resolution)[0]
        return exported(model.eval(), self.preprocess, self.target, self.workspace)

    def trained(self, network: Network) -> tuple[Network, Path]:
        """Quantization-aware training, from the symmetric ranges; the float network is the teacher."""

        def train() -> EfficientNet:
            quantized = partial(fakequant.fake_quantized, ranges=self.ranges(network))
            return self._distilled(network.model, quantized, "qat")

        return network, self._compiled(f"{network.activation}-qat", train)

    def _distilled(self, teacher: EfficientNet, student: Callable[[EfficientNet], EfficientNet], becomes: str) -> EfficientNet:
        left = self.deadline - time.monotonic()
        if left < LEAST:
            raise OutOfTime(
                f"not tried: training needs at least {LEAST:g} seconds of the time budget, {max(left, 0):.0f} are left."
            )
        looks, lr = LOOKS_AND_RATE[becomes]
        epochs = min(MOST_EPOCHS, max(1, round(looks / len(self.learning))))
        recipe = Distillation(epochs, lr, flip=self.flip, seed=self.seed)
        state = self.workspace.root / f"{teacher.variant.activation}-to-{becomes}.pt"
        arguments = (teacher, student, self.learning, self.preprocess, recipe, state)
        options = {"max_corrupt": self.max_corrupt, "seconds": left, "progress": self.progress}
        return parallel.together(distilled, *arguments, **options)[0]

    def _compiled(self, name: str, make: Callable[[], EfficientNet]) -> Path:
        """A fake-quantized network as the target's file, by way of the Q/DQ graph: linted, and held to what the network answers."""

        def write(folder: Path) -> None:
            network = make()
            bare, steps = fakequant.strip(network)
            plain = to_onnx(bare, self.preprocess, folder / "float.onnx")
            graph = qdq.write(plain, steps, folder / "qdq.onnx")
            lint.require(graph, self.target.oldest_tensorrt)
            if "int8-mixed" in self.target.precisions:
                pointwise = {layer: s for layer, s in steps.items() if getattr(bare.get_submodule(layer), "groups", 1) == 1}
                qdq.write(plain, pointwise, folder / MIXED)
            plain.unlink()
            file = self.target.runtime.compile(graph, folder)
            run = self.target.runtime.load(file, precision="int8", threads=self.target.threads, throughput=True)
            answers = [rank(predict, self.calibration)[:, 0] for predict in (run, predict(network, self.preprocess))]
            same = 100 * float((answers[0] == answers[1]).mean())
            if same < SAME:
                raise AccuracyGateFailed(
                    f"{name}: the compiled file and the fake-quantized network agree on {same:.1f}% < {SAME:g}%."
                )

        return self.workspace.once(name, write) / self.target.runtime.MODEL

    def on_time(self) -> None:
        if time.monotonic() > self.deadline:
            raise OutOfTime("stopped: the time was up.")

    def gain(self, network: Network, activation: Activation) -> tuple[float, tuple[float, float]]:
        """How many times faster INT8 is with another activation, and the 95% interval: weights do not matter to that."""
        other = exported(swapped(network.model, activation), self.preprocess, self.target, self.workspace.within("unrecovered"))
        remedy = self.post_training()[0]
        files = [
            self.quantized(network, remedy)[1],
            replace(self, workspace=self.workspace.within("unrecovered")).quantized(other, remedy)[1],
        ]
        resolution = self.preprocess.resolution
        forms = {name: Compiled(self.target.backend, f, "int8", resolution) for name, f in zip(("now", "then"), files, strict=True)}
        figures = self.on.costs(Request(forms, threads=self.target.threads), self.progress).figures
        return ratio(figures["now"].latency, figures["then"].latency)


def exported(model: EfficientNet, preprocess: Preprocess, target: Target, workspace: Workspace) -> Network:
    """The float network as portable file and as the target's."""
    name = model.variant.activation
    onnx = workspace.once(f"{name}-onnx", lambda folder: to_onnx(model, preprocess, folder / "model.onnx")) / "model.onnx"
    plain = workspace.once(f"{name}-float", partial(target.runtime.compile, onnx)) / target.runtime.MODEL
    return Network(model, onnx, plain)


def best(attempts: list[Attempt]) -> Attempt:
    """The one that passed, which is the last; otherwise the one that loses least."""
    return min((a for a in attempts if a.report), key=lambda a: (not a.report.passed, loss(a.report)))  # type: ignore[union-attr,arg-type]


def reverted(attempts: list[Attempt], chosen: Attempt) -> list[str]:
    """The layers that a post-training remedy put back to float."""
    first = attempts[0].file
    if first is None or chosen.file is None or chosen.network is not attempts[0].network:
        return []
    layers = quantize.quantized_layers if first.suffix == ".xml" else qdq.quantized_layers
    return sorted(layers(first) - layers(chosen.file))
