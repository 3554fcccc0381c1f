"""What the page costs: over the wire, until a person can type, and while it is only open."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

from tests.bench.lab import Row, bundled, cpu_s
from tests.browser.conftest import ARGUMENTS, CHROMIUM
from tests.browser.driving import address, received, sign_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

    from tests.appliance import Appliance

IDLE_S = 30.0
SETTLING_S = 5.0  # what a load leaves to be done
SLOWER = 4

# Until the engine's state is there and the editor takes keys.
USABLE = """const look = setInterval(() => {
    const ready = document.querySelector("#state")?.dataset.state === "ready";
    if (!ready || !document.querySelector(".cm-content")) return;
    clearInterval(look);
    window.usableMs = performance.now();
}, 5);"""


def page() -> Iterator[Row]:
    """The page in Chromium on loopback, with the daemon and the bundled model."""
    assert CHROMIUM is not None, "chromium is not installed"
    with bundled() as appliance, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        context.add_init_script(USABLE)
        tab = context.new_page()
        got = received(tab)
        tab.goto(address(appliance))
        tab.wait_for_load_state("networkidle")
        yield Row("page, first load", "kB", (sum(size for _, size in got) / 1000,), 350)
        sign_in(tab, appliance)
        tab.locator(".cm-line span").first.wait_for()
        tab.wait_for_load_state("networkidle")
        yield Row("  with the editor, signed in", "kB", (sum(size for _, size in got) / 1000,), 550)
        session = context.new_cdp_session(tab)
        session.send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})
        for cached in (False, True):
            session.send("Network.setCacheDisabled", {"cacheDisabled": not cached})
            took = []
            for _ in range(5):
                tab.reload()
                took.append(float(tab.wait_for_function("() => window.usableMs").json_value()))
            name = "  usable, files kept from before" if cached else "  usable, nothing kept from before"
            yield Row(name, "ms", tuple(took), 1000, f"with a processor {SLOWER} times slower")
        context.close()
        browser.close()
        # A browser takes something for itself, so the page is compared with an empty tab.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        tab = browser.new_page()
        sign_in(tab, appliance)
        time.sleep(SETTLING_S)
        ours, daemon = _idle_percent(browser, appliance)
        tab.goto("about:blank")
        time.sleep(SETTLING_S)
        empty, _ = _idle_percent(browser, appliance)
        yield Row(
            "  idle, of a core, in the browser", "%", (ours - empty,), 1, f"{ours:.1f} with the page, {empty:.1f} empty"
        )
        yield Row("  idle, of a core, in the daemon", "%", (daemon,), 1)
        browser.close()


def _idle_percent(browser: Browser, appliance: Appliance) -> tuple[float, float]:
    """What the browser and the daemon take of a core while nobody does anything."""
    before = time.monotonic(), _browser_s(browser), cpu_s(appliance.pid)
    time.sleep(IDLE_S)
    share = 100 / (time.monotonic() - before[0])
    return share * (_browser_s(browser) - before[1]), share * (cpu_s(appliance.pid) - before[2])


def _browser_s(browser: Browser) -> float:
    """The CPU time of all of Chromium's processes."""
    told = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")
    return float(sum(process["cpuTime"] for process in told["processInfo"]))
