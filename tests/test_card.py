"""The model card: true to the manifest, readable by a hub, and safe with foreign names."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from manifests import STEP, small_manifest
from markdown_it import MarkdownIt

from edgeeff import Bundle, card
from edgeeff.manifest import HeldOut, Manifest

EVIL = (
    "<script>alert(1)</script>",
    "# x",
    "a | b | c",
    "`` ` ``",
    "```\n# out of the block\n```",
    "[x](http://evil)",
    "![x](http://evil/x.png)",
    "http://evil www.evil",
    "- a",
    "1. a",
    "=====",
    "---\nlicense: mit\n---",
    "a\n\n# b\n\n<b>c</b>",
    "**a** _b_ ~~c~~ $d$ &lt; \\",
    "   x",
    "",
)


def structure(markdown: str) -> list[tuple[str, str]]:
    """The kinds of everything in the text behind the front matter, but for text and code."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown.split("---\n", 2)[2])
    every = [inner for token in tokens for inner in (token, *(token.children or ()))]
    return [(token.type, token.tag) for token in every if token.type not in ("text", "code_inline", "text_special", "inline")]


def front_matter(markdown: str) -> dict:
    assert markdown.startswith("---\n")
    return yaml.safe_load(markdown.split("---\n", 2)[1])


@pytest.fixture
def markdown(fitted) -> str:
    return (fitted[0] / card.NAME).read_text(encoding="utf-8")


def test_the_card_is_vouched_for_and_follows_from_the_manifest(fitted, markdown: str) -> None:
    bundle = Bundle.open(fitted[0])
    assert card.NAME in bundle.manifest.files
    assert card.render(bundle.manifest, bundle.labels) == markdown


def test_the_front_matter_is_what_a_hub_reads_and_claims_nothing_unknown(markdown: str, fitted) -> None:
    data = front_matter(markdown)
    manifest = Bundle.open(fitted[0]).manifest
    assert (data["pipeline_tag"], data["library_name"]) == ("image-classification", "edgeeff")
    assert {manifest.variant, str(manifest.precision), "openvino"} <= set(data["tags"])
    assert not {"license", "model-index"} & set(data)


def test_the_figures_are_the_manifest_s(markdown: str, fitted) -> None:
    manifest = Bundle.open(fitted[0]).manifest
    assert manifest.shipped is not None
    row, latency = manifest.siblings[manifest.shipped], manifest.metrics.latency
    assert f"top-1 {row.top1:.2f}%, {row.drop:+.2f} points lost ({row.drop_ci[0]:+.2f} to {row.drop_ci[1]:+.2f})" in markdown
    assert f"on {manifest.validation_photos} validation photos (SHA-256 `{manifest.validation_sha256}`)" in markdown
    for name, value, (low, high) in (("p50", latency.p50, latency.ci), ("p99", latency.p99, latency.ci99)):
        assert f"| {name} | {value:.2f} | {low:.2f} to {high:.2f} |" in markdown
    assert "There were no test photos." in markdown
    assert card.text(manifest.device.cpu) in markdown
    assert manifest.command in markdown
    for name, version in manifest.versions.items():
        assert f"| {card.text(name)} | {card.text(version)} |" in markdown


def test_the_python_lines_run(fitted, markdown: str, digits: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    shutil.copytree(fitted[0], tmp_path / "my-model")
    shutil.copy(next((digits / "val/3").iterdir()), tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    lines = re.search(r"```python\n(.*?)```", markdown, re.DOTALL)
    assert lines
    exec(lines[1], {})
    name, probability = capsys.readouterr().out.split()
    assert name in Bundle.open(fitted[0]).names
    assert 0 < float(probability) <= 1


def test_what_was_judged_on_test_photos_and_on_the_device_is_told_apart() -> None:
    before, after = replace(STEP, step="float", top1=91.0), replace(STEP, top1=89.0, images=77)
    manifest = replace(small_manifest(), held_out=HeldOut("2" * 64, (before, after), False))
    shown = card.render(manifest, ())
    assert f"on 77 test photos (SHA-256 `{'2' * 64}`), which no choice has seen: top-1 89.00%" in shown
    assert "The float32 network there: top-1 91.00%." in shown
    engine = replace(manifest.engines[0], precision=manifest.precision, photos_sha256="3" * 64)
    shown = card.render(replace(manifest, engines=(engine,)), ())
    assert f"On 200 photos (SHA-256 `{'3' * 64}`), by which the engine was judged on the device: top-1 90.00%" in shown


@pytest.mark.parametrize("name", EVIL)
def test_foreign_names_stay_text(name: str) -> None:
    def rendered(foreign: str) -> str:
        manifest: Manifest = small_manifest()
        texts = dict.fromkeys(("variant", "target", "activation", "verdict", "command", "date"), foreign)
        device = replace(manifest.device, cpu=foreign, os=foreign)
        return card.render(replace(manifest, **texts, device=device, versions={foreign: foreign}), (foreign or "x",) * 10)

    shown, plain = rendered(name), rendered("plain")
    assert structure(shown) == structure(plain)
    assert set(front_matter(shown)) == set(front_matter(plain))


@pytest.mark.parametrize("name", [*EVIL[:-2], "0.1.0", "2.13.0+cpu", "1) a", "12 ms", "2-b", ": a"])
def test_escaped_text_is_shown_as_it_was(name: str) -> None:
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    (paragraph, inline, _) = parser.parse(card.text(name))
    assert paragraph.type == "paragraph_open"
    assert "".join(child.content for child in inline.children or ()) == " ".join(name.split())


def test_all_names_are_shown_or_counted() -> None:
    names = tuple(f"class {i}" for i in range(card.CLASSES + 7))
    shown = card.render(small_manifest(), names)
    assert shown.count("\n- ") >= card.CLASSES
    assert "and 7 more, in `labels.txt`" in shown
    assert "which have no names here" in card.render(small_manifest(), ())
