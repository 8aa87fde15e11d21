"""A verb on another machine, over ssh: what it needs goes there, it runs there detached, and its answer comes back.

    with Host.connect("user@jetson", "tensorrt") as host:
        host.run(["eval", "bundle", "--val", "val"], send={"bundle": Path("my-model"), "val": Path("photos/val")})

Nothing is installed there but an environment in ~/.cache/edgeeff: edgeeff itself, numpy and the backend's runtime; never torch,
onnx or nncf. A job outlives its connection; the same command finds it again. there.py is the half that runs there, ssh.py the wire.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from ..errors import BadInput, EdgeeffError, ToolMissing, Unreachable
from ..measurement.latency import Costs, Figures, Request
from ..progress import SILENT, Progress
from . import agent as there
from . import ssh, wheel

S = TypeVar("S")
T = TypeVar("T")

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


@dataclass(frozen=True)
class Live:
    """What a verb says while it runs: `hear` gets each JSON object, and says whether it is one of those rather than the result.

    Setting `ending` asks the verb to end, and to give its result.
    """

    hear: Callable[[dict[str, Any]], bool]
    ending: threading.Event


class Host:
    """A machine that has all it takes. `machine` is its architecture."""

    def __init__(self, connection: ssh.Connection, backend: str, facts: Mapping[str, str]) -> None:
        self.connection = connection
        self.name = connection.name
        self.names = (self.name,)
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
        self,
        arguments: Sequence[str],
        send: Mapping[str, Path] | None = None,
        bring: Mapping[str, Path] | None = None,
        live: Live | None = None,
    ) -> dict[str, Any]:
        """The JSON of an edgeeff verb that ran there.

        `send` puts files and folders beside the job, where `arguments` find them by name. `bring` names what comes back once the
        verb is done, and free paths here to put it. A verb that refuses does so here too, by the same exception.
        A verb that goes on until it is asked to end is `live`; it begins anew, whatever an earlier call left there.
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
        extra = f"{self.backend},camera" if arguments[0] == "camera" and not self.jetson else self.backend
        job = {
            "kit": self._kit,
            "wheel": built.name,
            "extra": extra,
            "outside": self.jetson,  # JetPack's TensorRT and OpenCV lie outside
            "environment": _hash(self._kit, extra, self.version, self.jetson),
            "arguments": list(arguments),
            "send": {name: f"{sent[name]}/{path.name}" if path.is_file() else sent[name] for name, path in (send or {}).items()},
            "copy": sorted(bring or {}),
            "silence": SILENCE,
        }
        name = _hash(job)
        try:
            answer = self._finished(name, job, live)
            result = self._results(name, answer["output"], bring or {}) if answer["rc"] == 0 else {}
        except Unreachable:
            raise  # what runs there goes on
        except EdgeeffError:
            self._forget(name)
            raise
        except BaseException:  # Ctrl-C, or nobody takes what a live verb says
            self._abandon(name)
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

    def verify(self, bundle: Path) -> None:
        self.run(["verify", "bundle"], {"bundle": bundle})

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

    def _finished(self, name: str, job: dict[str, Any], live: Live | None) -> dict[str, Any]:
        """How the job ended, which is started unless it runs or has run; once more if it got lost."""
        say = self.connection.progress.say
        if live:
            self._there("stop", name)
        found = self._there("start", name, text=json.dumps(job))["state"]
        if found in ("running", "done"):
            say(f"{self.name}: an earlier call's job is {'still running' if found == 'running' else 'done'}; going on with it.")
        elif found == "gone":
            say(f"{self.name}: an earlier call's job ended before its time; starting it again.")
        said, written, pause, lost, last, output = 0, 0, 0.1, False, "", ""
        ended = False
        while True:
            self.connection.pause(pause)
            if live and live.ending.is_set() and not ended:
                self._there("end", name)
                ended = True
            answer = self._there("poll", name, str(said), str(written))
            said, written = answer["said"], answer["written"]
            if live:
                for line in answer["output"].splitlines():
                    told = _parsed(line)
                    if told is None:
                        say(f"{self.name}: {line}")  # a driver, say, that prints what it does
                    elif not live.hear(told):
                        output = line
            else:
                output += answer["output"]
            for line in filter(str.strip, answer["lines"]):
                last = line
                if not line.startswith("edgeeff: "):  # what it ends with is raised, not said
                    say(f"{self.name}: {line}")
            if answer["state"] == "done":
                return answer | {"last": last, "output": output}
            if answer["state"] != "running":
                what = "it restarted" if answer.get("rebooted") else "the job's process vanished"
                if lost or ended:
                    self._there("stop", name)
                    remedy = "Is its power supply strong enough?" if answer.get("rebooted") else "Is its memory or disk full?"
                    raise (Unreachable if answer.get("rebooted") else EdgeeffError)(
                        f"{self.name}: {what} {'before it ended' if ended else 'during the job, twice'}. {remedy}"
                    )
                say(f"{self.name}: {what} during the job; starting it again.")
                self._there("start", name, text=json.dumps(job))
                said, written, lost, output = 0, 0, True, ""
            pause = min(1.5 * pause, 0.3 if live else 2.0)

    def _results(self, name: str, output: str, bring: Mapping[str, Path]) -> dict[str, Any]:
        result = self._json(output)
        for remote_name, path in bring.items():
            with tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=".edgeeff-") as landing:
                self.connection.fetch(f"{BASE}/jobs/{name}/work/{remote_name}", Path(landing))
                os.replace(Path(landing) / remote_name, path)
        return result

    def _json(self, text: str) -> dict[str, Any]:
        answer = _parsed(text)
        if answer is None:
            raise EdgeeffError(f"{self.name}: its answer is not the JSON expected: {text[:80]!r}. Please report it.")
        return answer

    def _refusal(self, answer: dict[str, Any]) -> EdgeeffError:
        line = answer["last"].removeprefix("edgeeff: ") or f"ended with {answer['rc']} and without a word"
        return ERRORS.get(answer["rc"], EdgeeffError)(f"{self.name}: {line}", _parsed(answer["output"]))

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


class Fleet:
    """Several hosts as one machine, so that what fits it fits each: as slow as the slowest of them."""

    def __init__(self, hosts: Sequence[Host], stop: threading.Event) -> None:
        self.hosts, self.stop = {host.name: host for host in hosts}, stop
        self.names = tuple(self.hosts)

    def facts(self, runtime: str) -> dict[str, Any]:
        """Of the first, with `device.hosts` of all, and the precisions that all compute in."""
        each = self._each(lambda host: host.facts(runtime))
        first = next(iter(each.values()))
        return {
            "device": {**first["device"], "hosts": {name: facts["device"] for name, facts in each.items()}},
            "version": ", ".join(dict.fromkeys(facts["version"] for facts in each.values())),
            "precisions": [p for p in first["precisions"] if all(p in facts["precisions"] for facts in each.values())],
        }

    def runs(self, runtime: str) -> bool:
        return all(host.runs(runtime) for host in self.hosts.values())

    def costs(self, request: Request, progress: Progress = SILENT) -> Costs:
        """All at once. Latencies are those of the host whose fastest form is slowest: of one host, so that they can be compared."""
        each = self._each(lambda host: host.costs(request, progress))
        slowest = max(each, key=lambda name: min(f.latency.p50 for f in each[name].figures.values()))
        figures = {form: Figures.of({name: costs.figures[form] for name, costs in each.items()}, slowest) for form in request.forms}
        disturbed = tuple(f"{name}: {reason}" for name, costs in each.items() for reason in costs.disturbed)
        return Costs(figures, [look for costs in each.values() for look in costs.conditions], disturbed)

    def verify(self, bundle: Path) -> None:
        self._each(lambda host: host.verify(bundle))

    def _each(self, ask: Callable[[Host], T]) -> dict[str, T]:
        return dict(zip(self.hosts, _at_once(ask, list(self.hosts.values()), self.stop), strict=True))


@contextlib.contextmanager
def machine(names: Sequence[str], backend: str, progress: Progress = SILENT) -> Iterator[Host | Fleet]:
    """The hosts to measure on, one or several."""
    names = list(dict.fromkeys(names))
    ssh.check(names)
    stop = threading.Event()
    with contextlib.ExitStack() as stack:
        hosts = [stack.enter_context(Host.connect(name, backend, progress, stop)) for name in names]
        yield hosts[0] if len(hosts) == 1 else Fleet(hosts, stop)


def _at_once(work: Callable[[S], T], items: Sequence[S], stop: threading.Event) -> list[T]:
    """What `work` gives for each; the first failure is raised, and sets `stop` for the others."""
    with ThreadPoolExecutor(len(items)) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            for done in as_completed(futures):
                done.result()
        except BaseException:
            stop.set()
            raise
    return [future.result() for future in futures]


def fleet(
    names: Sequence[str],
    backend: str,
    work: Callable[[Host], dict[str, Any]],
    progress: Progress = SILENT,
    stop: threading.Event | None = None,
) -> list[dict[str, Any]]:
    """What `work` gives for each host, all at once: its answer, or `error` and `exit_code`."""
    names = list(dict.fromkeys(names))
    ssh.check(names)
    stop = stop or threading.Event()

    def one(name: str) -> dict[str, Any]:
        try:
            with Host.connect(name, backend, progress, stop) as host:
                return {"host": name, **work(host)}
        except EdgeeffError as error:
            if len(names) > 1:
                progress.say(str(error))
            told = {"error": str(error).removeprefix(f"{name}: "), "exit_code": error.exit_code}
            return {"host": name, **(error.result or {}), **told}

    return _at_once(one, names, stop)


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


def _parsed(text: str) -> dict[str, Any] | None:
    """A JSON object; None where it is none."""
    try:
        answer = json.loads(text)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


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
