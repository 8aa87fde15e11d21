"""One machine over the system's `ssh` and `rsync`: commands there and files to and fro, through dropped connections.

Keys, ports and jump hosts are the user's own, from ~/.ssh/config. Nothing ever asks a question, and no host key is accepted here.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from ..errors import BadInput, EdgeeffError, ToolMissing, Unreachable
from ..progress import SILENT, Progress
from .agent import FULL

T = TypeVar("T")

NAME = re.compile(r"([A-Za-z0-9_+.][A-Za-z0-9_+.-]*@)?[A-Za-z0-9_][A-Za-z0-9_.-]*")
PATIENCE = 300.0  # seconds without connection until a command gives up: a Jetson restarts in one to two minutes
ANSWER = 120.0  # seconds for one short command there
CONNECT = 10
LOST = 255  # ssh's own exit code; commands there never give it
CUT = (10, 12, 30, 35)  # rsync's: socket and protocol errors and timeouts
SAME = "The same command goes on from there."
OPTIONS = {
    "BatchMode": "yes",
    "ConnectTimeout": CONNECT,
    "ServerAliveInterval": 5,
    "ServerAliveCountMax": 4,
    "ControlMaster": "auto",
    "ControlPersist": 60,
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "LogLevel": "ERROR",  # no banners
}
# What ssh says, what it means and what to do. Those that end it at once, as waiting changes nothing:
FINAL = {
    "IDENTIFICATION HAS CHANGED": "its host key has changed. Either it was installed anew, or something else answers in its "
    "place: do not ignore this. If you know why, ssh-keygen -R {host}, connect by hand and compare the fingerprint.",
    "Host key verification failed": "its host key is not known here. Connect once by hand and compare the fingerprint: ssh {name}",
    "Permission denied": "it refuses the key. Expected a login that asks nothing: ssh-copy-id {name}, or ssh-add the key.",
    "Too many authentication failures": "it refuses the keys. Name the right one in ~/.ssh/config (IdentityFile).",
}
# And those that a machine which starts again, or a network that comes back, may cure:
PASSING = {
    "Could not resolve hostname": "unknown host. Expected USER@HOST or a name of ~/.ssh/config.",
    "Connection refused": "it refuses the connection. Is that the right port, and does its SSH server run?",
    "timed out": f"no answer within {CONNECT} seconds. Is it on, and on this network?",
    "No route to host": "no route to it. Is it on, and on this network?",
}


class Dropped(Exception):
    """The connection failed in a way that may pass."""


def check(names: Sequence[str]) -> None:
    """Refuse what could be read as an option or another path, and a machine without ssh or rsync."""
    for name in names:
        if not NAME.fullmatch(name):
            raise BadInput(f"--on {name!r}: not a host. Expected USER@HOST or a name of ~/.ssh/config; ports belong there too.")
    for tool in ("ssh", "rsync"):
        if not shutil.which(tool):
            raise ToolMissing(f"{tool} is not installed here: sudo apt install {'openssh-client' if tool == 'ssh' else tool}")


class Connection:
    """To one host. Repeated calls share one connection, whose socket lies in a private folder until `close`.

    Before the first answer a failure is final. After it, every call is tried again until PATIENCE ends, so each must be one that
    may run twice. When `stop` is set, whatever waits raises KeyboardInterrupt.
    """

    def __init__(self, name: str, progress: Progress = SILENT, stop: threading.Event | None = None) -> None:
        check([name])
        self.name = name
        self.progress = progress
        self.stop = stop or threading.Event()
        self.met = False
        # A socket's path may have 104 bytes: /tmp, as TMPDIR can be long.
        self._folder = Path(tempfile.mkdtemp(prefix="edgeeff-", dir="/tmp"))
        options = OPTIONS | {"ControlPath": self._folder / "socket"}
        self._ssh = ["ssh", "-T", *(f"-o{key}={value}" for key, value in options.items())]

    def close(self) -> None:
        subprocess.run([*self._ssh, "-Oexit", "--", self.name], capture_output=True, check=False)
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, command: str, text: str = "") -> str:
        """Standard output of a shell command there, which gets `text` on standard input."""
        return self._patiently(lambda: self._run(command, text))

    def send(self, source: Path, to: str) -> None:
        """A file into, or a folder as, the folder `to` there (under the home). What is there already is not sent again."""
        path = f"{source.absolute()}/" if source.is_dir() else str(source.absolute())
        # Links as what they point to; a folder's own date is when it was sent.
        self._patiently(lambda: self._rsync("--copy-links", "--omit-dir-times", "--chmod=u+rwX", path, f"{self.name}:{to}/"))

    def fetch(self, path: str, folder: Path) -> None:
        """A file or folder there, into the folder here."""
        self._patiently(lambda: self._rsync(f"{self.name}:{path}", f"{folder.absolute()}/"))

    def pause(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise KeyboardInterrupt

    def _patiently(self, attempt: Callable[[], T]) -> T:
        end, wait = 0.0, 0.5
        while True:
            try:
                result = attempt()
            except Dropped as error:
                if not self.met:
                    raise Unreachable(f"{self.name}: {error}") from error
                now = time.monotonic()
                if not end:
                    end = now + PATIENCE
                    self.progress.say(f"{self.name}: connection lost: {error} Trying again for {PATIENCE / 60:.0f} minutes.")
                if now > end:
                    raise Unreachable(f"{self.name}: no connection for {PATIENCE / 60:.0f} minutes: {error} {SAME}") from error
                self.pause(wait)
                wait = min(2 * wait, 15)
            else:
                if end:
                    self.progress.say(f"{self.name}: connected again.")
                self.met = True
                return result

    def _run(self, command: str, text: str) -> str:
        rc, out, err = self._execute([*self._ssh, "--", self.name, command], text, ANSWER)
        if rc == LOST:
            self._lost(err)
        if rc:
            self.full(err)
            raise EdgeeffError(f"{self.name}: {command.split()[0]} there ended with {rc}: {_last(err) or 'without a word'}")
        return out

    def _rsync(self, *arguments: str) -> None:
        rc, _, err = self._execute(["rsync", "-a", "--partial", "--timeout=60", f"--rsh={shlex.join(self._ssh)}", *arguments])
        if rc == 0:
            return
        self.full(err)
        if rc == LOST:
            self._lost(err)
        if rc in CUT:
            raise Dropped(f"{next(iter(err.splitlines()), f'rsync ended with {rc}')}.")
        if "protocol version mismatch" in err or "is your shell clean" in err:
            raise EdgeeffError(f"{self.name}: its shell's start-up files print text, which no rsync understands. Make them silent.")
        raise EdgeeffError(f"{self.name}: rsync ended with {rc}: {next(iter(err.splitlines()), 'without a word')}")

    def full(self, err: str) -> None:
        """Refuse where the words are of a full disk there."""
        if any(word in err for word in FULL):
            raise BadInput(f"{self.name}: the disk there is full ({_last(err, FULL)}). Make room in ~/.cache/edgeeff. {SAME}")

    def _lost(self, err: str) -> NoReturn:
        for words, meaning in FINAL.items():
            if words in err:
                raise Unreachable(f"{self.name}: {meaning.format(name=self.name, host=self.name.split('@')[-1])}")
        for words, meaning in PASSING.items():
            if words in err:
                raise Dropped(meaning)
        line = _last(err)
        raise Dropped(f"{line.rstrip('.')}." if line else "it was closed from the other end.")

    def _execute(self, command: list[str], text: str = "", limit: float = float("inf")) -> tuple[int, str, str]:
        """Exit code, standard output and standard error; in its own session, so that Ctrl-C ends it by our hand and in our order.

        Through files: ssh's shared connection lives on in the background and would hold a pipe open.
        """
        end = time.monotonic() + limit
        with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            stdin.write(text.encode())
            stdin.seek(0)
            process = subprocess.Popen(command, stdin=stdin, stdout=out, stderr=err, start_new_session=True)
            try:
                while True:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        rc = process.wait(timeout=0.2)
                        break
                    if self.stop.is_set():
                        raise KeyboardInterrupt
                    if time.monotonic() > end:
                        raise Dropped(f"no answer within {limit:.0f} seconds.")
            finally:
                if process.poll() is None:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
        return rc, texts[0], texts[1]


def _last(text: str, words: Sequence[str] = ("",)) -> str:
    """The last line that has one of the words."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip() and any(w in line for w in words)), "")[:300]
