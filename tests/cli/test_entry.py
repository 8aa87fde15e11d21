"""What the process prints, and where, and the exit code it ends with."""

import argparse
import errno
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeeff.cli import main
from edgeeff.cli.commands import VERBS
from edgeeff.cli.entry import EXTRAS
from edgeeff.cli.options import parser, progress_of
from edgeeff.errors import BudgetNotMet
from edgeeff.files import StageCache

pytestmark = pytest.mark.medium
ROOT = Path(__file__).parents[2]
Verb = Callable[[Callable[[], object]], None]


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Verb:
    """Replaces what the verb `targets` does."""
    monkeypatch.setenv("EDGEEFF_DEBUG", "0")

    def replace(work: Callable[[], object]) -> None:
        monkeypatch.setitem(VERBS, "targets", lambda options: work())

    return replace


def raising(error: BaseException) -> Callable[[], object]:
    def work() -> object:
        raise error

    return work


def python(code: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"import sys\nfrom edgeeff.cli import main\nfrom edgeeff.cli.commands import VERBS\n{code}"]
    return subprocess.run(command, text=True, **{"capture_output": True, **options})  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EBUSY, "Device or resource busy", "/sys/x"), "OSError: [Errno 16] Device or resource busy: '/sys/x'"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a"), "FileNotFoundError: "),
        (KeyError("steps"), "KeyError: 'steps'"),
        (AssertionError(), "AssertionError ("),
        (RuntimeError("first line.\n  second line."), "RuntimeError: first line. second line ("),
        (MemoryError(), "MemoryError ("),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "BrokenPipeError: "),  # of a socket, say: standard output is read
        (ModuleNotFoundError("No module named 'torch.nn.new'", name="torch.nn.new"), "No module named 'torch.nn.new'"),
        (ModuleNotFoundError("No module named 'rich'", name="rich"), "No module named 'rich'"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_internal_error_is_one_line_that_says_how_to_report_it(verb: Verb, capfd, error: Exception, words: str) -> None:
    verb(raising(error))
    assert main(["targets", "--json"]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("edgeeff: internal error: ")
    assert words in line
    assert "(edgeeff/cli/entry.py:" in line
    assert line.endswith(". Please report it with the output of the same command and --debug.")


def test_an_internal_error_names_the_line_of_edgeeff_that_called_a_library(capfd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeeff.config.fields", lambda record: json.loads("{"))
    assert main(["targets"]) == 1
    assert "(edgeeff/config.py:" in capfd.readouterr().err


@pytest.mark.parametrize("by", ["option", "variable"])
def test_debugging_shows_the_traceback_before_the_line(verb: Verb, capfd, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    verb(raising(RuntimeError("why")))
    if by == "variable":
        monkeypatch.setenv("EDGEEFF_DEBUG", "1")
    assert main(["targets", *(["--debug"] if by == "option" else [])]) == 1
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2] == "RuntimeError: why"
    assert lines[-1].startswith("edgeeff: internal error: RuntimeError: why")


def test_a_refusal_is_one_line_and_its_result_is_printed(verb: Verb, capfd) -> None:
    verb(raising(BudgetNotMet("p50 3 ms > 2", {"tried": 1})))
    assert main(["targets", "--json"]) == 3
    out, err = capfd.readouterr()
    assert json.loads(out) == {"tried": 1}
    assert err == "edgeeff: p50 3 ms > 2\n"
    assert main(["targets"]) == 3
    assert capfd.readouterr().out == ""


def test_an_interruption_ends_with_130(verb: Verb, capfd) -> None:
    verb(raising(KeyboardInterrupt()))
    assert main(["targets"]) == 130
    assert capfd.readouterr().err == "edgeeff: interrupted; the same command continues from what was done.\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_process_that_is_asked_to_end_does_so_as_at_ctrl_c(verb: Verb, capfd, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    verb(lambda: signal.raise_signal(number))
    assert main(["targets"]) == 130
    assert capfd.readouterr().err == "edgeeff: interrupted; the same command continues from what was done.\n"
    assert signal.getsignal(number) == before


def test_under_nohup_it_goes_on_when_the_terminal_is_closed(verb: Verb) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        verb(lambda: signal.raise_signal(signal.SIGHUP))
        assert main(["targets"]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_named(verb: Verb, capfd, number: int) -> None:
    verb(raising(OSError(number, os.strerror(number), "/data/x")))
    assert main(["targets"]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("edgeeff: /data/x: cannot be written: no space left")
    verb(raising(OSError(number, os.strerror(number))))
    assert main(["targets"]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("edgeeff: standard output or ")


def test_without_any_temporary_directory_tmpdir_is_named(verb: Verb, capfd) -> None:
    verb(raising(FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")))
    assert main(["targets"]) == 2
    assert "TMPDIR" in capfd.readouterr().err


def test_a_missing_optional_package_names_its_extra(verb: Verb, capfd) -> None:
    verb(raising(ModuleNotFoundError("No module named 'cv2'", name="cv2")))
    assert main(["targets"]) == 5
    assert capfd.readouterr().err == "edgeeff: cv2 is not installed: pip install 'edgeeff[camera]'\n"


def test_every_package_of_the_extras_is_known_by_the_name_it_is_imported_by() -> None:
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    imported = {"cuda-bindings": "cuda", "opencv-python-headless": "cv2", "paho-mqtt": "paho", "scikit-learn": "sklearn"}
    imported |= {"mlflow-skinny": "mlflow", "tensorrt-rtx-cu13-bindings": "tensorrt_rtx", "tensorrt-rtx-cu13-libs": "tensorrt_rtx"}
    expected = {}
    for extra, requirements in project["optional-dependencies"].items():
        names = [r.split(";")[0].split(">")[0].split("<")[0].split("[")[0] for r in requirements] if extra != "dev" else []
        expected |= {imported.get(name, name): extra for name in names if name != "edgeeff"}
    assert expected == EXTRAS


CHATTER = """
import logging, os, warnings
def work(options):
    os.write(1, b"a driver's word\\n")
    warnings.warn("a library's warning")
    logging.getLogger("library").info("a library's log")
    print("for people")
    return {"answer": 1}
VERBS["targets"] = work
sys.exit(main(sys.argv[1:]))
"""


def test_standard_output_holds_the_result_alone() -> None:
    code = CHATTER.replace('print("for people")', "")
    command = f"sys.argv[1:] = ['targets', '--json']\n{code}"
    done = python(command)
    assert json.loads(done.stdout) == {"answer": 1}
    assert done.stderr == "a driver's word\n"
    done = python(f"sys.argv[1:] = ['targets']\n{CHATTER}")
    assert done.stdout == "for people\n"


def test_debugging_lets_the_words_of_libraries_through() -> None:
    done = python(f"sys.argv[1:] = ['targets', '--json', '--debug']\n{CHATTER.replace('print', '#')}")
    assert json.loads(done.stdout) == {"answer": 1}
    assert "a library's warning" in done.stderr
    assert "library: INFO: a library's log" in done.stderr


def test_standard_output_is_restored(capfd) -> None:
    before = sys.stdout
    assert main(["targets", "--json"]) == 0
    print("after")
    assert sys.stdout is before
    assert capfd.readouterr().out.endswith("}\nafter\n")


@pytest.mark.parametrize("arguments", [[], ["--help"], ["targets"], ["targets", "--json"], ["completion", "bash"]])
@pytest.mark.parametrize("both", [False, True], ids=["output", "output and error"])
def test_a_reader_that_has_ended_is_no_error(arguments: list[str], both: bool) -> None:
    """As in `edgeeff targets | head -0`, and with 2>&1."""
    read, write = os.pipe()
    os.close(read)
    try:
        command = [sys.executable, "-m", "edgeeff", *arguments]
        done = subprocess.run(command, stdout=write, stderr=write if both else subprocess.PIPE, text=True)
    finally:
        os.close(write)
    assert not done.stderr
    assert done.returncode == 141 or (done.returncode == 0 and arguments == ["--help"])  # where argparse ignores it


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"], ["targets"], ["targets", "--json"], ["lint", "nowhere.onnx"]])
@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_standard_streams_that_are_closed_are_as_if_they_led_nowhere(arguments: list[str], closed: str, tmp_path: Path) -> None:
    command = ["bash", "-c", f'"$@" {closed}', "bash", sys.executable, "-m", "edgeeff", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == (2 if arguments[:1] == ["lint"] else 0)
    assert done.stderr.count("\n") == (arguments[:1] == ["lint"] and "2>&-" not in closed)
    assert done.stdout == ""


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_camera_whose_reader_has_ended_ends_quietly(fitted, digits: Path, more: list[str]) -> None:
    command = [sys.executable, "-m", "edgeeff", "camera", fitted[0], "--source", digits / "val/3", *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


@pytest.mark.parametrize("arguments", [[], ["--version"], ["targets"], ["targets", "--json"]])
def test_a_full_disk_under_standard_output_is_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-m", "edgeeff", *arguments], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode in (1, 2)
    (line,) = done.stderr.splitlines()
    assert line.startswith("edgeeff: standard output")


def test_alone_it_prints_a_short_guide(run) -> None:
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert 5 <= len(lines) <= 10
    verbs = parser()._subparsers._group_actions[0].choices
    shown = [line.split() for line in lines if line.startswith("  edgeeff ")]
    assert len(shown) == 3
    for words in shown:
        parser().parse_args(words[1:])
        assert words[1] in verbs
    assert "edgeeff VERB --help" in lines[-1]


def test_the_version(run) -> None:
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, "edgeeff 0.1.0\n", "")


def test_quiet_leaves_results_and_errors(verb: Verb, capfd) -> None:
    def work(options: argparse.Namespace) -> object:
        progress_of(options).say("a word on the way")
        print("the result")
        raise BudgetNotMet("p50 3 ms > 2")

    for quiet, said in (([], "a word on the way\n"), (["--quiet"], "")):
        verb(lambda: work(parser().parse_args(["targets", *quiet])))  # noqa: B023 (called within the loop)
        assert main(["targets", *quiet]) == 3
        assert capfd.readouterr() == ("the result\n", f"{said}edgeeff: p50 3 ms > 2\n")


def test_verbose_tells_what_is_made_and_what_is_kept(verb: Verb, tmp_path: Path, capfd, monkeypatch: pytest.MonkeyPatch) -> None:
    log = logging.getLogger("edgeeff")
    monkeypatch.setattr(log, "handlers", log.handlers[:])
    monkeypatch.setattr(log, "level", log.level)
    cache = StageCache(tmp_path)
    verb(lambda: [cache.once(name, lambda folder: None) for name in ("onnx", "onnx")] and None)
    assert main(["targets"]) == 0
    assert capfd.readouterr().err == ""
    shutil.rmtree(tmp_path / "onnx")
    assert main(["targets", "--verbose"]) == 0
    made, kept = capfd.readouterr().err.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d .*/onnx: made in \d\.\d s", made)
    assert kept.endswith("/onnx: kept from an earlier run")


@pytest.mark.slow
def test_bench_ends_with_its_own_code_where_its_measurement_is_not_sound(
    fitted, brief, capfd, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = ["bench", str(fitted[0]), "--rounds", "2", "--json"]
    for reasons, code in ([], 0), (["other programs used 2 of 2 cores"], 9):
        monkeypatch.setattr("edgeeff.measurement.latency.noise_reasons", lambda before, after: reasons)  # noqa: B023
        assert main(bench) == code
        out, err = capfd.readouterr()
        told = json.loads(out)
        assert told["latency_ms"]["p50"] > 0
        assert told["disturbed"] == reasons
        assert ("not a sound measurement, twice: other programs used 2 of 2 cores." in err) == bool(code)


def test_no_file_is_made_to_find_the_temporary_folder(tmp_path: Path) -> None:
    code = (
        "import tempfile\n"
        "sys.addaudithook(lambda event, told: event == 'open' and print(told[0], file=sys.stderr))\n"
        "VERBS['targets'] = lambda options: print(tempfile.gettempdir())\n"
        "main(['targets'])"
    )
    done = python(code, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert done.stdout == f"{tmp_path}\n"
    assert str(tmp_path) not in done.stderr
    missing = python(code, env={**os.environ, "TMPDIR": str(tmp_path / "none")})
    assert missing.returncode == 0  # Python looks for another one
    assert missing.stdout != f"{tmp_path / 'none'}\n"


def test_every_verb_takes_json_and_says_more_or_less() -> None:
    verbs = parser()._subparsers._group_actions[0].choices
    assert set(verbs) == set(VERBS)
    for verb in verbs.values():
        assert {"--json", "--quiet", "--verbose", "--debug"} <= set(verb._option_string_actions)


def test_help_imports_no_runtime() -> None:
    heavy = ("torch", "openvino", "onnxruntime", "onnx", "nncf", "tensorrt", "cv2", "shtab", "rich", "huggingface_hub")
    for arguments in ("[]", "['--help']", "['fit', '--help']"):
        done = python(f"try:\n    main({arguments})\nexcept SystemExit: pass\nprint(sorted(set(sys.modules) & set({heavy})))")
        assert done.stdout.splitlines()[-1] == "[]", done.stdout


@pytest.mark.slow
def test_nncf_is_quiet_unless_debugging() -> None:
    code = "import os\nfrom edgeeff.quantization.nncf_ptq import quiet_nncf\nwith quiet_nncf(): print('progress')"
    quiet = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert (quiet.stdout, quiet.stderr) == ("", "")
    env = {**os.environ, "EDGEEFF_DEBUG": "1"}
    loud = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, env=env)
    assert loud.stdout == ""
    assert "progress" in loud.stderr
