import time

import numpy as np
import pytest

from edgeeff.bench import BLOCK, Measurement, device, measure, ratio

IMAGE = np.zeros((1, 32, 32, 3), np.uint8)


def sleeper(milliseconds: float):
    return lambda images: time.sleep(milliseconds / 1000)


def test_candidates_are_ranked_and_their_ratio_is_the_true_one() -> None:
    timed = measure({"slow": sleeper(9), "fast": sleeper(3)}, IMAGE, rounds=4)
    assert timed["slow"].p50 > timed["fast"].p50 >= 3
    speed, (low, high) = ratio(timed["slow"], timed["fast"])
    assert 1.5 < speed < 3.2  # 3, less the cost of a sleep on a busy machine; never above but for rounding
    assert low <= speed <= high


def test_blocks_interleave_and_no_candidate_always_follows_the_same_one() -> None:
    order: list[str] = []

    def note(name: str):
        def run(images):
            if not order or order[-1] != name:
                order.append(name)
            time.sleep(0.001)

        return run

    measure({"a": note("a"), "b": note("b"), "c": note("c")}, IMAGE, rounds=3)
    assert "".join(order[3:]) in ("abcbcacab", "bcbcacab")  # after the warm-up of each


def test_a_measurement_survives_json() -> None:
    original = measure({"x": sleeper(1)}, IMAGE, rounds=2)["x"]
    copy = Measurement.from_json(original.to_json())
    assert copy.p50 == pytest.approx(original.p50, abs=1e-4)  # four decimals are kept
    assert copy.at(90) == copy.p90
    assert len(copy.rounds) == 2
    assert copy.histogram == pytest.approx(original.histogram, abs=1e-4)
    old = {k: v for k, v in original.to_json().items() if k != "histogram"}  # remembered before there were histograms
    assert Measurement.from_json(old).histogram == ()


def test_the_histogram_counts_every_run() -> None:
    timed = measure({"x": sleeper(1)}, IMAGE, rounds=4)["x"]
    low, high, *counts = timed.histogram
    assert low <= timed.p50 <= high <= timed.p99
    assert sum(counts) >= 4 * BLOCK
    assert counts[-1] >= 1  # the longest lies above p99


def test_the_device_is_described() -> None:
    assert device()["cores"] >= 1
    assert device()["cpu"]
