"""What is known of a camera as Prometheus reads it: its text exposition format, version 0.0.4.

Source: https://prometheus.io/docs/instrumenting/exposition_formats
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..measurement.picture_statistics import NAMES
from .loop import Camera

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})  # in the value of a label

Sample = tuple[str, Mapping[str, str], float | None]  # what the name ends with, labels, and a value where there is one


def exposition(camera: Camera) -> str:
    """All families of metrics, each source's samples marked by `source`."""
    lines = []
    for name, kind, meaning, samples in _families(camera):
        lines += [f"# HELP edgeeff_camera_{name} {meaning}", f"# TYPE edgeeff_camera_{name} {kind}"]
        for suffix, labels, value in samples:
            if value is not None:
                pairs = ",".join(f'{key}="{text.translate(ESCAPES)}"' for key, text in labels.items())
                lines.append(
                    f"edgeeff_camera_{name}{suffix}{{{pairs}}} {value:.10g}" if pairs else f"edgeeff_camera_{name} {value:.10g}"
                )
    return "\n".join(lines) + "\n"


def _families(camera: Camera) -> Iterator[tuple[str, str, str, list[Sample]]]:
    """Name, type, meaning and samples of each."""
    summary = camera.summary()
    rows = summary.sources

    def each(values: list[float | None]) -> list[Sample]:
        return [("", {"source": row.source}, value) for row, value in zip(rows, values, strict=True)]

    yield "frames_total", "counter", "Frames that were captured.", each([r.frames for r in rows])
    yield "labels_total", "counter", "Frames that were labelled.", each([r.labels for r in rows])
    yield "dropped_total", "counter", "Frames that a newer one replaced before they were labelled.", each([r.dropped for r in rows])
    yield "unreadable_total", "counter", "Frames that could not be used.", each([r.unreadable for r in rows])
    yield "outages_total", "counter", "Times that the source was lost.", each([len(r.outages) for r in rows])
    yield "silent_seconds", "gauge", "Seconds since the last frame of a live source.", each([r.silent_s for r in rows])
    yield "failed", "gauge", "1 where the source has ended with an error.", each([float(r.error is not None) for r in rows])
    yield "labels_per_second", "gauge", "Labels a second since the start.", each([r.fps for r in rows])
    yield "latency_seconds", "summary", "End-to-end latency of a label since the start.", list(_latencies(camera))
    yield "classes_total", "counter", "Frames by their smoothed label.", list(_labels(camera))
    yield "uptime_seconds", "gauge", "Seconds since the start.", [("", {}, summary.seconds)]
    yield "temperature_celsius", "gauge", "The device's highest temperature.", [("", {}, summary.temperature)]
    yield (
        "drift",
        "gauge",
        "1 while the newest frames have drifted, from the calibration photos or the start.",
        list(_drifts(camera)),
    )
    yield "statistic", "gauge", "Mean of a statistic over the newest frames.", list(_statistics(camera, usual=False))
    yield "statistic_at_start", "gauge", "Mean of a statistic over the first frames.", list(_statistics(camera, usual=True))


def _latencies(camera: Camera) -> Iterator[Sample]:
    for capture, stats in zip(camera.captures, camera.stats, strict=True):
        source = {"source": capture.source.name}
        for percent in (50, 90, 99):
            milliseconds = stats.age.percentile(percent)
            yield "", {**source, "quantile": f"{percent / 100:g}"}, None if milliseconds is None else milliseconds / 1000
        yield "_sum", source, stats.age.sum / 1000
        yield "_count", source, stats.age.count


def _labels(camera: Camera) -> Iterator[Sample]:
    for capture, stats in zip(camera.captures, camera.stats, strict=True):
        for label, count in dict(stats.by_label).items():  # copied at once: the camera goes on
            yield "", {"source": capture.source.name, "label": label}, count


def _drifts(camera: Camera) -> Iterator[Sample]:
    for capture, detector in zip(camera.captures, camera.active.drift, strict=True):
        if detector:
            for name in NAMES:
                labels = {"source": capture.source.name, "statistic": name}
                yield "", {**labels, "from": "calibration"}, float(name in detector.outside)
                yield "", {**labels, "from": "start"}, float(name in detector.changed)


def _statistics(camera: Camera, *, usual: bool) -> Iterator[Sample]:
    for capture, detector in zip(camera.captures, camera.active.drift, strict=True):
        if detector is None:
            continue
        known = (detector.usual.mean if detector.usual else None) if usual else detector.mean
        for name, value in zip(NAMES, () if known is None else known, strict=known is not None):
            yield "", {"source": capture.source.name, "statistic": name}, float(value)
