"""Reading a Jetson. The trees are written by hand from NVIDIA's documentation of Orin and Thor, not recorded on boards."""

from dataclasses import replace
from pathlib import Path

import pytest
from jetsons import ORIN, THOR, tree

from edgeeff.measurement import jetson


def test_an_orin_is_read(tmp_path: Path) -> None:
    orin = jetson.read(tree(tmp_path, ORIN), lambda: "NV Power Mode: MAXN_SUPER\n2\n")
    assert orin is not None
    assert (orin.model, orin.l4t, orin.jetpack) == ("NVIDIA Jetson Orin Nano Developer Kit", "36.4.3", "6")
    assert (orin.power_mode, orin.power_modes) == ("MAXN_SUPER", ("15W", "25W", "MAXN_SUPER"))
    assert (orin.gpu_clock, orin.gpu_clock_limits, orin.clocks_locked) == (918, (306, 1020), False)
    assert orin.temperatures == {"cpu-thermal": 51.25, "gpu-thermal": 49.875}
    assert orin.power == pytest.approx({"VDD_IN": 6.098, "VDD_CPU_GPU_CV": 2.0192}, abs=1e-3)
    assert jetson.total_power(tmp_path) == pytest.approx(6.098, abs=1e-3)
    assert (orin.throttle_events, orin.slowed_by) == (2, ())
    assert (orin.memory_gb, orin.swap_gb) == pytest.approx((7.8, 3.9), abs=0.01)


def test_a_thor_without_rails_or_power_modes_is_read(tmp_path: Path) -> None:
    thor = jetson.read(tree(tmp_path, THOR), lambda: "")
    assert thor is not None
    assert (thor.jetpack, thor.power_mode, thor.clocks_locked) == ("7.0 or 7.1", "unknown", True)
    assert jetson.total_power(tmp_path) is None


def test_what_is_no_jetson_is_none(tmp_path: Path) -> None:
    assert jetson.read(tmp_path) is None


def test_a_run_that_the_board_slowed_down_is_no_measurement(tmp_path: Path) -> None:
    before = jetson.read(tree(tmp_path, ORIN), lambda: "NV Power Mode: 15W\n0\n")
    assert before is not None
    assert jetson.noise_reasons(before, before) == []
    (tmp_path / "sys/class/hwmon/hwmon3/oc3_event_cnt").write_text("5\n")
    (tmp_path / "sys/class/thermal/cooling_device1/cur_state").write_text("1\n")
    after = jetson.read(tmp_path, lambda: "NV Power Mode: 15W\n0\n")
    assert after is not None
    reasons = jetson.noise_reasons(before, after)
    assert any("3 over-current events" in r for r in reasons)
    assert any("gpu-throttle-alert" in r and "51 °C" in r for r in reasons)
    assert "power mode changed" in jetson.noise_reasons(before, replace(before, power_mode="25W"))[0]
    assert "clock limits" in jetson.noise_reasons(before, replace(before, gpu_clock_limits=(306, 612)))[0]


def test_the_doctor_says_what_to_fix_on_a_jetson(tmp_path: Path) -> None:
    from edgeeff.cli.doctor import on_jetson

    root = tree(tmp_path, ORIN | {"dev/video0": ""})
    state = jetson.read(root, lambda: "NV Power Mode: 25W\n")
    assert state is not None
    findings = {f.what: f for f in on_jetson(state, root)}
    assert findings["JetPack"].found == "6 (Jetson Linux 36.4.3)"
    assert findings["power mode"].found == "25W of 15W, 25W, MAXN_SUPER"
    assert [what for what, f in findings.items() if not f.ok] == ["GPU clock", "over-current events"]
    assert "jetson_clocks" in findings["GPU clock"].remedy
    assert "video0" in findings["cameras"].found
    old = replace(state, l4t="35.4.1", swap_gb=0.0)
    bad = {f.what: f.remedy for f in on_jetson(old, root) if not f.ok}
    assert "JetPack 6.1" in bad["JetPack"]
    assert "swap" in bad["swap"]
