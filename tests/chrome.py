"""A real browser for tests, spoken to over a pipe (Chrome DevTools Protocol), with every name resolution refused."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: pages were not opened")
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--host-resolver-rules=MAP * ~NOTFOUND",
          "--no-first-run", "--hide-scrollbars", "--force-color-profile=srgb")


class Tab:
    """One page. `said` holds what its console, its errors and its network said."""

    def __init__(self, to: int, out: int) -> None:
        self._to, self._from, self._count, self._session, self._left = to, out, 0, "", b""
        self.said: list[str] = []
        self.asked: list[str] = []                           # every address that it wanted
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, *, browser: bool = False, **params: object) -> Any:
        """One command and its answer."""
        self._count += 1
        session = "" if browser else self._session
        message: dict[str, object] = {"id": self._count, "method": method, "params": params}
        os.write(self._to, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]

    def open(self, page: Path, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        """Load a file and wait until it is there."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        features = [{"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": "reduce"}]
        self.call("Emulation.setEmulatedMedia", media="", features=features)
        self.call("Page.navigate", url=page.as_uri())
        while self.js("document.readyState") != "complete" or self.js("location.href") != page.as_uri():
            pass

    def js(self, expression: str) -> Any:
        """The value of an expression in the page; promises are waited for."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise AssertionError(found["exceptionDetails"])
        return found["result"].get("value")

    def tree(self) -> list[dict[str, Any]]:
        """The accessibility tree, nodes that assistive programs do not see left out."""
        return [node for node in self.call("Accessibility.getFullAXTree")["nodes"] if not node.get("ignored")]

    def press(self, key: str) -> None:
        """One key."""
        codes = {"Tab": 9, "ArrowRight": 39, "ArrowLeft": 37, "Enter": 13, " ": 32}
        text = {"Enter": "\r", " ": " "}.get(key, "")
        for kind in ("keyDown", "keyUp"):
            extra = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key], **extra)

    def picture(self, to: Path, whole: bool = True) -> None:
        """A PNG of the page."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        to.write_bytes(base64.b64decode(shot["data"]))

    def printed(self) -> bytes:
        """The page as PDF on A4."""
        pdf = self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, printBackground=False)
        return base64.b64decode(pdf["data"])

    def _next(self) -> Mapping[str, Any]:
        while b"\0" not in self._left:
            more = os.read(self._from, 1 << 20)
            if not more:
                raise AssertionError("the browser ended")
            self._left += more
        line, self._left = self._left.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        match message.get("method"), message.get("params", {}):
            case "Runtime.exceptionThrown", found:
                self.said.append(str(found["exceptionDetails"].get("text")))
            case "Log.entryAdded", found:
                self.said.append(str(found["entry"]["text"]))
            case "Runtime.consoleAPICalled", found:
                self.said.append(str(found["type"]))
            case "Network.requestWillBeSent", found:
                self.asked.append(str(found["request"]["url"])[:200])
        return message


@contextmanager
def chrome(profile: Path) -> Iterator[Tab]:
    """A browser with a profile folder of its own; it ends with the block."""
    (read_in, write_in), (read_out, write_out) = os.pipe(), os.pipe()
    # The browser reads at 3 and answers at 4; both ends go far above first, so that neither overwrites the other.
    theirs = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (read_in, write_out)]
    words = " ".join((str(CHROMIUM), *(f"'{flag}'" for flag in _FLAGS), f"'--user-data-dir={profile}'", "about:blank"))
    process = subprocess.Popen(
        ["bash", "-c", f"exec {words} 3<&{theirs[0]} 4>&{theirs[1]}"], pass_fds=theirs, stderr=subprocess.DEVNULL
    )
    for end in (read_in, write_out, *theirs):
        os.close(end)
    try:
        yield Tab(write_in, read_out)
    finally:
        process.kill()
        process.wait()
        os.close(write_in)
        os.close(read_out)
