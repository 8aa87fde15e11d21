"""The way to another machine and back: what is sent, cut, resumed, refused and left there."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from boards import NEEDED, PYTHON, Board, client, first, free_port, until
from conftest import ROOT, refused
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from edgeeff import BadInput, Bundle, EdgeeffError, Unreachable
from edgeeff.errors import Unreliable, exit_code
from edgeeff.remote import agent, ssh, wheel
from edgeeff.remote import host as remote

pytestmark = NEEDED

SOUND_OR_NOT = (0, 9)
"""How `bench` ends: 9 where something else runs on the machine of the tests."""


def test_the_same_files_make_the_same_wheel_and_it_asks_for_no_torch(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    a, b = wheel.build(tmp_path / "a"), wheel.build(tmp_path / "b")
    assert a.read_bytes() == b.read_bytes()
    archive = zipfile.ZipFile(a)
    text = archive.read("edgeeff-0.1.0.dist-info/METADATA").decode()
    assert "openvino" in text
    assert not [word for word in ("torch", "nncf", "onnx>") if word in text]
    assert {
        "edgeeff/remote/agent.py",
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


def test_a_host_checks_the_signature_itself_and_reads_a_table_of_photos(
    here: Board, fitted, digits: Path, run, tmp_path: Path
) -> None:
    """Both take packages beside the runtime's, which are installed there."""
    bundle = Path(shutil.copytree(fitted[0], tmp_path / "bundle"))
    ours, theirs = (key_pair(tmp_path / name) for name in ("ours", "theirs"))
    Bundle.open(bundle).sign(ours[0])
    photos = sorted(p for p in (digits / "val").rglob("*.png"))
    names = sorted({p.parent.name for p in photos})
    images = [{"bytes": p.read_bytes(), "path": p.name} for p in photos]
    table = pa.table({"image": images, "label": [names.index(p.parent.name) for p in photos]})
    pq.write_table(table, tmp_path / "val.parquet")
    words = ("eval", bundle, "--trusted", ours[1], "--json", "--val")
    done = run(*words, tmp_path / "val.parquet", "--on", here.name, env=here.env)
    assert done.returncode == 0, done.stderr
    local = json.loads(run(*words, digits / "val").stdout)
    assert json.loads(done.stdout)["hosts"][0]["top1"] == local["top1"]

    words = ("eval", "bundle", "--val", "val-val.parquet", "--trusted", "trusted-0.pem")
    sent = {"bundle": bundle, "val-val.parquet": tmp_path / "val.parquet", "trusted-0.pem": theirs[1]}
    with (
        remote.Host.connect(here.name, "openvino", remote.SILENT) as host,
        pytest.raises(BadInput, match="is not trusted"),
    ):
        host.run(list(words), sent)


def key_pair(path: Path) -> tuple[Path, Path]:
    """A private and a public key, written as OpenSSL writes them."""
    private, public = path.with_suffix(".key"), path.with_suffix(".pem")
    key = Ed25519PrivateKey.generate()
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


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
    assert done.returncode in SOUND_OR_NOT, done.stderr
    assert not Path(f"{board.home}.cut").exists()
    assert "connected again" in done.stderr
    until(lambda: not board.processes)
    assert board.jobs == []


def test_a_connection_cut_at_the_first_word_is_an_error_at_once(board: Board, fitted, run) -> None:
    board.cut("*")
    refused(run("bench", fitted[0], "--on", board.name, env=board.env), 6, board.name)
    assert run("bench", fitted[0], "--rounds", 2, "--on", board.name, env=board.env).returncode in SOUND_OR_NOT


def sent(board: Board, file: Path) -> None:
    """Send a file to the board's folder `there`."""
    connection = ssh.Connection(board.name)
    try:
        connection.run("true")
        connection.send(file, "there")
    finally:
        connection.close()


def test_an_upload_that_was_cut_goes_on_where_it_was(here: Board, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(os.urandom(20_000_000))
    here.cut("*rsync*--server*", first(6_000_000))
    rules = Path(f"{here.home}.rules")
    rules.write_text(f'wc -c < "$HOME/there/big" >> "$HOME.sizes" 2>/dev/null\n{rules.read_text()}')
    sent(here, tmp_path / "big")
    (size,) = Path(f"{here.home}.sizes").read_text().split()
    assert 1_000_000 < int(size) < 6_000_000
    assert (here.home / "there/big").read_bytes() == (tmp_path / "big").read_bytes()


def test_an_upload_whose_receiver_was_killed_leaves_no_file_but_its_own(here: Board, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(os.urandom(20_000_000))
    Path(f"{here.home}.cut").touch()
    some = "{ dd bs=65536 count=6000000 iflag=count_bytes status=none; sleep 60; }"
    here.rule(
        f'case "$SSH_ORIGINAL_COMMAND" in *rsync*--server*) rm "$HOME.cut" 2>/dev/null && cd "$HOME" && '
        f'{some} | sh -c "$SSH_ORIGINAL_COMMAND";; esac'
    )

    def kill() -> None:
        until(lambda: any(p.stat().st_size > 1_000_000 for p in here.home.glob("there/*big*")))
        for pid in here.processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        sent(here, tmp_path / "big")
    finally:
        thread.join()
    assert (here.home / "there/big").read_bytes() == (tmp_path / "big").read_bytes()
    assert [p.name for p in (here.home / "there").iterdir()] == ["big"]


def test_who_gives_up_finds_the_job_again(here: Board, fitted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "RECONNECT_TIMEOUT", 1.0)
    here.rule('case "$SSH_ORIGINAL_COMMAND" in *poll*) kill -9 $PPID;; esac')
    said: list[str] = []

    class Loud(remote.Progress):
        def say(self, line: str) -> None:
            said.append(line)

    with remote.Host.connect(here.name, "openvino", Loud()) as host:
        with pytest.raises(Unreachable, match="The same command goes on"):
            host.run(["bench", "bundle", "--rounds", "2"], {"bundle": fitted[0]})
        here.rule("")
        with contextlib.suppress(Unreliable):  # where something else runs on the machine of the tests
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
    assert done.returncode in SOUND_OR_NOT, done.stderr
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
    code = "import sys; from pathlib import Path; from edgeeff.remote import host as remote; remote.POLL_TIMEOUT = 3\n"
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
        assert process.returncode in (0, 9), err  # 9: something else runs on the machine of the tests
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
    (tmp_path / "sitecustomize.py").write_text("import sys\nif 'edgeeff' in sys.orig_argv: print('hello')\n")
    here.rule(f"export PYTHONPATH={tmp_path}")
    with remote.Host.connect(here.name, "openvino") as host, pytest.raises(EdgeeffError, match="not the JSON") as caught:
        host.run(["verify", "bundle"], {"bundle": fitted[0]})
    assert exit_code(caught.value) == 1
    assert here.jobs == []


def test_an_internal_error_there_is_one_here_with_its_traceback_when_debugging(board: Board, fitted, run, tmp_path: Path) -> None:
    code = "import sys\nif 'edgeeff' in sys.orig_argv:\n  from edgeeff.measurement import benchmark\n  benchmark.measure = None\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    board.rule(f"export PYTHONPATH={tmp_path}")
    for debug in ([], ["--debug"]):
        done = run("bench", fitted[0], "--rounds", 2, "--on", board.name, *debug, env=board.env)
        assert done.returncode == 1
        last = done.stderr.splitlines()[-1]
        assert last.startswith(f"edgeeff: {board.name}: internal error: TypeError: 'NoneType' object is not callable (edgeeff/")
        assert (f"{board.name}: Traceback (most recent call last):" in done.stderr) == bool(debug)
    assert board.jobs == []


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


@pytest.mark.parametrize("outside", [True, False])
def test_only_beside_jetpacks_opencv_is_numpy_held_below_2(tmp_path: Path, monkeypatch, outside: bool) -> None:
    commands: list[list[str]] = []

    class Installation:
        def run(self, command: list[str], *_: object) -> int:
            commands.append(command)
            (tmp_path / "on/new.unfinished").mkdir(exist_ok=True)
            return 0

    (tmp_path / "on").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(agent, "BASE", tmp_path)
    job = {"kit": "kit", "wheel": "edgeeff.whl", "extra": "tensorrt", "outside": outside, "environment": "new"}
    agent._environment(job, Installation())
    venv, pip = commands
    assert ("--system-site-packages" in venv) == outside
    wheel = f"{tmp_path}/sent/kit/edgeeff.whl[tensorrt]"
    assert pip[pip.index(wheel) :] == ([wheel, "numpy<2"] if outside else [wheel])


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
        command = [sys.executable, ROOT / "edgeeff/remote/agent.py", *arguments]
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


def test_a_verb_ends_with_its_agent_and_a_half_removed_job_is_not_a_done_one(tmp_path: Path) -> None:
    """The agent alone is killed, as where memory is short. Then its folder is as a killed `stop` may leave it."""
    base, asked = tmp_path / ".cache/edgeeff", {"kit": "kit", "send": {}, "copy": [], "environment": "new", "arguments": ["x"]}
    for kind in ("sent/kit", "on/new/bin", "jobs"):
        (base / kind).mkdir(parents=True)
    (base / "on/new/bin/python").write_text('#!/bin/sh\necho $$ > "$HOME/verb"; exec sleep 1000\n')
    (base / "on/new/bin/python").chmod(0o755)

    def agent(*arguments: str) -> dict:
        command = [sys.executable, ROOT / "edgeeff/remote/agent.py", *arguments]
        text, env = json.dumps({**asked, "silence": 60}), {**os.environ, "HOME": str(tmp_path)}
        return json.loads(subprocess.run(command, env=env, input=text, capture_output=True, text=True, check=True).stdout)

    agent("start", "a")
    until(lambda: (tmp_path / "verb").exists() and (tmp_path / "verb").read_text())
    verb = int((tmp_path / "verb").read_text())
    os.kill(int((base / "jobs/a/pid").read_text()), signal.SIGKILL)
    until(lambda: not alive(verb))
    assert agent("poll", "a", "0", "0")["state"] == "gone"

    (base / "jobs/a/rc").write_text("0")
    shutil.rmtree(base / "jobs/a/work")
    remove = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'edgeeff/remote')!r}); import agent, os, signal; from pathlib import Path\n"
    )
    remove += "agent._remove = lambda path: os.kill(os.getpid(), signal.SIGKILL)\nagent.stop(Path(sys.argv[1]))"
    assert subprocess.run([sys.executable, "-c", remove, base / "jobs/a"]).returncode == -signal.SIGKILL
    assert agent("start", "a")["state"] == "gone"
    assert agent("stop", "a") == {"state": "none"}


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended, and that nobody has waited for, does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


@pytest.mark.parametrize(
    ("job", "code", "line"),
    [
        ({"environment": "new"}, 1, "edgeeff: internal error in the agent: KeyError: 'arguments'. Please report it."),
        (
            {"environment": "new", "arguments": ["eval"], "send": {"x": "full"}, "copy": ["x"]},
            2,
            "edgeeff: the disk there is full: ",
        ),
    ],
)
def test_what_goes_wrong_in_the_agent_is_one_line(tmp_path: Path, job: dict, code: int, line: str) -> None:
    base = tmp_path / ".cache/edgeeff"
    for kind in ("sent/kit", "on/new/bin", "jobs"):
        (base / kind).mkdir(parents=True)
    (base / "sent/full").write_bytes(bytes(4096))
    (base / "on/new/bin/python").touch()

    def agent(*arguments: str) -> dict:
        command = [
            "sh",
            "-c",
            'trap "" XFSZ; ulimit -f 2; exec "$0" "$@"',
            sys.executable,
            ROOT / "edgeeff/remote/agent.py",
            *arguments,
        ]
        text = json.dumps({"kit": "kit", "send": {}, "copy": [], "silence": 60, **job})
        env = {**os.environ, "HOME": str(tmp_path)}
        return json.loads(subprocess.run(command, env=env, input=text, capture_output=True, text=True, check=True).stdout)

    agent("start", "a")
    until(lambda: agent("poll", "a", "0", "0")["state"] == "done")
    answer = agent("poll", "a", "0", "0")
    assert answer["rc"] == code
    assert answer["lines"][-1].startswith(line)
    assert agent("stop", "a") == {"state": "none"}


def test_what_is_wrong_here_is_said_before_connecting(board: Board, fitted, digits: Path, run, tmp_path: Path) -> None:
    refused(run("eval", tmp_path, "--val", digits / "val", "--on", board.name, env=board.env), 2, "not a bundle")
    refused(run("eval", fitted[0], "--val", digits / "val/0", "--on", board.name, env=board.env), 2, "unlabelled")
    refused(run("compile", fitted[0], "--on", board.name, env=board.env), 2, "nothing to compile")
    assert not (board.home / ".cache/edgeeff/jobs").exists()
