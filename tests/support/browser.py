# SPDX-License-Identifier: Apache-2.0
"""A real headless Chromium, driven by the DevTools protocol over a pipe.

The one that `ENOS_CHROMIUM` or the path names, else the one inside PySide6's wheels, which the
tests' packages bring.

Source: `--remote-debugging-pipe` reads commands on file descriptor 3 and writes answers and events
on 4, JSON documents that end in a zero byte (Chromium, seen).
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chromium-headless-shell", "chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--no-first-run",
    "--remote-debugging-pipe",
)
_QT = Path(__file__).with_name("qt_browser.py")
_PATIENCE_S = 60.0
_SETTLED = "new Promise(r => requestAnimationFrame(() => requestAnimationFrame(() => r(1))))"


@dataclass(frozen=True, slots=True)
class Program:
    """A browser as a command."""

    command: tuple[str, ...]
    has_targets: bool
    """Whether it opens pages on demand; else it has one, and no sessions."""


def find_chromium() -> str | None:
    """Return the browser that `ENOS_CHROMIUM` or the path names."""
    named = os.environ.get("ENOS_CHROMIUM")
    return named or next((found for name in NAMES if (found := shutil.which(name))), None)


def chromium_or_skip() -> Program:
    """Return the browser; a test without one is skipped, and says so."""
    if found := find_chromium():
        return Program((found, *_FLAGS), has_targets=True)
    # in a process of its own: PySide6 changes how modules are imported
    asked = [sys.executable, "-c", "import PySide6.QtWebEngineWidgets, PySide6.QtWebSockets"]
    tried = subprocess.run(asked, capture_output=True, text=True)
    if tried.returncode:
        why = tried.stderr.strip().rpartition("\n")[2]
        names = ", ".join(NAMES)
        pytest.skip(f"no Chromium on the path ({names}; ENOS_CHROMIUM names one), and {why}")
    return Program((sys.executable, str(_QT)), has_targets=False)


@dataclass(slots=True)
class Browser:
    """One page of a browser: what it says on its console and what it asks the network for."""

    send_fd: int
    receive_fd: int
    session: str = ""
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    _count: int = 0
    _buffer: bytes = b""
    _events: list[dict[str, Any]] = field(default_factory=list)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.send_fd, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def open(
        self, path: Path, *, width: int = 1400, height: int = 1000, scheme: str = "light"
    ) -> None:
        """Open a file at a window size and in a colour scheme, and wait until it is drawn."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)
        self._events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        self._wait_for("Page.loadEventFired")
        self.settle()

    def settle(self) -> None:
        """Wait for two frames, so that what reacts to sizes has reacted."""
        self.evaluate(_SETTLED)
        self.evaluate(_SETTLED)

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page; promises are awaited."""
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """Press a key."""
        text = {"Enter": "\r", "Space": " "}.get(key, key if len(key) == 1 else "")
        key = " " if key == "Space" else key
        codes = {"Enter": 13, "Escape": 27, "Tab": 9, " ": 32}
        code = codes.get(key, ord(key[0].upper()))
        common = {"key": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """Write a picture of the page, or of what the window shows."""
        clip: Mapping[str, Any] = {}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            box = {k: size[k] for k in ("x", "y", "width", "height")}
            clip = {"clip": {**box, "scale": 1}, "captureBeyondViewport": True}
        picture = self.call("Page.captureScreenshot", format="png", **clip)
        path.write_bytes(base64.b64decode(picture["data"]))

    def _wait_for(self, method: str) -> None:
        while not any(event["method"] == method for event in self._events):
            self._note(self._receive())

    def _note(self, event: dict[str, Any]) -> None:
        """Keep an event; console errors, exceptions and requests apart."""
        method, content = event.get("method", ""), event.get("params", {})
        self._events.append({"method": method})
        if method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(content["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and content["type"] in ("error", "warning"):
            self.errors.append(json.dumps(content["args"]))
        elif method == "Log.entryAdded" and content["entry"]["level"] in ("error", "warning"):
            self.errors.append(json.dumps(content["entry"]))
        elif method == "Network.requestWillBeSent":
            self.requests.append(content["request"]["url"])

    def _receive(self) -> dict[str, Any]:
        deadline = time.monotonic() + _PATIENCE_S
        while b"\0" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.receive_fd], [], [], left)[0]:
                raise TimeoutError(f"the browser said nothing for {_PATIENCE_S:g} s")
            chunk = os.read(self.receive_fd, 1 << 20)
            if not chunk:
                raise RuntimeError("the browser has gone")
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer


@contextlib.contextmanager
def browser(program: Program) -> Iterator[Browser]:
    """Yield an empty page of a fresh browser; its profile goes when it ends."""
    to_browser, own_write = os.pipe()
    own_read, from_browser = os.pipe()

    def as_three_and_four() -> None:
        first, second = os.dup(to_browser), os.dup(from_browser)
        os.dup2(first, 3)
        os.dup2(second, 4)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [*program.command, f"--user-data-dir={profile}"],
            close_fds=False,
            preexec_fn=as_three_and_four,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        try:
            page = Browser(own_write, own_read)
            if program.has_targets:
                target = page.call("Target.createTarget", url="about:blank")["targetId"]
                attached = page.call("Target.attachToTarget", targetId=target, flatten=True)
                page.session = attached["sessionId"]
            yield page
        finally:
            process.terminate()
            process.wait(timeout=20)
            os.close(own_write)
            os.close(own_read)
