"""The page as it is below a path prefix, encrypted, behind nginx as the example has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from playwright.sync_api import expect

from tests.browser.conftest import PATIENCE_MS
from tests.browser.driving import HOST, editor, ghost, state
from tests.proxy import behind_a_proxy, nginx

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser

    from tests.appliance import ScriptedAppliance


def test_the_whole_page_works_below_a_prefix(browser: Browser, tmp_path: Path) -> None:
    appliance = behind_a_proxy(tmp_path, tmp_path / "state")
    appliance.start()
    context = browser.new_context(ignore_https_errors=True)
    context.set_default_timeout(PATIENCE_MS)
    outside: list[str] = []
    failed: list[str] = []
    try:
        with nginx(tmp_path, appliance, HOST) as (port, _):
            url = f"https://{HOST}:{port}/rockfill/"
            context.on("request", lambda request: outside.append(request.url) if url not in request.url else None)
            context.on("response", lambda answer: failed.append(answer.url) if answer.status >= 400 else None)
            page = context.new_page()
            page.goto(f"{url}{appliance.command('access.link')['path'].lstrip('/')}")
            page.get_by_role("button", name="Sign in").click()
            page.wait_for_url(url + "**")
            expect(state(page)).to_contain_text("Ready")
            editor(page).click()
            page.keyboard.press("Control+End")
            page.keyboard.type("x")
            page.keyboard.press("Control+Space")
            expect(ghost(page)).not_to_have_count(0)
            cookies = [cookie for cookie in context.cookies() if cookie["name"].startswith("rockfill_")]
            assert [(cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) for cookie in cookies] == [
                (True, True, "Strict")
            ]
    finally:
        context.close()
        appliance.stop()
    assert outside == []
    assert failed == []


def test_a_sign_in_link_works_in_a_browser(browser: Browser, scripted: ScriptedAppliance) -> None:
    """A form's request has an Origin only if the page's referrer policy lets it."""
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_MS)
    try:
        page = context.new_page()
        path = scripted.command("access.link")["path"]
        page.goto(f"http://{HOST}:{scripted.port}{path}")
        page.get_by_role("button", name="Sign in").click()
        expect(state(page)).to_contain_text("Ready")
        page.goto(f"http://{HOST}:{scripted.port}{path}")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("has been used")
    finally:
        context.close()
