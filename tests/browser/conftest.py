"""Chromium, and a page in it, under a name as the appliance has on a LAN, which is not a secure context."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.appliance import Appliance
from tests.browser.driving import HOST
from tests.not_run import not_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request

CHROMIUM = shutil.which("chromium")
PATIENCE_MS = 60_000  # a busy machine starts a daemon in half of it
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


@pytest.fixture(scope="module")  # not longer: as long as Playwright is there, no other event loop can run
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        not_run("browser", "chromium is not installed")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS, timeout=2 * PATIENCE_MS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """A daemon with the CPU engine and the bundled model, for tests that leave it as it was."""
    running = Appliance(tmp_path_factory.mktemp("shared") / "state")
    running.start()
    yield running
    running.stop()


@pytest.fixture
def complaints() -> list[str]:
    """What the console may complain of in this test: add what is to be expected, by a part of it."""
    return []


@pytest.fixture
def page(browser: Browser, complaints: list[str]) -> Iterator[Page]:
    """A page that asks nobody but the appliance, throws nothing and complains of nothing, whatever the test does."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    wrong = watch(context, complaints)
    page = context.new_page()
    yield page
    if not page.is_closed():
        page.unroute_all(behavior="ignoreErrors")
    context.close()
    assert wrong == []


def watch(context: BrowserContext, complaints: list[str]) -> list[str]:
    """Gives what any page of `context` does wrong, as it happens; and whatever a test does there may take its time."""
    context.set_default_timeout(PATIENCE_MS)
    wrong: list[str] = []

    def check_host(request: Request) -> None:
        if urlsplit(request.url).hostname not in (HOST, "127.0.0.1"):
            wrong.append(f"asked for {request.url}")

    def check_console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not any(part in message.text for part in complaints):
            wrong.append(f"complained: {message.text}")

    def check_page(page: Page) -> None:
        page.on(
            "websocket", lambda socket: wrong.append(f"connected to {socket.url}") if HOST not in socket.url else None
        )

    context.on("request", check_host)
    context.on("console", check_console)
    context.on("weberror", lambda error: wrong.append(f"threw {error.error}"))
    context.on("page", check_page)
    return wrong
