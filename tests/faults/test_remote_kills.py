"""A verb with --on that is killed at a step, here or on the host: the same command then gives the same, and nothing is left.

`python benchmarks/remote_faults.py` tries every step of four verbs; here are a few of one. All are forks of one process.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from boards import NEEDED
from conftest import ROOT

pytestmark = [pytest.mark.slow, NEEDED]

SAMPLE = """
import random
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
import faults
import remote_faults

faults.preload()
from boards import new_board

folder, server, environments, bundle = map(Path, sys.argv[2:])
board = new_board(server, environments)
whole = remote_faults.Whole.of(remote_faults.RemoteRuns(folder, board, ("bench", bundle, "--rounds", 2)))
assert not [each for each in whole.left if "/sent/" not in each and "/on" not in each], whole.left
rng = random.Random(2)
points = {side: [p for p in whole.points(1) if p.side == side] for side in (remote_faults.HERE, remote_faults.THERE)}
assert all(len(each) > 20 for each in points.values()), points
for point in (*rng.sample(points["here"][:40], 1), *rng.sample(points["there"][:20], 2)):  # before the polls, whose number varies
    found = whole.tried(point)
    assert found["struck"] and found["same"] and not found["leftovers"], found
"""


def test_a_verb_that_is_killed_here_or_there_gives_the_same_when_it_is_asked_again(
    server: Path, environments: Path, fitted
) -> None:
    with tempfile.TemporaryDirectory() as short:  # ssh's socket, in the temporary folder of a run, may have 107 characters
        arguments = [ROOT / "benchmarks", Path(short) / "r", server, environments, fitted[0]]
        done = subprocess.run([sys.executable, "-c", SAMPLE, *arguments], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
