"""A real headless Chromium, driven over the W3C WebDriver protocol by nothing but the standard library."""

import base64
import contextlib
import json
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
MISSING = "" if CHROMIUM and DRIVER else "needs chromium and chromedriver (Debian: chromium, chromium-driver)"
_DIRECT = urllib.request.build_opener(
    urllib.request.ProxyHandler({})
)  # the driver is on this machine, whatever the proxy


class Browser:
    """One window.

    Attributes:
        session: address of the WebDriver session.
    """

    def __init__(self, session: str):
        self.session = session

    def post(self, command: str, **values: object) -> object:
        """One WebDriver command; its value."""
        return _request(f"{self.session}/{command}", values)

    def run(self, script: str, *arguments: object) -> object:
        """What a script returns (write `return`)."""
        return self.post("execute/sync", script=script, args=list(arguments))

    def devtools(self, command: str, **values: object) -> dict:
        """One command of the DevTools protocol."""
        return self.post("goog/cdp/execute", cmd=command, params=values)

    def open(self, page: Path, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """A file, in a window of a size in CSS pixels."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", features=[scheme])
        self.post("url", url=page.resolve().as_uri())

    def press(self, selector: str) -> None:
        """Click the first element that a CSS selector finds, as a mouse does."""
        found = self.post("element", using="css selector", value=selector)
        self.post(f"element/{next(iter(found.values()))}/click")

    def type(self, keys: str) -> None:
        """Press keys, as WebDriver numbers them, where the focus is."""
        focused = _request(f"{self.session}/element/active", method="GET")
        self.post(f"element/{next(iter(focused.values()))}/value", text=keys)

    def console(self) -> list[str]:
        """Warnings and errors of the console since it was last asked."""
        return [f"{entry['level']}: {entry['message']}" for entry in self.post("se/log", type="browser")]

    def requests(self) -> list[str]:
        """Addresses that were asked for since it was last asked; `data:` ones are part of the page."""
        messages = [json.loads(entry["message"])["message"] for entry in self.post("se/log", type="performance")]
        sent = [
            entry["params"]["request"]["url"] for entry in messages if entry["method"] == "Network.requestWillBeSent"
        ]
        return [address for address in sent if not address.startswith("data:")]

    def screenshot(self, file: Path, whole: bool = True) -> None:
        """A PNG of the whole page, or of what the window shows."""
        shot = self.devtools("Page.captureScreenshot", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(shot["data"]))


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A browser with a fresh profile in a folder."""
    with open(folder / "chromedriver.txt", "w") as log:
        driver = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            port = next(
                match[1] for line in driver.stdout if (match := re.search(r"started successfully on port (\d+)", line))
            )
            arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
            arguments += ["--disable-dev-shm-usage", "--hide-scrollbars", f"--user-data-dir={folder / 'profile'}"]
            wanted = {
                "browserName": "chrome",
                "goog:chromeOptions": {"binary": CHROMIUM, "args": arguments},
                "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            }
            sessions = f"http://127.0.0.1:{port}/session"
            started = _request(sessions, {"capabilities": {"alwaysMatch": wanted}})
            browser = Browser(f"{sessions}/{started['sessionId']}")
            browser.post("url", url="about:blank")
            browser.requests()  # of the first tab, which Chromium fills itself
            try:
                yield browser
            finally:
                _request(browser.session, method="DELETE")
        finally:
            driver.terminate()
            driver.wait()


def _request(address: str, values: object = None, method: str = "POST") -> object:
    data = None if values is None else json.dumps(values).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"}, method=method)
    try:
        with _DIRECT.open(request, timeout=120) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{address}: {json.load(error)['value']['message']}") from None
