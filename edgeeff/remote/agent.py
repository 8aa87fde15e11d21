"""The part of a remote run that runs on the device: one job at a time, which survives the loss of the ssh connection.

    agent.py start ID         run the job that standard input describes in JSON, detached, unless it runs or has run already
    agent.py poll ID E O      its state, and what it wrote to standard error after byte E and to standard output after byte O
    agent.py end ID           ask the job to end
    agent.py stop ID          kill the job if it runs, and remove its files

It needs the standard library alone. Under ~/.cache/edgeeff lie `sent`, files by the hash of their contents, `on`, virtual
environments, and `jobs`, a folder each. A job holds a lock on a file in its folder for as long as it lives; where nothing holds the
lock and no file `rc` with an exit code exists, the job has died. A job that is not polled for some minutes kills itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Literal, TypedDict

BASE = Path.home() / ".cache/edgeeff"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
KEPT_DAYS = {"jobs": 1, "sent": 30, "on": 30}  # results become out of date; photos and environments are expensive to send again
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_SPACE_MESSAGES = ("No space left on device", "Disk quota exceeded", "File too large")
OFFLINE_MESSAGES = ("name resolution", "NewConnectionError", "ConnectTimeout", "Network is unreachable", "nodename nor servname")
CHUNK = 1 << 16  # bytes of output that one poll returns while the job runs


class Job(TypedDict):
    """What `start` reads: the verb to run, and what it needs."""

    kit: str  # the folder in `sent` that holds the wheel and this script
    wheel: str
    extra: str  # of edgeeff, to install with the wheel
    outside: bool  # whether the environment sees the system's site-packages
    environment: str  # the environment's name in `on`
    arguments: list[str]  # of edgeeff
    send: dict[str, str]  # name in the working folder → path in `sent`
    copy: list[str]  # those names that the verb changes, so that they are copied, not linked
    silence: float  # seconds without a poll after which the job kills itself


State = Literal["none", "gone", "running", "done"]
"""Of a job: unknown, died before its end, running, or ended with an exit code."""


class StateAnswer(TypedDict):
    """What `start` answers, the state before the call, and `stop`, the state after it."""

    state: State


class PollAnswer(TypedDict, total=False):
    """What `poll` answers: whole lines, and the byte offsets after them. `rc` is there once the state is done."""

    state: State
    lines: list[str]  # of standard error
    said: int  # the offset in standard error
    output: str
    written: int  # the offset in standard output
    rc: int
    rebooted: bool  # whether the machine has restarted since the job started


class Refusal(Exception):
    """A line for the user and the exit code."""

    def __init__(self, line: str, code: int) -> None:
        super().__init__(line)
        self.code = code


def main(verb: str, job: str, *offsets: str) -> None:
    folder = BASE / "jobs" / job
    answer: StateAnswer | PollAnswer | None = None
    if verb == "start":
        answer = start(folder, json.load(sys.stdin))
    elif verb == "poll":
        answer = poll(folder, *map(int, offsets))
    elif verb == "end":
        (folder / "end").touch()
    elif verb == "stop":
        answer = stop(folder)
    else:
        work(folder)
        return
    print(json.dumps(answer or {}))


def start(folder: Path, job: Job) -> StateAnswer:
    """Start the job detached, unless it is running or done."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = _lock(folder / "lock")
    if lock is None:
        return {"state": "running"}
    with lock:
        if _age(folder / "rc") < KEPT_DAYS["jobs"]:
            return {"state": "done"}
        state: State = "gone" if (folder / "boot").exists() else "none"
        for remnant in set(folder.iterdir()) - {folder / "lock"}:
            _remove(remnant)
        for used in [BASE / "sent" / path.split("/")[0] for path in (job["kit"], *job["send"].values())]:
            os.utime(used)
        _remove_old()
        (folder / "job.json").write_text(json.dumps(job))
        (folder / "heartbeat").touch()
        (folder / "boot").write_text(_boot_id())
        with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
            command = [sys.executable, __file__, "work", folder.name]
            # The lock belongs to the open file, which the job inherits: it is held before this process lets go of it.
            subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, pass_fds=[lock.fileno()], start_new_session=True
            )
        return {"state": state}


def poll(folder: Path, said: int, written: int) -> PollAnswer:
    """The job's state, and its output after the two byte offsets. Each poll also keeps the job alive."""
    if not folder.is_dir():
        return {"state": "none", "lines": [], "said": 0, "output": "", "written": 0, "rebooted": False}
    (folder / "heartbeat").touch()
    lock = _lock(folder / "lock")
    if lock:
        lock.close()
    rc, boot = folder / "rc", folder / "boot"
    state: State = "running" if lock is None else "done" if rc.exists() else "gone"
    lines = _read_lines(folder / "stderr", said, state == "done")
    output = _read_lines(folder / "stdout", written, state == "done")
    answer: PollAnswer = {
        "state": state,
        "lines": lines.decode(errors="replace").splitlines(),
        "said": said + len(lines),
        "output": output.decode(errors="replace"),
        "written": written + len(output),
    }
    if state == "done":
        answer["rc"] = int(rc.read_text())
    else:
        answer["rebooted"] = boot.exists() and boot.read_text() != _boot_id()
    return answer


def _read_lines(file: Path, start: int, done: bool) -> bytes:
    """Whole lines from byte `start` on, at most CHUNK bytes; everything that is left once the job is done."""
    chunk = b""
    with contextlib.suppress(FileNotFoundError), file.open("rb") as stream:
        stream.seek(start)
        chunk = stream.read(None if done else CHUNK)
    return chunk if done else chunk[: chunk.rfind(b"\n") + 1] or (chunk if len(chunk) == CHUNK else b"")


def stop(folder: Path) -> StateAnswer:
    """Kill the job and remove its folder; the state is still `running` where it does not die within 10 seconds."""
    for _ in range(100):
        lock = _lock(folder / "lock") if folder.is_dir() else None
        if lock or not folder.is_dir():
            if lock:
                (folder / "rc").unlink(missing_ok=True)  # first: a job whose removal is cut off must not be taken for a done one
                _remove(folder)
                lock.close()
            return {"state": "none"}
        with contextlib.suppress(OSError, ValueError):
            os.killpg(int((folder / "pid").read_text()), signal.SIGKILL)
        time.sleep(0.1)
    return {"state": "running"}


def work(folder: Path) -> None:
    """Run the job in this process's own session, and leave its exit code in the file `rc`."""
    os.chdir(folder)
    Path("pid").write_text(str(os.getpid()))
    job: Job = json.loads(Path("job.json").read_text())
    try:
        code = _run_verb(job, Heartbeat(job["silence"]))
    except Exception as error:
        refusal = _refusal(error)
        print(f"edgeeff: {refusal}", file=sys.stderr)
        code = refusal.code
    sys.stderr.flush()
    Path("rc.new").write_text(str(code))
    os.replace("rc.new", "rc")


def _refusal(error: Exception) -> Refusal:
    if isinstance(error, Refusal):
        return error
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        where = error.filename or Path.cwd()
        return Refusal(f"the disk there is full: {where}: {error.strerror}. Make room in ~/.cache/edgeeff.", 2)
    return Refusal(f"internal error in the agent: {type(error).__name__}: {' '.join(str(error).split())}. Please report it.", 1)


class Heartbeat:
    """When the job was last polled, by the monotonic clock: a board without a battery sets the other one forward after boot."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.seen, self.since = 0, time.monotonic()

    def check(self) -> None:
        """Kill this process group where nobody has polled for `timeout` seconds, or the job's folder is gone."""
        try:
            seen = Path("heartbeat").stat().st_mtime_ns
        except OSError:
            seen, self.since = self.seen, 0.0
        if seen != self.seen:
            self.seen, self.since = seen, time.monotonic()
        elif time.monotonic() - self.since > self.timeout:
            os.killpg(0, signal.SIGKILL)

    def run(self, command: list[str], out: IO[str], err: IO[str], cwd: str = ".", end: Path | None = None) -> int:
        """A command's exit code. It dies with this process, and gets SIGTERM once the file `end` appears."""
        environment = {**os.environ, "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd, env=environment, preexec_fn=_die_with_parent
        )
        while True:
            try:
                return process.wait(timeout=1)
            except subprocess.TimeoutExpired:
                self.check()
            if end and end.exists():
                end.unlink()
                process.terminate()


def _die_with_parent() -> None:
    """Called in a new process: it is killed when its parent ends, however that ends. https://man7.org/linux/man-pages/man2/prctl.2.html"""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _run_verb(job: Job, heartbeat: Heartbeat) -> int:
    """Put the sent files where the verb finds them by name, run it, and return its exit code."""
    python = _environment(job, heartbeat)
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
    code = heartbeat.run(command, sys.stdout, sys.stderr, cwd="work", end=Path("end"))
    if code < 0:
        hint = " Out of memory? `dmesg` there says so." if code == -signal.SIGKILL else ""
        raise Refusal(f"killed by {signal.Signals(-code).name}.{hint}", 1)
    return code


def _environment(job: Job, heartbeat: Heartbeat) -> Path:
    """The Python of the virtual environment that has edgeeff and its backend; made on first use, and never seen half made."""
    folder: Path = BASE / "on" / job["environment"]
    python = folder / "bin/python"
    while (lock := _lock(folder.with_suffix(".lock"))) is None:  # another job is making it
        heartbeat.check()
        time.sleep(1)
    with lock:
        if not python.exists():
            extra, unfinished = job["extra"], folder.with_suffix(".unfinished")
            print(f"installing edgeeff[{extra}] there; this takes some minutes, once", file=sys.stderr, flush=True)
            _remove(folder)
            _remove(unfinished)
            # JetPack's OpenCV, outside, is built for NumPy 1.
            outside, beside = (["--system-site-packages"], ["numpy<2"]) if job["outside"] else ([], [])
            venv = [sys.executable, "-m", "venv", *outside, str(unfinished)]
            _install(venv, "create a virtual environment", heartbeat)
            wheel = BASE / "sent" / job["kit"] / job["wheel"]
            pip = [str(unfinished / "bin/python"), "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
            _install([*pip, f"{wheel}[{extra}]", *beside], f"install edgeeff[{extra}]", heartbeat)
            os.replace(unfinished, folder)  # its scripts contain the old path; its Python works from any path
        os.utime(folder)
    return python


def _install(command: list[str], what: str, heartbeat: Heartbeat) -> None:
    """Run a step of the installation; raises Refusal with the reason that venv or pip gives."""
    with Path("make.log").open("w+", errors="replace") as log:
        if heartbeat.run(command, log, log) == 0:
            return
        log.seek(0)
        text = log.read()
    lines = [line for line in text.splitlines() if line.strip()]
    reason = next((line for line in lines if "ERROR" in line), lines[-1] if lines else "no reason given")[:300]
    if any(message in text for message in NO_SPACE_MESSAGES):
        raise Refusal(f"the disk there is full: cannot {what} ({reason}). Make room in ~/.cache/edgeeff and TMPDIR.", 2)
    if any(message in text for message in OFFLINE_MESSAGES):
        raise Refusal(f"cannot {what} there: pip reaches no package index ({reason}). Connect it, or configure its pip's index.", 6)
    if "ensurepip" in text or "No module named" in text:
        raise Refusal(f"cannot {what} there ({reason}). Expected venv and pip: sudo apt install python3-venv", 5)
    raise Refusal(f"cannot {what} there: {reason}", 5)


def _lock(path: Path) -> IO[str] | None:
    """The file, locked for as long as it is open; None while another process holds the lock."""
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _remove_old() -> None:
    """Remove what has not been used for KEPT_DAYS, except jobs that are locked and so in use."""
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
    """Days since the path was last written; infinite where it does not exist."""
    return (time.time() - path.stat().st_mtime) / 86400 if path.exists() else float("inf")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _boot_id() -> str:
    return BOOT_ID.read_text().strip() if BOOT_ID.exists() else ""


if __name__ == "__main__":
    main(*sys.argv[1:])
