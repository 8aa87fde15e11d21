"""A verb on another machine, over ssh: what it needs goes there, it runs there detached, and its answer comes back.

    with Host.connect("user@jetson", "tensorrt") as host:
        host.run(["eval", "bundle", "--val", "val"], send={"bundle": Path("my-model"), "val": Path("photos/val")})

Nothing is installed there but an environment in ~/.cache/edgeeff: edgeeff itself, numpy and the backend's runtime; never torch,
onnx or nncf. A job outlives its connection; the same command finds it again. there.py is the half that runs there, ssh.py the wire.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

from . import ssh, there, wheel
from .bench import Costs, Request
from .errors import BadInput, EdgeeffError, ToolMissing, Unreachable
from .progress import SILENT, Progress

BASE = ".cache/edgeeff"
SILENCE = 900.0  # seconds without a poll after which a job there ends itself
MACHINES = ("x86_64", "aarch64", "arm64")  # the backends' wheels are for these
REFUSALS: list[type[EdgeeffError]] = [EdgeeffError, *EdgeeffError.__subclasses__()]
ERRORS = {refusal.exit_code: refusal for refusal in REFUSALS}
LOOK = f"""
cd && mkdir -p {BASE}/sent {BASE}/jobs {BASE}/on || exit 1
echo edgeeff=here
for p in python3 python3.13 python3.12 python3.11 python3.10; do
  [ -n "$seen" ] || seen=$("$p" -V 2>&1) || seen=
  if "$p" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null; then
    echo "python=$(command -v "$p")"
    "$p" -c 'import sys; print("version=%d.%d" % sys.version_info[:2]); print("bits=%d" % (64 if sys.maxsize >> 32 else 32))'
    "$p" -c 'import ensurepip, venv; print("venv=yes")' 2>/dev/null
    break
  fi
done
echo "seen=$seen"
echo "rsync=$(command -v rsync)"
echo "machine=$(uname -m)"
[ -e /etc/nv_tegra_release ] && echo jetson=yes
exit 0
"""


class Host:
    """A machine that has all it takes. `machine` is its architecture."""

    def __init__(self, connection: ssh.Connection, backend: str, facts: Mapping[str, str]) -> None:
        self.connection = connection
        self.name = connection.name
        self.backend = backend
        self.python = facts["python"]
        self.version = facts["version"]
        self.machine = facts["machine"]
        self.jetson = "jetson" in facts

    @classmethod
    def connect(cls, name: str, backend: str, progress: Progress = SILENT, stop: threading.Event | None = None) -> Host:
        """The host `user@machine`, or one of ~/.ssh/config, to run what needs `backend`. Setting `stop` interrupts what it does."""
        connection = ssh.Connection(name, progress, stop)
        try:
            answer = connection.run("sh", LOOK)
            facts = dict(line.split("=", 1) for line in answer.splitlines() if "=" in line)
            if not answer.startswith("edgeeff=here"):
                words = next(iter(answer.splitlines()), "nothing")[:80]
                raise EdgeeffError(f"{name}: answers {words!r}. Its shell's start-up files have to be silent where nobody types.")
            _suits(name, facts)
            return cls(connection, backend, facts)
        except BaseException:
            connection.close()
            raise

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def run(
        self, arguments: Sequence[str], send: Mapping[str, Path] | None = None, bring: Mapping[str, Path] | None = None
    ) -> dict[str, Any]:
        """The JSON of an edgeeff verb that ran there.

        `send` puts files and folders beside the job, where `arguments` find them by name. `bring` names what comes back once the
        verb is done, and free paths here to put it. A verb that refuses does so here too, by the same exception.
        """
        with tempfile.TemporaryDirectory(prefix="edgeeff-") as folder:
            kit = Path(folder)
            built = wheel.build(kit)
            shutil.copy(there.__file__, kit)
            for file in kit.iterdir():
                os.utime(file, (0, 0))  # rsync goes by size and date
            sending = {"": kit, **(send or {})}
            sent = {name: _address(path) for name, path in sending.items()}
            self._upload(sending, sent)
        self._kit = sent.pop("")
        job = {
            "kit": self._kit,
            "wheel": built.name,
            "extra": self.backend,
            "outside": self.jetson,  # JetPack's TensorRT lies outside
            "environment": _hash(self._kit, self.backend, self.version, self.jetson),
            "arguments": list(arguments),
            "send": {name: f"{sent[name]}/{path.name}" if path.is_file() else sent[name] for name, path in (send or {}).items()},
            "copy": sorted(bring or {}),
            "silence": SILENCE,
        }
        name = _hash(job)
        try:
            answer = self._finished(name, job)
            result = self._results(name, answer["stdout"], bring or {}) if answer["rc"] == 0 else {}
        except KeyboardInterrupt:
            self._abandon(name)
            raise
        except Unreachable:
            raise  # what runs there goes on
        except EdgeeffError:
            self._forget(name)
            raise
        self._forget(name)
        if answer["rc"]:
            raise self._refusal(answer)
        return result

    def facts(self, runtime: str) -> dict[str, Any]:
        return self.run(["measure", runtime])

    def runs(self, runtime: str) -> bool:
        return runtime == self.backend

    def costs(self, request: Request, progress: Progress = SILENT) -> Costs:
        """As `bench.HERE.costs`, there: the request and its files go, figures come back."""
        with tempfile.TemporaryDirectory(prefix="edgeeff-") as folder:
            request.write(Path(folder))
            return Costs.from_json(self.run(["measure", self.backend, "request"], {"request": Path(folder)}))

    def _upload(self, sending: Mapping[str, Path], sent: Mapping[str, str]) -> None:
        """Send what is not there, where there is room for it."""
        du = "; ".join(f"du -sk sent/{address} 2>/dev/null || echo 0" for address in sent.values())
        lines = self.connection.run("sh", f"cd {BASE} && df -Pk . | tail -n 1 && {{ {du}; }}").splitlines()
        free = int(lines[0].split()[3]) * 1024
        missing = {}
        for (name, path), line in zip(sending.items(), lines[1:], strict=True):
            missing[name] = max(0, sum(p.stat().st_size for p in _files(path)) - int(line.split()[0]) * 1024)
        if sum(missing.values()) > free:
            raise BadInput(
                f"{self.name}: the disk there is full: {sum(missing.values()) / 1e6:.0f} MB to send, {free / 1e6:.0f} MB free. "
                f"Make room in ~/{BASE}. {ssh.SAME}"
            )
        for name, path in sending.items():
            if name and missing[name]:
                self.connection.progress.say(f"{self.name}: sending {path}, {missing[name] / 1e6:.1f} MB")
            self.connection.send(path, f"{BASE}/sent/{sent[name]}")

    def _finished(self, name: str, job: dict[str, Any]) -> dict[str, Any]:
        """The last poll of the job, which is started unless it runs or has run; once more if it got lost."""
        say = self.connection.progress.say
        found = self._there("start", name, text=json.dumps(job))["state"]
        if found in ("running", "done"):
            say(f"{self.name}: an earlier call's job is {'still running' if found == 'running' else 'done'}; going on with it.")
        elif found == "gone":
            say(f"{self.name}: an earlier call's job ended before its time; starting it again.")
        offset, pause, lost, last = 0, 0.1, False, ""
        while True:
            answer = self._there("poll", name, str(offset))
            offset = answer["offset"]
            for line in filter(str.strip, answer["lines"]):
                last = line
                if not line.startswith("edgeeff: "):  # what it ends with is raised, not said
                    say(f"{self.name}: {line}")
            if answer["state"] == "done":
                return answer | {"last": last}
            if answer["state"] != "running":
                what = "it restarted" if answer.get("rebooted") else "the job's process vanished"
                if lost:
                    self._there("stop", name)
                    remedy = "Is its power supply strong enough?" if answer.get("rebooted") else "Is its memory or disk full?"
                    raise (Unreachable if answer.get("rebooted") else EdgeeffError)(
                        f"{self.name}: {what} during the job, twice. {remedy}"
                    )
                say(f"{self.name}: {what} during the job; starting it again.")
                self._there("start", name, text=json.dumps(job))
                offset, lost = 0, True
            self.connection.pause(pause)
            pause = min(1.5 * pause, 2.0)

    def _results(self, name: str, stdout: str, bring: Mapping[str, Path]) -> dict[str, Any]:
        result = self._json(stdout)
        for remote_name, path in bring.items():
            with tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=".edgeeff-") as landing:
                self.connection.fetch(f"{BASE}/jobs/{name}/work/{remote_name}", Path(landing))
                os.replace(Path(landing) / remote_name, path)
        return result

    def _json(self, text: str) -> dict[str, Any]:
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise EdgeeffError(f"{self.name}: its answer is not the JSON expected: {text[:80]!r}. Please report it.")
        return answer

    def _refusal(self, answer: dict[str, Any]) -> EdgeeffError:
        line = answer["last"].removeprefix("edgeeff: ") or f"ended with {answer['rc']} and without a word"
        return ERRORS.get(answer["rc"], EdgeeffError)(f"{self.name}: {line}")

    def _forget(self, name: str) -> None:
        """Remove the job's folder; that it cannot be reached for this is no reason to lose the result."""
        try:
            self._there("stop", name)
        except Unreachable as error:
            self.connection.progress.say(f"{error} Its answer is here; the job's folder is still there.")

    def _abandon(self, name: str) -> None:
        """Kill the job after Ctrl-C, or say that it kills itself."""
        self.connection.stop = threading.Event()
        self.connection.met = False  # one attempt
        try:
            self._there("stop", name)
        except EdgeeffError:
            say = self.connection.progress.say
            say(f"{self.name}: cannot be reached to stop the job; it stops by itself within {SILENCE / 60:.0f} minutes.")

    def _there(self, *arguments: str, text: str = "") -> dict[str, Any]:
        script = f"{BASE}/sent/{self._kit}/{Path(there.__file__).name}"
        return self._json(self.connection.run(shlex.join([self.python, script, *arguments]), text))


def fleet(
    names: Sequence[str], backend: str, work: Callable[[Host], dict[str, Any]], progress: Progress = SILENT
) -> list[dict[str, Any]]:
    """What `work` gives for each host, all at once: its answer, or `error` and `exit_code`."""
    names = list(dict.fromkeys(names))
    ssh.check(names)
    stop = threading.Event()

    def one(name: str) -> dict[str, Any]:
        try:
            with Host.connect(name, backend, progress, stop) as host:
                return {"host": name, **work(host)}
        except EdgeeffError as error:
            return {"host": name, "error": str(error).removeprefix(f"{name}: "), "exit_code": error.exit_code}

    with ThreadPoolExecutor(len(names)) as pool:
        futures = [pool.submit(one, name) for name in names]
        try:
            return [future.result() for future in futures]
        except BaseException:
            stop.set()
            raise


def failure(answers: Sequence[Mapping[str, Any]]) -> EdgeeffError | None:
    """What a command ends with after a fleet: the first failure, or None."""
    failed = [a for a in answers if "error" in a]
    if not failed:
        return None
    line = f"{failed[0]['host']}: {failed[0]['error']}"
    if len(answers) > 1:
        line = f"{len(failed)} of {len(answers)} hosts failed. {line}"
    return ERRORS[failed[0]["exit_code"]](line)


def _suits(name: str, facts: Mapping[str, str]) -> None:
    if "python" not in facts:
        found = f"found {facts['seen']}" if facts.get("seen", "").startswith("Python") else "found none"
        raise ToolMissing(f"{name}: expected python3 from 3.10 to 3.13 there, {found}.")
    if facts["machine"] not in MACHINES or facts["bits"] != "64":
        raise BadInput(
            f"{name}: is {facts['machine']} with a {facts['bits']}-bit Python. Expected 64-bit {' or '.join(MACHINES[:2])}."
        )
    if "venv" not in facts:
        raise ToolMissing(f"{name}: {facts['python']} there has no venv and pip: sudo apt install python3-venv")
    if not facts["rsync"]:
        raise ToolMissing(f"{name}: rsync is not installed there: sudo apt install rsync")


def _hash(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:20]


def _address(path: Path) -> str:
    """The name a file or folder has there: a digest of its contents and the names in it."""
    facts = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in _files(path)]
    with _HASHING:  # a fleet's threads ask for the same one
        return _digest(str(path.parent if path.is_file() else path), tuple(facts))


def _files(path: Path) -> list[Path]:
    """The file, or all in a folder, through links as rsync goes."""
    if path.is_file():
        return [path]
    found = (Path(folder) / name for folder, _, names in os.walk(path, followlinks=True) for name in names)
    return sorted(p for p in found if p.is_file())


_HASHING = threading.Lock()


@lru_cache(maxsize=64)
def _digest(root: str, facts: tuple[tuple[str, int, int], ...]) -> str:
    return _hash([(os.path.relpath(file, root), hashlib.sha256(Path(file).read_bytes()).hexdigest()) for file, _, _ in facts])
