"""Boards to run verbs on: logins of a real SSH server on this machine, with homes of their own."""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

SSHD = Path("/usr/sbin/sshd")
PYTHON = Path(sys.base_prefix) / "bin"
NEEDED = pytest.mark.skipif(
    not (SSHD.exists() and shutil.which("rsync") and shutil.which("ssh") and (PYTHON / "python3").exists()),
    reason="needs sshd, ssh, rsync and python3",
)

CONFIG = """
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PermitRootLogin yes
PidFile none
MaxStartups 100
AcceptEnv BOARD
"""
# What runs in place of each login's command: the board's home, what a test wants to go wrong, and then the command.
LOGIN = """#!/bin/sh
export HOME={folder}/$BOARD PATH={python}:/usr/bin:/bin {pip}
[ -e "$HOME.rules" ] && . "$HOME.rules"
cd "$HOME" && exec sh -c "$SSH_ORIGINAL_COMMAND"
"""


@dataclass(frozen=True)
class Board:
    """A login of the server, called by its name. `env` is for a client that knows it."""

    name: str
    home: Path
    env: dict[str, str]

    def rule(self, code: str) -> None:
        """Shell code before each of its commands."""
        Path(f"{self.home}.rules").write_text(code)

    def cut(self, command: str, before: str = "") -> None:
        """Once, when a command like that comes, kill the connection's server, after `before`."""
        Path(f"{self.home}.cut").touch()
        self.rule(f'case "$SSH_ORIGINAL_COMMAND" in {command}) rm "$HOME.cut" 2>/dev/null && {{ {before} kill -9 $PPID; }};; esac')

    def program(self, name: str, code: str) -> None:
        """A program that is found before the system's."""
        folder = Path(f"{self.home}.bin")
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(f"#!/bin/sh\n{code}\n")
        (folder / name).chmod(0o755)
        self.rule(f"PATH={folder}:$PATH")

    @property
    def jobs(self) -> list[Path]:
        folder = self.home / ".cache/edgeeff/jobs"
        return list(folder.iterdir()) if folder.exists() else []

    @property
    def processes(self) -> dict[int, str]:
        """Command lines of what runs in its jobs, by process id."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if str(self.home) in str((process / "cwd").readlink()):
                    found[int(process.name)] = (process / "cmdline").read_bytes().decode().replace("\0", " ")
            except OSError:
                continue
        return found

    @property
    def verbs(self) -> list[int]:
        return [pid for pid, line in self.processes.items() if "-m edgeeff" in line]


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Path]:
    """The folder of a running server; `hosts` in it are its clients' configurations. RuntimeError where it does not start."""
    for key in ("host", "user", "other"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
    (folder / "keys").write_text((folder / "user.pub").read_text())
    pip = " ".join(f"{k}='{v}'" for k, v in os.environ.items() if k.startswith("PIP_"))
    (folder / "login").write_text(LOGIN.format(folder=folder, python=PYTHON, pip=pip))
    (folder / "login").chmod(0o755)
    port = free_port()
    places = (
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/keys\nForceCommand {folder}/login\n"
    )
    (folder / "sshd_config").write_text(CONFIG + places)
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    known = {"known": "host", "stranger": None, "changed": "other"}
    for name, key in known.items():
        words = (folder / f"{key}.pub").read_text() if key else ""
        (folder / name).write_text(f"[127.0.0.1]:{port} {words}" if key else "")
    (folder / "hosts").mkdir()
    common = f"HostName 127.0.0.1\nPort {port}\nUser {getpass.getuser()}\nIdentitiesOnly yes\n"
    (folder / "common").write_text(f"{common}UserKnownHostsFile {folder}/known\nStrictHostKeyChecking ask\n")
    (folder / "config").write_text(f"Include {folder}/hosts/*\nHost *\nInclude {folder}/common\n")
    (folder / "bin").mkdir()
    (folder / "bin/ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/config "$@"\n')
    (folder / "bin/ssh").chmod(0o755)
    with (folder / "sshd.log").open("w") as log:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "sshd_config"], stderr=log)
    try:
        while process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        else:
            raise RuntimeError(f"sshd does not start: {(folder / 'sshd.log').read_text()}")
        yield folder
    finally:
        process.terminate()
        process.wait()


def new_board(server: Path, environments: Path, options: str = "") -> Board:
    """One more login of the server; its environments lie in the folder that all boards share, so that each is installed once."""
    unique = f"b{len(list((server / 'hosts').iterdir()))}"
    home = server / unique
    (home / ".cache/edgeeff").mkdir(parents=True)
    (home / ".cache/edgeeff/on").symlink_to(environments)
    key = "" if "IdentityFile" in options else f"IdentityFile {server}/user\n"
    (server / "hosts" / unique).write_text(f"Host {unique}\nSetEnv BOARD={unique}\n{key}{options}\n")
    return Board(unique, home, {**os.environ, "PATH": f"{server}/bin:{os.environ['PATH']}"})


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(serving(tmp_path_factory.mktemp("sshd")))
        except RuntimeError as error:
            pytest.skip(str(error))
        yield folder


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("on")


@pytest.fixture
def make(server: Path, environments: Path) -> Callable[..., Board]:
    return partial(new_board, server, environments)


@pytest.fixture
def board(make: Callable[..., Board]) -> Iterator[Board]:
    board = make()
    yield board
    for pid in board.processes:
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def here(board: Board, monkeypatch: pytest.MonkeyPatch) -> Board:
    """The board, for calls within this process."""
    monkeypatch.setenv("PATH", board.env["PATH"])
    return board


def first(count: int) -> str:
    """What runs a command with that many bytes of its input; unlike head, dd hands on what it has."""
    return f'dd bs=65536 count={count} iflag=count_bytes status=none | sh -c "cd $HOME; $SSH_ORIGINAL_COMMAND";'


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], object]) -> None:
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("waited a minute in vain")


def client(*arguments: object, env: dict[str, str]) -> subprocess.Popen[str]:
    """The command line in a session of its own, as a terminal gives it."""
    command = [sys.executable, "-m", "edgeeff", *map(str, arguments)]
    return subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
