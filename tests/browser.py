"""Chromium for tests of the page: found on this machine, never downloaded. Screenshots go to $MIO_SCREENSHOTS."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'mio[browser]'")
axe = pytest.importorskip("axe_playwright_python.base", reason="axe is not installed: pip install 'mio[browser]'")

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
FLAGS = (
    "--no-sandbox",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
)
SECONDS = 120  # for an answer; machines of CI are slow


@contextmanager
def chromium() -> Iterator[Any]:
    if not CHROMIUM:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


class Visit:
    """A person's visit to the page; what the browser's console complains about is kept in `complaints`."""

    def __init__(self, browser: Any, base: str, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **options})
        self.context.set_default_timeout(SECONDS * 1000)
        self.page, self.base = self.context.new_page(), base
        self.complaints: list[str] = []
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.open()

    def open(self) -> None:
        self.page.goto(self.base + "/")
        self.page.wait_for_selector("body[data-ready]")

    def reload(self) -> None:
        self.page.reload()
        self.page.wait_for_selector("body[data-ready]")

    def settings(self, **values: str) -> None:
        """Fields of the settings by name."""
        self.page.click("#settings-open")
        for name, value in values.items():
            self.page.fill(f"[name={name}]", value)
            self.page.dispatch_event(f"[name={name}]", "change")
        self.page.click("#settings [data-close]")

    def ask(self, text: str) -> Any:
        """Sends a message and waits for the answer; returns the request's JSON."""
        self.page.fill("#prompt", text)
        with self.page.expect_request("**/chat/completions") as request:
            self.page.press("#prompt", "Enter")
        self.answered()
        return request.value.post_data_json

    def answered(self) -> None:
        self.page.wait_for_selector("article.assistant:last-child[aria-busy=false]")

    def until(self, expression: str) -> None:
        """Waits until JavaScript comes true; Playwright's own way needs `eval`, which the page forbids."""
        begun = time.monotonic()
        while not self.page.evaluate(expression):
            assert time.monotonic() - begun < SECONDS, f"it never came true: {expression}"
            self.page.wait_for_timeout(30)

    def faults(self) -> list[str]:
        """What axe finds serious or worse."""
        self.page.evaluate(Path(axe.AXE_FILE_PATH).read_text(encoding="utf-8"))
        found = self.page.evaluate("axe.run()")["violations"]
        return [
            f"{f['id']}: {node['html'][:120]} {node['failureSummary'][:200]}"
            for f in found
            if f["impact"] in ("serious", "critical")
            for node in f["nodes"]
        ]

    def picture(self, name: str) -> None:
        """A screenshot, where they are wanted."""
        if folder := os.environ.get("MIO_SCREENSHOTS"):
            self.page.screenshot(path=str(Path(folder) / f"{name}.png"))
