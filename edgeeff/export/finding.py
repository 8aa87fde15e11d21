"""What a rule says of a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .graph_view import Graph


@dataclass(frozen=True)
class Finding:
    """A broken rule: with `error` the graph fails to build or computes something else, otherwise it runs slower than it could."""

    rule: str
    error: bool
    node: str
    message: str
    remedy: str


Findings = Iterator[Finding]
Rule = Callable[[Graph], Findings]
