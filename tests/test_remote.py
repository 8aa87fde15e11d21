"""Verbs on another machine: a real SSH server on this one, whose logins have homes of their own."""

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT
from PIL import Image
from test_bad_input import refused
from test_page import require_true_figures

from edgeeff import BadInput, Bundle, EdgeeffError, Unreachable, backends, remote, ssh, wheel
from edgeeff.bundle import write

SSHD = Path("/usr/sbin/sshd")
PYTHON = Path(sys.base_prefix) / "bin"

pytestmark = pytest.mark.skipif(
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
        return [pid for pid, line in self.processes.items() if "edgeeff.cli" in line]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a running server; `hosts` in it are its clients' configurations."""
    folder = tmp_path_factory.mktemp("sshd")
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
            pytest.skip(f"sshd does not start: {(folder / 'sshd.log').read_text()}")
        yield folder
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where every board's environments are, so that each is installed once."""
    return tmp_path_factory.mktemp("on")


@pytest.fixture
def make(server: Path, environments: Path) -> Callable[..., Board]:
    def board(options: str = "") -> Board:
        unique = f"b{len(list((server / 'hosts').iterdir()))}"
        home = server / unique
        (home / ".cache/edgeeff").mkdir(parents=True)
        (home / ".cache/edgeeff/on").symlink_to(environments)
        key = "" if "IdentityFile" in options else f"IdentityFile {server}/user\n"
        (server / "hosts" / unique).write_text(f"Host {unique}\nSetEnv BOARD={unique}\n{key}{options}\n")
        return Board(unique, home, {**os.environ, "PATH": f"{server}/bin:{os.environ['PATH']}"})

    return board


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
    command = [sys.executable, "-m", "edgeeff.cli", *map(str, arguments)]
    return subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


def test_the_same_files_make_the_same_wheel_and_it_asks_for_no_torch(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    a, b = wheel.build(tmp_path / "a"), wheel.build(tmp_path / "b")
    assert a.read_bytes() == b.read_bytes()
    import zipfile

    archive = zipfile.ZipFile(a)
    text = archive.read("edgeeff-0.1.0.dist-info/METADATA").decode()
    assert "openvino" in text
    assert not [word for word in ("torch", "nncf", "onnx>") if word in text]
    assert {
        "edgeeff/there.py",
        "edgeeff/backends/openvino.py",
        "edgeeff/targets/host-cpu.yaml",
        "edgeeff/calib/default.yaml",
    } <= set(archive.namelist())


def test_a_first_eval_installs_through_a_lost_connection_and_answers_as_here(
    board: Board, environments: Path, fitted, digits: Path, run
) -> None:
    """The one real installation: pip gets the wheel, numpy and the runtime; the first poll meets a dead connection."""
    board.cut("*poll*")
    done = run("eval", fitted[0], "--val", digits / "val", "--on", board.name, "--json", env=board.env)
    assert done.returncode == 0, done.stderr
    assert "installing edgeeff[openvino]" in done.stderr
    assert "connection lost" in done.stderr
    assert "connected again" in done.stderr
    (there,) = json.loads(done.stdout)["hosts"]
    local = json.loads(run("eval", fitted[0], "--val", digits / "val", "--json").stdout)
    assert (there["host"], there["bundle"]) == (board.name, str(fitted[0]))
    assert [there[k] for k in ("top1", "top5", "images")] == [local[k] for k in ("top1", "top5", "images")]
    (packages,) = environments.glob("*/lib/python*/site-packages")
    assert {"openvino", "numpy", "edgeeff"} <= {p.name for p in packages.iterdir()}
    assert not {"torch", "nncf", "onnx", "onnxruntime"} & {p.name for p in packages.iterdir()}
    until(lambda: not board.processes)
    assert board.jobs == []

    again = run("eval", fitted[0], "--val", digits / "val", "--on", board.name, env=board.env)
    assert again.returncode == 0, again.stderr
    assert "sending" not in again.stderr
    assert "installing" not in again.stderr
    assert f"{local['top1']:.2f}" in again.stdout


def test_a_fleet_is_a_table_and_its_failing_host_the_exit_code(make: Callable[..., Board], fitted, run) -> None:
    boards = [make(), make(), make(options=f"Port {free_port()}")]
    names = [b.name for b in boards]
    done = run("bench", fitted[0], "--rounds", 2, "--on", *names, names[0], env=boards[0].env)
    refused(done, 6, "1 of 3 hosts failed", f"{names[2]}: it refuses the connection")
    head, *rows = done.stdout.splitlines()
    assert "p50 ms" in head
    assert [row.split()[0] for row in rows] == names
    assert [row.endswith("slowest") for row in rows].count(True) == 1
    assert "it refuses the connection" in rows[2]
    done = run("bench", fitted[0], "--rounds", 2, "--on", *names, "--json", env=boards[0].env)
    answers = json.loads(done.stdout)["hosts"]
    assert [a["host"] for a in answers] == names
    assert all(a["latency_ms"]["p50"] > 0 and a["device"]["cores"] for a in answers[:2])
    assert answers[2]["exit_code"] == done.returncode == 6
    until(lambda: not any(b.processes for b in boards))
    assert not any(b.jobs for b in boards)


@pytest.fixture
def portable(fitted, tmp_path: Path) -> Path:
    """A bundle that a device compiles for itself. Its one form is the float graph renamed: the way there and back counts."""
    source = Bundle.open(fitted[0])
    (tmp_path / "fp16.onnx").write_bytes((fitted[0] / "model.onnx").read_bytes())
    images = source.golden()["images"]
    logits = backends.get("onnxruntime").load(tmp_path / "fp16.onnx", precision="float32")(images)
    facts = {k: v for k, v in source.manifest.items() if k not in ("schema", "files", "digest")}
    facts |= {"backend": "onnxruntime", "model": "fp16.onnx", "precision": "fp16", "max_drop": 20}
    facts |= {"forms": [{"precision": "fp16", "file": "fp16.onnx"}]}
    (tmp_path / "bundle").mkdir()
    files = [tmp_path / "fp16.onnx", fitted[0] / "model.onnx"]
    answers = {"images": images, "logits": logits, "float32": logits, "fp16": logits}
    return write(tmp_path / "bundle", files, source.labels, answers, facts).path


def test_engines_are_built_there_and_come_back_through_a_lost_connection(
    board: Board, make: Callable[..., Board], portable: Path, digits: Path, run
) -> None:
    """On a TensorRT that is a fake over ONNX Runtime. Another kind of machine is then refused before anything is sent."""
    import onnxruntime

    fakes = f"export PYTHONPATH={ROOT}/tests/fakes:{Path(onnxruntime.__file__).parents[1]}"
    board.cut("*rsync*--sender*")
    rules = Path(f"{board.home}.rules")
    rules.write_text(f"{fakes}\n{rules.read_text()}")
    done = run("compile", portable, "--val", digits / "val", "--on", board.name, "--json", env=board.env)
    assert done.returncode == 0, done.stderr
    assert "connected again" in done.stderr
    (there,) = json.loads(done.stdout)["hosts"]
    assert [e["precision"] for e in there["engines"]] == ["float32", "fp16"]
    assert there["bundle"] == str(portable)
    manifest = json.loads((portable / "manifest.json").read_text())
    assert (manifest["backend"], manifest["precision"]) == ("tensorrt", there["precision"])
    assert {p.name for p in portable.parent.iterdir()} == {"bundle", "fp16.onnx"}
    until(lambda: not board.processes)
    assert board.jobs == []

    other = make()
    other.program("uname", "echo aarch64")
    done = run("bench", portable, "--on", other.name, env=other.env)
    refused(done, 2, f"{other.name}: is aarch64", "built on", "edgeeff compile")
    assert not any((other.home / ".cache/edgeeff/sent").iterdir())


@pytest.mark.parametrize(
    ("command", "before"),
    [
        ("*rsync*--server*", first(300_000)),
        ("*start*", 'cd; sh -c "$SSH_ORIGINAL_COMMAND" >/dev/null;'),
        ("*poll*", ""),
        ("*stop*", 'cd; sh -c "$SSH_ORIGINAL_COMMAND" >/dev/null;'),
    ],
    ids=["while sending", "after the start", "while it runs", "after the end"],
)
def test_a_connection_cut_in_any_phase_costs_nothing(board: Board, fitted, run, command: str, before: str) -> None:
    board.cut(command, before)
    done = run("bench", fitted[0], "--rounds", 2, "--on", board.name, "--json", env=board.env)
    assert done.returncode == 0, done.stderr
    assert not Path(f"{board.home}.cut").exists()
    assert "connected again" in done.stderr
    until(lambda: not board.processes)
    assert board.jobs == []


def test_a_connection_cut_at_the_first_word_is_an_error_at_once(board: Board, fitted, run) -> None:
    board.cut("*")
    refused(run("bench", fitted[0], "--on", board.name, env=board.env), 6, board.name)
    assert run("bench", fitted[0], "--rounds", 2, "--on", board.name, env=board.env).returncode == 0


def test_an_upload_that_was_cut_goes_on_where_it_was(here: Board, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(os.urandom(20_000_000))
    here.cut("*rsync*--server*", first(6_000_000))
    rules = Path(f"{here.home}.rules")
    rules.write_text(f'wc -c < "$HOME/there/big" >> "$HOME.sizes" 2>/dev/null\n{rules.read_text()}')
    connection = ssh.Connection(here.name)
    try:
        connection.run("true")
        connection.send(tmp_path / "big", "there")
    finally:
        connection.close()
    (size,) = Path(f"{here.home}.sizes").read_text().split()
    assert 1_000_000 < int(size) < 6_000_000
    assert (here.home / "there/big").read_bytes() == (tmp_path / "big").read_bytes()


def test_who_gives_up_finds_the_job_again(here: Board, fitted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "PATIENCE", 1.0)
    here.rule('case "$SSH_ORIGINAL_COMMAND" in *poll*) kill -9 $PPID;; esac')
    said: list[str] = []

    class Loud(remote.Progress):
        def say(self, line: str) -> None:
            said.append(line)

    with remote.Host.connect(here.name, "openvino", Loud()) as host:
        with pytest.raises(Unreachable, match="The same command goes on"):
            host.run(["bench", "bundle", "--rounds", "2"], {"bundle": fitted[0]})
        here.rule("")
        assert host.run(["bench", "bundle", "--rounds", "2"], {"bundle": fitted[0]})["latency_ms"]["p50"] > 0
    assert [line for line in said if "an earlier call's job is" in line]
    assert here.jobs == []


def test_a_killed_client_loses_nothing(board: Board, fitted, run) -> None:
    arguments = ["bench", fitted[0], "--rounds", 60, "--on", board.name]
    first = client(*arguments, env=board.env)
    until(lambda: board.verbs)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert len(board.jobs) == 1
    done = run(*arguments, env=board.env)
    assert done.returncode == 0, done.stderr
    assert "an earlier call's job is" in done.stderr
    assert board.jobs == []


def test_ctrl_c_leaves_nothing_running(board: Board, make: Callable[..., Board], fitted) -> None:
    other = make()
    process = client("bench", fitted[0], "--rounds", 10**6, "--on", board.name, other.name, env=board.env)
    until(lambda: board.verbs and other.verbs)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    until(lambda: not board.processes and not other.processes)
    assert board.jobs == other.jobs == []


def test_without_a_client_the_job_ends_itself(here: Board, fitted) -> None:
    code = "import sys; from pathlib import Path; from edgeeff import remote; remote.SILENCE = 3\n"
    code += "host = remote.Host.connect(sys.argv[1], 'openvino')\n"
    code += "host.run(['bench', 'bundle', '--rounds', '1000000'], {'bundle': Path(sys.argv[2])})"
    process = subprocess.Popen([sys.executable, "-c", code, here.name, str(fitted[0])], start_new_session=True)
    until(lambda: here.verbs)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    until(lambda: not here.processes)


@pytest.mark.parametrize("restarted", [True, False])
def test_a_job_that_vanished_is_started_again_once(board: Board, fitted, run, restarted: bool) -> None:
    """A restarted machine has another boot id, and nothing of the job but its folder."""
    process = client("bench", fitted[0], "--rounds", 60, "--on", board.name, env=board.env)

    def vanish() -> None:
        until(lambda: board.verbs)
        if restarted:
            (board.jobs[0] / "boot").write_text("another")
        os.killpg(int((board.jobs[0] / "pid").read_text()), signal.SIGKILL)

    vanish()
    what = "it restarted" if restarted else "the job's process vanished"
    if not restarted:
        until(lambda: not board.verbs)
        vanish()
    _, err = process.communicate(timeout=120)
    assert f"{board.name}: {what} during the job; starting it again." in err
    if not restarted:
        assert process.returncode == 1
        assert "during the job, twice" in err.splitlines()[-1]
    else:
        assert process.returncode == 0, err
    assert board.jobs == []


def test_a_refusal_there_is_one_here(here: Board, fitted, digits: Path, tmp_path: Path) -> None:
    photos = Path(shutil.copytree(digits / "val", tmp_path / "val"))
    for photo in sorted((photos / "0").iterdir())[:9]:
        photo.write_text("not a photo")
    with remote.Host.connect(here.name, "openvino") as host:
        assert host.machine == os.uname().machine
        with pytest.raises(BadInput, match=rf"{here.name}: val: 9 of 300 files cannot be read"):
            host.run(["eval", "bundle", "--val", "val"], {"bundle": fitted[0], "val": photos})
        with pytest.raises(BadInput, match="nowhere"):
            host.run(["verify", "nowhere"])
    assert here.jobs == []


def test_an_answer_that_is_no_json_is_refused(here: Board, fitted, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nif 'edgeeff.cli' in sys.orig_argv: print('hello')\n")
    here.rule(f"export PYTHONPATH={tmp_path}")
    with remote.Host.connect(here.name, "openvino") as host, pytest.raises(EdgeeffError, match="not the JSON") as caught:
        host.run(["verify", "bundle"], {"bundle": fitted[0]})
    assert caught.value.exit_code == 1
    assert here.jobs == []


def python_without(what: str, answer: str) -> str:
    """The body of a python3 that fails where `what` is in its arguments, and answers to -V."""
    return f'case "$*" in *"{what}"*) exit 1;; -V) echo "{answer}"; exit;; esac\nexec {PYTHON}/python3 "$@"'


@pytest.mark.parametrize(
    ("options", "program", "code", "words"),
    [
        ("HostName nowhere.invalid", "", 6, ["unknown host"]),
        ("Port {closed}", "", 6, ["refuses the connection"]),
        ("Port {silent}", "", 6, ["no answer within 10 seconds"]),
        ("IdentityFile {folder}/other", "", 6, ["refuses the key", "ssh-copy-id"]),
        ("UserKnownHostsFile {folder}/stranger", "", 6, ["not known here", "Connect once by hand"]),
        ("UserKnownHostsFile {folder}/changed", "", 6, ["host key has changed", "do not ignore"]),
        ("", "python3", 5, ["expected python3 from 3.10", "found Python 3.8.10"]),
        ("", "venv", 5, ["apt install python3-venv"]),
        ("", "rsync", 5, ["rsync is not installed there"]),
        ("", "uname", 2, ["is armv7l"]),
        ("", "df", 2, ["the disk there is full", "MB free"]),
        ("", "ulimit", 2, ["the disk there is full", "goes on"]),
        ("", "profile", 1, ["answers 'welcome'"]),
        ("", "pip", 6, ["reaches no package index"]),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_what_can_be_wrong_with_a_host(
    server: Path, make: Callable[..., Board], fitted, run, options: str, program: str, code: int, words: list[str]
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        board = make(options=options.format(folder=server, closed=free_port(), silent=silent.getsockname()[1]))
        if program in ("python3", "venv"):
            what, answer = ("version_info <", "Python 3.8.10") if program == "python3" else ("ensurepip", "Python 3.10.12")
            board.program("python3", python_without(what, answer))
            if program == "python3":
                for version in (10, 11, 12, 13):
                    board.program(f"python3.{version}", "exit 1")
        elif program == "rsync":
            board.program("sh", "exit 1")
            folder = Path(f"{board.home}.bin")
            for tool in ("mkdir", "uname", "sh"):
                (folder / tool).unlink(missing_ok=True)
                (folder / tool).symlink_to(str(shutil.which(tool)))
            board.rule(f"PATH={folder}:{PYTHON}")
        elif program == "uname":
            board.program("uname", "echo armv7l")
        elif program == "df":
            board.program("df", "echo Filesystem; echo /dev/sda1 1000 990 10 99% /")
        elif program == "ulimit":  # a limit on the size of a file stands in for the disk
            board.rule("trap '' XFSZ; ulimit -f 100")
        elif program == "profile":
            board.rule("echo welcome")
        elif program == "pip":
            (board.home / ".cache/edgeeff/on").unlink()
            board.rule("unset PIP_FIND_LINKS; export PIP_CONFIG_FILE=/dev/null PIP_RETRIES=1 PIP_INDEX_URL=https://nowhere.invalid")
        done = run("bench", fitted[0], "--rounds", 2, "--on", board.name, env=board.env)
    refused(done, code, board.name, *words)
    until(lambda: not board.processes)
    assert board.jobs == []


@pytest.mark.parametrize("name", ["-oProxyCommand=touch x", "a b", "a:/etc", "", "-a@b", "a@-b", "a;b"])
def test_a_host_is_never_an_option_or_a_path(fitted, run, name: str, tmp_path: Path) -> None:
    refused(run("bench", fitted[0], f"--on={name}", cwd=tmp_path), 2, "not a host", "USER@HOST")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("tool", ["ssh", "rsync"])
def test_without_ssh_or_rsync_here(fitted, run, tmp_path: Path, tool: str) -> None:
    for other in {"ssh", "rsync"} - {tool}:
        (tmp_path / other).symlink_to(str(shutil.which(other)))
    refused(run("bench", fitted[0], "--on", "board", env={**os.environ, "PATH": str(tmp_path)}), 5, f"{tool} is not installed here")


def test_what_lay_unused_for_long_is_removed(tmp_path: Path) -> None:
    base = tmp_path / ".cache/edgeeff"
    for kind in ("sent/kit", "sent/photos", "sent/old", "on/old", "jobs/old"):
        (base / kind).mkdir(parents=True)
        if kind != "sent/photos":
            os.utime(base / kind, (0, 0))
    (base / "on/new/bin").mkdir(parents=True)
    (base / "on/new/bin/python").write_text("#!/bin/sh\necho said >&2; exit 3\n")
    (base / "on/new/bin/python").chmod(0o755)
    job = {"kit": "kit", "send": {"val": "photos"}, "copy": [], "environment": "new", "arguments": ["eval"], "silence": 60}

    def there(*arguments: str) -> dict:
        command = [sys.executable, ROOT / "edgeeff/there.py", *arguments]
        env = {**os.environ, "HOME": str(tmp_path)}
        return json.loads(
            subprocess.run(command, env=env, input=json.dumps(job), capture_output=True, text=True, check=True).stdout
        )

    assert there("start", "a")["state"] == "none"
    until(lambda: there("poll", "a", "0", "0")["state"] == "done")
    answer = there("poll", "a", "0", "0")
    assert (answer["rc"], answer["lines"], answer["output"]) == (3, ["said"], "")
    assert there("start", "a")["state"] == "done"
    left = {p.relative_to(base).as_posix() for kind in ("sent", "on", "jobs") for p in (base / kind).iterdir() if p.is_dir()}
    assert left == {"sent/kit", "sent/photos", "on/new", "jobs/a"}
    assert there("stop", "a")["state"] == "none"
    assert not (base / "jobs/a").exists()


def test_what_is_wrong_here_is_said_before_connecting(board: Board, fitted, digits: Path, run, tmp_path: Path) -> None:
    refused(run("eval", tmp_path, "--val", digits / "val", "--on", board.name, env=board.env), 2, "not a bundle")
    refused(run("eval", fitted[0], "--val", digits / "val/0", "--on", board.name, env=board.env), 2, "unlabelled")
    refused(run("compile", fitted[0], "--on", board.name, env=board.env), 2, "nothing to compile")
    assert not (board.home / ".cache/edgeeff/jobs").exists()


def test_a_pick_measures_there_and_a_fit_gives_the_same_network(
    board: Board, make: Callable[..., Board], fitted, digits: Path, run, tmp_path: Path
) -> None:
    """On one host, and on two, where what fits the slower one fits both."""
    small = ("--target", "host-cpu", "--latency", 500, "--resolution", 32)
    done = run("pick", *small, "--variant", "lite0", "--classes", 10, "--on", board.name, "--json", env=board.env)
    assert done.returncode == 0, done.stderr
    chosen = json.loads(done.stdout)["chosen"]
    assert chosen["latency_ms"]["p50"] > 0
    assert "hosts" not in chosen["forms"][0]
    pair = [board, make()]
    for each in pair:
        each.rule(f"export PYTHONPATH={ROOT}/tests/fakes")
    names = [each.name for each in pair]
    away = make(options=f"Port {free_port()}").name
    refused(run("pick", *small, "--on", board.name, away, env=board.env), 6, f"{away}: it refuses the connection")
    photos = ("--train", digits / "train", "--val", digits / "val", "--epochs", 1, "--no-flip", "--max-drop", 20)
    out = tmp_path / "bundle"
    done = run("fit", *small, "--variant", "lite0", *photos, "--out", out, "--on", *names, env=board.env)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith(tuple(names))]
    assert [row[0] for row in rows] == names
    assert [row[-1] == "slowest" for row in rows].count(True) == 1
    ours, theirs = (Bundle.open(path).manifest for path in (fitted[0], out))
    assert ours["files"]["model.onnx"] == theirs["files"]["model.onnx"]
    assert list(theirs["device"]["hosts"]) == [h["host"] for h in theirs["hosts"]] == names
    assert theirs["latency_ms"]["p50"] in [h["p50"] for h in theirs["hosts"]]
    figures = require_true_figures((out / "report.html").read_text(encoding="utf-8")).figures
    assert [figures[f"hosts.{i}.host"] for i in range(2)] == [[name] for name in names]
    assert theirs["command"].endswith(f" --on {' '.join(names)}")
    assert {s["runtime"] for s in theirs["siblings"]} == {"openvino"}  # what was installed there
    assert board.jobs == []


def test_cameras_there_speak_here_until_ctrl_c(
    board: Board, make: Callable[..., Board], fitted, digits: Path, run, tmp_path: Path
) -> None:
    """Photos in a folder there stand for the camera."""
    photos = sorted(digits.glob("val/3/*.png"))
    few = ("camera", fitted[0], "--source", digits / "val/3", "--top", 2, "--on", board.name)
    done = run(*few, "--output", tmp_path / "lines", "--json", env=board.env)
    assert done.returncode == 0, done.stderr
    *lines, last = map(json.loads, done.stdout.splitlines())
    assert [line["frame"] for line in lines] == list(range(len(photos)))
    assert lines[0]["source"] == f"{board.name} {digits}/val/3"
    assert (tmp_path / "lines").read_text().splitlines() == done.stdout.splitlines()[:-1]
    local = [json.loads(line) for line in run(*few[:-2], "--json").stdout.splitlines()[:-1]]
    assert [line["top"] for line in lines] == [line["top"] for line in local]
    (there,) = last["hosts"]
    assert there["summary"]["sources"][0]["labels"] == len(photos)
    refused(run(*few, "--budget-ms", 0.001, env=board.env), 3, f"{board.name}: {digits}/val/3: from frame to label")

    other, endless, said = make(), tmp_path / "endless", tmp_path / "said"
    endless.mkdir()
    Image.new("RGB", (4000, 3000)).save(tmp_path / "large.jpg")
    for i in range(5000):  # minutes
        (endless / f"{i:05d}.jpg").symlink_to(tmp_path / "large.jpg")
    process = client("camera", fitted[0], "--source", endless, "--output", said, "--on", board.name, other.name, env=board.env)
    until(lambda: said.is_file() and all(f'"{b.name} {endless}"' in said.read_text() for b in (board, other)))
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    rows = [line.removeprefix("→").split() for line in out.splitlines() if str(endless) in line and "%" not in line]
    assert [row[:2] for row in rows] == [[board.name, str(endless)], [other.name, str(endless)]]
    assert all(0 < int(row[3]) < 5000 for row in rows)
    assert not [line for line in err.splitlines() if "sending" not in line]
    until(lambda: not board.processes and not other.processes)
    assert board.jobs == other.jobs == []


def test_what_needs_the_pictures_is_refused_where_the_camera_is_elsewhere(fitted, run) -> None:
    for asked in (("--source", "0", "--web", "8080"), ("--source", "0", "--collect", "x"), ("--source", "-")):
        refused(run("camera", fitted[0], *asked, "--on", "board"), 2, "pictures stay where they are")
