"""What Prometheus reads of a camera, by its own parser."""

import time
import urllib.error
import urllib.request
from dataclasses import replace

import numpy as np
import pytest
from cameras import Fake, host_line, serving, spoken
from manifests import STATISTICS
from prometheus_client.parser import text_string_to_metric_families

from edgeeff import Bundle
from edgeeff.camera import Camera, CameraOptions
from edgeeff.camera.drift import WINDOW
from edgeeff.camera.metrics import CONTENT_TYPE, exposition
from edgeeff.camera.web import CameraPage
from edgeeff.measurement.picture_statistics import NAMES

ODD = 'a "quoted"\\back\nslash é'


def samples(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        assert family.type in ("counter", "gauge", "summary"), family
        for sample in family.samples:
            found.setdefault(sample.name.removeprefix("edgeeff_camera_"), []).append((sample.labels, sample.value))
    return found


@pytest.fixture
def camera(bundle: Bundle) -> Camera:
    """One that has ended after a minute in the dark, whose source has an odd name."""
    frames = [np.zeros((48, 64, 3), np.uint8)] * (WINDOW + 12)
    source = Fake("x", lambda: ((time.monotonic(), frame) for frame in frames))
    source.live, source.frame_seconds, source.name = False, 1.0, ODD
    facts = replace(bundle.manifest, calibration_statistics=replace(STATISTICS, brightness=(0.2, 0.3, 0.4, 0.5, 0.6)))
    camera = Camera(replace(bundle, manifest=facts), [source], CameraOptions(threshold=0.01))
    list(camera)
    return camera


def test_prometheus_reads_every_number_with_its_source(camera: Camera) -> None:
    text = exposition(camera)
    found, row = samples(text), camera.summary().sources[0]
    assert text.endswith("\n")
    for name, value in (
        ("frames_total", WINDOW + 12),
        ("labels_total", WINDOW + 12),
        ("dropped_total", 0),
        ("unreadable_total", 0),
    ):
        assert found[name] == [({"source": ODD}, value)]
    assert found["labels_per_second"] == [({"source": ODD}, row.fps)]
    assert {labels["quantile"]: seconds for labels, seconds in found["latency_seconds"]} == pytest.approx(
        {"0.5": row.age_ms.p50 / 1000, "0.9": row.age_ms.p90 / 1000, "0.99": row.age_ms.p99 / 1000}, abs=1e-6
    )
    assert found["latency_seconds_count"] == [({"source": ODD}, WINDOW + 12)]
    assert found["latency_seconds_sum"][0][1] == pytest.approx(camera.stats[0].age.sum / 1000)
    assert sum(count for _, count in found["classes_total"]) == WINDOW + 12
    assert found["uptime_seconds"] == [({}, pytest.approx(camera.summary().seconds, abs=0.1))]


def test_drift_has_a_state_and_a_mean_for_each_statistic(camera: Camera) -> None:
    found = samples(exposition(camera))
    states = {(labels["statistic"], labels["from"]): state for labels, state in found["drift"]}
    assert len(states) == 2 * len(NAMES)
    assert [key for key, state in states.items() if state] == [("brightness", "calibration")]
    means = {labels["statistic"]: mean for labels, mean in found["statistic"]}
    assert list(means) == list(NAMES)
    assert means["brightness"] == pytest.approx(0, abs=1e-6)
    assert "statistic_at_start" not in found  # it is not over


def test_a_camera_without_a_frame_or_statistics_is_read_too(bundle: Bundle) -> None:
    plain = replace(bundle, manifest=replace(bundle.manifest, calibration_statistics=None))
    found = samples(exposition(Camera(plain, [Fake("a", lambda: iter([])), Fake("b", lambda: iter([]))])))
    assert [labels["source"] for labels, _ in found["frames_total"]] == ["rtsp://a", "rtsp://b"]
    assert "drift" not in found
    assert "latency_seconds" not in found


def test_metrics_are_served_under_the_same_rules_as_the_page(bundle: Bundle) -> None:
    with serving(bundle) as (_, web):
        with urllib.request.urlopen(web.url + "metrics", timeout=10) as answer:
            assert answer.headers["Content-Type"] == CONTENT_TYPE
            assert samples(answer.read().decode())["frames_total"][0][0] == {"source": "rtsp://pictures"}
        assert (
            spoken(web, b"GET /metrics HTTP/1.1\r\nHost: elsewhere.example\r\nConnection: close\r\n\r\n")[:13] == b"HTTP/1.1 421 "
        )
        assert spoken(web, b"POST /metrics" + host_line(web) + b"Connection: close\r\n\r\n")[:13] == b"HTTP/1.1 403 "
    with CameraPage("0.0.0.0:0", Camera(bundle, [Fake("pictures", lambda: iter([]))])) as web:
        bare, token = web.url.split("?token=")
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(bare + "metrics", timeout=10)
        assert urllib.request.urlopen(f"{bare}metrics?token={token}", timeout=10).status == 200
