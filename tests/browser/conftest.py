"""Chromium, and a page in it, under a name as the appliance has on a LAN, which is not a secure context."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.browser.driving import HOST
from tests.not_run import not_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page, Request

CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--host-resolver-rules=MAP {HOST} 127.0.0.1",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        not_run("browser", "chromium is not installed")
    expect.set_options(timeout=15_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that asks nobody but the appliance and throws nothing, whatever the test does with it."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    wrong: list[str] = []

    def check_host(request: Request) -> None:
        if urlsplit(request.url).hostname not in (HOST, "127.0.0.1"):
            wrong.append(f"asked for {request.url}")

    page.on("request", check_host)
    page.on("pageerror", lambda error: wrong.append(f"threw {error}"))
    yield page
    page.unroute_all(behavior="ignoreErrors")  # a poll may be on its way
    context.close()
    assert wrong == []
