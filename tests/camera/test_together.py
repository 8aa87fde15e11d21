"""Two cameras, a page with clients, a broker, a file and a folder of frames, all at once for a while."""

from statistics import mean, median

import pytest
import together


@pytest.mark.slow
def test_memory_and_descriptors_stay_as_they_are(fitted) -> None:
    """`python benchmarks/run.py together` does it for twenty minutes."""
    found = together.run(fitted[0], 18)
    rows = found["rows"][3:]  # by then the runtime, OpenCV and every thread have what they need
    half = len(rows) // 2
    grown = median(r["own_mb"] for r in rows[half:]) - median(r["own_mb"] for r in rows[:half])
    assert grown < 5, found  # a frame is 0.9 MB, and hundreds came in that time
    for what in ("descriptors", "threads"):
        assert max(r[what] for r in rows[half:]) <= max(r[what] for r in rows[:half]) + together.CLIENTS, found
    assert len(found["rates"]) == 2, found
    assert all(mean(each) > 1 for each in found["rates"].values()), found
    assert found["kept"] > 5
    assert found["published_bytes"] > 10_000
    assert found["pages"] > 10
    assert found["said"] == []
