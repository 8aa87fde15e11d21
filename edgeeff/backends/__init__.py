"""The runtimes. A backend is found by its file name in this folder; each imports its own library inside its functions only."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, cast

from ..data.frames import Frame, View
from ..data.images import Logits, Pixels, Predict
from ..errors import BadInput
from ..precision import Precision

Watch = Callable[[Frame], Logits]  # of one frame: (1, classes)


@dataclass(frozen=True)
class LayerTime:
    """One layer as the runtime runs it, by the runtime's own names; `kernel` is what computes it, empty where it does not say."""

    layer: str
    kind: str
    kernel: str
    milliseconds: float


def profiled_runs() -> Iterator[None]:
    """One step a run to profile: the first, which is cold, and 5 to 50 more, within a second where that is possible."""
    start = time.monotonic()
    for i in range(51):
        if i > 5 and time.monotonic() - start > 1:
            return
        yield


def refusal(runtime: str, use: Literal["load", "run"], model: Path, error: Exception) -> BadInput:
    """What a runtime raised of a model, as BadInput: its last line."""
    said = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return BadInput(f"{model}: {runtime} cannot {use} it ({said[:200]}).")


class Backend(Protocol):
    """What every module of this folder offers. Paths are of the file the backend runs; inputs are uint8 `(N, H, W, 3)`."""

    PRECISIONS: tuple[Precision, ...]
    """The ways it can run a file, float first."""

    MODEL: str
    """The main file's name in the folder that `compile` fills."""

    JUDGE: str
    """The backend that runs its files where accuracy is judged: itself, unless only the device can compile."""

    FEATURES: bool
    """Whether `load` and `watch` take `features`, for logits with features behind them: `(N, classes + D)`."""

    def available(self) -> str | None:
        """None when it can run here, else what is missing and how to get it."""

    def version(self) -> str:
        """The runtime's version."""

    def supported(self, precision: Precision) -> bool:
        """Whether this device computes in that precision."""

    def compile(self, onnx: Path, folder: Path) -> Path:
        """Write a model, float or with Q/DQ pairs, in the form this backend ships; returns the main file."""

    def files(self, model: Path) -> list[Path]:
        """Every file that belongs to a compiled model."""

    def load(
        self, model: Path, *, precision: Precision, threads: int = 0, throughput: bool = False, features: bool = False
    ) -> Predict:
        """Ready to run: one image after the other as fast as possible, or with `throughput` many at once on all cores."""

    def watch(self, model: Path, view: View, *, precision: Precision, threads: int = 0, features: bool = False) -> Watch:
        """Ready to run on a camera's frames, each as it comes."""

    def layer_times(self, model: Path, image: Pixels, *, precision: Precision, threads: int = 0) -> list[LayerTime]:
        """Every layer that ran on one `(1, H, W, 3)` image, the longest first; none where the backend cannot tell."""


def names() -> list[str]:
    return sorted(p.stem for p in Path(__file__).parent.glob("*.py") if not p.stem.startswith("_"))


def get(name: str) -> Backend:
    if name not in names():
        raise BadInput(f"unknown backend {name!r}. Expected one of {', '.join(names())}.")
    return cast(Backend, importlib.import_module(f".{name}", __name__))
