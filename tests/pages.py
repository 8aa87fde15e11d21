"""What a test reads of an HTML report."""

import json
import re
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Reader(HTMLParser):
    """`figures`: path → texts shown; `addresses`: what the page would load or link to; `open`: elements left open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.figures: dict[str, list[str]] = {}
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.open: list[str] = []
        self.path: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        given = dict(attributes)
        self.tags.append(tag)
        self.addresses += [v for k, v in attributes if k in ("src", "href", "xlink:href", "srcset", "action", "data")]
        assert not [k for k in given if k.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)
        if path := given.get("data-path"):
            self.path = path
            self.figures.setdefault(path, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag
        self.path = None

    def handle_data(self, text: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += text
        if self.path:
            self.figures[self.path][-1] += text


def facts(html: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1])


def photos(html: str) -> list[str]:
    return re.findall(r'src="(data:[^"]+)"', html)


def require_true_figures(html: str) -> Reader:
    """Every figure is the JSON's value at its path, in the decimals shown."""
    data, reader = facts(html), Reader(html)
    for path, texts in reader.figures.items():
        value = data
        for key in path.split("."):
            value = value[int(key)] if isinstance(value, list) else value[key]
        for text in texts:
            if isinstance(value, str):
                assert text == value, path
            else:
                decimals = len(text.partition(".")[2])
                assert abs(float(text) - value) <= 0.5 * 10**-decimals + 1e-9, (path, text, value)
    return reader
