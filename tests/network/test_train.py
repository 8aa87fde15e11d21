from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cameras import Said

from edgeeff import EdgeeffError
from edgeeff.data.images import ImageSet
from edgeeff.data.preprocess import Preprocess
from edgeeff.network.model import create
from edgeeff.network.train import Recipe, apart, train, training_resolution
from edgeeff.progress import Progress

pytestmark = pytest.mark.slow
RECIPE = Recipe(epochs=2, lr=3e-3, batch=25, flip=False)
PREPROCESS = Preprocess(32, 32, (127.0,) * 3, (128.0,) * 3)


@pytest.fixture(scope="module")
def images(digits: Path) -> ImageSet:
    return ImageSet.open(digits / "train").draw(100)


def network():
    torch.manual_seed(7)
    return create("lite0", classes=10, resolution=32)


class Stop(Exception):
    pass


def test_an_interrupted_training_ends_with_the_weights_of_one_that_was_not(images: ImageSet, tmp_path: Path) -> None:
    whole, epochs = train(network(), PREPROCESS, images, RECIPE, tmp_path / "whole.pt")

    class Interrupting(Progress):
        def say(self, line: str) -> None:
            if line.startswith("epoch 1/"):
                raise Stop

        def track(self, items, label, total):
            return items

    with pytest.raises(Stop):
        train(network(), PREPROCESS, images, RECIPE, tmp_path / "halves.pt", progress=Interrupting())
    halves, resumed = train(network(), PREPROCESS, images, RECIPE, tmp_path / "halves.pt")
    for a, b in zip(whole.state_dict().values(), halves.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b)
    assert resumed == epochs
    assert len(epochs) == RECIPE.epochs


def test_no_step_learns_from_the_photos_that_are_held_back_and_shown(digits: Path, tmp_path: Path) -> None:
    images, said = ImageSet.open(digits / "train"), Said()
    held_back, others = apart(images, RECIPE.seed)
    assert [len(held_back), len(others)] == [20, 280]  # two of each class
    assert not set(held_back.digests) & set(others.digests)
    train(network(), PREPROCESS, images, replace(RECIPE, epochs=1, batch=280), tmp_path / "all.pt", progress=said)
    assert "% of 20 held-back photos right, 0.0 min left" in said.lines[0]
    few = images.draw(100)
    assert apart(few, RECIPE.seed)[1] == few


def test_training_learns(images: ImageSet, tmp_path: Path) -> None:
    lines: list[str] = []

    class Listening(Progress):
        def say(self, line: str) -> None:
            lines.append(line)

        def track(self, items, label, total):
            return items

    recipe = Recipe(epochs=6, lr=3e-3, batch=25, flip=False)
    _, epochs = train(network(), PREPROCESS, images, recipe, tmp_path / "t.pt", progress=Listening())
    losses = [float(line.split("loss ")[1].split(",")[0]) for line in lines]
    assert losses[-1] < losses[0]
    assert losses == pytest.approx([epoch.loss for epoch in epochs], abs=5e-4)  # the lines have three decimals


def test_divergence_is_said_plainly(images: ImageSet, tmp_path: Path) -> None:
    broken = network()
    broken.classifier.bias.data.fill_(float("nan"))
    with pytest.raises(EdgeeffError, match="training diverged in epoch 1: the loss is nan. Lower --lr"):
        train(broken, PREPROCESS, images, RECIPE, tmp_path / "t.pt")


def test_what_a_recipe_does_not_say_is_as_usual() -> None:
    usual = [kind(None, None, flip=True, seed=0) for kind in (Recipe.fine_tune, Recipe.from_scratch)]
    assert [(r.epochs, r.lr) for r in usual] == [(10, 1e-3), (40, 3e-3)]
    assert Recipe.fine_tune(2, 0.5, flip=False, seed=7) == Recipe(2, 0.5, flip=False, seed=7)


def test_training_crops_are_smaller() -> None:
    assert [training_resolution(r) for r in (32, 64, 224, 240, 300)] == [32, 64, 160, 192, 224]
