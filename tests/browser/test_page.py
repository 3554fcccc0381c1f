"""The page does what it says, in a real browser and with the real daemon."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from tests.browser.driving import (
    COMPLETIONS,
    address,
    answer_with,
    ask_at_the_end_of,
    editor,
    ghost,
    sign_in,
    stream,
)

if TYPE_CHECKING:
    from playwright.sync_api import ConsoleMessage, Page

    from tests.appliance import Appliance, ScriptedAppliance

ADD = "def add(a, b):\n    return "
SOMETHING = re.compile(r"\S")


def test_a_completion_appears_as_ghost_text_and_tab_puts_it_into_the_text(page: Page, appliance: Appliance) -> None:
    sign_in(page, appliance)
    ask_at_the_end_of(page, ADD)
    expect(page.get_by_role("status")).to_contain_text("Accept")
    offered = ghost(page).text_content() or ""
    assert offered.strip()
    expect(editor(page)).to_have_value(ADD)
    page.keyboard.press("Tab")
    expect(editor(page)).to_have_value(ADD + offered)
    expect(ghost(page)).to_be_empty()
    expect(page.locator("#first-token")).to_have_text(re.compile(r"^[\d.]+ m?s$"))
    expect(page.locator("#reused")).to_have_text(re.compile(r"^\d+ of \d+ tokens$"))
    expect(page.locator("#trimmed")).to_have_text("nothing")


def test_a_pause_in_typing_asks_by_itself(page: Page, appliance: Appliance) -> None:
    sign_in(page, appliance)
    editor(page).fill("")
    editor(page).press_sequentially(ADD)
    expect(ghost(page)).to_have_text(SOMETHING)


def test_the_buttons_do_what_the_keys_do(page: Page, appliance: Appliance) -> None:
    sign_in(page, appliance)
    expect(page.get_by_role("button", name="Accept")).to_be_disabled()
    editor(page).fill(ADD)
    page.get_by_role("button", name="Complete").click()
    expect(page.get_by_role("button", name="Accept")).to_be_enabled()
    expect(editor(page)).to_be_focused()  # a phone's keyboard stays where it is
    offered = ghost(page).text_content() or ""
    page.get_by_role("button", name="Accept").click()
    expect(editor(page)).to_have_value(re.compile("^" + re.escape(ADD + offered)))
    expect(editor(page)).to_be_focused()


def test_undo_takes_an_accepted_completion_back(page: Page, appliance: Appliance) -> None:
    sign_in(page, appliance)
    answer_with(page, stream("a + b"))
    ask_at_the_end_of(page, ADD)
    expect(ghost(page)).to_have_text("a + b")
    page.keyboard.press("Tab")
    page.keyboard.press("Control+z")
    expect(editor(page)).to_have_value(ADD)


def test_escape_refuses(page: Page, appliance: Appliance) -> None:
    sign_in(page, appliance)
    ask_at_the_end_of(page, ADD)
    expect(ghost(page)).to_have_text(SOMETHING)
    page.keyboard.press("Escape")
    expect(ghost(page)).to_be_empty()
    expect(editor(page)).to_have_value(ADD)
    expect(page.get_by_role("button", name="Accept")).to_be_disabled()


def test_typing_what_is_offered_keeps_the_rest_of_it(page: Page, appliance: Appliance) -> None:
    sign_in(page, appliance)
    requests = answer_with(page, stream("a", " +", " b\n", "    # done"))
    ask_at_the_end_of(page, ADD)
    expect(ghost(page)).to_have_text("a + b\n    # done", use_inner_text=False)
    page.keyboard.type("a")
    assert ghost(page).text_content() == " + b\n    # done"
    page.keyboard.press("Control+ArrowRight")
    assert ghost(page).text_content() == " b\n    # done"
    page.keyboard.press("Backspace")
    assert ghost(page).text_content() == "+ b\n    # done"
    page.keyboard.press("Tab")
    expect(editor(page)).to_have_value(ADD + "a + b\n    # done")
    assert len(requests) == 1


@pytest.mark.parametrize("key", ["x", "Backspace", "ArrowLeft", "Shift+ArrowLeft", "Control+a"])
def test_anything_else_drops_what_is_offered(page: Page, appliance: Appliance, key: str) -> None:
    sign_in(page, appliance)
    answer_with(page, stream("a + b"))
    ask_at_the_end_of(page, ADD)
    expect(ghost(page)).to_have_text("a + b")
    page.unroute(COMPLETIONS)
    page.route(COMPLETIONS, lambda route: route.abort())
    page.keyboard.press(key)
    expect(ghost(page)).to_be_empty()


def test_giving_up_ends_the_run_on_the_appliance(page: Page, scripted: ScriptedAppliance) -> None:
    scripted.script(text="a + b", prefill_s=3600)
    sign_in(page, scripted)
    for key in ("Escape", "x", "ArrowLeft"):
        ask_at_the_end_of(page, ADD)
        scripted.wait_for_state("busy")
        page.keyboard.press(key)
        page.keyboard.press("Escape")  # typing asks again by itself
        scripted.wait_for_state("ready")


REST_CASES = [
    # offered so far, still streaming, the text at the cursor in place of the "|" of "(|)", what is left
    ("abc", True, "", "abc"),
    ("abc", False, "ab", "c"),
    ("abc", False, "abc", ""),
    ("abc", False, "abcd", None),
    ("abc", True, "abcd", ""),  # ahead of the stream: the next piece tells
    ("", True, "a", None),
    ("abc", True, "b", None),
    ("a\nb", True, "a\n", "b"),
]
WORDS = [
    ("return a + b", "return"),
    (" a + b", " a"),
    (" += b", " +="),
    ("\n    größe_2 = 1", "\n    größe_2"),
    ("()", "()"),
    ("  ", "  "),
]


def test_what_is_left_of_an_offer_and_its_first_word(page: Page, appliance: Appliance) -> None:
    page.goto(address(appliance))
    rests = page.evaluate(
        """async (cases) => {
            const { Offer } = await import("./static/offer.js");
            return cases.map(([text, streaming, typed]) =>
                Object.assign(new Offer("(", ")"), { text, streaming }).rest(`(${typed})`, 1 + typed.length));
        }""",
        REST_CASES,
    )
    assert rests == [left for *_, left in REST_CASES]
    words = page.evaluate(
        "async (texts) => texts.map((await import('./static/offer.js')).firstWord)", [text for text, _ in WORDS]
    )
    assert words == [word for _, word in WORDS]


def test_the_request_holds_the_text_around_the_cursor_and_the_mode(page: Page, appliance: Appliance) -> None:
    sign_in(page, appliance)
    requests = answer_with(page, stream("b"))
    page.get_by_label("Fill").select_option("several lines")
    editor(page).fill(f"{ADD}\nprint(1)")
    for key in ["Home", "ArrowUp", "End", "Control+Space"]:
        page.keyboard.press(key)
    expect(ghost(page)).to_have_text("b")
    sent: Any = requests[-1].post_data_json
    assert (sent["prompt"], sent["suffix"], sent["rockfill"]) == (ADD, "\nprint(1)", {"mode": "block"})


def test_without_an_offer_tab_leaves_the_editor(page: Page, appliance: Appliance) -> None:
    sign_in(page, appliance)
    editor(page).focus()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Complete")).to_be_focused()


def test_the_token_leaves_the_address_bar_and_no_script_can_read_the_session(page: Page, appliance: Appliance) -> None:
    sign_in(page, appliance)
    assert page.url == address(appliance)
    assert page.evaluate("[document.cookie, localStorage.length, sessionStorage.length, history.length]") == [
        "",
        0,
        0,
        2,  # about:blank and the page: going back does not bring the token back
    ]
    page.reload()
    expect(page.locator("#engine")).to_contain_text("ready")


def test_a_token_put_into_the_address_of_the_open_page_signs_in(page: Page, appliance: Appliance) -> None:
    page.goto(address(appliance))
    expect(page.get_by_label("token")).to_be_visible()
    page.goto(f"{address(appliance)}#token={appliance.token}")  # only the fragment differs: nothing is loaded anew
    expect(page.locator("#engine")).to_contain_text("ready")
    assert page.url == address(appliance)


def test_a_wrong_token_shows_the_form_and_the_right_one_signs_in(page: Page, appliance: Appliance) -> None:
    page.goto(f"{address(appliance)}#token=wrong")
    form = page.locator("#login")
    expect(form.get_by_role("alert")).to_contain_text("unauthorized")
    expect(form).to_contain_text("rockfill token")
    assert page.url == address(appliance)
    page.get_by_label("token").fill(appliance.token)
    page.keyboard.press("Enter")
    expect(form).to_be_hidden()
    expect(page.locator("#engine")).to_contain_text("ready")


def test_a_session_that_ended_brings_the_form_and_keeps_the_text(page: Page, appliance: Appliance) -> None:
    sign_in(page, appliance)
    editor(page).fill(ADD)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("token")).to_be_focused()
    page.get_by_label("token").fill(appliance.token)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#engine")).to_contain_text("ready")
    expect(editor(page)).to_have_value(ADD)


def test_nothing_is_complained_about_in_the_console(page: Page, appliance: Appliance) -> None:
    said: list[ConsoleMessage] = []
    page.on("console", lambda message: said.append(message))
    sign_in(page, appliance)
    ask_at_the_end_of(page, ADD)
    expect(ghost(page)).to_have_text(SOMETHING)
    page.keyboard.press("Tab")
    page.reload()
    expect(page.locator("#engine")).to_contain_text("ready")
    assert [message.text for message in said] == []


def test_the_page_says_when_the_daemon_is_gone_and_recovers(page: Page, appliance: Appliance) -> None:
    sign_in(page, appliance)
    editor(page).fill(ADD)
    appliance.stop()
    expect(page.get_by_role("alert")).to_contain_text("does not answer")
    expect(page.get_by_role("banner")).to_have_css("filter", "grayscale(1)")
    page.keyboard.press("Control+Space")
    expect(page.locator("#problem")).to_be_hidden()
    appliance.start()
    expect(page.locator("#engine")).to_contain_text("ready")
    expect(page.locator("#gone")).to_be_hidden()
    expect(page.get_by_role("banner")).to_have_css("filter", "none")
    ask_at_the_end_of(page, ADD)
    expect(ghost(page)).to_have_text(SOMETHING)


def test_the_model_is_named_and_called_a_demonstration(page: Page, appliance: Appliance) -> None:
    sign_in(page, appliance)
    expect(page.locator("#engine")).to_have_text("rockfill-tiny · demonstration · ready")
    expect(page.locator("#demonstration")).to_be_visible()
    expect(page.locator("#demonstration")).to_contain_text("rockfill-tiny is a small demonstration model")


def test_a_problem_of_the_engine_is_shown_with_what_to_do(page: Page, appliance: Appliance) -> None:
    problem = {"code": "npu_wedged", "message": "The NPU hangs.", "advice": "Restart the board."}
    result = {"state": "failed", "model": None, "problem": problem, "runtime": None, "tokens_per_second": None}
    page.route("**/api/command/engine.get", lambda route: route.fulfill(json={"success": True, "result": result}))
    page.goto(f"{address(appliance)}#token={appliance.token}")
    expect(page.get_by_role("alert")).to_have_text("The NPU hangs. Restart the board. npu_wedged")
    expect(page.locator("#engine")).to_have_text("no model · failed")
    expect(page.locator("#demonstration")).to_be_hidden()


ERROR = {"error": {"message": "Busy. Ask later.", "type": "server_error", "param": None, "code": "queue_full"}}


@pytest.mark.parametrize("streamed", [False, True])
def test_an_error_is_shown_under_the_editor_until_the_next_attempt(
    page: Page, appliance: Appliance, *, streamed: bool
) -> None:
    sign_in(page, appliance)
    if streamed:
        answer_with(page, stream("a +", last=ERROR))
    else:
        page.route(COMPLETIONS, lambda route: route.fulfill(status=503, json=ERROR))
    ask_at_the_end_of(page, ADD)
    expect(page.get_by_role("alert")).to_have_text("Busy. Ask later. queue_full")
    expect(ghost(page)).to_be_empty()
    page.unroute(COMPLETIONS)
    page.keyboard.press("Control+Space")
    expect(ghost(page)).to_have_text(SOMETHING)
    expect(page.locator("#problem")).to_be_hidden()


def test_a_stream_that_breaks_off_is_an_error(page: Page, appliance: Appliance) -> None:
    sign_in(page, appliance)
    answer_with(page, stream("a + b").replace("data: [DONE]\n\n", ""))
    ask_at_the_end_of(page, ADD)
    expect(page.get_by_role("alert")).to_contain_text("stream_cut")


def test_markup_in_a_completion_is_text(page: Page, appliance: Appliance) -> None:
    sign_in(page, appliance)
    markup = "<img src=x onerror='window.hit = true'><script>window.hit = true</script>"
    answer_with(page, stream(markup[:9], markup[9:]))
    ask_at_the_end_of(page, ADD)
    expect(page.get_by_role("status")).to_contain_text(markup)
    assert ghost(page).text_content() == markup
    page.keyboard.press("Tab")
    expect(editor(page)).to_have_value(ADD + markup)
    assert page.locator("main :is(img, script)").count() == 0
    assert page.evaluate("window.hit") is None


def test_the_ghost_text_stands_where_the_cursor_is(page: Page, appliance: Appliance) -> None:
    """The lines of both layers are one above the other, at the end of a text longer than the editor, too."""
    sign_in(page, appliance)
    answer_with(page, stream("first\nsecond"))
    ask_at_the_end_of(page, "x = 1\n" * 60 + "last = ")
    expect(ghost(page)).to_have_text("first\nsecond", use_inner_text=False)
    sheet, text, overlay, offered = (
        page.locator(selector).bounding_box() for selector in ("#sheet", "#text", "#overlay", "#ghost")
    )
    assert sheet is not None
    assert text is not None
    assert offered is not None
    assert text == overlay
    assert text["height"] > sheet["height"]
    assert sheet["y"] <= offered["y"]
    assert offered["y"] + offered["height"] <= sheet["y"] + sheet["height"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_phone_needs_no_sideways_scrolling(page: Page, appliance: Appliance, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 360, "height": 640})
    sign_in(page, appliance)
    error = {"error": {"message": "x" * 300, "code": "queue_full"}}
    page.route(COMPLETIONS, lambda route: route.fulfill(status=503, json=error))
    ask_at_the_end_of(page, "x" * 300)
    expect(page.locator("#problem")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    for name in ("Complete", "Accept"):
        box = page.get_by_role("button", name=name).bounding_box()
        assert box
        assert box["height"] >= 44


def test_the_page_works_below_a_path(page: Page, appliance: Appliance) -> None:
    """As behind a proxy: every address it uses is relative."""
    prefix = f"http://127.0.0.1:{appliance.port}/below/a/path/"
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.route(
        prefix + "**",
        lambda route: route.fulfill(response=route.fetch(url=route.request.url.replace(prefix, f"{appliance.url}/"))),
    )
    page.goto(f"{prefix}#token={appliance.token}")
    expect(page.locator("#engine")).to_contain_text("ready")
    ask_at_the_end_of(page, ADD)
    expect(ghost(page)).to_have_text(SOMETHING)
    assert [url for url in asked if not url.startswith(prefix)] == []
