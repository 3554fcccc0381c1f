"""What editors and automations are told on the page, tokens, and the link that signs in once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from playwright.sync_api import expect

from tests.browser.driving import (
    HOST,
    address,
    answer,
    editor,
    refusal,
    says_from_now_on,
    sign_in,
    state,
    text,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.appliance import Appliance


def test_settings_hold_this_appliance_s_address_and_model(page: Page, shared: Appliance) -> None:
    sign_in(page, shared, "connect")
    panel = page.get_by_role("tabpanel").first
    expect(panel).to_contain_text(f"'endpoint_fim': 'http://{HOST}:{shared.port}/infill'")
    page.get_by_role("tab", name="Continue").click()
    expect(panel).to_contain_text("model: rockfill-tiny")
    expect(panel).to_contain_text(f"apiBase: http://{HOST}:{shared.port}/")


def test_what_is_copied_is_what_is_shown(page: Page, shared: Appliance) -> None:
    sign_in(page, shared, "connect")
    shown = page.get_by_role("tabpanel").first.locator("code").text_content()
    button = page.get_by_role("tabpanel").first.locator("button.copy")
    has_said = says_from_now_on(page, button)
    button.click()
    has_said("Copied")
    page.get_by_role("navigation").get_by_role("link", name="Complete").click()
    expect(editor(page)).to_be_visible()
    editor(page).focus()
    page.keyboard.press("Control+a")
    page.keyboard.press("Control+v")
    assert text(page) == shown


def test_a_token_is_made_shown_once_works_and_is_revoked(page: Page, shared: Appliance) -> None:
    sign_in(page, shared, "connect")
    card = page.get_by_role("region", name="Tokens")
    expect(card).to_contain_text("There is only the primary token.")
    card.get_by_label("Name").fill("laptop")
    card.get_by_role("button", name="Make a token").click()
    token = card.get_by_role("status").locator("code").text_content() or ""
    assert shared.request("POST", "/api/command/engine.get", {}, token=token).status == 200
    assert shared.request("POST", "/api/command/engine.pause", {}, token=token).status == 403
    page.reload()
    expect(card).to_contain_text("read, complete")
    assert token not in (card.text_content() or "")
    card.get_by_role("button", name="Revoke…").click()
    page.get_by_role("button", name="Revoke it").click()
    expect(card).to_contain_text("There is only the primary token.")
    assert shared.request("POST", "/api/command/engine.get", {}, token=token).status == 401


def test_a_name_that_no_token_may_have_is_refused_where_it_was_given(page: Page, shared: Appliance) -> None:
    sign_in(page, shared, "connect")
    card = page.get_by_role("region", name="Tokens")
    card.get_by_label("Name").evaluate("input => input.removeAttribute('pattern')")
    card.get_by_label("Name").fill("<b>no</b>")
    card.get_by_role("button", name="Make a token").click()
    expect(card.get_by_role("alert")).to_contain_text("invalid_format")


def test_what_came_of_making_a_token_stays_when_the_list_is_read_anew(page: Page, shared: Appliance) -> None:
    scripted = answer(page, {"tokens.add": [refusal("disk_full", "No room.")]})
    sign_in(page, shared, "connect")
    card = page.get_by_role("region", name="Tokens")
    card.get_by_label("Name").fill("laptop")
    card.get_by_role("button", name="Make a token").click()
    expect(card.get_by_role("alert")).to_contain_text("No room.")
    tokens = [{"name": "kitchen", "scopes": ["read"], "created_s": 1_700_000_000}]
    scripted.answers["tokens.list"] = [{"success": True, "result": {"tokens": tokens}}]
    for view in ("Board", "Connect"):
        page.get_by_role("navigation").get_by_role("link", name=view).click()
    expect(card).to_contain_text("kitchen")
    expect(card.get_by_role("alert")).to_contain_text("No room.")


def test_licences_and_versions_of_what_the_page_is_made_with(page: Page, shared: Appliance) -> None:
    sign_in(page, shared, "connect")
    about = page.get_by_role("region", name="About")
    about.get_by_text("What this page is made with").click()
    expect(about).to_contain_text("@codemirror/view")
    expect(about).to_contain_text("uplot 1.")
    link = about.get_by_role("link", name="Their licences in full").get_attribute("href") or ""
    assert link.startswith(f"http://{HOST}:{shared.port}/static/")
    told = shared.request("GET", link.partition(str(shared.port))[2], token=None)
    assert b"Permission is hereby granted" in told.body
    assert b"SIL OPEN FONT LICENSE" in told.body.upper()


def test_a_link_signs_in_once(page: Page, shared: Appliance, complaints: list[str]) -> None:
    complaints.append("403")  # of a page for a link that was used
    path = shared.command("access.link")["path"]
    page.goto(f"http://{HOST}:{shared.port}{path}")
    page.get_by_role("button", name="Sign in").click()
    expect(state(page)).to_contain_text("Ready")
    assert page.url == address(shared)
    page.goto(f"http://{HOST}:{shared.port}{path}")
    if page.get_by_role("button", name="Sign in").count():
        page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("has been used")
