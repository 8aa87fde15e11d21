"""Where labels go beside the page: the terminal, a file or pipe of JSON lines, an MQTT broker, a folder of uncertain frames.

A sink is a function that takes each label (Sink), or each label with its frame (FrameSink).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..data.frames import Box
from ..errors import BadInput, ToolMissing, Unreachable, printable
from ..files import user_path
from ..progress import SILENT, Progress
from .opencv import encode_jpeg
from .options import OutputOptions
from .result import Event, FrameLabel, Result

Sink = Callable[[FrameLabel], None]
FrameSink = Callable[[Result], None]

MAX_MQTT_TEXT = 65535  # bytes
MAX_WAITING = 1000  # labels that the broker has not taken yet
LAST_LABELS = 1.0  # second for what waits at the end


def open_sinks(stack: contextlib.ExitStack, options: OutputOptions, *, json: bool, progress: Progress) -> list[Sink]:
    """The sinks that need no frames, open until the stack is left: standard output (JSON lines or text), a file, a broker."""
    sinks: list[Sink] = [JsonLines(sys.stdout) if json else LabelChanges()]
    if options.output:
        with user_path(options.output, "written"):
            file = Path(options.output).open("a", encoding="utf-8")  # noqa: SIM115 (closed with the stack)
        stack.callback(_close, file)
        sinks.append(JsonLines(file, options.output))
    if options.mqtt:
        sinks.append(stack.enter_context(MqttPublisher(options.mqtt, progress)))
    return sinks


def _close(file: IO[str]) -> None:
    """Each line was flushed, so an error here only repeats one that has been raised."""
    with contextlib.suppress(OSError):
        file.close()


class JsonLines:
    """A JSON line for each label, flushed at once, to standard output or to the file at `path`."""

    def __init__(self, stream: IO[str], path: str | None = None) -> None:
        self.stream, self.path = stream, path
        self._writing = threading.Lock()  # events come from another thread

    def __call__(self, label: FrameLabel) -> None:
        self._write(label.to_json())

    def _write(self, line: dict[str, object]) -> None:
        with self._writing, user_path(self.path, "written") if self.path else contextlib.nullcontext():
            self.stream.write(json.dumps(line) + "\n")
            self.stream.flush()

    def event(self, event: Event) -> None:
        self._write(event.to_json())


class LabelChanges:
    """A line on standard output, for people, whenever a source's label changes."""

    def __init__(self) -> None:
        self.labels: dict[str, str | None] = {}

    def __call__(self, label: FrameLabel) -> None:
        if label.source not in self.labels or label.label != self.labels[label.source]:
            self.labels[label.source] = label.label
            clock = time.strftime("%H:%M:%S", time.localtime(label.time))
            name, probability = label.top[0]
            facts = f"{name} {100 * probability:.0f}%, {label.age_ms:.1f} ms"
            print(printable(f"{clock}  {label.source}  {label.label or '—'}  ({facts})"), flush=True)


@dataclass(frozen=True)
class MqttAddress:
    """[USER:PASSWORD@]HOST[:PORT]/TOPIC; raises BadInput for another form."""

    host: str
    port: int
    topic: str
    user: str | None
    password: str | None

    @classmethod
    def parse(cls, text: str) -> MqttAddress:
        parts = re.fullmatch(r"(?:mqtt://)?(?:([^:@/]+):([^/]*)@)?([\w.-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?/([^#+]+)", text)
        if not parts or not text.isprintable() or not 0 < int(parts[4] or 1883) < 65536:
            raise BadInput("--mqtt: expected [USER:PASSWORD@]HOST[:PORT]/TOPIC in printable characters, a topic without # and +.")
        user, password, host, port, topic = parts.groups()
        if any(len(part.encode()) > MAX_MQTT_TEXT for part in (topic, user or "", password or "")):
            raise BadInput(f"--mqtt: MQTT takes at most {MAX_MQTT_TEXT} bytes each of user, password and topic.")
        return cls(host.strip("[]"), int(port or 1883), topic, user, password)


class MqttPublisher:
    """Publishes each label at QoS 0. What the broker does not take, or is not connected for, is not sent, only counted.

    Raises Unreachable where no broker accepts the connection at first. Later it is made again with exponential back-off.
    """

    def __init__(self, address: str, progress: Progress = SILENT, connect_timeout: float = 10.0) -> None:
        try:
            from paho.mqtt import client as mqtt
            from paho.mqtt.enums import CallbackAPIVersion
        except ModuleNotFoundError as error:
            raise ToolMissing(
                "paho-mqtt is not installed: pip install 'edgeeff[camera]', on a Jetson pip install paho-mqtt"
            ) from error
        broker = MqttAddress.parse(address)
        self.topic, self.name = broker.topic, f"{broker.host}:{broker.port}"
        self.progress, self.unsent = progress, 0
        self._published = self._written = 0  # labels given to the client, and by it to the connection
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2)
        if broker.user:
            self.client.username_pw_set(broker.user, broker.password)
        self.client.reconnect_delay_set(1, 8)
        self.client.on_connect = self._on_connect
        self.client.on_disconnect = self._on_disconnect
        self.client.on_publish = self._on_publish
        self._was_connected, self._refusal = False, ""
        self._disconnected_at: float | None = None
        try:
            self.client.connect(broker.host, broker.port, keepalive=10)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise Unreachable(f"--mqtt: no broker answers at {self.name} ({reason}).") from error
        self._wait_until_connected(connect_timeout)

    def __call__(self, label: FrameLabel) -> None:
        self._publish(label.to_json())

    def event(self, event: Event) -> None:
        self._publish(event.to_json())

    def _publish(self, message: dict[str, object]) -> None:
        if self.client.is_connected() and self._published - self._written < MAX_WAITING:
            self._published += 1
            self.client.publish(self.topic, json.dumps(message))
        else:
            self.unsent += 1

    def __enter__(self) -> MqttPublisher:
        return self

    def __exit__(self, *_: object) -> None:
        """Send what waits, for LAST_LABELS seconds at most: a broker that reads nothing more does not hold up the end."""
        self.client.on_disconnect = None
        self.client.disconnect()
        cut = threading.Timer(LAST_LABELS, self._cut)
        cut.start()
        self.client.loop_stop()
        cut.cancel()

    def _cut(self) -> None:
        connection = self.client.socket()
        if isinstance(connection, socket.socket):
            with contextlib.suppress(OSError):  # it has just been closed
                connection.shutdown(socket.SHUT_RDWR)

    def _wait_until_connected(self, timeout: float) -> None:
        self.client.loop_start()
        deadline = time.monotonic() + timeout
        while not self.client.is_connected():
            if self._refusal or time.monotonic() > deadline:
                self.client.loop_stop()
                raise Unreachable(f"--mqtt: {self.name} {self._refusal or 'does not answer as an MQTT broker'}.")
            time.sleep(0.01)

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        previous, self._refusal = self._refusal, f"refuses: {reason}" if reason.is_failure else ""
        if self._refusal:
            if self._was_connected and self._refusal != previous:
                self.progress.say(f"{self.name}: the broker {self._refusal}.")
            return
        if self._disconnected_at is not None:
            seconds = time.monotonic() - self._disconnected_at
            self.progress.say(
                f"{self.name}: the broker is back after {seconds:.1f} s; at least {self.unsent} labels were not sent."
            )
        self._was_connected, self._disconnected_at = True, None
        self._written = self._published  # what waited for the previous connection has been dropped with it

    def _on_publish(self, *_: Any) -> None:
        self._written += 1

    def _on_disconnect(self, *_: Any) -> None:
        if self._was_connected and self._disconnected_at is None:
            self._disconnected_at = time.monotonic()
            self.progress.say(f"{self.name}: the connection to the broker is lost; labels are not sent until it is back.")


class FrameCollector:
    """Keeps frames whose most likely class has a probability below `uncertain`: one in `seconds` at most, and `megabytes` in all.

    Of a `region`, only that part is kept, which is what the model saw. The folder can be given to `edgeeff fit --calib`.
    """

    def __init__(
        self,
        folder: Path,
        uncertain: float,
        *,
        megabytes: float,
        seconds: float = 1.0,
        region: Box | None = None,
        progress: Progress = SILENT,
    ) -> None:
        if not 0 < uncertain <= 1:
            raise BadInput(f"--uncertain {uncertain:g}: expected a probability above 0, at most 1.")
        self.folder, self.uncertain, self.seconds, self.region, self.progress = folder, uncertain, seconds, region, progress
        with user_path(folder, "written"):
            folder.mkdir(parents=True, exist_ok=True)
            self.bytes_left = megabytes * 1e6 - sum(p.stat().st_size for p in folder.iterdir() if p.is_file())
        self.kept, self._last_kept_at = 0, float("-inf")

    def __call__(self, result: Result) -> None:
        now = time.monotonic()
        if result.top[0][1] >= self.uncertain or now - self._last_kept_at < self.seconds or self.bytes_left <= 0:
            return
        self._last_kept_at = now
        jpeg = encode_jpeg(result.pixels, 95, self.region)
        self.bytes_left -= len(jpeg)
        if self.bytes_left <= 0:
            self.progress.say(f"{self.folder}: is full; collecting no more frames. --collect-mb raises the limit.")
            return
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(result.time)) + f"-{int(result.time % 1 * 1000):03d}"
        source = re.sub(r"[^A-Za-z0-9]+", "-", result.source).strip("-")[:40]
        path = self.folder / f"{stamp}-{source}.jpg"
        unfinished = self.folder / f".{source}.unfinished"  # one name, so that what a killed process left there is replaced
        try:
            unfinished.write_bytes(jpeg)
            os.replace(unfinished, path)
            self.kept += 1
        except OSError as error:
            self.bytes_left = 0.0
            with contextlib.suppress(OSError):
                unfinished.unlink()
            self.progress.say(f"{self.folder}: cannot be written ({error.strerror}); collecting no more frames.")
