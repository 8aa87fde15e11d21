"""A V4L2 camera that every machine has: Linux' virtual one (the driver vivid), in a virtual machine that sees this one's files.

Called by run.py. Debian packages: qemu-system-x86, busybox-static, cpio, kmod, v4l-utils; the kernel is Debian's too, downloaded
and not installed. The processor is emulated, so nothing here says how fast a camera is: it is about what happens to its frames.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay", "vivid")
DRIVER = Path("/sys/bus/platform/drivers/vivid")
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
while read module; do
  case $module in vivid.ko) insmod /modules/$module n_devs=1 node_types=0x1;; *) insmod /modules/$module;; esac
done < /modules/order
mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=512000,cache=loose host /host
mount -t tmpfs tmpfs /changes; mkdir /changes/files /changes/work
mount -t overlay -o lowerdir=/host,upperdir=/changes/files,workdir=/changes/work overlay /root
for place in dev proc sys; do mount --bind /$place /root/$place; done
ip link set lo up
chroot /root /usr/bin/env PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin {command}
poweroff -f
"""


def run(bundle: Path, minutes: float = 15) -> dict[str, Any]:
    """What the guest made of its camera."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        kernel, ramdisk = _kernel(folder, f"{sys.executable} {Path(__file__).resolve()} {bundle.resolve()}")
        machine = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "6G"]
        disk = "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"
        boot = ["-kernel", kernel, "-initrd", ramdisk, "-append", "console=ttyS0 quiet panic=-1"]
        rest = ["-net", "none", "-nographic", "-no-reboot", "-virtfs", disk]
        command = list(map(str, [*machine, *boot, *rest]))
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60 * minutes)
    answers = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not answers:
        raise SystemExit(f"the virtual machine gave no result:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return dict(json.loads(answers[0]))


def _kernel(folder: Path, command: str) -> tuple[Path, Path]:
    """Debian's kernel, and a RAM disk with the modules and what to do."""
    depends = subprocess.run(["apt-cache", "depends", "linux-image-amd64"], capture_output=True, text=True, check=True).stdout
    package = depends.split("Depends:")[1].split()[0]
    subprocess.run(["apt-get", "download", "-q", package], cwd=folder, check=True, capture_output=True)
    subprocess.run(["dpkg-deb", "-x", next(folder.glob("*.deb")), folder / "kernel"], check=True)
    version = package.removeprefix("linux-image-")
    subprocess.run(["depmod", "-b", folder / "kernel", version], check=True)
    disk = folder / "disk"
    for place in ("bin", "modules", "proc", "sys", "dev", "host", "changes", "root"):
        (disk / place).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "/bin/busybox", disk / "bin")
    order: list[str] = []
    for module in MODULES:
        ask = ["modprobe", "-d", folder / "kernel", "-S", version, "--show-depends", module]
        for line in subprocess.run(ask, capture_output=True, text=True, check=True).stdout.splitlines():
            verb, path, *_ = line.split()
            if verb == "insmod" and Path(path).name not in order:
                shutil.copy(path, disk / "modules")
                order.append(Path(path).name)
    (disk / "modules/order").write_text("\n".join(order) + "\n")
    (disk / "init").write_text(INIT.format(command=command))
    (disk / "init").chmod(0o755)
    names = "\n".join(str(path.relative_to(disk)) for path in sorted(disk.rglob("*")))
    pack = ["cpio", "-o", "-H", "newc", "--quiet"]
    (folder / "disk.cpio").write_bytes(subprocess.run(pack, cwd=disk, input=names.encode(), capture_output=True, check=True).stdout)
    return folder / f"kernel/boot/vmlinuz-{version}", folder / "disk.cpio"


def camera(bundle: Path, *options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "edgeeff", "camera", bundle, "--source", "/dev/video0", "--json", *options]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "XDG_CACHE_HOME": "/run/cache"}
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def ended(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The exit code, what was said, and what is worth knowing of the summary."""
    out, err = process.communicate()
    *labels, last = map(json.loads, out.splitlines()) if out else ({},)
    found: dict[str, Any] = {"exit_code": process.returncode, "said": err.splitlines()}
    if row := last.get("summary", {}).get("sources", [{}])[0]:
        found |= {name: row[name] for name in ("frames", "labels", "dropped", "outages")}
        found |= {"waiting_ms": row["parts_ms"]["waiting for the model"]["p50"]}
    if labels:
        found["top"] = labels[-1]["top"][0]
    return found


@contextlib.contextmanager
def taken() -> Iterator[None]:
    """By another program."""
    stream = ["v4l2-ctl", "--stream-mmap=3", "--stream-to=/dev/null"]
    other = subprocess.Popen(stream, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(3)
    try:
        yield
    finally:
        other.kill()
        other.wait()


def unplugged(process: subprocess.Popen[str]) -> None:
    """After half a minute, for twenty seconds."""
    time.sleep(30)
    (DRIVER / "unbind").write_text("vivid.0")
    time.sleep(20)
    (DRIVER / "bind").write_text("vivid.0")


def guest(bundle: Path) -> dict[str, Any]:
    results = {
        "640×360": ended(camera(bundle, "--seconds", 25)),
        "1280×720": ended(camera(bundle, "--seconds", 25, "--size", "1280x720")),
        "1001×333, which it lacks": ended(camera(bundle, "--seconds", 25, "--size", "1001x333")),
        "NV12": ended(camera(bundle, "--seconds", 25, "--nv12")),
    }
    with taken():
        results["taken by another program"] = ended(camera(bundle, "--seconds", 10))
    process = camera(bundle, "--seconds", 70)
    unplugged(process)
    results["unplugged for 20 s"] = ended(process)
    return results


if __name__ == "__main__":
    print("\nRESULT " + json.dumps(guest(Path(sys.argv[1]))))
