"""Frames in, labels out, on the fitted bundle; `Fake` stands for cameras that no test machine has."""

import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from boards import until
from cameras import Fake, Said, at_pace
from PIL import Image

from edgeeff import BadInput, BudgetNotMet, Bundle, ToolMissing, Unreachable
from edgeeff.camera import Camera, CameraOptions
from edgeeff.camera.smoothing import LabelSmoother
from edgeeff.camera.stats import LatencyHistogram
from edgeeff.data.frames import Frames, SyntheticFrames, View
from edgeeff.data.images import ImageSet, PixelFile
from edgeeff.measurement.confidence import Confidence


def test_the_camera_says_what_footage_says(bundle: Bundle, digits: Path) -> None:
    frames = Frames(640, 480)
    photos = PixelFile(ImageSet.open(digits / "val").draw(20), bundle.preprocess)
    footage = np.concatenate(list(SyntheticFrames(photos, View.of(bundle.preprocess, frames)).batches(8)))
    see = bundle.watch(frames)
    source = Fake("it", lambda: ((time.monotonic(), f) for f in footage))
    source.live = False
    results = list(Camera(bundle, [source]))
    assert [r.top[0][0] for r in results] == [bundle.labels[int(see(f).argmax())] for f in footage]


def test_probabilities_are_those_of_the_bundle_s_temperature(bundle: Bundle) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    (logits,), _ = bundle.watch_scored(Frames(64, 48))(frame)
    odds = np.exp(np.sort(logits.astype(np.float64))[::-1] / 3)
    source = Fake("it", lambda: iter([(time.monotonic(), frame)]))
    source.live = False
    (result,) = Camera(replace(bundle, manifest=replace(bundle.manifest, confidence=Confidence(3.0, 200))), [source])
    assert [p for _, p in result.top] == pytest.approx((odds / odds.sum())[:3], abs=1e-6)


def known_within(bundle: Bundle, part: float) -> Bundle:
    """The bundle with its threshold for unknown photos multiplied."""
    unknown = bundle.manifest.unknown
    assert unknown is not None
    return replace(bundle, manifest=replace(bundle.manifest, unknown=replace(unknown, threshold=part * unknown.threshold)))


def test_frames_beyond_the_threshold_are_unknown(bundle: Bundle) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    _, (distance,) = bundle.watch_scored(Frames(64, 48))(frame)

    def label(part: float) -> tuple[str | None, bool, float | None]:
        source = Fake("it", lambda: iter([(time.monotonic(), frame)]))
        source.live = False
        (result,) = Camera(known_within(bundle, part), [source], CameraOptions(threshold=0.01))
        return result.label, result.unknown, result.distance

    assert label(0.99 * distance) == ("unknown", True, pytest.approx(1 / 0.99))
    name, unknown, found = label(1.01 * distance)
    assert (name in bundle.labels, unknown, found) == (True, False, pytest.approx(1 / 1.01))


def test_one_unknown_frame_among_others_does_not_change_a_smoothed_label(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    odds, sees = np.full((1, 10), -20, np.float32), iter([0.5, 1.5, 0.5, *(10 * [1.5])])
    odds[0, 3] = 20
    monkeypatch.setattr(Bundle, "watch_scored", lambda self, frames: lambda frame: (odds, [next(sees) if frame.any() else 0.0]))
    frames = Fake("film", lambda: ((0.0, np.full((48, 64, 3), 1, np.uint8)) for _ in range(13)))
    frames.live, frames.frame_seconds = False, 0.2
    labels = [(result.label, result.unknown) for result in Camera(bundle, [frames])]
    assert labels[:3] == 3 * [("3", False)]
    assert labels[-1] == ("unknown", True)
    assert labels == sorted(labels)  # it changes once


def test_a_class_called_unknown_is_told_from_the_label(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bundle, "labels", property(lambda self: ("unknown", *"123456789")))
    odds = np.zeros((1, 10), np.float32)
    odds[0, 0] = 100
    for distance, expected in ((0.5, False), (1.5, True)):
        monkeypatch.setattr(Bundle, "watch_scored", lambda self, frames, at=distance: lambda frame, at=at: (odds, [at]))
        source = Fake("it", lambda: iter([(0.0, np.zeros((48, 64, 3), np.uint8))]))
        source.live = False
        (result,) = Camera(bundle, [source])
        assert (result.label, result.unknown) == ("unknown", expected)


def test_a_bundle_without_a_threshold_has_no_unknown_frames(bundle: Bundle) -> None:
    source = Fake("it", lambda: iter([(0.0, np.zeros((48, 64, 3), np.uint8))]))
    source.live = False
    (result,) = Camera(replace(bundle, manifest=replace(bundle.manifest, unknown=None)), [source])
    assert (result.unknown, result.distance) == (False, None)
    assert result.to_json()["distance"] is None


def test_every_frame_of_a_file_gets_a_line(run, fitted, film: Path, tmp_path: Path) -> None:
    done = run("camera", fitted[0], "--source", film, "--json", "--output", tmp_path / "lines", "--top", 2)
    assert done.returncode == 0, done.stderr
    *lines, last = map(json.loads, done.stdout.splitlines())
    assert [line["frame"] for line in lines] == list(range(40))
    assert (tmp_path / "lines").read_text().splitlines() == done.stdout.splitlines()[:-1]
    figures = {"age_ms", "waited_ms", "inference_ms"}
    assert set(lines[0]) == {"source", "frame", "time", "label", "top", "unknown", "distance", "drift", *figures}
    assert len(lines[0]["top"]) == 2
    (seen,) = last["summary"]["sources"]
    assert (seen["frames"], seen["labels"], seen["dropped"], seen["outages"]) == (40, 40, 0, [])
    assert seen["age_ms"]["p50"] <= seen["age_ms"]["p99"]
    plain = run("camera", fitted[0], "--source", film, "--every", 4)
    assert plain.returncode == 0
    assert "end-to-end latency" in plain.stdout
    assert plain.stderr == ""


def test_a_slow_reader_sees_the_newest_frame(bundle: Bundle) -> None:
    """Frames come at 60 a second, the one who reads takes a tenth of a second for each."""
    camera = Camera(bundle, [Fake("fast", at_pace(60))])
    waited = []
    for result in itertools.islice(camera, 12):
        waited.append(result.waited_ms)
        time.sleep(0.1)
    camera.close()
    seen = camera.summary().sources[0]
    assert seen.dropped > 2 * seen.labels
    assert np.median(waited[1:]) < 1000 / 60  # a frame's time: the newest, not the next
    assert seen.parts_ms["output"].p50 == pytest.approx(100, rel=0.2)


def test_two_cameras_share_the_model_fairly(bundle: Bundle) -> None:
    camera = Camera(bundle, [Fake("a", at_pace(200)), Fake("b", at_pace(50))])
    for _ in itertools.islice(camera, 60):
        time.sleep(0.02)
    camera.close()
    fewer, more = sorted(row.labels for row in camera.summary().sources)
    assert fewer + more == 60
    assert more - fewer <= 6


def test_a_camera_that_vanishes_is_opened_again(bundle: Bundle, monkeypatch) -> None:
    monkeypatch.setattr("edgeeff.camera.capture.REOPEN_DELAYS", (0.05, 0.2))
    opened = itertools.count()

    def frames():
        turn = next(opened)
        if turn in (1, 2):
            raise Unreachable("still away")
        yield from at_pace(50, 5)()

    said = Said()
    camera = Camera(bundle, [Fake("loose", frames)], progress=said)
    assert len(list(itertools.islice(camera, 8))) == 8
    camera.close()
    assert len(camera.summary().sources[0].outages) >= 1
    assert said.lines[0] == "rtsp://loose: gives no more frames; trying to open it again."
    assert "is back after" in said.lines[1]


def test_what_never_worked_is_an_error(bundle: Bundle) -> None:
    def frames():
        raise Unreachable("nobody there")
        yield

    with pytest.raises(Unreachable, match="nobody there"):
        list(Camera(bundle, [Fake("dead", frames)]))


def test_what_goes_wrong_in_the_thread_is_raised_where_frames_are_read(bundle: Bundle) -> None:
    def frames():
        yield from at_pace(50, 2)()
        raise cv2.error("broken decoder")

    with pytest.raises(cv2.error, match="broken decoder"):
        list(Camera(bundle, [Fake("broken", frames)]))


def test_a_decoder_that_stalls_is_reported(bundle: Bundle, monkeypatch) -> None:
    monkeypatch.setattr("edgeeff.camera.loop.STALL_TIMEOUT", 0.2)
    said = Said()

    def frames():
        yield from at_pace(50, 3)()
        until(lambda: said.lines)
        yield from at_pace(50, 3)()

    source = Fake("stuck", frames)
    camera = Camera(bundle, [source], progress=said)
    list(itertools.islice(camera, 4))
    camera.close()
    assert any("rtsp://stuck: no frame for" in line for line in said.lines)


def test_a_stream_may_change_its_size(bundle: Bundle) -> None:
    def frames():
        for shape in ((48, 64, 3), (48, 64, 3), (96, 128, 3), (48, 64, 3)):
            yield time.monotonic(), np.zeros(shape, np.uint8)

    source, said = Fake("changing", frames), Said()
    source.live = False
    assert len(list(Camera(bundle, [source], progress=said))) == 4
    assert said.lines == ["New frame size: 128×96 pixels."]


def test_nv12_frames_and_a_region(bundle: Bundle) -> None:
    raw = np.random.default_rng(0).integers(16, 236, (72, 64), np.uint8)
    source = Fake("raw", lambda: iter([(time.monotonic(), raw)]))
    source.live = False
    (result,) = Camera(bundle, [source], CameraOptions(nv12=True, region=(8, 8, 40, 36)))
    expected = bundle.watch(Frames(64, 48, "NV12", (8, 8, 40, 36)))(raw)
    assert result.top[0][0] == bundle.labels[int(expected.argmax())]


def test_a_label_does_not_flicker() -> None:
    steady = LabelSmoother(0.5, 0.5)
    sure, other, unsure = np.array([0.9, 0.1]), np.array([0.1, 0.9]), np.array([0.4, 0.6])
    assert steady.update(0.0, sure) == 0
    assert steady.update(0.1, other) == 0  # once is not enough
    assert steady.update(0.2, sure) == 0
    labels = [steady.update(0.3 + i / 10, other) for i in range(10)]
    assert labels[0] == 0
    assert labels[-1] == 1
    assert labels == sorted(labels)  # it changes once
    vague = LabelSmoother(0.0, 0.7)
    assert vague.update(0, unsure) is None
    assert [vague.update(t, p) for t, p in enumerate((sure, np.array([0.6, 0.4]), np.array([0.4, 0.3])), 1)] == [0, 0, None]
    even = LabelSmoother(0.0, 0.5)
    assert {even.update(t, np.array(p)) for t, p in enumerate([(0.51, 0.49), (0.49, 0.51)] * 5)} == {0}
    assert even.update(10, np.array([0.41, 0.59])) == 1


def test_percentiles_are_right_to_a_percent() -> None:
    samples = np.random.default_rng(0).lognormal(3, 1, 20_000)
    found = LatencyHistogram()
    assert found.percentile(50) is None
    for sample in samples:
        found.add(sample)
    for p in (50, 90, 99):
        assert found.percentile(p) == pytest.approx(np.percentile(samples, p), rel=0.011)


def test_a_missed_budget_names_the_part_that_takes_most(bundle: Bundle) -> None:
    camera = Camera(bundle, [Fake("slow", at_pace(100))])
    for _ in itertools.islice(camera, 5):
        time.sleep(0.05)
    camera.close()
    with pytest.raises(BudgetNotMet, match=r"p90 .* ms > 10: waiting for the model .* Output takes most"):
        camera.check_budget(10)
    camera.check_budget(1000)


def test_sigterm_ends_with_the_summary(fitted) -> None:
    command = [sys.executable, "-m", "edgeeff", "camera", str(fitted[0]), "--source", "-", "--json"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    jpeg = cv2.imencode(".jpg", np.zeros((120, 160, 3), np.uint8))[1].tobytes()
    stop = threading.Event()

    def feed() -> None:
        while not stop.wait(0.02):
            try:
                process.stdin.write(jpeg)
                process.stdin.flush()
            except OSError:
                return

    feeder = threading.Thread(target=feed)
    feeder.start()
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=20)
    stop.set()
    feeder.join()
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "summary" in json.loads(out.splitlines()[-1])


def test_a_bundle_for_another_runtime_is_refused_before_the_camera_is_opened(bundle: Bundle) -> None:
    facts = replace(bundle.manifest, backend="tensorrt", forms=bundle.manifest.siblings)
    foreign = replace(bundle, manifest=facts)
    with pytest.raises(ToolMissing, match=r"\. On the device itself: edgeeff compile"):
        Camera(foreign, ["/dev/video77"])


def test_a_clock_that_jumps_changes_nothing_but_the_time_of_a_label(bundle: Bundle, monkeypatch) -> None:
    """The wall clock is set back by a day at each look, or an hour forth: no latency, outage, silence or smoothing follows it."""
    monkeypatch.setattr("edgeeff.camera.capture.REOPEN_DELAYS", (0.05, 0.2))
    real, times = time.time, []
    update = LabelSmoother.update
    monkeypatch.setattr(LabelSmoother, "update", lambda self, at, p: (times.append(at), update(self, at, p))[1])
    for hours in (-24, 1):
        jumps = itertools.count()
        monkeypatch.setattr(time, "time", lambda jumps=jumps, hours=hours: real() + 3600 * hours * next(jumps))
        times.clear()
        with Camera(bundle, [Fake("steady", at_pace(50, 5))], CameraOptions(seconds=60)) as camera:
            results = list(itertools.islice(camera, 12))
        (row,) = camera.summary().sources
        assert abs(results[-1].time - results[0].time) > 3600
        assert all(0 < r.age_ms < 30_000 for r in results)
        assert 0 < times[-1] - times[0] < 30
        assert times == sorted(times)
        assert all(0 <= outage < 30 for outage in row.outages)
        assert 0 <= row.silent_s < 30
        assert camera.summary().seconds < 60


def test_a_source_that_fails_does_not_end_the_others(bundle: Bundle) -> None:
    def dead():
        raise Unreachable("nobody there.")
        yield

    said = Said()
    camera = Camera(bundle, [Fake("well", at_pace(50, 20)), Fake("dead", dead)], progress=said)
    camera.captures[0].source.live = False
    with pytest.raises(Unreachable, match="nobody there"):
        list(camera)
    assert said.lines == ["nobody there. The other sources go on."]
    well, dead_row = camera.summary().sources
    assert (well.labels, well.error, dead_row.error) == (20, None, "nobody there.")


def test_a_first_frame_that_is_no_use_ends_its_own_source_only(bundle: Bundle) -> None:
    small = Fake("small", at_pace(50, shape=(40, 40, 3)))
    said = Said()
    with Camera(bundle, [Fake("large", at_pace(50)), small], CameraOptions(region=(0, 0, 64, 48), seconds=20), said) as camera:
        results = iter(camera)
        next(result for result in results if said.lines)
        list(itertools.islice(results, 10))
    assert isinstance(camera.failed, BadInput)
    large, other = camera.summary().sources
    assert large.labels > 0
    assert other.error.startswith("rtsp://small: region 0,0,64,48")
    assert len([line for line in said.lines if "The other sources go on" in line]) == 1


def test_cameras_of_many_sizes_all_get_labels(bundle: Bundle) -> None:
    sources = [Fake(str(i), at_pace(40, shape=(48 + 2 * i, 64, 3))) for i in range(6)]
    with Camera(bundle, sources) as camera:
        list(itertools.islice(camera, 30))
    assert min(row.labels for row in camera.summary().sources) >= 1


def test_a_single_frame_of_a_stream_gets_its_label(bundle: Bundle, monkeypatch) -> None:
    monkeypatch.setattr("edgeeff.camera.capture.REOPEN_DELAYS", (60.0, 60.0))  # no second frame while the model is compiled
    source = Fake("still", at_pace(10, 1))
    results = itertools.islice(Camera(bundle, [source], CameraOptions(seconds=20)), 1)
    assert [r.frame for r in results] == [0]


def test_its_seconds_are_over_though_no_frame_comes(bundle: Bundle, monkeypatch) -> None:
    monkeypatch.setattr("edgeeff.camera.loop.STOP_TIMEOUT", 0.3)

    def frames():
        yield from at_pace(50, 3)()
        time.sleep(60)

    begun = time.monotonic()
    camera = Camera(bundle, [Fake("cut off", frames)], CameraOptions(seconds=0.5))
    list(camera)
    assert 0.5 <= time.monotonic() - begun < 9  # STOP_TIMEOUT included, in which a thread that hangs does not end
    camera.close()


def test_a_hung_camera_is_reported_while_another_keeps_the_model_busy(bundle: Bundle, monkeypatch) -> None:
    monkeypatch.setattr("edgeeff.camera.loop.STALL_TIMEOUT", 0.5)
    monkeypatch.setattr("edgeeff.camera.loop.STOP_TIMEOUT", 0.3)

    def frames():
        yield from at_pace(50, 3)()
        time.sleep(60)

    said = Said()
    with Camera(bundle, [Fake("hung", frames), Fake("busy", at_pace(200))], CameraOptions(seconds=2.0), said) as camera:
        for _ in camera:
            time.sleep(0.03)
    assert said.lines.count("rtsp://hung: no frame for 0.5 s.") == 1
    assert camera.summary().sources[0].silent_s > 0.5


def test_frames_passed_over_are_a_sign_of_life(bundle: Bundle, monkeypatch) -> None:
    monkeypatch.setattr("edgeeff.camera.loop.STALL_TIMEOUT", 0.6)
    said = Said()
    frames = ((at, pixels if i % 45 == 0 else None) for i, (at, pixels) in enumerate(at_pace(50)()))
    with Camera(bundle, [Fake("every 45th", lambda: frames)], progress=said) as camera:
        numbers = [result.frame for result in itertools.islice(camera, 3)]
    assert said.lines == []
    assert all(number % 45 == 0 for number in numbers)


def test_an_outage_counts_before_it_is_over(bundle: Bundle, monkeypatch) -> None:
    monkeypatch.setattr("edgeeff.camera.capture.REOPEN_DELAYS", (0.05, 0.2))
    opened = itertools.count()

    def frames():
        if next(opened):
            raise Unreachable("still away")
        yield from at_pace(50, 5)()

    with Camera(bundle, [Fake("gone", frames)], CameraOptions(seconds=1.0)) as camera:
        list(camera)
    (outage,) = camera.summary().sources[0].outages
    assert outage > 0.5


def test_a_budget_without_a_label_is_not_met(bundle: Bundle) -> None:
    with Camera(bundle, [Fake("silent", at_pace(1, 0))], CameraOptions(seconds=0.2)) as camera:
        list(camera)
    with pytest.raises(BudgetNotMet, match="no frame was labelled"):
        camera.check_budget(1000)


def test_the_label_of_a_film_does_not_hang_on_how_fast_it_is_seen(bundle: Bundle, film: Path, monkeypatch) -> None:
    times: list[float] = []  # by which labels are smoothed
    update = LabelSmoother.update
    monkeypatch.setattr(LabelSmoother, "update", lambda self, at, p: (times.append(at), update(self, at, p))[1])

    def labels(pause: float) -> list[str | None]:
        found = []
        for seen in Camera(bundle, [str(film)]):
            found.append(seen.label)
            time.sleep(pause)
        return found

    assert labels(0.0) == labels(0.02)
    assert times == pytest.approx(2 * [i / 20 for i in range(40)])  # the film's own, at 20 frames a second


def test_odd_photos_are_left_out_and_told_by_name(bundle: Bundle, digits: Path, tmp_path: Path) -> None:
    photo = sorted(digits.glob("val/*/*.png"))[0]
    for name in ("a.png", "c.png"):
        Image.open(photo).convert("RGB").resize((64, 64)).save(tmp_path / name)
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    said = Said()
    camera = Camera(bundle, [str(tmp_path)], progress=said)
    assert [seen.frame for seen in camera] == [0, 2]
    assert said.lines == ["frame 1: frames of 8×8 pixels: expected 32 to 8192 a side; skipped."]
    assert camera.summary().sources[0].unreadable == 1
    for name in ("a.png", "c.png"):
        (tmp_path / name).unlink()
    with pytest.raises(BadInput, match="expected 32 to 8192 a side"):
        list(Camera(bundle, [str(tmp_path)]))


def test_a_size_in_which_the_region_does_not_fit_costs_its_frames_only(bundle: Bundle) -> None:
    shapes = [(96, 128, 3)] * 3 + [(48, 64, 3)] * 2 + [(96, 128, 3)] * 2
    source, said = Fake("changing", lambda: ((time.monotonic(), np.zeros(s, np.uint8)) for s in shapes)), Said()
    source.live = False
    assert len(list(Camera(bundle, [source], CameraOptions(region=(60, 40, 60, 50)), said))) == 5
    assert [line for line in said.lines if "skipped" in line] == [
        "rtsp://changing: frame 3: region 60,40,60,50: expected left,top,width,height of 32 pixels or more within 64×48; "
        "skipped, as later ones will be without a message."
    ]


def test_a_source_that_hangs_before_its_first_frame_is_given_up(bundle: Bundle, monkeypatch) -> None:
    monkeypatch.setattr("edgeeff.camera.loop.FIRST_FRAME_TIMEOUT", 0.5)
    monkeypatch.setattr("edgeeff.camera.loop.STOP_TIMEOUT", 0.3)

    def frames():
        time.sleep(60)
        yield

    with pytest.raises(Unreachable, match=r"timed out after \d.\d s while waiting for the first frame\. Is the camera on"):
        list(Camera(bundle, [Fake("hung", frames)]))
    with pytest.raises(Unreachable, match=r"timed out after 0.\d s while waiting for the first frame"):
        list(Camera(bundle, [Fake("hung", frames)], CameraOptions(seconds=0.1)))


def unsound(frames: Frames):
    """A model whose logits of dark frames are not finite, and else are sure of class 3, which tells nothing of unknown frames."""

    def see(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits = np.full((1, 10), np.nan if frame.mean() < 100 else 0.0, np.float32)
        logits[0, 3] = 90.0  # whatever the temperature
        return logits, np.array([np.nan])

    return see


def test_frames_that_get_no_numbers_are_counted_and_leave_the_label(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle.__class__, "watch_scored", lambda self, frames: unsound(frames))
    levels, said = [200, 0, 0, 200, 0, 200], Said()
    source = Fake("flickers", lambda: ((time.monotonic(), np.full((48, 64, 3), level, np.uint8)) for level in levels))
    source.live = False
    camera = Camera(bundle, [source], CameraOptions(smooth=5.0), said)
    results = list(camera)
    assert [(r.frame, r.label) for r in results] == [(0, "3"), (3, "3"), (5, "3")]
    (row,) = camera.summary().sources
    assert (row.frames, row.labels, row.unreadable) == (6, 3, 3)
    (line,) = [line for line in said.lines if "not finite" in line]
    assert "frame 1: the model answers with numbers that are not finite; skipped" in line


def test_a_source_of_which_no_frame_gets_numbers_fails(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle.__class__, "watch_scored", lambda self, frames: unsound(frames))
    source = Fake("dark", lambda: ((time.monotonic(), np.zeros((48, 64, 3), np.uint8)) for _ in range(4)))
    source.live = False
    with pytest.raises(BadInput, match=r"dark: frame 0: the model answers with numbers that are not finite\. Check it here"):
        list(Camera(bundle, [source]))


def test_a_file_that_is_watched_plays_at_its_own_pace(bundle: Bundle, film: Path) -> None:
    camera = Camera(bundle, [str(film)])
    camera.paced = True
    results = list(camera)
    assert [r.frame for r in results] == list(range(40))
    assert results[-1].time - results[9].time > 0.95 * 30 / 20  # at 20 frames a second, once the model is compiled


def test_a_file_that_loops_begins_again(bundle: Bundle, film: Path, tmp_path: Path) -> None:
    with Camera(bundle, [str(film)], CameraOptions(loop=True)) as camera:
        results = list(itertools.islice(camera, 90))
    assert [r.frame for r in results] == list(range(90))
    assert [r.top for r in results[40:80]] == [r.top for r in results[:40]]
    (row,) = camera.summary().sources
    assert (row.labels, row.dropped, row.outages) == (90, 0, ())
    with pytest.raises(BadInput, match="--loop is for a video file or a folder"):
        Camera(bundle, [Fake("live", at_pace(50))], CameraOptions(loop=True))
    (tmp_path / "a.png").write_text("no photo")
    assert list(Camera(bundle, [str(tmp_path)], CameraOptions(loop=True))) == []  # nothing in it would ever be labelled


def test_what_is_compiled_and_warmed_up_delays_no_label_of_a_file(bundle: Bundle, film: Path, monkeypatch) -> None:
    watch, seen = bundle.__class__.watch_scored, []

    def slow(self, frames: Frames):
        see = watch(self, frames)
        time.sleep(5)
        return lambda frame: (seen.append(frame.any()), see(frame))[1]

    monkeypatch.setattr(bundle.__class__, "watch_scored", slow)
    camera = Camera(bundle, [str(film)])
    results = list(camera)
    assert max(r.age_ms for r in results) < 4000
    assert seen[0] == 0  # the warm-up, on a black frame
    assert len(seen) == 41
    assert camera.summary().seconds < 5
