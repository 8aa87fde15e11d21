"""Every number on the command line, as no number should be: refused in a line that names the option."""

from pathlib import Path

import pytest
from attempts import Hostile

from edgeeff.data.preprocess import Preprocess
from edgeeff.network.checkpoint import save
from edgeeff.network.model import create

SOME = ("nan", "-inf", "1e309", "4 parsecs", "", "9" * 50_000, "1\n2", "\x1b[31m1")
NO_NUMBERS = (
    *SOME,
    "NaN",
    "inf",
    "Infinity",
    "-1e400",
    "0x10",
    "1_0",
    "٣",
    "1,5",
    "1.5.2",
    "1e",
    "four",
    " ",
    "1 2",
    "--1",
    "-" + "9" * 5000,
    "1e" + "9" * 5000,
    "1\u202e",
    "4mss",
    "ms",
    "4 4ms",
    "4ms ",
    "4  ms",
    "nanms",
    "1e309ms",
    "1e400s",
    "9" * 5000 + "s",
    "٣ms",
    "4m\u017f",  # a long s, which is an s in lower case
)
SOME_WHOLE = (*SOME, "1.5", "1e2", str(2**64))
NO_WHOLE_NUMBERS = (*NO_NUMBERS, "1.5", "1e2", str(2**64))
FIT = ("fit", "--target", "host-cpu", "--train", "nowhere", "--val", "nowhere", "--out", "nowhere/out")
PICK = ("pick", "--target", "host-cpu")
EVAL = ("eval", "nowhere", "--val", "nowhere")
CAMERA = ("camera", "nowhere", "--source", "0")
COSTS = ("--latency", "--fps", "--gflops", "--mparams", "--size-mb", "--memory-mb", "--energy-mj")
Command = tuple[str, ...]

# Options of numbers, and numbers that are out of their range.
NUMBERS: list[tuple[Command, Command, Command]] = [
    (FIT, COSTS, ("0", "-0", "-1", "-5e-324")),
    (PICK, COSTS, ("0", "-1")),
    (FIT, ("--max-drop", "--max-class-drop", "--min-agreement"), ("-1", "100.1", "1e300")),
    (FIT, ("--max-corrupt", "--hold-out"), ("-1", "1", "1e300")),
    (FIT, ("--crop",), ("0", "-1", "1.01")),
    (FIT, ("--time-budget", "--lr"), ("0", "-0", "-1")),
    (FIT, ("--lr",), ("1.1",)),
    (EVAL, ("--max-corrupt",), ("-1", "1", "1e300")),
    (("compile", "nowhere"), ("--max-corrupt",), ("-1", "1", "1e300")),
    (("requalify", "nowhere"), ("--max-corrupt",), ("-1", "1", "1e300")),
    (CAMERA, ("--seconds", "--collect-mb", "--budget-ms"), ("0", "-0", "-1")),
    (CAMERA, ("--smooth", "--threshold", "--uncertain"), ()),
]
WHOLE_NUMBERS: list[tuple[Command, Command, Command]] = [
    (FIT, ("--resolution",), ("0", "-1", "31", "2049", "1" * 18)),
    (FIT, ("--epochs",), ("0", "-1", "1" * 18)),
    (FIT, ("--seed",), ("-1",)),
    (FIT, ("--percentile",), ("0", "-50", "51", "100")),
    (PICK, ("--classes",), ("0", "1", "-1", "3000000000", "1" * 18)),
    (PICK, ("--resolution",), ("0", "-1", "31", "2049", "1" * 18)),
    (("profile", "--target", "host-cpu"), ("--resolution",), ("0", "-1", "31", "2049")),
    (("variants",), ("--resolution", "--classes"), ("0", "-1", "1" * 18)),
    (("bench", "nowhere"), ("--rounds",), ("0", "1", "-1")),
    (("requalify", "nowhere"), ("--rounds",), ("0", "1", "-1")),
    (("compile", "nowhere"), ("--dla",), ("-1", "16")),
    (("inspect", "nowhere"), ("--top",), ("0", "-1")),
    (CAMERA, ("--every", "--top"), ("0", "-1")),
]
CASES = [
    (command, option, (*(every if option in ("--latency", "--max-drop", "--seed", "--resolution") else some), *outside))
    for rows, every, some in ((NUMBERS, NO_NUMBERS, SOME), (WHOLE_NUMBERS, NO_WHOLE_NUMBERS, SOME_WHOLE))
    for command, options, outside in rows
    for option in options
]


@pytest.mark.parametrize(("command", "option", "numbers"), CASES, ids=[f"{command[0]} {option}" for command, option, _ in CASES])
def test_what_is_no_number_for_an_option_is_refused_by_its_name(
    hostile: Hostile, command: Command, option: str, numbers: Command
) -> None:
    for number in numbers:
        hostile.refused(*command, f"{option}={number}", words=("resolution" if option == "--resolution" else option,))


@pytest.mark.parametrize("processes", ["abc", "", "0", "-1", "1.5", "٣", "9" * 5000, "1\n"])
def test_a_wrong_number_of_processes_in_the_environment(hostile: Hostile, monkeypatch: pytest.MonkeyPatch, processes: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", processes)
    hostile.refused("targets", words=("WORLD_SIZE",), name=processes)


def test_the_largest_seed_is_a_number(hostile: Hostile) -> None:
    hostile.refused(*FIT, f"--seed={'9' * 18}", words=("nowhere: no such folder",))


@pytest.mark.parametrize(
    "option", ["--roi=1,2,3", f"--roi={'9' * 5000},0,1,1", "--size=1", f"--size={'9' * 5000}x1", "--size=1x-1"]
)
def test_regions_and_sizes_of_the_camera(hostile: Hostile, option: str) -> None:
    hostile.refused(*CAMERA, option, words=(option.partition("=")[0],))


@pytest.mark.parametrize("version", ["", "9", "10", "12.1", "10.", "10..1", "nan", "10.3\n", "10." + "9" * 5000])
def test_versions_of_tensorrt(hostile: Hostile, version: str) -> None:
    hostile.refused("lint", "nowhere.onnx", f"--tensorrt={version}", words=("tensorrt",) if version != "10" else ("nowhere",))


@pytest.mark.parametrize("budget", [("--gflops", "1e-6"), ("--mparams", "0.1"), ("--size-mb", "0.5")], ids=lambda budget: budget[0])
@pytest.mark.parametrize("start", ["photos", "weights"])
def test_a_budget_that_no_file_can_meet_is_refused_before_the_work(
    hostile: Hostile, few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: Command, start: str
) -> None:
    def work(*arguments: object, **options: object) -> None:
        raise AssertionError("trained, or judged")

    monkeypatch.setattr("edgeeff.weights.train", work)
    monkeypatch.setattr("edgeeff.pipeline.judge_float", work)
    train, val, out = few_digits / "train", few_digits / "val", tmp_path / "out"
    words = ("fit", "--target", "host-cpu", "--variant", "phi-6", "--resolution", 32, "--val", val, "--out", out, *budget)
    if start == "weights":
        weights = tmp_path / "w.safetensors"
        save(create("phi-6", classes=10), weights, Preprocess(32, 36, (0, 0, 0), (1, 1, 1)), ())
        hostile.refused(*words, "--weights", weights, "--calib", train, code=3, words=("phi-6 at 32 px needs",))
    else:
        hostile.refused(*words, "--train", train, code=3, words=("phi-6 at 32 px needs",))
    hostile.expect(not out.exists(), budget)
