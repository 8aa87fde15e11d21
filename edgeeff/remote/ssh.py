"""One host over the system's `ssh` and `rsync`: commands to run and files to copy, tried again when the connection is lost.

Keys, ports and jump hosts come from the user's ~/.ssh/config. Nothing prompts for input, and no unknown host key is accepted.
"""

from __future__ import annotations

import contextlib
import logging
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
from typing import IO, NoReturn, TypeVar

from ..errors import BadInput, EdgeeffError, ToolMissing, Unreachable
from ..files import temporary_folder
from ..progress import SILENT, Progress
from .agent import NO_SPACE_MESSAGES

T = TypeVar("T")

LOG = logging.getLogger(__name__)
HOST_NAME = re.compile(r"([A-Za-z0-9_+.][A-Za-z0-9_+.-]*@)?[A-Za-z0-9_][A-Za-z0-9_.-]*")
RECONNECT_TIMEOUT = 300.0  # seconds without a connection until a command fails: a Jetson restarts in one to two minutes
COMMAND_TIMEOUT = 120.0  # seconds for one short command on the host
CONNECT_TIMEOUT = 10  # seconds
MAX_ANSWER = 64 << 20  # bytes that one command may print
MAX_NAME = 255  # characters of a host's name with its user
SSH_FAILED = 255  # ssh's own exit code; the commands that are run never end with it
RSYNC_LOST = (10, 12, 30, 35)  # rsync's exit codes for socket errors, protocol errors and timeouts
CONTINUES = "The same command goes on from there."
PLAIN = ("--no-links", "--no-devices", "--no-specials", "--no-owner", "--no-group", "--no-perms")
OPTIONS = {
    "BatchMode": "yes",
    "ConnectTimeout": CONNECT_TIMEOUT,
    "ServerAliveInterval": 5,
    "ServerAliveCountMax": 4,
    "ControlMaster": "auto",
    "ControlPersist": 60,
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "LogLevel": "ERROR",  # no banners
}
# What ssh prints, and what to tell the user. First the failures that waiting does not change:
PERMANENT = {
    "IDENTIFICATION HAS CHANGED": "its host key has changed. Either it was installed anew, or another machine answers in its "
    "place: do not ignore this. If you know why, ssh-keygen -R {host}, connect by hand and compare the fingerprint.",
    "Host key verification failed": "its host key is not known here. Connect once by hand and compare the fingerprint: ssh {name}",
    "Permission denied": "it refuses the key. Expected a login without a prompt: ssh-copy-id {name}, or ssh-add the key.",
    "Too many authentication failures": "it refuses the keys. Name the right one in ~/.ssh/config (IdentityFile).",
}
# And those that may end when the host has restarted or the network is back:
TEMPORARY = {
    "Could not resolve hostname": "unknown host. Expected USER@HOST or a name of ~/.ssh/config.",
    "Connection refused": "it refuses the connection. Is that the right port, and does its SSH server run?",
    "timed out": f"no answer within {CONNECT_TIMEOUT} seconds. Is it on, and on this network?",
    "No route to host": "no route to it. Is it on, and on this network?",
}


class ConnectionLost(Exception):
    """The connection failed in a way that may be temporary."""


def check(names: Sequence[str]) -> None:
    """Refuse host names that could be read as an option or a path, and this machine where ssh or rsync is missing."""
    for name in names:
        if not HOST_NAME.fullmatch(name) or len(name) > MAX_NAME:
            raise BadInput(
                f"--on {name[:MAX_NAME]!r}: not a host. Expected USER@HOST or a name of ~/.ssh/config; ports belong there too."
            )
    for tool in ("ssh", "rsync"):
        if not shutil.which(tool):
            raise ToolMissing(f"{tool} is not installed here: sudo apt install {'openssh-client' if tool == 'ssh' else tool}")


class Connection:
    """A connection to one host. All calls share one ssh connection, whose socket lies in a private folder until `close`.

    Before the first answer a failure is final. After it, a call is tried again for RECONNECT_TIMEOUT, with exponential back-off, so
    running it twice must do no harm. When `stop` is set, whatever waits raises KeyboardInterrupt.
    """

    def __init__(self, name: str, progress: Progress = SILENT, stop: threading.Event | None = None) -> None:
        check([name])
        self.name = name
        self.progress = progress
        self.stop = stop or threading.Event()
        self.answered = False
        # A socket's path may have 104 bytes at most, and TMPDIR can be long.
        self._place = contextlib.ExitStack()
        self._folder = self._place.enter_context(temporary_folder(Path("/tmp")))
        options = OPTIONS | {"ControlPath": self._folder / "socket"}
        self._ssh = ["ssh", "-T", *(f"-o{key}={value}" for key, value in options.items())]

    def close(self) -> None:
        subprocess.run([*self._ssh, "-Oexit", "--", self.name], capture_output=True, check=False)
        self._place.close()

    def run(self, command: str, text: str = "") -> str:
        """Standard output of a shell command on the host, which gets `text` on standard input."""
        return self._retried(lambda: self._run(command, text))

    def send(self, source: Path, to: str) -> None:
        """Copy a file into, or a folder as, the folder `to` in the host's home. What is already there is not sent again."""
        path = f"{source.absolute()}/" if source.is_dir() else str(source.absolute())
        # Links are sent as what they point to; a folder keeps the time at which it was sent.
        self._retried(lambda: self._rsync("--copy-links", "--omit-dir-times", "--chmod=u+rwX", path, f"{self.name}:{to}/"))

    def fetch(self, path: str, folder: Path) -> None:
        """Copy a file or folder from the host's home into a local folder: regular files and folders alone, readable as all here.

        A link could lead to a file of this machine, and a pipe would hold up who reads it.
        """
        self._retried(lambda: self._rsync(*PLAIN, f"{self.name}:{path}", f"{folder.absolute()}/"))

    def mirror(self, path: str, folder: Path) -> None:
        """Copy what lies in a folder of the host, without hidden files and those of a camera there, into a local one.

        A file that is in use here stays as it is: a newer one takes its name when all have come. Nothing is removed.
        """
        whole = ("--no-inplace", "--delay-updates", "--exclude=.*", "--exclude=/following.json", *PLAIN)
        self._retried(lambda: self._rsync(*whole, f"{self.name}:{path}", f"{folder.absolute()}/"))

    def pause(self, seconds: float) -> None:
        """Wait; raises KeyboardInterrupt as soon as `stop` is set."""
        if self.stop.wait(seconds):
            raise KeyboardInterrupt

    def _retried(self, attempt: Callable[[], T]) -> T:
        """What `attempt` returns, repeated while the connection is lost."""
        end, wait, minutes = 0.0, 0.5, f"{RECONNECT_TIMEOUT / 60:.0f} minutes"
        while True:
            try:
                result = attempt()
            except ConnectionLost as error:
                if not self.answered:
                    raise Unreachable(f"{self.name}: {error}") from error
                now = time.monotonic()
                if not end:
                    end = now + RECONNECT_TIMEOUT
                    self.progress.say(f"{self.name}: connection lost: {error} Trying again for {minutes}.")
                if now > end:
                    raise Unreachable(f"{self.name}: no connection for {minutes}: {error} {CONTINUES}") from error
                self.pause(wait)
                wait = min(2 * wait, 15)
            else:
                if end:
                    self.progress.say(f"{self.name}: connected again.")
                self.answered = True
                return result

    def _run(self, command: str, text: str) -> str:
        rc, out, err = self._execute([*self._ssh, "--", self.name, command], text, COMMAND_TIMEOUT)
        if rc == SSH_FAILED:
            self._lost(err)
        if rc:
            self._require_space(err)
            raise EdgeeffError(f"{self.name}: {command.split()[0]} there ended with {rc}: {_last(err) or 'no message'}")
        return out

    def _rsync(self, *arguments: str) -> None:
        start = time.monotonic()
        rc, _, err = self._execute(["rsync", "-a", "--inplace", "--timeout=60", f"--rsh={shlex.join(self._ssh)}", *arguments])
        LOG.info("%s: rsync %s: %.1f s", self.name, shlex.join(arguments), time.monotonic() - start)
        if rc == 0:
            return
        self._require_space(err)
        if rc == SSH_FAILED:
            self._lost(err)
        if rc in RSYNC_LOST:
            raise ConnectionLost(f"{_first(err, f'rsync ended with {rc}')}.")
        if "protocol version mismatch" in err or "is your shell clean" in err:
            raise EdgeeffError(f"{self.name}: its shell's start-up files print text, which rsync takes for data. Make them silent.")
        raise EdgeeffError(f"{self.name}: rsync ended with {rc}: {_first(err, 'no message')}")

    def _require_short(self, *outputs: IO[bytes]) -> None:
        """Raise EdgeeffError where one of the files holds more than a host has to say."""
        if any(os.fstat(file.fileno()).st_size > MAX_ANSWER for file in outputs):
            raise EdgeeffError(
                f"{self.name}: prints more than {MAX_ANSWER >> 20} MB, expected a short answer. Do its shell's "
                "start-up files print?"
            )

    def _require_space(self, err: str) -> None:
        """Raise BadInput where standard error reports a full disk on the host."""
        if any(message in err for message in NO_SPACE_MESSAGES):
            line = _last(err, NO_SPACE_MESSAGES)
            raise BadInput(f"{self.name}: the disk there is full ({line}). Make room in ~/.cache/edgeeff. {CONTINUES}")

    def _lost(self, err: str) -> NoReturn:
        """Raise what ssh's messages mean: Unreachable where waiting changes nothing, otherwise ConnectionLost."""
        for message, meaning in PERMANENT.items():
            if message in err:
                raise Unreachable(f"{self.name}: {meaning.format(name=self.name, host=self.name.split('@')[-1])}")
        for message, meaning in TEMPORARY.items():
            if message in err:
                raise ConnectionLost(meaning)
        line = _last(err)
        raise ConnectionLost(f"{line.rstrip('.')}." if line else "the host closed it.")

    def _execute(self, command: list[str], text: str = "", limit: float = float("inf")) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of a local command.

        It runs in a session of its own, so that Ctrl-C reaches this process alone, which then ends it. Its output goes to files:
        the shared ssh connection stays in the background and would keep a pipe open.
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
                        raise ConnectionLost(f"no answer within {limit:.0f} seconds.")
                    self._require_short(out, err)
            finally:
                if process.poll() is None:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            self._require_short(out, err)
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
        return rc, texts[0], texts[1]


def _first(text: str, otherwise: str) -> str:
    """The first line, of 300 characters at most."""
    return next(iter(text.splitlines()), otherwise)[:300]


def _last(text: str, messages: Sequence[str] = ("",)) -> str:
    """The last line that contains one of the messages; empty where there is none."""
    lines = (line.strip() for line in reversed(text.splitlines()))
    return next((line for line in lines if line and any(message in line for message in messages)), "")[:300]
