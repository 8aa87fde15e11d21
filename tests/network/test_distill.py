"""Recovery on real digits, with a small network: it helps, never harms, stops in time, goes on after an interruption."""

import copy
import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgeeff import BadInput
from edgeeff.data.images import ImageSet, PixelFile
from edgeeff.data.preprocess import Preprocess
from edgeeff.network.distill import Distillation, Matching, Sample, distil
from edgeeff.network.model import Deployed, create
from edgeeff.network.swap import swapped

pytestmark = pytest.mark.slow
PREPROCESS = Preprocess(32, 32, (127.0,) * 3, (128.0,) * 3)
RECIPE = Distillation(epochs=2, lr=3e-4, batch=16, flip=False)
ON_CPUS = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}  # two processes would need two GPUs


@pytest.fixture(scope="module")
def photos(digits: Path) -> PixelFile:
    return PixelFile(ImageSet.open(digits / "train").draw(96), PREPROCESS)


@pytest.fixture(scope="module")
def teacher(photos: PixelFile):
    """Its weights are random; its batch norms have seen the photos, so that every layer passes something on."""
    torch.manual_seed(3)
    network = create("b0", classes=10, resolution=32).train()
    with torch.no_grad():
        for _ in range(20):
            Deployed(network, PREPROCESS)(torch.from_numpy(photos.rows(0, 96)))
    return network.eval()


class Stop(Exception):
    pass


class Listening:
    """Keeps the lines; raises at the one that starts with `until`."""

    def __init__(self, until: str = "never") -> None:
        self.lines: list[str] = []
        self.until = until

    def say(self, line: str) -> None:
        self.lines.append(line)
        if line.startswith(self.until):
            raise Stop

    def track(self, items, label, total):
        return items


def equal(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_a_swapped_network_comes_closer_to_its_teacher(teacher, photos: PixelFile, tmp_path: Path) -> None:
    student = swapped(teacher, "hardswish")
    statistics = student.bn1.running_mean.clone()
    outcome = distil(student, teacher, photos, RECIPE, tmp_path / "s.pt")
    assert outcome.after < 0.9 * outcome.before
    assert outcome.epochs == 2
    assert torch.equal(student.bn1.running_mean, statistics)  # batch norms keep what they learned from all photos
    assert not equal(student, swapped(teacher, "hardswish"))


def test_it_never_ends_worse_than_it_began(teacher, photos: PixelFile, tmp_path: Path) -> None:
    student = copy.deepcopy(teacher)  # nothing to gain: every step away is a loss
    outcome = distil(student, teacher, photos, Distillation(epochs=1, lr=0.05), tmp_path / "s.pt")
    assert outcome.after == outcome.before == pytest.approx(0, abs=1e-9)
    assert equal(student, teacher)


def test_a_loss_that_is_no_number_stops_it_and_the_best_is_kept(teacher, photos: PixelFile, tmp_path: Path) -> None:
    student = swapped(teacher, "hardswish")
    outcome = distil(student, teacher, photos, Distillation(epochs=3, lr=1e30), tmp_path / "s.pt", progress=(heard := Listening()))
    assert "the loss became" in outcome.note
    assert any("kept the best so far" in line for line in heard.lines)
    assert outcome.after == outcome.before
    assert equal(student, swapped(teacher, "hardswish"))


def test_it_ends_when_the_time_is_up(teacher, photos: PixelFile, tmp_path: Path) -> None:
    student = swapped(teacher, "hardswish")
    outcome = distil(student, teacher, photos, Distillation(epochs=10**6, lr=3e-4), tmp_path / "s.pt", seconds=3)
    assert outcome.note == "the time was up"
    assert outcome.after <= outcome.before


def test_an_interrupted_one_ends_with_the_weights_of_one_that_was_not(teacher, photos: PixelFile, tmp_path: Path) -> None:
    whole, halves = swapped(teacher, "hardswish"), swapped(teacher, "hardswish")
    distil(whole, teacher, photos, RECIPE, tmp_path / "whole.pt")
    with pytest.raises(Stop):
        distil(halves, teacher, photos, RECIPE, tmp_path / "halves.pt", progress=Listening("distil 2/2"))
    heard = Listening()
    fresh = swapped(teacher, "hardswish")
    distil(fresh, teacher, photos, RECIPE, tmp_path / "halves.pt", progress=heard)
    assert heard.lines[0] == "distil: resumed after epoch 1 of 2"
    for a, b in zip(whole.state_dict().values(), fresh.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b)


def test_the_clock_changes_nothing_while_the_time_lasts(teacher, photos: PixelFile, tmp_path: Path) -> None:
    weights = []
    for seconds in (math.inf, 3600):
        student = swapped(teacher, "hardswish")
        distil(student, teacher, photos, replace(RECIPE, lr=3e-5), tmp_path / f"{seconds}.pt", seconds=seconds)
        weights.append(student.state_dict().values())
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_labels_take_part_where_they_are_asked_to(teacher, photos: PixelFile) -> None:
    samples = [Sample(i, False) for i in range(32)]
    losses = []
    for weight in (0.0, 0.5):
        matching = Matching(copy.deepcopy(teacher), teacher, photos, replace(RECIPE, labels=weight))
        matching.measure(samples)
        losses.append(matching(matching.views(samples)).item())
    assert losses[0] == pytest.approx(0, abs=1e-9)
    assert losses[1] == pytest.approx(0.5 * math.log(10), rel=0.2)  # a random network guesses among ten classes


def test_a_teacher_of_another_shape_is_refused(teacher, photos: PixelFile, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="the teacher has another shape than the student"):
        distil(create("v2-b0", classes=10), teacher, photos, RECIPE, tmp_path / "s.pt")
    with pytest.raises(BadInput, match=r"\(12,\) for \(10,\)"):
        distil(create("b0", classes=12), teacher, photos, RECIPE, tmp_path / "s.pt")


def test_two_photos_are_too_few(teacher, photos: PixelFile, tmp_path: Path) -> None:
    two = PixelFile(photos.images.take([0, 1]), PREPROCESS)
    with pytest.raises(BadInput, match="2 photos are too few to distil from: expected 32"):
        distil(create("b0", classes=10), teacher, two, RECIPE, tmp_path / "s.pt")


SCRIPT = """
import os, sys, torch
from functools import partial
from dataclasses import replace
from pathlib import Path
from edgeeff.network import distributed as parallel
from edgeeff.network.swap import swapped
from edgeeff.network.distill import Distillation, PhotoSource, distilled
from edgeeff.data.images import ImageSet
from edgeeff.data.preprocess import Preprocess
from edgeeff.network.model import create
from edgeeff.progress import SILENT

train, state, out = map(Path, sys.argv[1:])
torch.set_num_threads(1)
if "RANK" not in os.environ or parallel.join():
    torch.manual_seed(3)
    teacher = create("b0", classes=10, resolution=32).eval()
    preprocess, recipe = Preprocess(32, 32, (127.0,) * 3, (128.0,) * 3), Distillation(epochs=2, lr=3e-4, batch=16)
    photos = ImageSet.open(train).draw(96)
    student = partial(swapped, activation="hardswish")
    network, outcome = parallel.together(
        distilled, teacher, student, PhotoSource(photos, preprocess), recipe, state, seconds=float("inf"), progress=SILENT
    )
    torch.save({"weights": network.state_dict(), "after": outcome.after}, out)
    if parallel.world() > 1:
        parallel.leave()
left = [name for task in Path("/proc/self/task").iterdir() if "gloo" in (name := (task / "comm").read_text())]
os.write(1, f"{left}\\n".encode())  # in one piece, as the other process writes into the same pipe
"""


def alone(script: Path, digits: Path, folder: Path) -> list[str]:
    return [sys.executable, str(script), str(digits / "train"), str(folder / "state.pt"), str(folder / "out.pt")]


def test_two_processes_end_with_the_weights_of_one(digits: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    saved = []
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**ON_CPUS, "OMP_NUM_THREADS": "1"}
    for launcher in ([], torchrun):
        folder = tmp_path / f"by{len(launcher)}"
        folder.mkdir()
        command = launcher + alone(script, digits, folder)[1 if launcher else 0 :]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
        assert done.returncode == 0, done.stderr
        assert set(done.stdout.splitlines()) == {"[]"}  # a thread of gloo that outlives `leave` may abort a process that ends well
        saved.append(torch.load(folder / "out.pt", weights_only=True))
    # Both judged the same held-back photos, each of them once; sums in another order differ in the last digits.
    assert saved[0]["after"] == pytest.approx(saved[1]["after"], rel=1e-3)
    for a, b in zip(saved[0]["weights"].values(), saved[1]["weights"].values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_when_one_process_dies_the_run_ends_with_an_error(digits: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    dies = 'if os.environ["RANK"] == "1":\n    d.Matching.measure = lambda *a: os._exit(9)\n'
    script.write_text(f"import os\nfrom edgeeff.network import distill as d\n{dies}{SCRIPT}")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    start = time.monotonic()
    command += alone(script, digits, tmp_path)[1:]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=ON_CPUS)
    assert done.returncode != 0
    assert "exitcode: 9" in done.stderr  # the one that this test ends
    assert time.monotonic() - start < 150
    assert not (tmp_path / "out.pt").exists()
