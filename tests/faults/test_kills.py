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
# A killed process leaves its folder in the temporary one, which the system empties.
left = [path for path in fits.leftovers("disturbed") if not path.startswith("tmp/edgeeff-")]
assert left == [], left
"""


@pytest.mark.slow
def test_a_fit_that_fails_again_and_again_makes_the_same_bundle_in_the_end(few_digits: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHAIN, str(ROOT / "benchmarks"), str(tmp_path / "fits"), str(few_digits)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
