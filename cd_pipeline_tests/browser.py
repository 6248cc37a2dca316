"""A headless Chromium for tests of pages; they are skipped, saying so, where there is none."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = "CD_PIPELINE_CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
OPERABLE = {
    *("button", "checkbox", "combobox", "link", "listbox", "menuitem", "radio", "searchbox", "slider"),
    *("spinbutton", "switch", "tab", "textbox", "DisclosureTriangle"),
}
"""Roles of what people operate."""


def chromium_path() -> str:
    """The browser that the environment names, or one on the path; without one the test is skipped."""
    named = os.environ.get(CHROMIUM)
    found = shutil.which(named) if named else next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        where = (
            f"{CHROMIUM} is {named}, no program" if named else f"none of {', '.join(NAMES)} is on the path"
        )
        pytest.skip(f"no Chromium ({where}): pages are not tested in a browser")
    return found


@contextmanager
def open_browser() -> Iterator["Browser"]:
    """Run a headless Chromium; without one, or without playwright, the test is skipped."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = chromium_path()
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Watched:
    """A page, what it asked for over any network, and what its console and its scripts complained of."""

    page: "Page"
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@contextmanager
def watched_page(browser: "Browser", **context: Any) -> Iterator[Watched]:  # noqa: ANN401 - playwright's own
    """Open an empty page in a context of its own; keywords are those of `Browser.new_context`."""
    opened = browser.new_context(**context)
    try:
        watched = Watched(opened.new_page())
        page = watched.page
        page.on("request", lambda request: watched.requests.append(request.url))
        page.on("console", lambda line: _note(watched, line.type, line.text))
        page.on("pageerror", lambda error: watched.complaints.append(str(error)))
        yield watched
    finally:
        opened.close()


def nameless_controls(page: "Page") -> list[str]:
    """The role of every control that a screen reader would have no name for."""
    return [node["role"]["value"] for node in controls(page) if not node.get("name", {}).get("value")]


def controls(page: "Page") -> list[dict[str, Any]]:
    """All controls as the accessibility tree has them, in its order."""
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    session.detach()
    return [node for node in nodes if not node["ignored"] and node["role"]["value"] in OPERABLE]


def _note(watched: Watched, kind: str, text: str) -> None:
    if kind in ("error", "warning"):
        watched.complaints.append(f"{kind}: {text}")
