from pathlib import Path

import pytest

from edgeeff import BadInput
from edgeeff.config import folder
from edgeeff.data.calibration import Calibration
from edgeeff.data.images import ImageSet

GOOD = "description: mine\nimages: 5\ndraw: even\nranges: [largest]\n"


def test_every_recipe_loads_and_one_is_the_default() -> None:
    names = {p.stem for p in folder("calib").glob("*.yaml")}
    assert {Calibration.load(name).name for name in names} == names
    assert "default" in names


def test_even_takes_of_every_class_and_random_does_not_care(digits: Path, tmp_path: Path) -> None:
    images = ImageSet.open(digits / "train")
    even, random = tmp_path / "even.yaml", tmp_path / "random.yaml"
    even.write_text(GOOD.replace("5", "20"))
    random.write_text(GOOD.replace("5", "20").replace("even", "random"))
    taken = Calibration.load(even).take(images, 0)
    assert sorted(taken.labels or ()) == sorted(list(range(10)) * 2)
    other = Calibration.load(random).take(images, 0)
    assert len(other) == 20
    assert len({p.parent.name for p in other.paths}) < 10 or set(other.paths) != set(taken.paths)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("even", "evenly"), "draw: invalid enum value 'evenly'. Expected even, random"),
        (GOOD.replace("5", "0"), "images 0"),
        (GOOD.replace("5", "yes"), "images: expected .int., got .bool."),
        (GOOD.replace("largest", "entropy"), "ranges"),
        (GOOD + "range: 1\n", "unknown key 'range'. Did you mean 'ranges'"),
        ("images: 5\n", "missing key 'description'"),
    ],
)
def test_a_recipe_with_a_mistake_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(BadInput, match=message):
        Calibration.load(tmp_path / "r.yaml")


def test_an_unknown_recipe_gets_a_suggestion() -> None:
    with pytest.raises(BadInput, match="unknown calibration recipe 'defaults'. Did you mean 'default'"):
        Calibration.load("defaults")
