"""Two cameras, a page with a client, a broker and a folder of frames, all at once for a while."""

import json
import subprocess
import sys
from statistics import median

import pytest
from conftest import ROOT


@pytest.mark.slow
def test_memory_and_descriptors_stay_as_they_are(fitted) -> None:
    command = [sys.executable, ROOT / "benchmarks/together.py", fitted[0], "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    seconds = measured["seconds"][6:]  # by then the runtime, OpenCV and every thread have what they need
    half = len(seconds) // 2
    grown = median(s["resident_mb"] for s in seconds[half:]) - median(s["resident_mb"] for s in seconds[:half])
    assert grown < 5, measured  # a frame is 0.9 MB, and hundreds came in that time
    assert max(s["descriptors"] for s in seconds[half:]) <= max(s["descriptors"] for s in seconds[:half]) + 3, (
        measured
    )  # a client's
    assert all(labels > 20 for labels in measured["labels"])
    assert measured["kept"] > 5
    assert measured["unsent"] == 0
    assert done.stderr == ""
