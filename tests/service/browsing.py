"""A real browser for the page of the service, and the words by which a person finds things on it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

__all__ = ["BROWSER", "Looker", "chromium", "person"]

BROWSER = "ICS_TEST_BROWSER"
"""Environment variable with the path of a Chromium or Chrome; else the one on the PATH is used."""

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 60_000
"""Milliseconds that a view may take; a loaded machine is slow."""


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser that talks to this machine alone; without one the test is skipped."""
    api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install 'icl-select[test-service]'")
    found = os.environ.get(BROWSER) or next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip(f"needs Chromium: apt-get install chromium, or the path of one in {BROWSER}")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Looker:
    """One person at one page. What the browser finds wrong with the page is kept, and fails the test at its end."""

    def __init__(self, context: Any, url: str) -> None:
        self.context, self.url = context, url
        self.faults: list[str] = []
        self.foreign: list[str] = []
        self.page = self.tab()

    def tab(self) -> Any:
        """Another tab of the same browser."""
        page = self.context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", self._console)
        page.on("dialog", lambda dialog: self.faults.append(f"a dialog: {dialog.message}"))
        page.on("request", self._request)
        return page

    def _console(self, message: Any) -> None:
        # The browser reports every answer above 399 by itself; tests that want one look at the page.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.faults.append(message.text)

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.url, "data:", "blob:", "about:")):
            self.foreign.append(request.url)

    def open(self, route: str) -> None:
        """Go to a view, such as ``#/pools``, and wait until it is there."""
        if self.page.url == f"{self.url}/{route}":
            self.page.reload()
        else:
            self.page.goto(f"{self.url}/{route}")
        # Between two views the browser loads nothing: only the page knows which one it shows.
        self.page.wait_for_function("route => document.querySelector('main')?.dataset.shows === route", arg=route)

    def heading(self, text: str) -> None:
        """Wait for the view with this heading."""
        self.page.get_by_role("heading", level=1, name=text, exact=True).wait_for()

    def item(self) -> str:
        """Id of the item that is shown, once it takes an answer."""
        found: str = self.page.locator("[data-item]").get_attribute("data-item")
        # Answers right after an item appears are taken for the second half of a double click.
        self.page.wait_for_timeout(300)
        return found

    def answer(self, key: str) -> str:
        """Answer the item that is shown by a key, and wait for what comes next; returns its id."""
        before = self.item()
        self.page.keyboard.press(key)
        self.gone(before)
        return before

    def gone(self, item: str) -> None:
        """Wait until an item is no longer shown."""
        self.page.wait_for_function("id => document.querySelector('[data-item]')?.dataset.item !== id", arg=item)


@contextmanager
def person(browser: Any, url: str, name: str | None = None, **options: Any) -> Iterator[Looker]:
    """Somebody with a browser of their own. `name` is under which they label, as if they had told it before."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    try:
        if name is not None:
            context.add_init_script(f"localStorage.setItem('icl-select.annotator', {name!r})")
        looker = Looker(context, url)
        yield looker
        assert looker.faults == []
        assert looker.foreign == [], "the page asked somebody else"
    finally:
        context.close()
