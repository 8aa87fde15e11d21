"""Files of results, each with a digest of what it holds: one that was edited by hand is refused where it is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgeeff.errors import BadInput
from edgeeff.manifest import digest
from edgeeff.records import load_json

FOLDER = Path(__file__).parent / "results"


def write(path: Path, result: dict[str, Any]) -> None:
    """Write a result with its digest."""
    path.parent.mkdir(exist_ok=True)
    data = json.loads(json.dumps(result))  # keys that are numbers become text, as they are read
    path.write_text(json.dumps({**data, "digest": digest(data)}, indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """A result without its digest; raises BadInput where it is not as it was written."""
    result = load_json(path)
    if not isinstance(result, dict) or result.pop("digest", None) != digest(result):
        raise BadInput(f"{path}: does not match its own digest, so it was edited. Measure {path.stem} again.")
    return result
