"""What is asked of edgeeff. A field is an option: its name, default and help are said here, once.

The command line, the command that repeats a fit, and the words sent to another machine are made of these (`option.py`).
"""

from __future__ import annotations

import importlib
import math
import shlex
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from .budget import Budget
from .bundle import Bundle
from .data.labels import MOST_CLASSES
from .errors import BadInput
from .files import user_path
from .network import activations
from .network.architecture import PADDINGS, Padding
from .network.variants import grid, published_weights
from .option import arguments, option, parse_number, parse_whole

MAX_CORRUPT = "share of unreadable photos that is tolerated (default 0.01)"
BUNDLE = "a bundle's folder, as fit or compile wrote it"
MOST_EPOCHS = 100_000
Tool = Literal["mlflow", "tensorboard"]
LIBRARIES: dict[Tool, tuple[str, ...]] = {"mlflow": ("mlflow", "sqlalchemy", "alembic"), "tensorboard": ("tensorboard",)}
AUTO = "auto"  # the weights that are published for the variant that is chosen
TARGET = "a name from `edgeeff targets`, or a YAML file"


def parse_classes(text: str) -> int:
    """A number of classes that a network can tell apart."""
    number = parse_whole(text)
    if not 2 <= number <= MOST_CLASSES:
        raise ValueError(f"expected 2 to {MOST_CLASSES}")
    return number


@dataclass(frozen=True)
class RunLog:
    """Where those who compare runs have the figures of a fit written: a folder that belongs to the `tool`."""

    tool: Tool
    folder: Path

    @classmethod
    def parse(cls, text: str) -> RunLog:
        """From TOOL:DIR; a relative folder is one of the working directory."""
        tool, _, folder = text.partition(":")
        for known in LIBRARIES:
            if tool == known and folder:
                return cls(known, Path(folder).absolute())
        raise ValueError("expected mlflow:DIR or tensorboard:DIR")

    def __str__(self) -> str:
        return f"{self.tool}:{self.folder}"

    def require(self) -> None:
        """Raises ModuleNotFoundError for a library that is not installed, and BadInput where the folder cannot be written to."""
        for name in LIBRARIES[self.tool]:
            importlib.import_module(name)
        with user_path(self.folder, "written"):
            self.folder.mkdir(parents=True, exist_ok=True)


def _check_max_corrupt(share: float) -> None:
    if not 0 <= share < 1:
        raise BadInput(f"--max-corrupt {share}: expected a share from 0 to below 1.")


@dataclass(frozen=True)
class Job:
    """A fit. Folders are labelled photos; `calib` may be unlabelled. `photos` is split into training, validation and test photos.

    `activation`: keep, another one, or auto, which swaps Swish where that is faster and stays within the gate; None swaps only
    where INT8 misses the gate without. A network that is trained has the target's from the first epoch, unless it is to keep Swish.
    """

    target: str | Path = option(help=TARGET)
    out: str | Path = option(help="the bundle to write", metavar="DIR")
    val: str | Path | None = option(None, help="photos that judge every step; no step learns from them", metavar="PHOTOS")
    budget: Budget = field(default_factory=Budget)
    variants: Sequence[str] = option(
        (), help="the variant, or those to choose from (default: all)", flag="--variant", metavar="NAME", many=True
    )
    weights: str | None = option(
        None, help="checkpoint: .safetensors, .pth, hf-hub:owner/name, or auto: as `edgeeff variants` names", metavar="FILE"
    )
    train: str | Path | None = option(
        None, help="labelled photos to train on: DIR/CLASS/*.jpg, a list, an archive or a table", metavar="PHOTOS"
    )
    calib: str | Path | None = option(None, help="photos that set the INT8 ranges (default: the training photos)", metavar="PHOTOS")
    labels: str | Path | None = option(None, help="class names, one a line, for weights that do not name theirs", metavar="FILE")
    test: str | Path | None = option(
        None, help="photos that judge what ships, once, at the end; no choice sees them", metavar="PHOTOS"
    )
    hold_out: float = option(
        0.0, help="instead of --test: this share of --val judges once, and no choice sees it", metavar="SHARE", unit="share"
    )
    resolution: Sequence[int] = option(
        (), help="input sizes (default: each variant's)", metavar="PX", parse=parse_whole, unit="px", many=True
    )
    padding: Padding | None = option(
        None, help="of the weights, where the file does not say (default: the variant's)", choices=PADDINGS
    )
    max_drop: float = option(0.5, help="top-1 points that a step may lose (default 0.5)", metavar="POINTS", unit="points")
    max_class_drop: float | None = option(
        None,
        help="points that any class of 5 photos or more may lose (default: no limit)",
        metavar="POINTS",
        unit="points",
        parse=parse_number,
    )
    min_agreement: float = option(97.0, help="the gate for unlabelled --val (default 97)", metavar="PERCENT", unit="%")
    max_corrupt: float = option(0.01, help=MAX_CORRUPT, metavar="SHARE", unit="share")
    calibration: str | Path = option(
        "default", help="how photos set the ranges: a name from calib/, or a YAML file", metavar="RECIPE"
    )
    activation: str | None = option(
        None,
        help="Swish becomes another, recovered or trained (default: the target's when training, or where INT8 fails without)",
        choices=activations.CHOICES,
    )
    adapt: str = option(
        "keep",
        help="auto: a smaller network, as the latency budget needs, or without one as far as the gate allows (default keep)",
        choices=("keep", "auto"),
    )
    time_budget: float = option(30.0, help="minutes for finding INT8 that passes the gate (default 30)", metavar="MIN", unit="min")
    accept: bool = option(False, help="ship the best within the budget even if it fails the accuracy gate")
    epochs: int | None = option(None, help="of training (default: 10 from weights, 40 from scratch)", parse=parse_whole)
    lr: float | None = option(None, help="peak learning rate (default: 0.001 from weights, 0.003 from scratch)", parse=parse_number)
    flip: bool = option(True, help="train without mirroring: digits, text, arrows")
    seed: int = option(0, help="of everything that is drawn at random (default 0)")
    unlabelled: str | Path | None = option(
        None, help="more photos for networks to recover on, beside --calib or --train; labels are not needed", metavar="PHOTOS"
    )
    crop: float | None = option(
        None,
        help="share of a photo's short side that the network sees (default: as the weights say, or 0.875)",
        unit="share",
        parse=parse_number,
    )
    photos: str | Path | None = option(
        None,
        help="labelled photos, instead of --train, --val and --test: split into these, by class and contents",
        metavar="PHOTOS",
    )
    false_alarms: float = option(
        5.0,
        help="of photos like its own that may get the label unknown (default 5; 0: there is no such label)",
        metavar="PERCENT",
        unit="%",
    )
    improve: str | Path | None = option(
        None, help="a bundle whose network goes on learning, instead of --weights: see `edgeeff improve`", metavar="BUNDLE"
    )
    collected: str | Path | None = option(
        None, help="with --improve: frames that a camera collected, some may have labels", metavar="PHOTOS"
    )
    frame_labels: str | Path | None = option(
        None, help="with --improve: a list of frames and their classes (default: labels.txt beside them)", metavar="FILE"
    )
    log: RunLog | None = option(
        None,
        help="write the figures there, for MLflow or TensorBoard to show: mlflow:DIR or tensorboard:DIR",
        metavar="TOOL:DIR",
        parse=RunLog.parse,
    )

    def __post_init__(self) -> None:
        self._check_numbers()
        networks = grid(self.variants, self.resolution)  # refuses unknown names and sizes
        if self.activation is not None:
            activations.check(self.activation, activations.CHOICES, "--activation")
        self._check_photos()
        if self.weights == AUTO:
            for v in networks:
                published_weights(v)  # refuses one without
        if (self.improve is None) != (self.collected is None) or (self.frame_labels and not self.improve):
            raise BadInput("--improve BUNDLE learns from --collected PHOTOS, of which --frame-labels are: give the two together.")
        if self.improve and (self.weights or len(self.variants) != 1):
            raise BadInput("--improve goes on with its own weights and variant: leave out --weights, and name that --variant.")
        if self.weights and len(self.variants) != 1 and not (self.weights == AUTO and self.trains):
            raise BadInput("--weights belong to one variant: name it with --variant (`edgeeff variants` lists them).")
        for word in arguments(self):  # the bundle and its report tell the command
            try:
                word.encode()
            except UnicodeEncodeError as error:
                raise BadInput(f"{word}: the name is not UTF-8 text. Rename it.") from error

    def _check_photos(self) -> None:
        if self.photos:
            for name in ("train", "val", "test", "calib", "hold_out"):
                if getattr(self, name):
                    raise BadInput(f"--photos is split by itself: leave out --{name.replace('_', '-')}, or --photos.")
        elif not self.val:
            raise BadInput("nothing to judge by: give --val DIR (photos that nothing learns from), or --photos DIR alone.")
        if not self.trains and not self.weights and not self.improve:
            raise BadInput("nothing to fit: give --weights (a trained checkpoint), --train or --photos (labelled photos), or both.")
        if self.labels and self.trains:
            raise BadInput("--labels name the classes of weights; with --train or --photos the folders' names do.")
        if not self.trains and not self.calib:
            raise BadInput(
                "INT8 needs photos for its ranges, not the validation ones: give --calib DIR (unlabelled will do) or --train DIR."
            )
        if self.test and self.hold_out:
            raise BadInput("--test or --hold-out: what ships is judged once. Give one of them.")

    def _check_numbers(self) -> None:
        if not (math.isfinite(self.max_drop) and 0 <= self.max_drop <= 100):
            raise BadInput(f"--max-drop {self.max_drop}: expected 0 to 100 points.")
        if self.max_class_drop is not None and not 0 <= self.max_class_drop <= 100:
            raise BadInput(f"--max-class-drop {self.max_class_drop}: expected 0 to 100 points.")
        if not 0 <= self.min_agreement <= 100:
            raise BadInput(f"--min-agreement {self.min_agreement}: expected 0 to 100 percent.")
        if not 0 <= self.false_alarms <= 50:
            raise BadInput(f"--false-alarms {self.false_alarms}: expected 0 to 50 percent.")
        _check_max_corrupt(self.max_corrupt)
        if not 0 <= self.hold_out < 1:
            raise BadInput(f"--hold-out {self.hold_out}: expected a share from 0 to below 1.")
        if self.crop is not None and not 0.1 <= self.crop <= 1:
            raise BadInput(f"--crop {self.crop}: expected a share from 0.1 to 1.")
        if self.epochs is not None and not 1 <= self.epochs <= MOST_EPOCHS:
            raise BadInput(f"--epochs {self.epochs}: expected 1 to {MOST_EPOCHS}.")
        if not 0 <= self.seed < 2**63:
            raise BadInput(f"--seed {self.seed}: expected a whole number of at most 63 bits, 0 or more.")
        if not (math.isfinite(self.time_budget) and self.time_budget > 0):
            raise BadInput(f"--time-budget {self.time_budget}: expected minutes, above 0.")
        if self.lr is not None and not 0 < self.lr <= 1:
            raise BadInput(f"--lr {self.lr}: expected a rate above 0, at most 1.")

    @property
    def trains(self) -> bool:
        """Whether there are photos to train on."""
        return bool(self.train or self.photos)

    @property
    def command(self) -> str:
        """The command line that asks for this."""
        return shlex.join(["edgeeff", "fit", *arguments(self)])


@dataclass(frozen=True)
class PickJob:
    """A choice of variant, by measuring candidates with random weights."""

    target: str | Path = option(help=TARGET)
    budget: Budget = field(default_factory=Budget)
    variants: Sequence[str] = option((), help="candidates (default: all)", flag="--variant", metavar="NAME", many=True)
    resolution: Sequence[int] = option(
        (), help="input sizes (default: each variant's)", metavar="PX", parse=parse_whole, unit="px", many=True
    )
    classes: int = option(1000, help="that the network tells apart (default 1000)", parse=parse_classes)
    activation: str = option("keep", help="as fit would swap (default keep)", choices=activations.CHOICES)
    exhaustive: bool = option(False, help="measure every candidate instead of searching, and show the frontier", flag="--all")
    rivals: bool = option(
        False,
        help="also name published networks outside of the family that would be more accurate within the budget: by figures of "
        "another CPU, scaled to this device, not measured",
    )


@dataclass(frozen=True)
class ProfileJob:
    """A latency model of a device, from measuring many variants there."""

    target: str | Path = option(help="a name from `edgeeff targets`; the model is written beside its file")
    variants: Sequence[str] = option((), help="what to measure (default: all)", flag="--variant", metavar="NAME", many=True)
    resolution: Sequence[int] = option(
        (), help="input sizes (default: each variant's)", metavar="PX", parse=parse_whole, unit="px", many=True
    )


@dataclass(frozen=True)
class BundleJob:
    """A bundle to work with, and whom to trust with it: without `trusted` keys, anyone may have made it."""

    bundle: str | Path = option(help=BUNDLE, metavar="BUNDLE", positional=True)
    _: KW_ONLY
    trusted: Sequence[str | Path] = option(
        (), help="public keys (PEM, Ed25519): refuse a bundle that none of them signed", metavar="KEY", many=True
    )
    not_before: datetime | None = option(
        None,
        help="with --trusted: refuse a bundle made before that date, like 2026-01-31 or 2026-01-31T12:00:00+00:00",
        metavar="DATE",
        parse=datetime.fromisoformat,
        words=datetime.isoformat,
    )

    def open(self) -> Bundle:
        """The bundle; raises BadInput as `Bundle.open` does."""
        return Bundle.open(self.bundle, trusted=self.trusted or None, not_before=self.not_before)


@dataclass(frozen=True)
class SignJob:
    """A signature for a bundle: who has the public key can tell that nobody else made it."""

    bundle: str | Path = option(help=BUNDLE, metavar="BUNDLE", positional=True)
    key: str | Path = option(help="the private key (PEM, Ed25519, without a password)", metavar="KEY")


@dataclass(frozen=True)
class RollbackJob:
    """A step back of the camera that follows a folder of bundles."""

    folder: str | Path = option(help="the folder that `edgeeff camera --follow` was given", metavar="DIR", positional=True)


@dataclass(frozen=True)
class ImproveJob(BundleJob):
    """A bundle's network, to be improved by frames that a camera collected."""

    collected: str | Path = option(help="the frames, as `edgeeff camera --collect` keeps them", metavar="PHOTOS")
    out: str | Path = option(help="the bundle to write", metavar="DIR")
    labels: str | Path | None = option(
        None, help="classes of some of the frames, as `edgeeff label` writes them (default: labels.txt beside them)", metavar="FILE"
    )
    job: str | Path | None = option(
        None, help="the fit that made the bundle, for its photos and gate (default: the bundle's own fit.yaml)", metavar="FILE"
    )
    accept: bool = option(False, help="ship it even if it is no better than the bundle, or fails the accuracy gate")

    def fit(self, before: Job, bundle: Bundle) -> Job:
        """The fit that improves the bundle, which the fit `before` made."""
        return replace(
            before,
            out=self.out,
            variants=(bundle.manifest.variant,),
            resolution=(bundle.manifest.resolution,),
            weights=None,
            labels=None,
            activation="keep",
            adapt="keep",
            crop=None,
            accept=self.accept,
            improve=self.bundle,
            collected=self.collected,
            frame_labels=self.labels,
        )


@dataclass(frozen=True)
class EvaluateJob(BundleJob):
    """The accuracy of a bundle's compiled file on labelled photos."""

    val: str | Path = option(help="labelled photos", metavar="PHOTOS")
    max_corrupt: float = option(0.01, help=MAX_CORRUPT, metavar="SHARE", unit="share")
    foreign: str | Path | None = option(
        None, help="photos of other things: how many of them get the label unknown", metavar="PHOTOS"
    )

    def __post_init__(self) -> None:
        _check_max_corrupt(self.max_corrupt)


@dataclass(frozen=True)
class BenchmarkJob(BundleJob):
    """The latency of a bundle's compiled file."""

    rounds: int = option(8, help="blocks to measure, at least (default 8)")

    def __post_init__(self) -> None:
        if self.rounds < 2:
            raise BadInput(f"--rounds {self.rounds}: expected 2 or more, for an interval.")


@dataclass(frozen=True)
class RequalifyJob(BenchmarkJob):
    """What a bundle's manifest says, taken again and compared."""

    val: str | Path | None = option(
        None, help="labelled photos to judge on, best those of the fit (default: accuracy is not compared)", metavar="PHOTOS"
    )
    max_corrupt: float = option(0.01, help=MAX_CORRUPT, metavar="SHARE", unit="share")

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_max_corrupt(self.max_corrupt)


@dataclass(frozen=True)
class CompileJob(BundleJob):
    """A bundle's graphs as engines, on the device that runs them."""

    val: str | Path | None = option(
        None, help="labelled photos to judge the engines on (default: the bundle's golden ones)", metavar="PHOTOS"
    )
    dla: int | None = option(
        None, help="fp16 on a DLA core; refused where it runs under 90%% of the layers", metavar="CORE", parse=parse_whole
    )
    max_corrupt: float = option(0.01, help=MAX_CORRUPT, metavar="SHARE", unit="share")

    def __post_init__(self) -> None:
        _check_max_corrupt(self.max_corrupt)
        if self.dla is not None and not 0 <= self.dla < 16:
            raise BadInput(f"--dla {self.dla}: expected a core's number, from 0.")


@dataclass(frozen=True)
class LabelJob:
    """Photos that a person sorts into classes, on a page in a browser."""

    folder: str | Path = option(help="a folder of photos, as `edgeeff camera --collect` fills one", metavar="DIR", positional=True)
    bundle: str | Path | None = option(
        None, help="show what this bundle says of each photo, the most uncertain ones first", metavar="BUNDLE"
    )
    classes: Sequence[str] = option(
        (), help="the names of the classes to sort into (default: those of the bundle)", metavar="NAME", many=True
    )
    out: str | Path | None = option(
        None, help="the list to write, beside the photos or above them (default: labels.txt in DIR)", metavar="FILE"
    )
    web: str = option(
        "0",
        help="where the page is (default: any free port of this machine); other hosts need the token printed",
        metavar="[HOST:]PORT",
    )
