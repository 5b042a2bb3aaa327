"""A page in Chromium without a screen, driven by the DevTools protocol over a pair of pipes.

With `--remote-debugging-pipe` the browser reads JSON messages from descriptor 3 and answers on 4, a
zero byte after each (https://chromedevtools.github.io/devtools-protocol), so that no library for
websockets is needed.
"""

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
START = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4);"
    "os.execv(sys.argv[3], sys.argv[3:])"
)
PATIENCE = 60  # s, for an answer or for something to happen on a page


class Page:
    """One page of a browser.

    Args:
        to_browser: descriptor to write messages to.
        from_browser: descriptor to read them from.
    """

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._numbers = itertools.count(1)
        self._rest = b""
        self._session: str | None = None
        self.complaints: list[str] = []
        """Errors and warnings in the console, exceptions, and what could not be loaded."""
        self.requests: list[str] = []
        """Addresses that were asked for."""
        (target,) = [
            one for one in self.send("Target.getTargets")["targetInfos"] if one["type"] == "page"
        ]
        attached = self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command, and give its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return dict(answer["result"])
            self._note(answer)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], PATIENCE)
            assert ready, "the browser does not answer"
            part = os.read(self._from, 1 << 20)
            assert part, "the browser has ended"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))

    def _note(self, event: dict[str, Any]) -> None:
        kind, what = event.get("method"), event.get("params", {})
        if kind == "Runtime.exceptionThrown":
            details = what["exceptionDetails"]
            self.complaints.append(details.get("exception", details).get("description", "?"))
        elif kind == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning", "assert"):
            self.complaints.append(str([part.get("value") for part in what["args"]]))
        elif kind == "Log.entryAdded" and what["entry"]["level"] in ("error", "warning"):
            self.complaints.append(what["entry"]["text"])
        elif kind == "Network.requestWillBeSent":
            self.requests.append(what["request"]["url"])

    def open(self, address: str) -> None:
        """Go to an address, and wait until the page has run its scripts."""
        self.send("Page.navigate", url=address)
        self.wait_for("document.readyState === 'complete'")

    def run(self, code: str) -> Any:
        """The value of a JavaScript expression, awaited if it is a promise.

        As a person's click would, it allows sound.
        """
        answer = self.send(
            "Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True,
            userGesture=True,
        )  # fmt: skip
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + PATIENCE
        while not self.run(f"!!({condition})"):
            assert time.monotonic() < end, f"not so after {PATIENCE} s: {condition}"
            time.sleep(0.05)

    def size(self, width: int, height: int = 900, dark: bool = False) -> None:
        """Make the window so large, CSS pixels, and the screen light or dark."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
            mobile=False,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def press(self, key: str) -> None:
        """Press and release a key, `Enter`, `Tab` or `Space`."""
        name, code, text = {
            "Enter": ("Enter", 13, "\r"), "Tab": ("Tab", 9, ""), "Space": (" ", 32, " "),
        }[key]  # fmt: skip
        common = {"key": name, "code": key, "windowsVirtualKeyCode": code}
        self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def drop(self, file: Path) -> None:
        """Drop a file in the middle of the page."""
        data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.send("Input.dispatchDragEvent", type=kind, x=100, y=100, data=data)

    def picture(self, to: Path, whole: bool = True) -> None:
        """Write a PNG of the page, all of it or what is in the window."""
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=whole)
        to.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def chromium(folder: Path, *options: str) -> Iterator[Page]:
    """A page in a browser of its own, with a sound card and a microphone that do not exist.

    Args:
        folder: for what it keeps.
        options: more of its command line.
    """
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--remote-debugging-pipe", "--no-first-run",
        "--disable-gpu", "--hide-scrollbars", "--use-fake-device-for-media-stream",
        "--autoplay-policy=user-gesture-required",
        f"--user-data-dir={folder / 'profile'}", *options, "about:blank",
    ]  # fmt: skip
    ends = [*os.pipe(), *os.pipe()]
    # Moved out of the way of 3 and 4, which `START` then makes them.
    theirs_in, ours_out, ours_in, theirs_out = (fcntl.fcntl(e, fcntl.F_DUPFD, 100) for e in ends)
    for end in ends:
        os.close(end)
    starter = [sys.executable, "-c", START, str(theirs_in), str(theirs_out)]
    with (folder / "stderr").open("wb") as stderr:
        browser = subprocess.Popen(
            [*starter, *command], pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL, stderr=stderr,
        )  # fmt: skip
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Page(ours_out, ours_in)
    finally:
        os.close(ours_out)  # then it ends by itself
        os.close(ours_in)
        try:
            browser.wait(10)
        except subprocess.TimeoutExpired:
            browser.kill()
            browser.wait()
