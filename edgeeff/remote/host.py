"""A verb on another host, over ssh: its files are sent there, it runs there detached, and its result comes back.

    with Host.connect("user@jetson", "tensorrt") as host:
        host.run(["eval", "bundle", "--val", "val"], send={"bundle": Path("my-model"), "val": Path("photos/val")})

Nothing is installed there but a virtual environment in ~/.cache/edgeeff with edgeeff, numpy and the backend's runtime; never torch,
onnx or nncf. A job survives the loss of its connection, and the same command finds it again. agent.py is the part that runs there,
ssh.py the transport.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ..errors import BadInput, EdgeeffError, ToolMissing, Unreachable, error_for
from ..files import temporary_folder, user_path, working_folder
from ..machine import MachineFacts
from ..measurement.benchmark import BenchmarkRequest, BenchmarkResult, Metrics
from ..measurement.system_state import SystemState
from ..progress import SILENT, Progress, debugging
from ..records import from_json, parse_json
from . import agent, ssh, wheel

T = TypeVar("T")
Json = dict[str, Any]  # what a verb prints with --json

BASE = ".cache/edgeeff"
POLL_TIMEOUT = 900.0  # seconds without a poll after which a job on the host kills itself
MAX_LINE = 1000  # characters of one that a host reports
MAX_DEPTH = 50  # of a host's JSON
MACHINES = ("x86_64", "aarch64", "arm64")  # the backends' wheels exist for these
PROBE_SCRIPT = f"""
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


@dataclass(frozen=True)
class LiveOutput:
    """For a verb that runs until it is asked to end.

    `hear` gets each JSON object that the verb prints, and returns whether it was a report, rather than the verb's result. Setting
    `ending` asks the verb to end, and to print its result.
    """

    hear: Callable[[Json], bool]
    ending: threading.Event


@dataclass(frozen=True)
class Probe:
    """What PROBE_SCRIPT finds on a host: the path of a usable Python, its version, the architecture, and whether it is a Jetson."""

    python: str
    version: str
    machine: str
    jetson: bool

    @classmethod
    def parse(cls, name: str, answer: str) -> Probe:
        """Raises what the host `name` lacks: BadInput, ToolMissing, or EdgeeffError where its shell prints other text."""
        if not answer.startswith("edgeeff=here"):
            text = next(iter(answer.splitlines()), "nothing")[:80]
            raise EdgeeffError(
                f"{name}: answers {text!r}. Its shell's start-up files must print nothing in a non-interactive shell."
            )
        facts = dict(line[:300].split("=", 1) for line in answer.splitlines() if "=" in line)
        if "python" not in facts and "seen" in facts:
            found = f"found {facts['seen']}" if facts["seen"].startswith("Python") else "found none"
            raise ToolMissing(f"{name}: expected python3 from 3.10 to 3.13 there, {found}.")
        if missing := {"python", "version", "bits", "machine", "rsync"} - set(facts):
            raise EdgeeffError(f"{name}: its answer is cut off: it says nothing of {', '.join(sorted(missing))}. Try again.")
        if facts["machine"] not in MACHINES or facts["bits"] != "64":
            raise BadInput(
                f"{name}: is {facts['machine']} with a {facts['bits']}-bit Python. Expected 64-bit {' or '.join(MACHINES[:2])}."
            )
        if "venv" not in facts:
            raise ToolMissing(f"{name}: {facts['python']} there has no venv and pip: sudo apt install python3-venv")
        if not facts["rsync"]:
            raise ToolMissing(f"{name}: rsync is not installed there: sudo apt install rsync")
        return cls(facts["python"], facts["version"], facts["machine"], "jetson" in facts)


class Host:
    """A host that has everything needed to run verbs. `machine` is its architecture."""

    def __init__(self, connection: ssh.Connection, backend: str, probe: Probe) -> None:
        self.connection = connection
        self.name = connection.name
        self.names = (self.name,)
        self.backend = backend
        self.probe = probe
        self.machine = probe.machine
        self._facts: dict[str, MachineFacts] = {}  # by runtime

    @classmethod
    def connect(cls, name: str, backend: str, progress: Progress = SILENT, stop: threading.Event | None = None) -> Host:
        """The host `user@machine`, or one of ~/.ssh/config, for verbs that need `backend`. Setting `stop` interrupts its work."""
        connection = ssh.Connection(name, progress, stop)
        try:
            return cls(connection, backend, Probe.parse(name, connection.run("sh", PROBE_SCRIPT)))
        except BaseException:
            connection.close()
            raise

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def run(
        self,
        arguments: Sequence[str],
        send: Mapping[str, Path] | None = None,
        bring: Mapping[str, Path] | None = None,
        live: LiveOutput | None = None,
    ) -> Json:
        """The JSON of an edgeeff verb that ran on the host.

        `send` puts files and folders into the verb's working folder, where `arguments` find them by name. `bring` names those that
        come back once the verb is done, and the free local paths to put them. The error that a verb ends with is raised here.
        A verb with `live` output starts afresh, whatever an earlier call left there.
        """
        description = self._upload(arguments, send or {}, bring or {})
        job = RemoteJob(self, description, live)
        try:
            outcome = job.outcome()
            result = job.results(outcome.output, bring or {}) if outcome.rc == 0 else {}
        except Unreachable:
            raise  # the job goes on
        except EdgeeffError:
            job.remove()
            raise
        except BaseException:  # Ctrl-C, or an error while live output was handled
            job.abandon()
            raise
        job.remove()
        if outcome.rc:
            line = outcome.last_line.removeprefix("edgeeff: ") or f"ended with {outcome.rc} and no message"
            raise error_for(outcome.rc)(f"{self.name}: {line}", _parsed(outcome.output))
        return result

    def facts(self, runtime: str) -> MachineFacts:
        """As `machine.LOCAL.facts`, of the host, which is asked once for each runtime."""
        if runtime not in self._facts:
            self._facts[runtime] = from_json(self.run(["measure", runtime]), MachineFacts, self.name)
        return self._facts[runtime]

    def can_run(self, runtime: str) -> bool:
        """Whether files of that runtime can be measured there."""
        return runtime == self.backend

    def benchmark(self, request: BenchmarkRequest, progress: Progress = SILENT) -> BenchmarkResult:
        """As `machine.LOCAL.benchmark`, measured on the host: the request and its files are sent, metrics come back."""
        with temporary_folder() as folder:
            request.write(folder)
            answer = self.run(["measure", self.backend, "request"], {"request": folder})
        return BenchmarkResult(
            metrics=from_json(answer.get("figures"), dict[str, Metrics], self.name),
            states=from_json(answer.get("conditions"), tuple[SystemState, ...], self.name),
            noise=from_json(answer.get("disturbed"), tuple[str, ...], self.name),
        )

    def verify(self, bundle: Path) -> None:
        """Raises BadInput where the bundle's golden photos get other answers on the host."""
        self.run(["verify", "bundle"], {"bundle": bundle})

    def _upload(self, arguments: Sequence[str], send: Mapping[str, Path], bring: Mapping[str, Path]) -> agent.Job:
        """Send edgeeff itself, the agent and the files; returns the job that uses them."""
        with temporary_folder() as kit:
            built = wheel.build(kit)
            shutil.copy(agent.__file__, kit)
            for file in kit.iterdir():
                os.utime(file, (0, 0))  # rsync compares size and date
            paths = {"": kit, **send}
            digests = {name: _content_digest(path) for name, path in paths.items()}
            self._send(paths, digests)
        extras = [self.backend]
        if arguments[0] == "camera" and not self.probe.jetson:
            extras.append("camera")
        if any(path.suffix.lower() == ".parquet" for path in send.values()):
            extras.append("parquet")
        if "--trusted" in arguments:
            extras.append("signature")
        extra = ",".join(extras)
        return {
            "kit": digests[""],
            "wheel": built.name,
            "extra": extra,
            "outside": self.probe.jetson,  # JetPack installs TensorRT and OpenCV for the system's Python
            "environment": _hash(digests[""], extra, self.probe.version, self.probe.jetson),
            "arguments": [*arguments, *(["--debug"] if debugging() else [])],
            "send": {name: f"{digests[name]}/{path.name}" if path.is_file() else digests[name] for name, path in send.items()},
            "copy": sorted(bring),
            "silence": POLL_TIMEOUT,
        }

    def _send(self, paths: Mapping[str, Path], digests: Mapping[str, str]) -> None:
        """Send what is not on the host yet, where its disk has room for it."""
        du = "; ".join(f"du -sk sent/{digest} 2>/dev/null || echo 0" for digest in digests.values())
        answer = self.connection.run("sh", f"cd {BASE} && df -Pk . | tail -n 1 && {{ {du}; }}")
        try:
            disk, *sent = answer.splitlines()
            free = int(disk.split()[3]) * 1024
            there = {name: int(line.split()[0]) * 1024 for name, line in zip(paths, sent, strict=True)}
        except (ValueError, IndexError) as error:
            raise EdgeeffError(f"{self.name}: its df and du answer {answer[:80]!r}, expected sizes. Please report it.") from error
        missing = {name: max(0, sum(p.stat().st_size for p in _files(path)) - there[name]) for name, path in paths.items()}
        if sum(missing.values()) > free:
            raise BadInput(
                f"{self.name}: the disk there is full: {sum(missing.values()) / 1e6:.0f} MB to send, {free / 1e6:.0f} MB free. "
                f"Make room in ~/{BASE}. {ssh.CONTINUES}"
            )
        for name, path in paths.items():
            if name and missing[name]:
                self.connection.progress.say(f"{self.name}: sending {path}, {missing[name] / 1e6:.1f} MB")
            self.connection.send(path, f"{BASE}/sent/{digests[name]}")


@dataclass(frozen=True)
class StateAnswer:
    """agent.StateAnswer, received."""

    state: agent.State


@dataclass(frozen=True)
class PollAnswer:
    """agent.PollAnswer, received."""

    state: agent.State
    lines: list[str]
    said: int
    output: str
    written: int
    rc: int | None = None
    rebooted: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a job ended: its exit code, its standard output, of a live verb the result alone, and its last line of standard error."""

    rc: int
    output: str
    last_line: str


class RemoteJob:
    """One verb on a host: started, polled through lost connections and restarts of the host, and removed."""

    def __init__(self, host: Host, job: agent.Job, live: LiveOutput | None) -> None:
        self.host, self.job, self.live = host, job, live
        self.connection, self.say = host.connection, host.connection.progress.say
        self.id = _hash(job)
        self.said = self.written = 0  # bytes of standard error and output that have been received
        self.output = self.last_line = ""
        self.asked_to_end = self.restarted = False

    def outcome(self) -> Outcome:
        """Start the job unless it runs or has ended already, and wait for its end. A job that died is started once more."""
        if self.live:
            self._agent(StateAnswer, "stop")
        found = self._start()
        if found in ("running", "done"):
            what = "still running" if found == "running" else "done"
            self.say(f"{self.host.name}: an earlier call's job is {what}; going on with it.")
        elif found == "gone":
            self.say(f"{self.host.name}: an earlier call's job ended before its time; starting it again.")
        pause = 0.1
        while True:
            self.connection.pause(pause)
            if self.live and self.live.ending.is_set() and not self.asked_to_end:
                self._agent(dict, "end")
                self.asked_to_end = True
            answer = self._poll()
            if answer.rc is not None:
                return Outcome(answer.rc, self.output, self.last_line)
            if answer.state != "running":
                self._start_again(answer.rebooted)
            pause = min(1.5 * pause, 0.3 if self.live else 2.0)

    def results(self, output: str, bring: Mapping[str, Path]) -> Json:
        """The verb's JSON; what it is to bring back is put into its place."""
        result = _parsed(output)
        if result is None:
            raise self._unexpected(output)
        for name, path in bring.items():
            with working_folder(path.absolute()) as folder:
                self.connection.fetch(f"{BASE}/jobs/{self.id}/work/{name}", folder)
                os.replace(folder / name, path)
        return result

    def remove(self) -> None:
        """Remove the job's folder. A host that cannot be reached for this is no reason to lose the result."""
        try:
            self._agent(StateAnswer, "stop")
        except Unreachable as error:
            self.say(f"{error} Its answer has been received; the job's folder is still there.")

    def abandon(self) -> None:
        """Kill the job, in one attempt, or report that it will kill itself."""
        self.connection.stop = threading.Event()
        self.connection.answered = False  # so that the attempt is not repeated
        try:
            self._agent(StateAnswer, "stop")
        except EdgeeffError:
            minutes = POLL_TIMEOUT / 60
            self.say(f"{self.host.name}: cannot be reached to stop the job; it stops by itself within {minutes:.0f} minutes.")

    def _start(self) -> agent.State:
        """The job's state before this."""
        return self._agent(StateAnswer, "start", text=json.dumps(self.job)).state

    def _start_again(self, rebooted: bool) -> None:
        """Start a job that died once more; raises where that has been done before, or the job was to end."""
        what = "it restarted" if rebooted else "the job's process vanished"
        if self.restarted or self.asked_to_end:
            self._agent(StateAnswer, "stop")
            when = "before it ended" if self.asked_to_end else "during the job, twice"
            if rebooted:
                raise Unreachable(f"{self.host.name}: {what} {when}. Is its power supply strong enough?")
            raise EdgeeffError(f"{self.host.name}: {what} {when}. Is its memory or disk full?")
        self.say(f"{self.host.name}: {what} during the job; starting it again.")
        self._start()
        self.said = self.written = 0
        self.output, self.restarted = "", True

    def _poll(self) -> PollAnswer:
        """The job's state; its new output is passed on."""
        answer = self._agent(PollAnswer, "poll", str(self.said), str(self.written))
        self.said, self.written = answer.said, answer.written
        if self.live:
            self._hear(self.live, answer.output)
        else:
            self.output += answer.output
        if len(self.output) > ssh.MAX_ANSWER:
            raise EdgeeffError(f"{self.host.name}: its answer has more than {ssh.MAX_ANSWER >> 20} MB. Please report it.")
        for line in (line[:MAX_LINE] for line in answer.lines if line.strip()):
            self.last_line = line
            if not line.startswith("edgeeff: "):  # that line is the error, which is raised
                self.say(f"{self.host.name}: {line}")
        return answer

    def _hear(self, live: LiveOutput, output: str) -> None:
        """Pass on what a live verb reports. What is not JSON is text that a driver prints."""
        for line in output.splitlines():
            report = _parsed(line)
            if report is None:
                self.say(f"{self.host.name}: {line[:MAX_LINE]}")
            elif not live.hear(report):
                self.output = line

    def _agent(self, answer: type[T], command: str, *offsets: str, text: str = "") -> T:
        """What agent.py on the host answers to a command about this job."""
        script = f"{BASE}/sent/{self.job['kit']}/{Path(agent.__file__).name}"
        output = self.connection.run(shlex.join([self.host.probe.python, script, command, self.id, *offsets]), text)
        try:
            return msgspec.json.decode(output, type=answer)
        except (msgspec.DecodeError, RecursionError) as error:
            raise self._unexpected(output) from error

    def _unexpected(self, text: str) -> EdgeeffError:
        return EdgeeffError(f"{self.host.name}: its answer is not the JSON expected: {text[:80]!r}. Please report it.")


def _parsed(text: str) -> Json | None:
    """A JSON object; None where the text is anything else, or nested more than MAX_DEPTH deep."""
    try:
        answer = parse_json(text)
    except ValueError:
        return None
    level = [answer]
    for _ in range(MAX_DEPTH):
        inner = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, (dict, list))]
        level = [value for values in inner for value in values]
    return answer if isinstance(answer, dict) and not level else None


def _hash(*values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:20]


def _content_digest(path: Path) -> str:
    """A digest of a file's or folder's contents and the names in it: its name on the host."""
    with user_path(path, "read"), _HASHING:  # a fleet's threads ask for the same one
        facts = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in _files(path)]
        return _digest(str(path.parent if path.is_file() else path), tuple(facts))


def _files(path: Path) -> list[Path]:
    """The file, or all files in a folder, following links as rsync does."""
    if path.is_file():
        return [path]
    found = (Path(folder) / name for folder, _, names in os.walk(path, followlinks=True) for name in names)
    return sorted(p for p in found if p.is_file())


_HASHING = threading.Lock()


@lru_cache(maxsize=64)
def _digest(root: str, facts: tuple[tuple[str, int, int], ...]) -> str:
    return _hash([(os.path.relpath(file, root), hashlib.sha256(Path(file).read_bytes()).hexdigest()) for file, _, _ in facts])
