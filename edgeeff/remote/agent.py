"""The far half of remote.py: one job on this machine, which goes on when the connection does not. Needs the standard library alone.

    there.py start ID         run the job that standard input describes in JSON, detached, unless it runs or has run already
    there.py poll ID E O      its state, and what it wrote to standard error from E on and to standard output from O on
    there.py end ID           ask it to end
    there.py stop ID          kill it if it runs, and remove what it left

Under ~/.cache/edgeeff: `sent` by content, environments in `on`, and `jobs`, a folder each. A job holds a lock on its folder as long
as it lives; without lock and without `rc` it has gone. It kills itself when nobody polls any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

BASE = Path.home() / ".cache/edgeeff"
BOOT = Path("/proc/sys/kernel/random/boot_id")
KEPT_DAYS = {"jobs": 1, "sent": 30, "on": 30}  # a measurement of yesterday is no answer; photos and environments are costly
FULL = ("No space left on device", "Disk quota exceeded", "File too large")
OFFLINE = ("name resolution", "NewConnectionError", "ConnectTimeout", "Network is unreachable", "nodename nor servname")
CHUNK = 1 << 16


class Refusal(Exception):
    """A line for the person at the other end, and the exit code."""


def main(verb: str, name: str, *more: str) -> None:
    folder = BASE / "jobs" / name
    if verb == "start":
        answer = start(folder, json.load(sys.stdin))
    elif verb == "poll":
        answer = poll(folder, *map(int, more))
    elif verb == "end":
        (folder / "end").touch()
        answer = {}
    elif verb == "stop":
        answer = stop(folder)
    else:
        work(folder)
        return
    print(json.dumps(answer))


def start(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """`state` before this call: none, gone, running or done."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = _lock(folder / "lock")
    if lock is None:
        return {"state": "running"}
    with lock:
        if _age(folder / "rc") < KEPT_DAYS["jobs"]:
            return {"state": "done"}
        state = "gone" if (folder / "boot").exists() else "none"
        for left in set(folder.iterdir()) - {folder / "lock"}:
            _remove(left)
        for used in [BASE / "sent" / path.split("/")[0] for path in (job["kit"], *job["send"].values())]:
            os.utime(used)
        _sweep()
        (folder / "job.json").write_text(json.dumps(job))
        (folder / "heartbeat").touch()
        (folder / "boot").write_text(_boot())
        with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
            command = [sys.executable, __file__, "work", folder.name]
            # The lock belongs to the open file, so the job holds it from before this process lets go.
            subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, pass_fds=[lock.fileno()], start_new_session=True
            )
        return {"state": state}


def poll(folder: Path, said: int, written: int) -> dict[str, Any]:
    """`state`: none, gone, running or done; whole lines of standard error and output, and where they end; done: the exit code."""
    if not folder.is_dir():
        return {"state": "none", "lines": [], "said": 0, "output": "", "written": 0, "rebooted": False}
    (folder / "heartbeat").touch()
    lock = _lock(folder / "lock")
    if lock:
        lock.close()
    rc = folder / "rc"
    state = "running" if lock is None else "done" if rc.exists() else "gone"
    lines, output = (_lines(folder / name, at, state == "done") for name, at in (("stderr", said), ("stdout", written)))
    answer: dict[str, Any] = {"state": state, "lines": lines.decode(errors="replace").splitlines(), "said": said + len(lines)}
    answer |= {"output": output.decode(errors="replace"), "written": written + len(output)}
    if state == "done":
        return answer | {"rc": int(rc.read_text())}
    boot = folder / "boot"
    return answer | {"rebooted": boot.exists() and boot.read_text() != _boot()}


def _lines(file: Path, start: int, done: bool) -> bytes:
    """Whole lines from there on, not too many at once; all that is left where it is done."""
    chunk = b""
    with contextlib.suppress(FileNotFoundError), file.open("rb") as stream:
        stream.seek(start)
        chunk = stream.read(None if done else CHUNK)
    return chunk if done else chunk[: chunk.rfind(b"\n") + 1] or (chunk if len(chunk) == CHUNK else b"")


def stop(folder: Path) -> dict[str, Any]:
    """Nothing of the job is left."""
    for _ in range(100):
        lock = _lock(folder / "lock") if folder.is_dir() else None
        if lock or not folder.is_dir():
            if lock:
                _remove(folder)
                lock.close()
            return {"state": "none"}
        with contextlib.suppress(OSError, ValueError):
            os.killpg(int((folder / "pid").read_text()), signal.SIGKILL)
        time.sleep(0.1)
    return {"state": "running"}


def work(folder: Path) -> None:
    """Run the job in this process's own session, and leave its exit code in `rc`."""
    os.chdir(folder)
    Path("pid").write_text(str(os.getpid()))
    job = json.loads(Path("job.json").read_text())
    watch = Heartbeat(job["silence"])
    try:
        code = _verb(job, watch)
    except Refusal as refusal:
        line, code = refusal.args
        print(f"edgeeff: {line}", file=sys.stderr)
    except OSError as error:
        print(f"edgeeff: {error.filename or folder}: {error.strerror}.", file=sys.stderr)
        code = 2
    sys.stderr.flush()
    Path("rc.new").write_text(str(code))
    os.replace("rc.new", "rc")


class Heartbeat:
    """The polls as a running job sees them; by the monotonic clock, as a board without a battery sets the other one forward."""

    def __init__(self, silence: float) -> None:
        self.silence = silence
        self.seen, self.since = 0, time.monotonic()

    def check(self) -> None:
        """Kill this process group when nobody has polled for `silence` seconds, or the job's folder is gone."""
        try:
            seen = Path("heartbeat").stat().st_mtime_ns
        except OSError:
            seen, self.since = self.seen, 0.0
        if seen != self.seen:
            self.seen, self.since = seen, time.monotonic()
        elif time.monotonic() - self.since > self.silence:
            os.killpg(0, signal.SIGKILL)

    def run(self, command: list[str], out: IO[Any], err: IO[Any], cwd: str = ".", end: Path | None = None) -> int:
        """A command's exit code; it dies with the group when the heartbeat stops, and is asked to end once `end` appears."""
        environment = {**os.environ, "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd, env=environment)
        while True:
            try:
                return process.wait(timeout=1)
            except subprocess.TimeoutExpired:
                self.check()
            if end and end.exists():
                end.unlink()
                process.terminate()


def _verb(job: dict[str, Any], watch: Heartbeat) -> int:
    python = _environment(job, watch)
    Path("work").mkdir()
    for name, path in job["send"].items():
        sent, here = BASE / "sent" / path, Path("work") / name
        if name not in job["copy"]:
            here.symlink_to(sent)
        elif sent.is_dir():
            shutil.copytree(sent, here)
        else:
            shutil.copyfile(sent, here)
    command = [str(python), "-m", "edgeeff", *job["arguments"], "--json"]
    if Path("end").exists():
        raise Refusal("ended before it began.", 1)
    code = watch.run(command, sys.stdout, sys.stderr, cwd="work", end=Path("end"))
    if code < 0:
        hint = " Out of memory? `dmesg` there says so." if code == -signal.SIGKILL else ""
        raise Refusal(f"killed by {signal.Signals(-code).name}.{hint}", 1)
    return code


def _environment(job: dict[str, Any], watch: Heartbeat) -> Path:
    """The Python that has edgeeff and its backend, made on first use; it appears whole or not at all."""
    folder: Path = BASE / "on" / job["environment"]
    python = folder / "bin/python"
    while (lock := _lock(folder.with_suffix(".lock"))) is None:  # another job is making it
        watch.check()
        time.sleep(1)
    with lock:
        if not python.exists():
            extra, unfinished = job["extra"], folder.with_suffix(".unfinished")
            print(f"installing edgeeff[{extra}] there; once, it takes some minutes", file=sys.stderr, flush=True)
            _remove(folder)
            _remove(unfinished)
            outside = ["--system-site-packages"] if job["outside"] else []
            _make([sys.executable, "-m", "venv", *outside, str(unfinished)], "make an environment", watch)
            wheel = BASE / "sent" / job["kit"] / job["wheel"]
            pip = [str(unfinished / "bin/python"), "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
            _make([*pip, f"{wheel}[{extra}]"], f"install edgeeff[{extra}]", watch)
            os.replace(unfinished, folder)  # its scripts name the old path, its Python does not mind
        os.utime(folder)
    return python


def _make(command: list[str], what: str, watch: Heartbeat) -> None:
    with Path("make.log").open("w+", errors="replace") as log:
        if watch.run(command, log, log) == 0:
            return
        log.seek(0)
        text = log.read()
    lines = [line for line in text.splitlines() if line.strip()]
    reason = next((line for line in lines if "ERROR" in line), lines[-1] if lines else "no reason given")[:300]
    if any(word in text for word in FULL):
        raise Refusal(f"the disk there is full: cannot {what} ({reason}). Make room in ~/.cache/edgeeff and TMPDIR.", 2)
    if any(word in text for word in OFFLINE):
        raise Refusal(f"cannot {what} there: pip reaches no package index ({reason}). Connect it, or set its pip's index.", 6)
    if "ensurepip" in text or "No module named" in text:
        raise Refusal(f"cannot {what} there ({reason}). Expected venv and pip: sudo apt install python3-venv", 5)
    raise Refusal(f"cannot {what} there: {reason}", 5)


def _lock(path: Path) -> IO[str] | None:
    """The file, locked as long as it is open; None while another process holds it."""
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _sweep() -> None:
    """Remove what has lain unused for long; what is locked is in use."""
    for kind, days in KEPT_DAYS.items():
        for path in (BASE / kind).iterdir():
            if not path.is_dir() or _age(path) < days:
                continue
            if kind == "jobs" and not (lock := _lock(path / "lock")):
                continue
            _remove(path)
            if kind == "jobs" and lock:
                lock.close()


def _age(path: Path) -> float:
    """Days since it was last written; without end where there is none."""
    return (time.time() - path.stat().st_mtime) / 86400 if path.exists() else float("inf")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _boot() -> str:
    return BOOT.read_text().strip() if BOOT.exists() else ""


if __name__ == "__main__":
    main(*sys.argv[1:])
