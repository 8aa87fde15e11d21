"""Where labels go beside the terminal: a file or pipe of JSON lines, MQTT, a folder of the frames that the model is unsure of."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from ..data.frames import Box
from ..errors import BadInput, ToolMissing, Unreachable
from ..progress import SILENT, Progress
from .loop import Result
from .sources import encoded

Outlet = Callable[[Result], None]


def opened(stack: contextlib.ExitStack, *, json: bool, output: str | None, mqtt: str | None, progress: Progress) -> list[Outlet]:
    """Where labels go, until the stack is left: standard output, as lines of JSON or for people, a file, a broker."""
    outlets: list[Outlet] = [Lines(sys.stdout) if json else Changes()]
    if output:
        outlets.append(Lines(stack.enter_context(open(output, "a", encoding="utf-8"))))  # noqa: PTH123, SIM115
    if mqtt:
        outlets.append(stack.enter_context(Mqtt(mqtt, progress)))
    return outlets


class Lines:
    """JSON lines, each written at once."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream

    def __call__(self, result: Result) -> None:
        self.stream.write(json.dumps(result.to_json()) + "\n")
        self.stream.flush()


class Changes:
    """What a person wants to read: a line when a source's label changes."""

    def __init__(self) -> None:
        self.labels: dict[str, str | None] = {}

    def __call__(self, result: Result) -> None:
        if result.label != self.labels.get(result.source, ""):
            self.labels[result.source] = result.label
            clock = time.strftime("%H:%M:%S", time.localtime(result.time))
            name, sure = result.top[0]
            print(
                f"{clock}  {result.source}  {result.label or '—'}  ({name} {100 * sure:.0f}%, {result.age_ms:.1f} ms)", flush=True
            )


class Mqtt:
    """Publishes each label at QoS 0. A broker that goes away costs the labels of that time; they are counted, and it is said."""

    def __init__(self, where: str, progress: Progress = SILENT, patience: float = 10.0) -> None:
        try:
            from paho.mqtt import client as mqtt
            from paho.mqtt.enums import CallbackAPIVersion
        except ModuleNotFoundError as error:
            raise ToolMissing("paho-mqtt is not installed: pip install 'edgeeff[camera]'") from error
        parts = re.fullmatch(r"(?:mqtt://)?(?:([^:@/]+):([^/]*)@)?([\w.-]+|\[[^\]]+\])(?::(\d+))?/([^#+]+)", where)
        if not parts or not 0 < int(parts[4] or 1883) < 65536:
            raise BadInput("--mqtt: expected [USER:PASSWORD@]HOST[:PORT]/TOPIC, a topic without # and +.")
        user, password, host, port, self.topic = parts.groups()
        self.host, self.port = host.strip("[]"), int(port or 1883)
        self.name = f"{self.host}:{self.port}"
        self.progress, self.lost = progress, 0
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2)
        if user:
            self.client.username_pw_set(user, password)
        self.client.reconnect_delay_set(1, 8)
        self.client.on_connect = self._connected
        self.client.on_disconnect = self._disconnected
        self._worked, self._gone, self._refused = False, 0.0, ""
        try:
            self.client.connect(self.host, self.port, keepalive=10)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise Unreachable(f"--mqtt: no broker answers at {self.name} ({reason}).") from error
        self.client.loop_start()
        deadline = time.monotonic() + patience
        while not self.client.is_connected():
            if self._refused or time.monotonic() > deadline:
                self.client.loop_stop()
                raise Unreachable(f"--mqtt: {self.name} {self._refused or 'does not answer as an MQTT broker'}.")
            time.sleep(0.01)

    def __call__(self, result: Result) -> None:
        if self.client.is_connected():
            self.client.publish(self.topic, json.dumps(result.to_json()))
        else:
            self.lost += 1

    def __enter__(self) -> Mqtt:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.on_disconnect = None
        self.client.disconnect()
        self.client.loop_stop()

    def _connected(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        refused, self._refused = self._refused, f"refuses: {reason}" if reason.is_failure else ""
        if self._refused:
            if self._worked and self._refused != refused:
                self.progress.say(f"{self.name}: the broker {self._refused}.")
            return
        if self._gone:
            away = time.monotonic() - self._gone
            self.progress.say(f"{self.name}: the broker is back after {away:.1f} s; at least {self.lost} labels were not sent.")
        self._worked, self._gone = True, 0.0

    def _disconnected(self, *_: Any) -> None:
        if self._worked and not self._gone:
            self._gone = time.monotonic()
            self.progress.say(f"{self.name}: the broker is gone; going on without.")


class Collector:
    """Keeps frames whose surest class is less likely than `uncertain`: at most one in `seconds`, and `megabytes` in all.

    Of a `region` only that: what the model saw. The folder is ready to calibrate on and recover from: `edgeeff fit --calib DIR`.
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
        folder.mkdir(parents=True, exist_ok=True)
        self.room = megabytes * 1e6 - sum(p.stat().st_size for p in folder.iterdir() if p.is_file())
        self.kept, self._last = 0, float("-inf")

    def __call__(self, result: Result) -> None:
        now = time.monotonic()
        if result.top[0][1] >= self.uncertain or now - self._last < self.seconds or self.room <= 0:
            return
        self._last = now
        jpeg = encoded(result.pixels, 95, self.region)
        self.room -= len(jpeg)
        if self.room <= 0:
            self.progress.say(f"{self.folder}: holds as much as it may; collecting no more. --collect-mb raises that.")
            return
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(result.time)) + f"-{int(result.time % 1 * 1000):03d}"
        whole = self.folder / f"{stamp}-{re.sub(r'[^A-Za-z0-9]+', '-', result.source).strip('-')[:40]}.jpg"
        unfinished = whole.with_name(f".{whole.name}")
        try:
            unfinished.write_bytes(jpeg)
            os.replace(unfinished, whole)
            self.kept += 1
        except OSError as error:
            self.room = 0.0
            with contextlib.suppress(OSError):
                unfinished.unlink()
            self.progress.say(f"{self.folder}: cannot be written ({error.strerror}); collecting no more.")
