"""What the page costs over the wire, and what its policy forbids. Its time and its idle cost: `tests/bench/page.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from playwright.sync_api import expect

from tests.browser.driving import address, received, sign_in

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.appliance import Appliance

FIRST_LOAD_BYTES = 350_000
EDITOR_PAGE_BYTES = 550_000


def test_the_first_load_and_the_whole_editor_page_are_light(page: Page, shared: Appliance) -> None:
    got = received(page)
    page.goto(address(shared))
    expect(page.locator("#token")).to_be_visible()
    page.wait_for_load_state("networkidle")
    first = sum(size for _, size in got)
    assert first <= FIRST_LOAD_BYTES, sorted(got, key=lambda one: one[1])
    page.locator("#token").fill(shared.token)
    page.keyboard.press("Enter")
    expect_all(page)
    assert sum(size for _, size in got) <= EDITOR_PAGE_BYTES, sorted(got, key=lambda one: one[1])


def expect_all(page: Page) -> None:
    """Wait for the last that the page loads: how to read the language, and letters."""
    expect(page.locator(".cm-line span").first).to_be_visible()
    expect(page.get_by_role("region", name="First steps")).to_be_visible()
    page.wait_for_function("() => document.fonts.status === 'loaded'")
    page.wait_for_load_state("networkidle")


def test_the_next_load_asks_for_the_document_only(page: Page, shared: Appliance) -> None:
    sign_in(page, shared)
    expect_all(page)
    got = received(page)
    page.goto("about:blank")
    page.goto(address(shared))
    expect_all(page)
    fetched = [url for url, size in got if size > 0 and "/static/" in url]
    assert fetched == []


def test_an_upgrade_changes_the_addresses_of_the_files(shared: Appliance) -> None:
    page = shared.request("GET", "/", headers={"Accept": "text/html"}, token=None)
    edition = page.body.decode().partition("static/")[2].partition("/")[0]
    kept = shared.request("GET", f"/static/{edition}/main.js", token=None)
    assert "immutable" in kept.headers["Cache-Control"]
    assert shared.request("GET", "/static/0000000000000000/main.js", token=None).status == 404
    packed = shared.request("GET", f"/static/{edition}/main.js", headers={"Accept-Encoding": "gzip"}, token=None)
    assert packed.headers["Content-Encoding"] == "gzip"
    assert len(packed.body) < len(kept.body) / 2


def test_every_answer_of_the_page_has_another_nonce_and_no_inline_script(shared: Appliance) -> None:
    policies = []
    for _ in range(2):
        page = shared.request("GET", "/", headers={"Accept": "text/html"}, token=None)
        policy = page.headers["Content-Security-Policy"]
        nonce = policy.partition("'nonce-")[2].partition("'")[0]
        assert f'nonce="{nonce}"' in page.body.decode()
        assert "unsafe" not in policy
        assert "script-src" not in policy  # default-src 'self' holds for scripts
        policies.append(policy)
    assert policies[0] != policies[1]


def test_an_inline_script_and_style_would_be_refused(page: Page, shared: Appliance, complaints: list[str]) -> None:
    complaints.append("Content Security Policy")
    sign_in(page, shared)
    done: Any = page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.hit = true";
            const style = document.createElement("style");
            style.textContent = "body { --hit: 1 }";
            document.head.append(script, style);
            return [window.hit ?? null, getComputedStyle(document.body).getPropertyValue("--hit")];
        }"""
    )
    assert done == [None, ""]
