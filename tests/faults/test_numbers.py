"""Every number on the command line, as no number should be."""

import pytest
from attempts import Hostile

NUMBERS = (
    "nan",
    "inf",
    "-inf",
    "-0",
    "-1",
    "1e309",
    "1e999",
    "-1e400",
    "0x10",
    "1_0",
    "٣",
    "1,5",
    "four",
    "",
    " ",
    "1" * 5000,
    "1\n2",
)
FIT = ("fit", "--target", "host-cpu", "--train", "nowhere", "--val", "nowhere", "--out", "nowhere/out")
OPTIONS = {
    ("--latency", "--size-mb", "--gflops"): FIT,
    (
        "--max-drop",
        "--max-class-drop",
        "--min-agreement",
        "--max-corrupt",
        "--hold-out",
        "--time-budget",
        "--lr",
        "--epochs",
        "--seed",
    ): FIT,
}


@pytest.mark.parametrize(("option", "command"), [(o, command) for options, command in OPTIONS.items() for o in options])
def test_a_number_of_the_command_line(hostile: Hostile, option: str, command: tuple[str, ...]) -> None:
    for number in NUMBERS:
        hostile.refused(*command, f"{option}={number}")
