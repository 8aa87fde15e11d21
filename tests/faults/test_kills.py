"""A fit that is killed, or whose disk is full or broken, at any step: the same command then makes the very same bundle.

`python benchmarks/faults.py` tries every step; here are a few. All are forks of one process, which imports the libraries once.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import FAKES, ROOT

CHAIN = """
import random
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
import faults

faults.preload()
fits = faults.Fits(Path(sys.argv[2]), Path(sys.argv[3]))
faults.steps(fits, "whole")
assert fits.leftovers("whole") == [], fits.leftovers("whole")
rng = random.Random(1)
for fault in ("killed", "full disk", "broken disk", "killed"):
    attempt = fits.run("disturbed", before=faults.FAULTS[fault](rng.randrange(5, 25)))
    assert attempt.code == {"killed": -9, "full disk": 2, "broken disk": 2}[fault], attempt
    assert fault == "killed" or attempt.said.splitlines()[-1].startswith("edgeeff: "), attempt
    assert "Traceback" not in attempt.said, attempt
attempt = fits.run("disturbed")
assert attempt.code == 0, attempt
whole, again = fits.bundle("whole"), fits.bundle("disturbed")
assert set(whole) == set(again)
assert [name for name in whole if whole[name] != again[name]] == []
assert fits.leftovers("disturbed") == []
"""

REPLACING = """
import importlib
import json
import os
import shutil
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
import economy
import faults
from edgeeff import Bundle
from edgeeff.cli import main

place, apart, words, anew = Path(sys.argv[2]), int(sys.argv[4]), json.loads(sys.argv[5]), set(json.loads(sys.argv[6]))
economy.for_words(words)
for name in ("edgeeff.diagnostics", "edgeeff.report.html", "jinja2.ext", "onnx", "onnxruntime"):
    importlib.import_module(name)
shutil.copytree(sys.argv[3], place / "bundle")
whole = {p.name: p.read_bytes() for p in (place / "bundle").iterdir() if p.name not in anew}
code, step = -9, 1
while code == -9:
    child = os.fork()
    if not child:
        sys.addaudithook(faults.counted(place, faults.killed_at(step)))
        os._exit(main([words[0], str(place / "bundle"), *words[1:]]))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    bundle = Bundle.open(place / "bundle")
    assert {p.name: p.read_bytes() for p in bundle.path.iterdir() if p.name not in anew} == whole, step
    step += apart
assert (code, [p.name for p in place.iterdir()]) == (0, ["bundle"])
bundle.verify()
assert step > 20, step
"""
COLLECTING = """
import os
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
import faults
from PIL import Image

place, frames = Path(sys.argv[2]), Path(sys.argv[2]) / "frames"
words = ["camera", sys.argv[3], "--source", sys.argv[4], "--collect", str(frames), "--uncertain", "1"]
from edgeeff.cli import main

for step in (1, 1, 2, 2, 1000):  # the folder, then an opened and a renamed file
    child = os.fork()
    if not child:
        sys.addaudithook(faults.counted(place, faults.killed_at(step)))
        os._exit(main(words))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (0 if step == 1000 else -9), step
    for photo in frames.glob("*.jpg"):
        Image.open(photo).load()
assert {p.suffix for p in frames.iterdir()} == {".jpg"}
"""


def replacing(bundle: Path, place: Path, apart: int, words: list[str], anew: list[str], **options: object) -> None:
    """Kill a verb that replaces a bundle at steps so many `apart`, until it ends; only the files in `anew` may change."""
    arguments = [ROOT / "benchmarks", place, bundle, str(apart), json.dumps(words), json.dumps(anew)]
    done = subprocess.run([sys.executable, "-c", REPLACING, *arguments], capture_output=True, text=True, timeout=500, **options)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_bundle_is_whole_wherever_its_report_is_killed(fitted, tmp_path: Path) -> None:
    replacing(fitted[0], tmp_path, 1, ["report"], ["manifest.json", "report.html"])  # a report shows the hash of the report before


@pytest.mark.slow
def test_a_bundle_is_whole_wherever_its_compilation_is_killed(portable, tmp_path: Path) -> None:
    anew = ["manifest.json", "README.md", "golden.npz", "model.engine", "model.engine.json", "layers.json"]
    replacing(portable[0], tmp_path, 11, ["compile"], anew, env=FAKES)


@pytest.mark.slow
def test_collected_frames_are_whole_wherever_the_camera_is_killed(fitted, film: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", COLLECTING, str(ROOT / "benchmarks"), str(tmp_path), str(fitted[0]), str(film)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_fit_that_fails_again_and_again_makes_the_same_bundle_in_the_end(few_digits: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHAIN, str(ROOT / "benchmarks"), str(tmp_path / "fits"), str(few_digits)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
