"""A real browser, driven by Chromium's DevTools protocol over two pipes: https://chromedevtools.github.io/devtools-protocol/"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from cameras import CHROMIUM

KEYS = {" ": "Space", "Backspace": "Backspace"}


class Browser:
    """A page, shown in a window of `width` pixels; `complaints` are what it wrote to its console, and errors of its scripts."""

    def __init__(self, url: str, profile: Path, width: int = 390) -> None:
        assert CHROMIUM
        (ours, self._out), (self._in, theirs) = os.pipe(), os.pipe()
        words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        script = f'exec "$0" "$@" 3<&{ours} 4>&{theirs}'  # it reads from descriptor 3 and writes to 4
        self._process = subprocess.Popen(["bash", "-c", script, *words], pass_fds=(ours, theirs), stderr=subprocess.DEVNULL)
        os.close(ours), os.close(theirs)
        self._answers, self._numbers, self._session = os.fdopen(self._in, "rb"), itertools.count(1), ""
        self.complaints: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.ask("Runtime.enable")
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=True)
        self.ask("Page.navigate", url=url)
        while self.value("document.readyState + location.protocol") != "completehttp:":
            time.sleep(0.01)  # it is the empty page's still

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._answers.close()
        os.close(self._out)

    def ask(self, method: str, **parameters: Any) -> Any:
        """What a method of the protocol gives."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": self._session} if self._session else {})
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != number:
            if answer.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
                self.complaints.append(answer["params"])
        assert "error" not in answer, answer
        return answer["result"]

    def _read(self) -> dict[str, Any]:
        text = b""
        while not text.endswith(b"\0"):
            more = self._answers.read(1)
            assert more, "the browser has ended"
            text += more
        return json.loads(text[:-1])

    def value(self, expression: str) -> Any:
        """What a script gives; a promise is waited for."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, expression: str) -> None:
        """Wait until a script gives something true."""
        self.value(f"(async () => {{ while (!({expression})) await new Promise(done => setTimeout(done, 5)); }})()")

    def press(self, key: str, *, held: bool = False) -> None:
        """Press and release a key of the keyboard; `held` as one that repeats."""
        code = KEYS.get(key, f"Digit{key}" if key.isdecimal() else f"Key{key.upper()}")
        text = {"text": key} if len(key) == 1 else {}
        for repeats in (False, True, True) if held else (False,):
            self.ask("Input.dispatchKeyEvent", type="keyDown", key=key, code=code, autoRepeat=repeats, **text)
        self.ask("Input.dispatchKeyEvent", type="keyUp", key=key, code=code)
