import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import readme

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture(params=PAGES, ids=lambda page: page.name)
def text(request: pytest.FixtureRequest) -> str:
    return request.param.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", readme.PAGES, ids=lambda page: page.name)
def test_the_numbers_are_those_of_the_results(page: Path) -> None:
    text = page.read_text()
    assert text.count(readme.BEGIN) == text.count(readme.END) == 1
    assert readme.updated(text, readme.PAGES[page]()) == text, "run benchmarks/readme.py"


def test_pictures_and_rivals_are_those_of_the_results() -> None:
    for path, drawn in {readme.RIVALS: readme.rival_file(), **readme.pictures()}.items():
        assert path.read_text(encoding="utf-8") == drawn, "run benchmarks/readme.py"


def test_the_readme_is_short() -> None:
    assert len(readme.README.read_text().splitlines()) <= 150


def test_every_make_target_in_the_readme_exists(text: str) -> None:
    targets = set(re.findall(r"^([a-z]+(?:-[a-z]+)*)(?:-%)?:", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"(?:^|`)make ([a-z]+(?:-[a-z]+)*)", text, re.MULTILINE)
    assert {re.sub(r"^(cpu|jetson)-.*", r"\1", name) for name in named} <= targets


def test_every_verb_in_the_readme_exists(text: str) -> None:
    from edgeeff.cli.options import parser

    verbs = set(parser()._subparsers._group_actions[0].choices)
    code = "\n".join([*blocks(text), *re.findall(r"`([^`\n]+)`", text)])
    assert set(re.findall(r"\bedgeeff ([a-z]+)\b(?![-/.])", code)) <= verbs


def test_every_command_of_a_code_block_is_understood(text: str) -> None:
    from edgeeff.cli.options import parser

    for words in commands(text):
        parser().parse_args(words)


def test_every_link_leads_to_a_file() -> None:
    missing = []
    for page in [*PAGES, ROOT / "calib/README.md"]:
        links = re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", page.read_text(encoding="utf-8"))
        for link in filter(None, (a or b for a, b in links)):
            if not link.startswith(("http://", "https://")):
                path, _, heading = link.partition("#")
                target = page.parent / path if path else page
                if not target.exists() or (heading and heading not in headings(target)):
                    missing.append(f"{page.name}: {link}")
    assert not missing


def test_the_command_line_page_names_every_verb_and_budget() -> None:
    from edgeeff.budget import KINDS
    from edgeeff.cli.options import parser

    text = (ROOT / "docs/command-line.md").read_text(encoding="utf-8")
    verbs = set(parser()._subparsers._group_actions[0].choices)
    assert set(re.findall(r"^\| `edgeeff ([a-z]+)` \|", text, re.MULTILINE)) == verbs
    assert set(re.findall(r"^\| `(--[a-z-]+)", text, re.MULTILINE)) == {kind.flag(name) for name, kind in KINDS.items()}


def test_the_architecture_page_has_the_levels_and_modules_of_the_package() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    layers = re.search(r"^layers = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)
    assert layers
    expected = [layer.replace(" | ", " · ") for layer in re.findall(r'"(.+?)"', layers[1])]
    assert re.findall(r"^\| \*\*\d+\*\* \| \*\*(.+?)\*\* \|$", text, re.MULTILINE) == expected
    package = ROOT / "edgeeff"
    modules = {".".join(file.relative_to(package).with_suffix("").parts) for file in package.rglob("*.py")}
    named = set(re.findall(r"^\| `([a-z0-9_.]+)` \|", text, re.MULTILINE))
    assert named - {"backends"} == {m for m in modules if not m.endswith("__")}


def commands(text: str) -> Iterator[list[str]]:
    """The command lines of edgeeff in code blocks, as words; `\\` at the end of a line continues it, `#` begins a comment."""
    for block in blocks(text):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("edgeeff "):
                yield shlex.split(line.partition(" | ")[0], comments=True)[1:]


def blocks(text: str) -> list[str]:
    """The code blocks of no named language."""
    return [code for language, code in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) if not language]


def headings(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
