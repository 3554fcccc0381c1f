"""Signing in and out, and what the page says when the daemon goes, comes back, or is another one."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from tests.browser.driving import (
    GONE,
    REFUSED,
    SOMETHING,
    address,
    ask_at_the_end_of,
    editor,
    ghost,
    hold,
    sign_in,
    state,
    text,
    until,
    write,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page, WebSocket

    from tests.appliance import Appliance

ADD = "def add(a, b):\n    return "


def test_the_token_leaves_the_address_bar_and_no_script_can_read_the_session(page: Page, shared: Appliance) -> None:
    sign_in(page, shared)
    assert page.url == address(shared)
    kept = page.evaluate("[document.cookie, JSON.stringify({...localStorage, ...sessionStorage}), history.length]")
    assert kept[0] == ""
    assert shared.token not in kept[1]
    assert kept[2] == 2  # about:blank and the page: going back does not bring the token back
    page.reload()
    expect(state(page)).to_contain_text("Ready")


def test_a_token_put_into_the_address_of_the_open_page_signs_in(page: Page, shared: Appliance) -> None:
    page.goto(address(shared))
    expect(page.locator("#token")).to_be_focused()
    page.goto(f"{address(shared)}#token={shared.token}")  # only the fragment differs: nothing is loaded anew
    expect(state(page)).to_contain_text("Ready")
    assert page.url == address(shared)


def test_a_wrong_token_shows_the_form_and_the_right_one_signs_in(
    page: Page, shared: Appliance, complaints: list[str]
) -> None:
    complaints.append(REFUSED)
    page.goto(f"{address(shared)}#token=wrong")
    form = page.locator("#login")
    expect(form.get_by_role("alert")).to_contain_text("unauthorized")
    expect(form).to_contain_text("rockfill token")
    assert page.url == address(shared)
    page.locator("#token").fill(shared.token)
    page.keyboard.press("Enter")
    expect(form).to_be_hidden()
    expect(state(page)).to_contain_text("Ready")


def test_an_appliance_that_takes_its_time_lets_in_all_the_same(page: Page, shared: Appliance) -> None:
    held = hold(page, "**/login")
    page.goto(f"{address(shared)}#token={shared.token}")
    until(page, lambda: held.routes)
    page.wait_for_timeout(6000)  # as on a board that loads a model from a slow card
    held.let_go()
    expect(state(page)).to_contain_text("Ready")


def test_a_connection_that_is_given_up_before_it_is_there_is_no_error(page: Page, shared: Appliance) -> None:
    """As when somebody signs in while the page still tries without a token."""
    page.goto(address(shared))
    expect(page.locator("#token")).to_be_focused()
    os.kill(shared.pid, signal.SIGSTOP)  # so that it takes its time
    try:
        page.evaluate(
            """async () => {
                const base = document.querySelector('script[type=module]').src.replace('main.js', '');
                const { Link } = await import(base + 'link.js');
                const link = new Link(() => new URL('ws', document.baseURI).href.replace(/^http/, 'ws'), () => {});
                link.connect();
                link.refuse();
            }"""
        )
        page.wait_for_timeout(100)  # for the console
    finally:
        os.kill(shared.pid, signal.SIGCONT)


def test_each_subscription_is_there_once_at_every_connection(page: Page, shared: Appliance) -> None:
    connections: list[list[dict[str, Any]]] = []

    def opened(socket: WebSocket) -> None:
        frames: list[dict[str, Any]] = []
        connections.append(frames)
        socket.on("framesent", lambda frame: frames.append(json.loads(frame)))

    page.on("websocket", opened)
    sign_in(page, shared)
    page.reload()
    expect(state(page)).to_contain_text("Ready")
    expect(page.locator("dl.figures:not(.stale)").first).to_be_visible()
    for frames in connections[-2:]:
        ended = {frame["subscription"] for frame in frames if frame["type"] == "unsubscribe"}
        kept = [frame["topics"] for frame in frames if frame["type"] == "subscribe" and frame["id"] not in ended]
        assert sorted(kept) == [["engine", "downloads", "events"], ["stats"]], frames


def test_signing_out_shows_the_form_at_once_and_keeps_the_text(page: Page, shared: Appliance) -> None:
    sign_in(page, shared)
    write(page, ADD)
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("#token")).to_be_focused()
    expect(editor(page)).to_be_hidden()
    expect(state(page)).to_have_text("Not signed in")
    page.reload()
    expect(page.locator("#token")).to_be_visible()
    page.locator("#token").fill(shared.token)
    page.get_by_role("button", name="Sign in").click()
    expect(state(page)).to_contain_text("Ready")
    assert text(page) == ADD


def test_the_page_says_when_the_daemon_is_gone_and_recovers(
    page: Page, appliance: Appliance, complaints: list[str]
) -> None:
    complaints.extend(GONE)
    sign_in(page, appliance)
    write(page, ADD)
    appliance.stop()
    expect(page.get_by_role("alert")).to_contain_text("does not answer since")
    expect(state(page)).to_contain_text("No answer")
    expect(page.get_by_role("banner")).to_have_css("filter", "grayscale(1)")
    expect(page.get_by_role("button", name="Complete")).to_be_disabled()
    expect(page.locator("#readouts dl")).to_have_class("figures stale")
    appliance.start()
    expect(state(page)).to_contain_text("Ready")
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.get_by_role("banner")).to_have_css("filter", "none")
    ask_at_the_end_of(page, ADD)
    expect(ghost(page)).to_have_text(SOMETHING)


def test_a_daemon_that_hangs_is_noticed(page: Page, shared: Appliance, complaints: list[str]) -> None:
    """The connection stays open, and nothing comes over it any more; after 15 s the page knows."""
    complaints.extend(GONE)
    sign_in(page, shared)
    os.kill(shared.pid, signal.SIGSTOP)
    try:
        expect(page.get_by_role("alert")).to_contain_text("does not answer since", timeout=60_000)
    finally:
        os.kill(shared.pid, signal.SIGCONT)
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(state(page)).to_contain_text("Ready")


def test_a_page_of_another_release_says_so(page: Page, shared: Appliance) -> None:
    page.add_init_script("addEventListener('DOMContentLoaded', () => (document.body.dataset.version = '0.0.0'))")
    sign_in(page, shared)
    expect(page.locator("#notices")).to_contain_text("Rockfill was updated")
    expect(page.get_by_role("button", name="Load the page anew")).to_be_visible()


def test_the_page_works_below_a_path(page: Page, shared: Appliance) -> None:
    """As behind a proxy: every address it uses is relative."""
    prefix = f"http://127.0.0.1:{shared.port}/below/a/path/"
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.route(
        prefix + "**",
        lambda route: route.fulfill(response=route.fetch(url=route.request.url.replace(prefix, f"{shared.url}/"))),
    )
    sockets: list[str] = []
    page.route_web_socket("**/ws", lambda socket: sockets.append(socket.url))
    page.goto(f"{prefix}#token={shared.token}")
    expect(page.locator(".cm-line span").first).to_be_visible()  # the last that is loaded: how to read the language
    until(page, lambda: sockets)
    assert [url for url in asked if not url.startswith(prefix)] == []
    assert sockets == [f"ws://127.0.0.1:{shared.port}/below/a/path/ws"]


def test_a_part_that_can_not_be_loaded_is_said_and_the_page_goes_on(
    page: Page, shared: Appliance, complaints: list[str]
) -> None:
    complaints.append("404")
    page.route("**/board.js", lambda route: route.fulfill(status=404, body=""))
    sign_in(page, shared)
    page.goto(f"{address(shared)}#board")
    expect(page.get_by_role("alert")).to_contain_text("could not be loaded")
    expect(page.get_by_role("button", name="Load the page anew")).to_be_visible()
    page.goto(f"{address(shared)}#connect")
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.locator("#connect")).to_be_visible()
    page.goto(f"{address(shared)}#constructor")  # no view of ours
    expect(editor(page)).to_be_visible()


def test_a_view_that_is_asked_for_twice_while_it_loads_is_made_once(page: Page, shared: Appliance) -> None:
    """As when the link that signs in is pasted over the page's plain address."""
    held = hold(page, "**/complete.js")
    page.goto(address(shared), wait_until="commit")
    page.wait_for_function("() => document.querySelector('nav [aria-current]')")
    until(page, lambda: held.routes)
    page.goto(f"{address(shared)}#token={shared.token}")
    expect(state(page)).to_contain_text("Ready")
    held.let_go()
    expect(page.locator(".cm-line span").first).to_be_visible()
    expect(editor(page)).to_have_count(1)


@pytest.mark.parametrize("view", ["complete", "models", "board", "connect"])
def test_a_view_has_an_address_and_the_browsers_back_leads_to_it(page: Page, shared: Appliance, view: str) -> None:
    sign_in(page, shared)
    page.goto(f"{address(shared)}#{view}")
    expect(page.locator(f"#{view}")).to_be_visible()
    expect(page.get_by_role("navigation").get_by_role("link", name=view.capitalize())).to_have_attribute(
        "aria-current", "page"
    )
    page.goto(f"{address(shared)}#connect")
    expect(page.locator("#connect")).to_be_visible()
    page.go_back()
    expect(page.locator(f"#{view}")).to_be_visible()
