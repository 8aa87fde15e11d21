"""What machine this is, its state while something is measured, and what makes a measurement unreliable. Read, never set."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..sysfs import ROOT, number, text
from . import jetson
from .jetson import JetsonState

OTHERS = 0.15  # cores' worth of work of other programs, or of a hypervisor, that a measurement tolerates
WAITED = 0.1  # of its processor time, for which a measurement's threads may wait for a core; on two idle cores, two runtimes do
SATURATED = 0.85  # of the cores, where it is not known how long: below that, other programs have found room beside this one
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
USEFUL_FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm", "bf16")


@dataclass(frozen=True)
class Device:
    """What tells one machine from another: processor, cores, and the instructions that decide which precision pays.

    `hosts` has those of several machines that were measured as one.
    """

    machine: str
    cpu: str
    family: str
    cores: int
    flags: tuple[str, ...]
    os: str
    hosts: Mapping[str, Device] = field(default_factory=dict)

    def same_kind(self, other: Device) -> bool:
        """Whether latencies of both can be compared. How many cores a process may use is a setting, and not asked."""
        return all(getattr(self, name) == getattr(other, name) for name in ("machine", "cpu", "family", "flags", "os"))

    @property
    def int8_overflows(self) -> bool:
        """Whether INT8 kernels add products in 16 bits, which overflow: on x86 without VNNI and AMX, here or on one of the hosts.

        NNCF calls it the saturation issue: https://docs.openvino.ai, "overflow_fix" of its quantization parameters.
        """
        wide = {"avx_vnni", "avx512_vnni", "amx_int8"} & set(self.flags)
        return ("avx2" in self.flags and not wide) or any(host.int8_overflows for host in self.hosts.values())


@dataclass(frozen=True)
class SystemState:
    """Clocks are in MHz, temperatures in °C; `power_mode` is the CPU's frequency governor. `board` has a Jetson's own state."""

    cores: int
    load: float
    clock: float | None = None
    temperature: float | None = None
    power_mode: str = ""
    throttle_events: int = 0
    board: JetsonState | None = None


@dataclass(frozen=True)
class Snapshot:
    """The state at one moment, and counters that two snapshots compare.

    `busy` and `stolen` are seconds of the cores that this process may use, `own` those that it used itself, and `waited` those in
    which each of its threads was ready to run, and another one had the core; it is empty where the kernel does not tell.
    """

    at: float
    busy: float
    stolen: float
    own: float
    state: SystemState
    waited: Mapping[str, float] = field(default_factory=dict)


def device(root: Path = ROOT) -> Device:
    """This machine. A processor without a name goes by its board's."""
    first = text(root / "proc/cpuinfo").split("\n\n")[0]
    facts = {key.strip(): value.strip() for key, value in (line.split(":", 1) for line in first.splitlines() if ":" in line)}
    flags = set(facts.get("flags", facts.get("Features", "")).split())
    arm = f"ARM {facts.get('CPU implementer')}/{facts.get('CPU part')}" if "CPU part" in facts else ""
    return Device(
        machine=platform.machine(),
        cpu=facts.get("model name") or text(root / "proc/device-tree/model") or arm or platform.processor() or "unknown",
        family=f"{facts.get('cpu family', '')}/{facts.get('model', '')}".strip("/"),
        cores=len(_cores()),
        flags=tuple(f for f in USEFUL_FLAGS if f in flags),
        os=platform.system(),
    )


def snapshot(root: Path = ROOT) -> Snapshot:
    """The machine now: /proc/stat of the cores this process may use, cpufreq, thermal zones, and a Jetson's sysfs."""
    cores = _cores()
    busy = stolen = 0.0
    for core, line in re.findall(r"^cpu(\d+) (.*)$", text(root / "proc/stat"), re.MULTILINE):
        if int(core) in cores:
            user, nice, system, _, _, irq, softirq, steal, *_ = (int(n) / TICKS for n in [*line.split(), *"00000000"])
            busy += user + nice + system + irq + softirq + steal
            stolen += steal
    cpus = [root / f"sys/devices/system/cpu/cpu{core}" for core in sorted(cores)]
    clocks = [n for cpu in cpus if (n := number(cpu / "cpufreq/scaling_cur_freq")) is not None]
    zones = [n / 1000 for zone in root.glob("sys/class/thermal/thermal_zone*/temp") if (n := number(zone)) and n > -100_000]
    state = SystemState(
        cores=len(cores),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0,
        clock=sum(clocks) / len(clocks) / 1000 if clocks else None,
        temperature=max(zones, default=None),
        power_mode=text(cpus[0] / "cpufreq/scaling_governor"),
        throttle_events=int(sum(number(cpu / "thermal_throttle/core_throttle_count") or 0 for cpu in cpus)),
        board=jetson.read(root),
    )
    waited = {}
    for thread in root.glob("proc/self/task/*/schedstat"):  # nanoseconds running, nanoseconds waiting, time slices
        if len(times := text(thread).split()) == 3:  # and not a thread that has just ended
            waited[thread.parent.name] = int(times[1]) / 1e9
    return Snapshot(time.monotonic(), busy, stolen, time.process_time(), state, waited)


def noise_reasons(before: Snapshot, after: Snapshot) -> list[str]:
    """Why latencies measured between two snapshots cannot be relied on; empty where they can."""
    reasons = []
    seconds, cores = after.at - before.at, after.state.cores
    stolen = (after.stolen - before.stolen) / seconds
    own = (after.own - before.own) / seconds
    others = (after.busy - before.busy) / seconds - own - stolen
    waited = sum(waited - before.waited.get(thread, 0.0) for thread, waited in after.waited.items()) / seconds
    held_up = waited > WAITED * own if after.waited else others + own > SATURATED * cores
    if others > OTHERS and held_up:
        reasons.append(f"other programs used {others:.1f} of {cores} cores")
    if stolen > OTHERS:
        reasons.append(f"the hypervisor took away {stolen:.1f} of {cores} cores")
    return reasons + throttling_reasons(before.state, after.state)


def throttling_reasons(before: SystemState, after: SystemState) -> list[str]:
    """What lowered the machine's own clocks between two states."""
    reasons = []
    if events := after.throttle_events - before.throttle_events:
        reasons.append(f"the CPU throttled {events} times at {after.temperature or 0:.0f} °C: cool it")
    if after.power_mode != before.power_mode:
        reasons.append(f"the power mode changed from {before.power_mode} to {after.power_mode}")
    if before.board and after.board:
        reasons += jetson.noise_reasons(before.board, after.board)
    return reasons


def rapl(root: Path = ROOT) -> float | None:
    """Joules counted by RAPL, of all CPU packages; None without that counter, or without the right to read it (root)."""
    counters = [n / 1e6 for f in root.glob("sys/class/powercap/*-rapl:?/energy_uj") if (n := number(f)) is not None]
    return sum(counters) if counters else None


def _cores() -> set[int]:
    """The cores that this process may use."""
    return set(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
