import json
import os
import time
from dataclasses import replace
from itertools import pairwise, permutations
from pathlib import Path

import pytest

from edgeeff import Budget, Bundle, Target
from edgeeff.machine import LOCAL
from edgeeff.measurement import system_state
from edgeeff.measurement.benchmark import BenchmarkRequest, CompiledModel, Metrics, benchmark, energy
from edgeeff.measurement.latency import BLOCK, WARM_UP, Latency, measure, ratio
from edgeeff.measurement.system_state import Device, Snapshot, SystemState, device, snapshot
from edgeeff.records import from_json, to_json
from edgeeff.sysfs import ROOT


def idle(**changes: float):
    """Snapshots of a machine on which nothing else happens, or what `changes` say from one to the next."""
    calm = Snapshot(at=0, busy=0, stolen=0, own=0, state=SystemState(cores=2, load=0))
    moments = (replace(calm, at=float(i), **{k: i * v for k, v in changes.items()}) for i in range(100))
    return lambda: next(moments)


def sleeper(milliseconds: float):
    return lambda: time.sleep(milliseconds / 1000)


@pytest.mark.slow
def test_candidates_are_ranked_and_their_ratio_is_the_true_one() -> None:
    timed = measure({"slow": sleeper(9), "fast": sleeper(3)}, rounds=4, narrow=1).latencies
    assert timed["slow"].p50 > timed["fast"].p50 >= 3
    speed, (low, high) = ratio(timed["slow"], timed["fast"])
    assert 1.5 < speed < 3.2  # 3, less the cost of a sleep on a busy machine; never above but for rounding
    assert low <= speed <= high


def test_blocks_interleave_and_each_candidate_follows_every_other_one() -> None:
    runs: list[str] = []

    def note(name: str):
        def run():
            runs.append(name)
            time.sleep(0.001)

        return run

    measure({name: note(name) for name in "abc"}, rounds=8, narrow=1, take_snapshot=idle())
    blocks = runs[-8 * 3 * (WARM_UP + BLOCK) :: WARM_UP + BLOCK]  # the first of each
    assert all(sorted(blocks[i : i + 3]) == ["a", "b", "c"] for i in range(0, 24, 3))
    assert set(permutations("abc", 2)) <= set(pairwise(blocks))


def test_a_measurement_survives_json() -> None:
    original = measure({"x": sleeper(1)}, rounds=2, narrow=1).latencies["x"]
    copy = from_json(to_json(original), Latency, "latency")
    assert copy.p50 == pytest.approx(original.p50, abs=1e-4)  # four decimals are kept
    assert copy.at(90) == copy.p90 <= copy.upper_bound(90)
    assert len(copy.rounds) == 2
    assert copy.histogram == pytest.approx(original.histogram, abs=1e-4)
    old = {k: v for k, v in to_json(original).items() if k != "histogram"}  # remembered before there were histograms
    assert from_json(old, Latency, "latency").histogram == ()


def test_the_histogram_counts_every_run() -> None:
    timed = measure({"x": sleeper(1)}, rounds=4, narrow=1).latencies["x"]
    low, high, *counts = timed.histogram
    assert low <= timed.p50 <= high <= timed.p99
    assert sum(counts) >= 4 * BLOCK
    assert counts[-1] >= 1  # the longest lies above p99


@pytest.mark.parametrize(
    ("files", "target"),
    [
        ({"proc/cpuinfo": "processor\t: 0\nmodel name\t: Intel(R) N100\nflags\t\t: avx2 avx_vnni\n"}, "intel-n100"),
        ({"proc/cpuinfo": "model name\t: Intel(R) Core(TM) Ultra 7 155H\n"}, "intel-core-ultra"),
        ({"proc/cpuinfo": "model name\t: Intel Atom(R) x6425E Processor @ 2.00GHz\n"}, "intel-atom-x6000"),
        ({"proc/cpuinfo": "CPU part\t: 0xd0b\n", "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0"}, "raspberry-pi-5"),
        ({"proc/cpuinfo": "CPU implementer\t: 0x41\nCPU part\t: 0xd0c\nFeatures\t: asimddp\n"}, "ampere-altra"),
    ],
)
def test_a_target_is_known_by_its_processor(tmp_path: Path, files: dict[str, str], target: str) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert Target.load(target).cpu in device(tmp_path).cpu
    assert not Target.load(target).here  # as this machine is none of them


def test_the_device_is_described() -> None:
    assert device().cores >= 1
    assert device().cpu


@pytest.mark.parametrize(
    ("flags", "overflows"),
    [
        (("avx2",), True),
        (("avx2", "avx512f"), True),
        (("avx2", "avx_vnni"), False),
        (("avx512f", "avx512_vnni"), False),
        ((), False),
    ],
)
def test_int8_sums_overflow_without_vnni(flags: tuple[str, ...], overflows: bool) -> None:
    one = Device("x86_64", "CPU", "25/17", 2, flags, "Linux")
    both = replace(one, flags=(), hosts={"edge": one})
    assert one.int8_overflows == both.int8_overflows == overflows


@pytest.mark.slow
def test_rounds_go_on_until_the_interval_is_narrow() -> None:
    durations = iter([1.0] * 40 + [3.0] * 100_000)

    def unsteady():
        time.sleep(next(durations) / 1000)

    assert len(measure({"x": unsteady}, rounds=2, narrow=0.05, seconds=5, take_snapshot=idle()).latencies["x"].rounds) > 2
    assert len(measure({"x": sleeper(1)}, rounds=2, narrow=1, take_snapshot=idle()).latencies["x"].rounds) == 2


def test_a_disturbed_run_is_repeated_and_then_called_none() -> None:
    calls: list[int] = []

    def count():
        calls.append(1)

    calm = measure({"x": count}, rounds=2, narrow=1, take_snapshot=idle())
    once = len(calls)
    busy = measure({"x": count}, rounds=2, narrow=1, take_snapshot=idle(busy=2.0, own=1.0))  # the other core, all the time
    assert calm.noise == ()
    assert busy.noise == ("other programs used 1.0 of 2 cores",)
    assert len(calls) - once > 1.5 * once


def test_what_disturbs_is_named() -> None:
    state = SystemState(cores=4, load=0, power_mode="performance")
    before = Snapshot(at=0, busy=0, stolen=0, own=0, state=state)

    def reasons(busy: float = 0, own: float = 0, stolen: float = 0, waited: object = None, **changes: object) -> list[str]:
        first, last = waited or ({}, {})
        after = Snapshot(10.0, busy, stolen, own, replace(state, **changes), last)
        return system_state.noise_reasons(replace(before, waited=first), after)

    assert reasons(busy=10.0, own=10.0) == []
    assert reasons(busy=20.0, own=10.0) == []  # the other found room on idle cores
    assert reasons(busy=39.0, own=20.0) == ["other programs used 1.9 of 4 cores"]
    waiting = {"1": 2.0, "2": 3.0}, {"1": 4.0, "3": 1.0}  # 3 s; thread 2 has ended
    assert reasons(busy=20.0, own=10.0, waited=waiting) == ["other programs used 1.0 of 4 cores"]  # and yet they were in the way
    assert reasons(busy=39.0, own=35.0, waited=waiting) == []
    assert reasons(busy=31.0, own=30.0, waited=waiting) == []  # its threads waited for each other
    assert reasons(busy=15.0, own=10.0, stolen=5.0) == ["the hypervisor took away 0.5 of 4 cores"]
    assert reasons(throttle_events=3, temperature=97.0) == ["the CPU throttled 3 times at 97 °C: cool it"]
    assert reasons(power_mode="powersave") == ["the power mode changed from performance to powersave"]


def test_the_machine_is_read_from_proc_and_sysfs(tmp_path: Path) -> None:
    for name, text in {
        "proc/stat": "cpu 0\n" + "".join(f"cpu{i} 100 0 50 9 9 0 0 25 0 0\n" for i in range(1024)),
        "sys/class/thermal/thermal_zone0/temp": "48500\n",
        "sys/class/powercap/intel-rapl:0/energy_uj": "2500000\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    now = snapshot(tmp_path)
    assert now.stolen == pytest.approx(0.25 * now.state.cores)  # hundredths of a second
    assert now.busy == pytest.approx(1.75 * now.state.cores)
    assert now.state.temperature == 48.5
    assert system_state.rapl(tmp_path) == 2.5
    here = snapshot(ROOT)
    assert here.busy > 0
    assert all(seconds >= 0 for seconds in here.waited.values())
    assert str(os.getpid()) in here.waited or not Path("/proc/self/schedstat").exists()


def test_energy_is_the_counters_difference_or_the_rails_mean(tmp_path: Path) -> None:
    counter = tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj"
    counter.parent.mkdir(parents=True)
    counter.write_text("0")

    def draw():
        counter.write_text(str(int(counter.read_text()) + 5000))  # 5 mJ each
        time.sleep(0.001)

    assert energy(draw, seconds=0.2, root=tmp_path) == pytest.approx(5.0)
    assert energy(sleeper(1), seconds=0.2, root=tmp_path / "nothing") is None


def test_a_budget_is_held_against_the_intervals_upper_end() -> None:
    latency = Latency(4.9, 6.0, 7.0, (4.8, 5.1), (4.9,), (5.9, 6.4), (6.0, 9.0))
    figures = Metrics(latency, {"size_mb": 3.0, "fps": 200.0, "memory_mb": 150.0})
    assert figures.over(Budget(latency_ms=5.2, size_mb=3, fps=200, memory_mb=150)) == []
    assert figures.over(Budget(latency_ms=5)) == ["p50 4.90 ms (at most 5.10)"]
    assert figures.over(Budget(latency_ms=6.2, percentile=90)) == ["p90 6.00 ms (at most 6.40)"]
    assert figures.over(Budget(fps=201, memory_mb=149)) == ["200.0 frames per second", "150.0 MB of memory"]
    assert figures.over(Budget(energy_mj=1)) == ["0.0 mJ an image"]
    assert Metrics.from_json(figures.to_json()) == figures


def test_a_request_is_answered_as_by_the_machine_itself(tmp_path: Path, fitted, run) -> None:
    bundle = Bundle.open(fitted[0])
    facts = bundle.manifest
    model = CompiledModel("openvino", bundle.path / facts.model, facts.precision, bundle.preprocess.resolution)
    BenchmarkRequest({"it": model}, Budget(latency_ms=5), rounds=2).write(tmp_path)
    assert benchmark(BenchmarkRequest.read(tmp_path)).metrics["it"].costs["size_mb"] == pytest.approx(model.size_mb)
    answered = json.loads(run("measure", "openvino", tmp_path).stdout)
    assert answered["device"] == to_json(device())
    assert "float32" in answered["precisions"]
    assert Metrics.from_json(answered["figures"]["it"]).costs["size_mb"] == pytest.approx(model.size_mb, abs=1e-3)
    assert to_json(LOCAL.facts("openvino")) == {name: answered[name] for name in ("device", "version", "precisions")}
