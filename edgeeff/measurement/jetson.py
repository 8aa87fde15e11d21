"""The state of a Jetson: software, power mode, clocks, temperatures, power rails, and what slowed it down. Read, never set.

The paths are from NVIDIA's Jetson Linux developer guide, "Platform Power and Performance":
https://docs.nvidia.com/jetson/archives/r36.4/DeveloperGuide/SD/PlatformPowerAndPerformance.html
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..sysfs import ROOT, jetson_linux, number, text

GPU_NAMES = ("ga10b", "gb10b", "gpu")  # Orin's, Thor's
JETPACKS = ((39, "7.2"), (38, "7.0 or 7.1"), (36, "6"), (35, "5"), (32, "4"))  # by L4T's first number


@dataclass(frozen=True)
class JetsonState:
    """The state at one moment. Clocks are in MHz, temperatures in °C, power in W by rail; `throttle_events` counts since the start.

    `slowed_by` names the cooling devices that lower clocks at this moment; `total_power` is that of the whole module.
    """

    model: str
    l4t: str
    power_mode: str
    power_modes: tuple[str, ...]
    gpu_clock: float | None
    gpu_clock_limits: tuple[float, float] | None
    temperatures: dict[str, float] = field(default_factory=dict)
    power: dict[str, float] = field(default_factory=dict)
    throttle_events: int = 0
    slowed_by: tuple[str, ...] = ()
    memory_gb: float = 0.0
    swap_gb: float = 0.0
    jetpack: str = "of unknown version"
    total_power: float | None = None

    @property
    def clocks_locked(self) -> bool:
        return self.gpu_clock_limits is not None and self.gpu_clock_limits[0] == self.gpu_clock_limits[1]


def read(root: Path = ROOT, query: Callable[[], str] | None = None) -> JetsonState | None:
    """The Jetson this runs on; None on anything else. `query` gives what `nvpmodel -q` prints."""
    version = jetson_linux(root)
    if version is None:
        return None
    modes = tuple(re.findall(r"POWER_MODEL ID=\d+ NAME=(\S+)", text(root / "etc/nvpmodel.conf")))
    gpu = next((d for d in sorted(root.glob("sys/class/devfreq/*")) if text(d / "device/of_node/name") in GPU_NAMES), None)
    limits = [number(gpu / f"{end}_freq") for end in ("min", "max")] if gpu else []
    clock = number(gpu / "cur_freq") if gpu else None
    low, high = limits if limits else (None, None)
    meminfo = text(root / "proc/meminfo")
    power = dict(_rails(root))
    return JetsonState(
        model=text(root / "proc/device-tree/model"),
        l4t=version,
        power_mode=_power_mode((query or _nvpmodel)()),
        power_modes=modes,
        gpu_clock=clock / 1e6 if clock is not None else None,
        gpu_clock_limits=(low / 1e6, high / 1e6) if low is not None and high is not None else None,
        temperatures=dict(_temperatures(root)),
        power=power,
        throttle_events=int(sum(number(f) or 0 for f in root.glob("sys/class/hwmon/hwmon*/oc*_event_cnt"))),
        slowed_by=tuple(_slowed_by(root)),
        memory_gb=_kilobytes(meminfo, "MemTotal") / 1e6,
        swap_gb=_kilobytes(meminfo, "SwapTotal") / 1e6,
        jetpack=next((name for major, name in JETPACKS if version.startswith(f"{major}.")), "of unknown version"),
        total_power=_total(power),
    )


def noise_reasons(before: JetsonState, after: JetsonState) -> list[str]:
    """Why latencies measured between two states cannot be relied on; empty where they can."""
    reasons = []
    if after.power_mode != before.power_mode:
        reasons.append(f"the power mode changed from {before.power_mode} to {after.power_mode}")
    if events := after.throttle_events - before.throttle_events:
        reasons.append(f"{events} over-current events lowered the clocks: is the power supply strong enough?")
    if after.gpu_clock_limits != before.gpu_clock_limits:
        reasons.append("the GPU's clock limits changed")
    if slowed := sorted({*before.slowed_by, *after.slowed_by}):
        hottest = max(after.temperatures.values(), default=0)
        reasons.append(f"{', '.join(slowed)} held the clocks down at {hottest:.0f} °C: cool the board")
    return reasons


def _nvpmodel() -> str:
    try:
        return subprocess.run(["nvpmodel", "-q"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""  # the power mode is then reported as unknown


def _power_mode(answer: str) -> str:
    found = re.search(r"NV Power Mode: (\S+)", answer)
    return found[1] if found else "unknown"


def _temperatures(root: Path) -> Iterator[tuple[str, float]]:
    for zone in sorted(root.glob("sys/class/thermal/thermal_zone*")):
        celsius = number(zone / "temp")
        if celsius is not None and celsius > -100_000:  # a sensor that is switched off reads −256 °C
            yield text(zone / "type"), celsius / 1000


def _rails(root: Path) -> Iterator[tuple[str, float]]:
    """Voltage times current of every channel of the INA3221 monitors."""
    for sensor in sorted(root.glob("sys/bus/i2c/devices/*")):
        if "ina3221" not in text(sensor / "name"):
            continue
        for label in sorted(sensor.glob("hwmon/hwmon*/in*_label")):
            channel = re.sub(r"\D", "", label.name)
            millivolts, milliamperes = (number(label.with_name(f"{kind}{channel}_input")) for kind in ("in", "curr"))
            if millivolts is not None and milliamperes is not None and text(label) not in ("NC", "sum of shunt voltages"):
                yield text(label), millivolts * milliamperes / 1e6


def total_power(root: Path = ROOT) -> float | None:
    """Watts of the whole module, now; None without monitors."""
    return _total(dict(_rails(root)))


def _total(power: dict[str, float]) -> float | None:
    """The input rail, where there is one."""
    return power.get("VDD_IN", sum(power.values()) if power else None)


def _slowed_by(root: Path) -> Iterator[str]:
    """Cooling devices at work, but for fans: those lower clocks."""
    for device in sorted(root.glob("sys/class/thermal/cooling_device*")):
        kind = text(device / "type")
        if "fan" not in kind.lower() and (number(device / "cur_state") or 0) > 0:
            yield kind


def _kilobytes(meminfo: str, key: str) -> int:
    found = re.search(rf"{key}:\s+(\d+) kB", meminfo)
    return int(found[1]) if found else 0
