"""A fit that is killed, or whose disk is full or broken, at any step: the same command then makes the very same bundle.

`python benchmarks/faults.py` tries every step; here are a few. All are forks of one process, which imports the libraries once.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

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
    attempt = fits.fit("disturbed", before=faults.FAULTS[fault](rng.randrange(5, 25)))
    assert attempt.code == {"killed": -9, "full disk": 2, "broken disk": 2}[fault], attempt
    assert fault == "killed" or attempt.said.splitlines()[-1].startswith("edgeeff: "), attempt
    assert "Traceback" not in attempt.said, attempt
attempt = fits.fit("disturbed")
assert attempt.code == 0, attempt
whole, again = fits.bundle("whole"), fits.bundle("disturbed")
assert set(whole) == set(again)
assert [name for name in whole if whole[name] != again[name]] == []
assert fits.leftovers("disturbed") == []
"""

REPORTS = """
import os
import shutil
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
import faults
from edgeeff import Bundle
from edgeeff.cli import main

place = Path(sys.argv[2])
shutil.copytree(sys.argv[3], place / "bundle")
main(["report", str(place / "bundle")])
anew = {"manifest.json", "report.html"}  # a report shows the manifest, with the hash of the report before
whole = {p.name: p.read_bytes() for p in (place / "bundle").iterdir() if p.name not in anew}
code, step = -9, 0
while code == -9:
    step += 1
    child = os.fork()
    if not child:
        sys.addaudithook(faults.counted(place, faults.killed_at(step)))
        os._exit(main(["report", str(place / "bundle")]))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    Bundle.open(place / "bundle")
    assert {p.name: p.read_bytes() for p in (place / "bundle").iterdir() if p.name not in anew} == whole, step
assert (code, [p.name for p in place.iterdir()]) == (0, ["bundle"])
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


@pytest.mark.slow
def test_a_bundle_is_whole_wherever_its_report_is_killed(fitted, tmp_path: Path) -> None:
    """`compile` puts its bundle in place in the same way."""
    command = [sys.executable, "-c", REPORTS, str(ROOT / "benchmarks"), str(tmp_path), str(fitted[0])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr


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
