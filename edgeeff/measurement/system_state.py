"""What machine this is, what it does while something is timed on it, and what makes that time no measurement. Read, never set."""

from __future__ import annotations

import os
import platform
import re
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from . import jetson as board
from .jetson import ROOT, Board, number, text

OTHERS = 0.15  # cores' worth of foreign work that a measurement stands
SATURATED = 0.85  # of the cores: below that, foreign work has found room beside ours
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass(frozen=True)
class Conditions:
    """One look. `busy` and `stolen` are seconds of our cores since the start, `own` those of this process; clocks are in MHz.

    `board` has a Jetson's own state.
    """

    at: float
    cores: int
    busy: float
    stolen: float
    own: float
    load: float
    clock: float | None = None
    temperature: float | None = None
    power_mode: str = ""
    throttle_events: int = 0
    board: Board | None = field(default=None, compare=False)

    def to_json(self) -> dict[str, Any]:
        facts = asdict(self)
        del facts["at"], facts["busy"], facts["stolen"], facts["own"]
        return {**facts, "board": self.board.to_json() if self.board else None}


def device(root: Path = ROOT) -> dict[str, Any]:
    """What tells one machine from another: processor, cores, and the instructions that decide which precision pays.

    The processor goes by its board's name where it has none of its own.
    """
    first = text(root / "proc/cpuinfo").split("\n\n")[0]
    fields = {key.strip(): value.strip() for key, value in (line.split(":", 1) for line in first.splitlines() if ":" in line)}
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    useful = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm", "bf16")
    arm = f"ARM {fields.get('CPU implementer')}/{fields.get('CPU part')}" if "CPU part" in fields else ""
    return {
        "machine": platform.machine(),
        "cpu": fields.get("model name") or text(root / "proc/device-tree/model") or arm or platform.processor() or "unknown",
        "family": f"{fields.get('cpu family', '')}/{fields.get('model', '')}".strip("/"),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "flags": [f for f in useful if f in flags],
        "os": platform.system(),
    }


def look(root: Path = ROOT) -> Conditions:
    """The machine now: /proc/stat of the cores this process may use, cpufreq, thermal zones; a Jetson's sysfs beside."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    busy = stolen = 0.0
    for core, line in re.findall(r"^cpu(\d+) (.*)$", text(root / "proc/stat"), re.MULTILINE):
        if int(core) in cores:
            user, nice, system, _, _, irq, softirq, steal, *_ = (int(n) / TICKS for n in [*line.split(), *"00000000"])
            busy += user + nice + system + irq + softirq + steal
            stolen += steal
    cpus = [root / f"sys/devices/system/cpu/cpu{core}" for core in sorted(cores)]
    clocks = [n for cpu in cpus if (n := number(cpu / "cpufreq/scaling_cur_freq")) is not None]
    zones = [n / 1000 for zone in root.glob("sys/class/thermal/thermal_zone*/temp") if (n := number(zone)) and n > -100_000]
    return Conditions(
        at=time.monotonic(),
        cores=len(cores),
        busy=busy,
        stolen=stolen,
        own=time.process_time(),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0,
        clock=sum(clocks) / len(clocks) / 1000 if clocks else None,
        temperature=max(zones, default=None),
        power_mode=text(cpus[0] / "cpufreq/scaling_governor"),
        throttle_events=int(sum(number(cpu / "thermal_throttle/core_throttle_count") or 0 for cpu in cpus)),
        board=board.read(root),
    )


def disturbed(before: Conditions, after: Conditions) -> list[str]:
    """What makes the time between two looks no measurement; nothing where it is one."""
    reasons = []
    seconds = after.at - before.at
    stolen = (after.stolen - before.stolen) / seconds
    own = (after.own - before.own) / seconds
    others = (after.busy - before.busy) / seconds - own - stolen
    if others > OTHERS and others + own > SATURATED * after.cores:
        reasons.append(f"other programs used {others:.1f} of {after.cores} cores")
    if stolen > OTHERS:
        reasons.append(f"the hypervisor took away {stolen:.1f} of {after.cores} cores")
    return reasons + throttled(before, after)


def throttled(before: Conditions, after: Conditions) -> list[str]:
    """What held the machine itself down between two looks."""
    reasons = []
    if events := after.throttle_events - before.throttle_events:
        reasons.append(f"the CPU throttled {events} times at {after.temperature or 0:.0f} °C: cool it")
    if after.power_mode != before.power_mode:
        reasons.append(f"the power mode changed from {before.power_mode} to {after.power_mode}")
    if before.board and after.board:
        reasons += board.disturbed(before.board, after.board)
    return reasons


def rapl(root: Path = ROOT) -> float | None:
    """Joules since some start, of all CPU packages; None without that counter, or without the right to read it (root)."""
    counters = [n / 1e6 for f in root.glob("sys/class/powercap/*-rapl:?/energy_uj") if (n := number(f)) is not None]
    return sum(counters) if counters else None
