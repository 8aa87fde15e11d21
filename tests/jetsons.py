"""Files of two Jetsons, written by hand from NVIDIA's documentation of Orin and Thor, not recorded on boards."""

from pathlib import Path

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
