"""Reading a Jetson. The trees are written by hand from NVIDIA's documentation of Orin and Thor, not recorded on boards."""

from dataclasses import replace
from pathlib import Path

import pytest

from edgeeff import board

ORIN = {
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=25W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n",
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "proc/meminfo": "MemTotal:        7802096 kB\nMemAvailable:    4100000 kB\nSwapTotal:       3901040 kB\n",
    "sys/class/devfreq/17000000.gpu/device/of_node/name": "gpu\0",
    "sys/class/devfreq/17000000.gpu/cur_freq": "918000000\n",
    "sys/class/devfreq/17000000.gpu/min_freq": "306000000\n",
    "sys/class/devfreq/17000000.gpu/max_freq": "1020000000\n",
    "sys/class/devfreq/15340000.vic/device/of_node/name": "vic\0",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "51250\n",
    "sys/class/thermal/thermal_zone1/type": "gpu-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "49875\n",
    "sys/class/thermal/thermal_zone2/type": "cv0-thermal\n",
    "sys/class/thermal/thermal_zone2/temp": "-256000\n",
    "sys/class/thermal/cooling_device0/type": "pwm-fan\n",
    "sys/class/thermal/cooling_device0/cur_state": "2\n",
    "sys/class/thermal/cooling_device1/type": "gpu-throttle-alert\n",
    "sys/class/thermal/cooling_device1/cur_state": "0\n",
    "sys/class/hwmon/hwmon3/oc1_event_cnt": "0\n",
    "sys/class/hwmon/hwmon3/oc3_event_cnt": "2\n",
    "sys/bus/i2c/devices/1-0040/name": "ina3221\n",
    "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/in1_label": "VDD_IN\n",
    "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/in1_input": "5048\n",
    "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/curr1_input": "1208\n",
    "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/in2_label": "VDD_CPU_GPU_CV\n",
    "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/in2_input": "5048\n",
    "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/curr2_input": "400\n",
    "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/in7_label": "sum of shunt voltages\n",
}
THOR = {
    "etc/nv_tegra_release": "# R38 (release), REVISION: 2.0, GCID: 41844464, BOARD: generic, EABI: aarch64\n",
    "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
    "proc/meminfo": "MemTotal:      128842340 kB\nSwapTotal:             0 kB\n",
    "sys/class/devfreq/gpu-gpc-0/device/of_node/name": "gb10b\0",
    "sys/class/devfreq/gpu-gpc-0/cur_freq": "1575000000\n",
    "sys/class/devfreq/gpu-gpc-0/min_freq": "1575000000\n",
    "sys/class/devfreq/gpu-gpc-0/max_freq": "1575000000\n",
}


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_an_orin_is_read(tmp_path: Path) -> None:
    orin = board.read(tree(tmp_path, ORIN), lambda: "NV Power Mode: MAXN_SUPER\n2\n")
    assert orin is not None
    assert (orin.model, orin.l4t, orin.jetpack) == ("NVIDIA Jetson Orin Nano Developer Kit", "36.4.3", "6")
    assert (orin.power_mode, orin.power_modes) == ("MAXN_SUPER", ("15W", "25W", "MAXN_SUPER"))
    assert (orin.gpu_clock, orin.gpu_clock_limits, orin.clocks_locked) == (918, (306, 1020), False)
    assert orin.temperatures == {"cpu-thermal": 51.25, "gpu-thermal": 49.875}
    assert orin.power == pytest.approx({"VDD_IN": 6.098, "VDD_CPU_GPU_CV": 2.0192}, abs=1e-3)
    assert board.total_power(tmp_path) == pytest.approx(6.098, abs=1e-3)
    assert (orin.throttle_events, orin.slowed_by) == (2, ())
    assert (orin.memory_gb, orin.swap_gb) == pytest.approx((7.8, 3.9), abs=0.01)


def test_a_thor_without_rails_or_power_modes_is_read(tmp_path: Path) -> None:
    thor = board.read(tree(tmp_path, THOR), lambda: "")
    assert thor is not None
    assert (thor.jetpack, thor.power_mode, thor.clocks_locked) == ("7.0 or 7.1", "unknown", True)
    assert board.total_power(tmp_path) is None


def test_what_is_no_jetson_is_none(tmp_path: Path) -> None:
    assert board.read(tmp_path) is None


def test_a_run_that_the_board_slowed_down_is_no_measurement(tmp_path: Path) -> None:
    before = board.read(tree(tmp_path, ORIN), lambda: "NV Power Mode: 15W\n0\n")
    assert before is not None
    assert board.disturbed(before, before) == []
    (tmp_path / "sys/class/hwmon/hwmon3/oc3_event_cnt").write_text("5\n")
    (tmp_path / "sys/class/thermal/cooling_device1/cur_state").write_text("1\n")
    after = board.read(tmp_path, lambda: "NV Power Mode: 15W\n0\n")
    assert after is not None
    reasons = board.disturbed(before, after)
    assert any("3 over-current events" in r for r in reasons)
    assert any("gpu-throttle-alert" in r and "51 °C" in r for r in reasons)
    assert "power mode changed" in board.disturbed(before, replace(before, power_mode="25W"))[0]
    assert "clock limits" in board.disturbed(before, replace(before, gpu_clock_limits=(306, 612)))[0]


def test_the_doctor_says_what_to_fix_on_a_jetson(tmp_path: Path) -> None:
    from edgeeff.doctor import on_jetson

    root = tree(tmp_path, ORIN | {"dev/video0": ""})
    jetson = board.read(root, lambda: "NV Power Mode: 25W\n")
    assert jetson is not None
    findings = {f.what: f for f in on_jetson(jetson, root)}
    assert findings["JetPack"].found == "6 (Jetson Linux 36.4.3)"
    assert findings["power mode"].found == "25W of 15W, 25W, MAXN_SUPER"
    assert [what for what, f in findings.items() if not f.ok] == ["GPU clock", "over-current events"]
    assert "jetson_clocks" in findings["GPU clock"].remedy
    assert "video0" in findings["cameras"].found
    old = replace(jetson, l4t="35.4.1", swap_gb=0.0)
    bad = {f.what: f.remedy for f in on_jetson(old, root) if not f.ok}
    assert "JetPack 6.1" in bad["JetPack"]
    assert "swap" in bad["swap"]
