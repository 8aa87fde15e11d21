import re
from pathlib import Path

import readme

ROOT = Path(__file__).parents[1]


def test_the_numbers_are_those_of_the_results() -> None:
    text = readme.README.read_text()
    assert readme.updated(text) == text, "run benchmarks/readme.py"


def test_every_make_target_in_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z]+)[:-]", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z]+)", readme.README.read_text(), re.MULTILINE)) <= targets


def test_every_verb_in_the_readme_exists() -> None:
    from edgeeff.cli.options import parser

    verbs = set(parser()._subparsers._group_actions[0].choices)
    assert set(re.findall(r"^edgeeff ([a-z]+)", readme.README.read_text(), re.MULTILINE)) <= verbs
