"""What a camera writes as JSON, and reads from cameras of other machines."""

import json
import time

import msgspec
import numpy as np
import pytest
from cameras import Fake, result

from edgeeff import Bundle
from edgeeff.camera import Camera, CameraSummary
from edgeeff.camera.result import FrameLabel

FIGURES = ["p50", "p90", "p99"]


def test_a_label_goes_through_json_without_its_pixels() -> None:
    written = json.loads(json.dumps(result(1 / 3, at=1 / 3).to_json()))
    assert list(written) == [
        "source",
        "frame",
        "time",
        "label",
        "top",
        "age_ms",
        "waited_ms",
        "inference_ms",
        "unknown",
        "distance",
        "drift",
    ]
    assert (written["time"], written["top"]) == (0.3333, [["rose", 0.3333]])
    label = FrameLabel.from_json(written)
    assert (label.source, label.top) == ("cam/1", (("rose", 0.3333),))
    assert label.to_json() == result(1 / 3, at=1 / 3).to_json()
    with pytest.raises(msgspec.ValidationError, match=r"\$\.age_ms"):
        FrameLabel.from_json({**written, "age_ms": "old"})


def test_a_summary_goes_through_json(bundle: Bundle) -> None:
    source = Fake("one", lambda: iter([(time.monotonic(), np.zeros((48, 64, 3), np.uint8))]))
    source.live = False
    camera = Camera(bundle, [source, Fake("none", lambda: iter([]))])
    list(camera)
    summary = camera.summary()
    written = json.loads(json.dumps(summary.to_json()))
    assert list(written) == ["sources", "seconds", "temperature"]
    counts = ["source", "frames", "labels", "dropped", "unreadable", "fps"]
    assert list(written["sources"][0]) == [*counts, "age_ms", "parts_ms", "outages", "silent_s", "error", "drift"]
    assert list(written["sources"][0]["age_ms"]) == FIGURES
    assert list(written["sources"][1]["parts_ms"]) == ["waiting for the model", "inference", "output"]
    assert written["sources"][1]["age_ms"] == dict.fromkeys(FIGURES)
    assert CameraSummary.from_json(written) == summary
