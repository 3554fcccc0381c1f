"""The page for everybody: what axe finds, the keyboard alone, a narrow phone, light and dark."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

import pytest
from playwright.sync_api import expect

from tests.appliance import ROOT
from tests.browser.conftest import watch
from tests.browser.driving import (
    OK,
    address,
    answer,
    ask_at_the_end_of,
    boxes,
    completion,
    editor,
    ghost,
    refusal,
    sign_in,
    state,
    text,
)
from tests.browser.stage import REPOSITORY, Stage
from tests.not_run import not_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

    from tests.appliance import Appliance

AXE = ROOT / "build/axe/node_modules/axe-core/axe.min.js"
VIEWS = ("complete", "models", "board", "connect")
Scheme = Literal["light", "dark"]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("stage")) as running:
        yield running


def violations(page: Page) -> list[str]:
    """What axe says is seriously wrong, and where. It runs beside the page's policy, not within it."""
    found: Any = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{wrong['id']}: {node['html'][:160]} ({node['failureSummary']})"
        for wrong in found["violations"]
        if wrong["impact"] in ("serious", "critical")
        for node in wrong["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_serious_on_any_view(browser: Browser, stage: Stage, scheme: Scheme, width: int) -> None:
    if not AXE.exists():
        not_run("axe", "axe-core is not installed: make debian-packages")
    size: Any = {"width": width, "height": 900}
    context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
    wrong = watch(context, [])
    context.add_init_script(path=AXE)
    page = context.new_page()
    scripted = answer(page, {"complete.start": completion("a + b")})
    sign_in(page, stage.appliance)
    ask_at_the_end_of(page, "def add(a, b):\n    return ")
    expect(ghost(page)).to_have_text("a + b")
    assert violations(page) == []
    scripted.answers["complete.start"] = [refusal("queue_full", "Busy.", "Ask later.")]
    page.keyboard.press("Control+Space")
    expect(page.get_by_role("alert")).to_contain_text("Busy.")
    page.get_by_role("tab", name="main.py").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert violations(page) == []
    page.keyboard.press("Escape")
    page.goto(f"{address(stage.appliance)}#models")
    page.get_by_role("button", name="Variants of CodeGemma 2B").click()
    expect(page.get_by_role("row", name="recommended")).to_be_visible()
    assert violations(page) == []
    page.goto(f"{address(stage.appliance)}#board")
    expect(page.locator("#chart-npu dd").first).to_have_text("42 %")
    assert violations(page) == []
    page.goto(f"{address(stage.appliance)}#connect")
    expect(page.get_by_role("button", name="Make a token")).to_be_visible()
    assert violations(page) == []
    page.get_by_role("button", name="Sign out").evaluate("button => button.click()")
    expect(page.locator("#token")).to_be_focused()
    assert violations(page) == []
    context.close()
    assert wrong == []


def test_axe_would_see_a_violation(browser: Browser, stage: Stage) -> None:
    if not AXE.exists():
        not_run("axe", "axe-core is not installed: make debian-packages")
    context = browser.new_context()
    context.add_init_script(path=AXE)
    page = context.new_page()
    page.goto(address(stage.appliance))
    expect(page.locator("#token")).to_be_visible()
    page.evaluate("document.querySelector('#login label').remove()")
    assert any("label" in found for found in violations(page))
    context.close()


def test_everything_on_the_way_to_a_completion_is_done_by_keyboard(page: Page, shared: Appliance) -> None:
    """From the sign-in form to the editor, a completion accepted by word and whole, and to another view."""
    answer(page, {"complete.start": completion("a + b")})
    page.goto(address(shared))
    expect(page.locator("#token")).to_be_focused()
    page.keyboard.type(shared.token)
    page.keyboard.press("Enter")
    expect(state(page)).to_contain_text("Ready")
    expect(editor(page)).to_be_visible()
    page.get_by_role("link", name="To the content").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    for _ in range(12):
        page.keyboard.press("Tab")
        if editor(page).evaluate("element => element === document.activeElement"):
            break
    expect(editor(page)).to_be_focused()
    page.keyboard.press("Control+a")
    page.keyboard.type("x = ")
    page.keyboard.press("Control+Space")
    expect(ghost(page)).to_have_text("a + b")
    page.keyboard.press("Control+ArrowRight")
    assert text(page) == "x = a"
    page.keyboard.press("Tab")
    assert text(page) == "x = a + b"
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Complete")).to_be_focused()
    page.keyboard.press("Enter")
    expect(ghost(page)).to_have_text("a + b")
    page.get_by_role("navigation").get_by_role("link", name="Connect").focus()
    page.keyboard.press("Enter")
    first = page.get_by_role("tab", name="llama.vim")
    first.focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="llama.vscode")).to_be_focused()
    expect(page.get_by_role("tabpanel", name="llama.vscode")).to_contain_text("llama-vscode.endpoint")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_phone_needs_no_sideways_scrolling(browser: Browser, stage: Stage, scheme: Scheme) -> None:
    context = browser.new_context(
        viewport={"width": 360, "height": 640}, color_scheme=scheme, has_touch=True, is_mobile=True
    )
    wrong = watch(context, [])
    page = context.new_page()
    answer(page, {"complete.start": [refusal("queue_full", "x" * 300)]})
    sign_in(page, stage.appliance)
    ask_at_the_end_of(page, "x" * 300)
    expect(page.get_by_role("alert")).to_be_visible()
    buttons = [page.get_by_role("button", name=name, exact=True) for name in ("Complete", "Accept", "Word")]
    places = boxes(buttons)
    assert all(place["height"] >= 44 for place in places)
    assert len({place["y"] for place in places}) == 1, "in one row"
    for view in VIEWS:
        page.get_by_role("navigation").get_by_role("link", name=view.capitalize()).tap()
        expect(page.locator(f"#{view}")).to_be_visible()
        if view == "models":
            page.get_by_label("Or any repository of the Hub").fill(REPOSITORY)
            page.get_by_role("button", name="Look").tap()
            expect(page.get_by_role("row", name="recommended")).to_be_visible()
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") == 360, view
        nav = page.get_by_role("navigation").bounding_box()
        assert nav is not None
        assert nav["y"] + nav["height"] == 640, "the pages are at the thumb"
    context.close()
    assert wrong == []


def test_nothing_moves_while_the_page_fills(page: Page, shared: Appliance) -> None:
    """No layout shift: what is shown first stays where it is when the engine's state and the figures come.

    That holds for as long as the page waits with what comes first; here it waits as long as it takes.
    """
    patience_ms = re.search(r"const PATIENCE_MS = (\d+)", (ROOT / "web/static/first-steps.js").read_text())
    assert patience_ms
    page.add_init_script(
        f"const PATIENCE_MS = {patience_ms[1]};"
        """const { setTimeout } = window;
        window.setTimeout = (run, ms, ...rest) => setTimeout(run, ms === PATIENCE_MS ? 2 ** 31 - 1 : ms, ...rest);
        window.shift = 0;
        new PerformanceObserver((list) => {
            for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shift += entry.value;
        }).observe({ type: "layout-shift", buffered: true });"""
    )
    sign_in(page, shared)
    expect(page.get_by_role("region", name="First steps")).to_be_visible()
    expect(page.locator("dl.figures:not(.stale)").first).to_be_visible()
    page.wait_for_timeout(500)  # the observer hears of it a moment later
    shift = page.evaluate("window.shift")
    assert shift < 0.1, shift  # what counts as good (web.dev/cls)


def test_the_word_for_each_state_is_there_for_screen_readers(page: Page, shared: Appliance) -> None:
    answer(page, {"complete.start": [OK]})
    sign_in(page, shared)
    expect(page.get_by_role("status", name="Engine")).to_contain_text("Ready")
    expect(page.get_by_role("textbox", name="Code")).to_have_attribute("aria-multiline", "true")
    for name in ("Pages", "Files"):
        assert page.get_by_label(name, exact=True).count() == 1
