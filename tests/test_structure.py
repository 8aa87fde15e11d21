"""What the code promises about its own form, measured on the source: short stages, small functions, typed facts."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgeeff

PACKAGE = Path(edgeeff.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
PARSER = PACKAGE / "cli" / "options.py"  # a list of options is as long as the list is


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and file != PARSER:
                yield f"{file.relative_to(PACKAGE)}:{node.lineno} {node.name}", node


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    a = function.args
    named = [*a.posonlyargs, *a.args, *a.kwonlyargs, *(each for each in (a.vararg, a.kwarg) if each)]
    return [each.arg for each in named if each.arg not in ("self", "cls")]


def lines_with(text: str) -> list[str]:
    return [
        f"{file.relative_to(PACKAGE)}:{number}"
        for file in SOURCES
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        for _ in range(line.count(text))
    ]


def test_the_pipeline_is_read_in_one_sitting() -> None:
    assert len((PACKAGE / "pipeline.py").read_text(encoding="utf-8").splitlines()) <= 150


def test_no_function_is_longer_than_a_screen() -> None:
    lengths = {where: (node.end_lineno or 0) - node.lineno + 1 for where, node in functions()}
    assert {where: lines for where, lines in lengths.items() if lines > 60} == {}


def test_no_function_takes_more_than_seven_parameters() -> None:
    taken = {where: parameters(node) for where, node in functions()}
    assert {where: names for where, names in taken.items() if len(names) > 7} == {}


def test_untyped_dictionaries_are_only_where_json_enters_or_leaves() -> None:
    found = lines_with("dict[str, Any]")
    assert len(found) <= 20, found


def test_no_precision_is_parsed_from_a_text() -> None:
    assert lines_with('startswith("int8")') == lines_with("startswith('int8')") == []


@pytest.mark.parametrize("name", edgeeff.__all__)
def test_no_public_name_hides_a_module(name: str) -> None:
    assert not (PACKAGE / f"{name}.py").exists()
    assert not (PACKAGE / name).is_dir()


def test_every_public_name_is_there() -> None:
    assert [name for name in edgeeff.__all__ if not hasattr(edgeeff, name)] == []
