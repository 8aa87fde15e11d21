"""Where labels and frames go: a broker, a folder."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from boards import until
from cameras import MOSQUITTO, Said, listens, port, result
from PIL import Image

from edgeeff import BadInput, Unreachable
from edgeeff.camera.sinks import FrameCollector, MqttPublisher
from edgeeff.data.images import ImageSet


def test_uncertain_frames_are_kept_within_limits(tmp_path: Path) -> None:
    collect = FrameCollector(tmp_path / "new", 0.6, megabytes=0.003, seconds=0.0)
    for i, probability in enumerate((0.9, 0.5, 0.4, 0.59, 0.6, 0.1, 0.1, 0.1)):
        collect(result(probability, at=float(i)))
    kept = sorted((tmp_path / "new").iterdir())
    assert 2 <= len(kept) == collect.kept < 6
    assert sum(p.stat().st_size for p in kept) <= 3000
    assert len(ImageSet.open(tmp_path / "new")) == len(kept)  # ready to calibrate on
    rated = FrameCollector(tmp_path / "rated", 0.6, megabytes=1, seconds=60.0)
    for i in range(3):
        rated(result(0.1, at=float(i)))
    assert rated.kept == 1


def test_a_folder_that_cannot_be_written_ends_the_collecting_only(tmp_path: Path) -> None:
    said = Said()
    collect = FrameCollector(tmp_path / "gone", 0.6, megabytes=1, seconds=0.0, progress=said)
    (tmp_path / "gone").rmdir()
    collect(result(0.1))
    collect(result(0.1))
    assert len(said.lines) == 1
    assert "collecting no more" in said.lines[0]


@pytest.mark.medium
@pytest.mark.skipif(MOSQUITTO is None, reason="no mosquitto here")
def test_a_broker_gets_every_label_and_may_go_away(tmp_path: Path) -> None:
    from paho.mqtt import client as mqtt
    from paho.mqtt.enums import CallbackAPIVersion

    number, said, got = port(), Said(), []
    (tmp_path / "conf").write_text(f"listener {number} 127.0.0.1\nallow_anonymous true\n")
    broker = [MOSQUITTO, "-c", tmp_path / "conf"]
    server = subprocess.Popen(broker, stderr=subprocess.DEVNULL)
    reader = mqtt.Client(CallbackAPIVersion.VERSION2)
    subscribed: list[object] = []
    reader.on_message = lambda _, __, message: got.append(json.loads(message.payload))
    reader.on_subscribe = lambda *_: subscribed.append(0)
    try:
        until(lambda: listens(number))
        reader.connect("127.0.0.1", number)
        reader.subscribe("edge/labels")
        reader.loop_start()
        until(lambda: subscribed)
        with MqttPublisher(f"127.0.0.1:{number}/edge/labels", said) as send:
            send(result(0.5))
            until(lambda: got)
            server.kill()
            server.wait()
            until(lambda: said.lines)
            send(result(0.6))
            server = subprocess.Popen(broker, stderr=subprocess.DEVNULL)
            until(lambda: len(said.lines) == 2 and reader.is_connected())
            reader.subscribe("edge/labels")
            until(lambda: len(subscribed) == 2)
            send(result(0.7))
            until(lambda: len(got) == 2)
    finally:
        server.kill()
        server.wait()
        reader.loop_stop()
    assert [message["top"] for message in got] == [[["rose", 0.5]], [["rose", 0.7]]]
    assert "at least 1 labels were not sent" in said.lines[1]


def test_an_odd_broker_address_is_refused() -> None:
    for where in ("host", "host/a/#", "host:x/topic"):
        with pytest.raises(BadInput, match=r"HOST\[:PORT\]/TOPIC"):
            MqttPublisher(where)


@pytest.mark.medium
@pytest.mark.skipif(MOSQUITTO is None, reason="no mosquitto here")
def test_a_broker_that_wants_a_password(tmp_path: Path) -> None:
    number = port()
    subprocess.run([shutil.which("mosquitto_passwd"), "-b", "-c", tmp_path / "users", "edge", "se:c@ret"], check=True)
    (tmp_path / "conf").write_text(f"listener {number} 127.0.0.1\npassword_file {tmp_path / 'users'}\nuser root\n")
    server = subprocess.Popen([MOSQUITTO, "-c", tmp_path / "conf"], stderr=subprocess.DEVNULL)
    try:
        until(lambda: listens(number))
        said = Said()
        with MqttPublisher(f"edge:se:c@ret@127.0.0.1:{number}/labels", said) as send:
            send(result(0.5))
        for who in ("", "edge:wrong@"):
            with pytest.raises(Unreachable, match=rf"^--mqtt: 127.0.0.1:{number} refuses: Not authorized\.$"):
                MqttPublisher(f"{who}127.0.0.1:{number}/labels", said)
        assert said.lines == []
    finally:
        server.kill()
        server.wait()


def test_of_a_region_only_that_is_kept(tmp_path: Path) -> None:
    collect = FrameCollector(tmp_path, 0.6, megabytes=1, seconds=0.0, region=(8, 16, 40, 32))
    collect(result(0.1))
    (kept,) = tmp_path.iterdir()
    with Image.open(kept) as photo:
        assert photo.size == (40, 32)
