"""Completing code on the page, in a real browser and with the real daemon."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import FilePayload, expect

from tests.browser.driving import (
    OK,
    SOMETHING,
    answer,
    ask_at_the_end_of,
    boxes,
    completion,
    editor,
    ghost,
    refusal,
    says_from_now_on,
    sign_in,
    status,
    text,
    until,
    write,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.appliance import Appliance, ScriptedAppliance

ADD = "def add(a, b):\n    return "


def outcome(page: Page, name: str) -> Any:
    return page.locator(".outcome div", has_text=name).locator("dd")


def test_a_completion_appears_as_ghost_text_and_tab_puts_it_into_the_text(page: Page, shared: Appliance) -> None:
    sign_in(page, shared)
    page.get_by_label("Tokens").fill("2")  # the engine ends it by itself then, and its figures come with the end
    ask_at_the_end_of(page, ADD)
    expect(status(page)).to_contain_text("Tab takes it")
    offered = ghost(page).text_content() or ""
    assert offered.strip()
    assert text(page) == ADD
    page.keyboard.press("Tab")
    assert text(page) == ADD + offered
    expect(ghost(page)).to_have_count(0)
    expect(outcome(page, "First token")).to_have_text(re.compile(r"^[\d.]+ m?s$"))
    expect(outcome(page, "Speed")).to_have_text(re.compile(r"^[\d.,]+ tokens/s$"))
    expect(outcome(page, "reused")).to_have_text(re.compile(r"^\d+ of \d+ tokens?$"))
    expect(outcome(page, "Trimmed")).to_have_text("nothing")


def test_a_pause_in_typing_asks_by_itself_unless_that_is_switched_off(page: Page, shared: Appliance) -> None:
    scripted = answer(page, {"complete.start": completion("x")})
    sign_in(page, shared)
    write(page, "")
    editor(page).press_sequentially("a = ")
    expect(ghost(page)).to_have_text("x")
    page.get_by_label("while typing").uncheck()
    asked = len(scripted.asked)
    write(page, "")
    editor(page).press_sequentially("b = ")
    page.wait_for_timeout(600)  # more than the pause after which it would have asked
    assert len(scripted.asked) == asked


def test_the_buttons_do_what_the_keys_do(page: Page, shared: Appliance) -> None:
    answer(page, {"complete.start": completion("a + b")})
    sign_in(page, shared)
    for name in ("Accept", "Word"):
        expect(page.get_by_role("button", name=name)).to_be_disabled()
    write(page, ADD)
    page.get_by_role("button", name="Complete").click()
    page.get_by_role("button", name="Word").click()
    expect(editor(page)).to_be_focused()  # a phone's keyboard stays where it is
    assert text(page) == f"{ADD}a"
    page.get_by_role("button", name="Accept").click()
    expect(editor(page)).to_be_focused()
    assert text(page) == f"{ADD}a + b"


def test_undo_takes_an_accepted_completion_back(page: Page, shared: Appliance) -> None:
    answer(page, {"complete.start": completion("a + b")})
    sign_in(page, shared)
    ask_at_the_end_of(page, ADD)
    expect(ghost(page)).to_have_text("a + b")
    page.keyboard.press("Tab")
    page.keyboard.press("Control+z")
    assert text(page) == ADD


def test_escape_refuses(page: Page, shared: Appliance) -> None:
    sign_in(page, shared)
    ask_at_the_end_of(page, ADD)
    expect(ghost(page)).to_have_text(SOMETHING)
    page.keyboard.press("Escape")
    expect(ghost(page)).to_have_count(0)
    assert text(page) == ADD
    expect(page.get_by_role("button", name="Accept")).to_be_disabled()


def test_typing_what_is_offered_keeps_the_rest_of_it(page: Page, shared: Appliance) -> None:
    scripted = answer(page, {"complete.start": completion("a", " +", " b\n", "    # done")})
    sign_in(page, shared)
    ask_at_the_end_of(page, ADD)
    expect(ghost(page)).to_have_text("a + b\n    # done", use_inner_text=False)
    page.keyboard.type("a")
    expect(ghost(page)).to_have_text(" + b\n    # done")
    page.keyboard.press("Control+ArrowRight")
    assert ghost(page).text_content() == " b\n    # done"
    page.keyboard.press("Backspace")
    assert ghost(page).text_content() == "+ b\n    # done"
    page.keyboard.press("Tab")
    assert text(page) == ADD + "a + b\n    # done"
    assert len(scripted.asked) == 1


@pytest.mark.parametrize("key", ["x", "Backspace", "ArrowLeft", "Shift+ArrowLeft", "Control+a"])
def test_anything_else_drops_what_is_offered(page: Page, shared: Appliance, key: str) -> None:
    scripted = answer(page, {"complete.start": completion("a + b")})
    sign_in(page, shared)
    ask_at_the_end_of(page, ADD)
    expect(ghost(page)).to_have_text("a + b")
    scripted.answers["complete.start"] = []
    page.keyboard.press(key)
    expect(ghost(page)).to_have_count(0)


def test_giving_up_ends_the_run_on_the_appliance(page: Page, scripted: ScriptedAppliance) -> None:
    scripted.script(text="a + b", prefill_s=3600)
    sign_in(page, scripted)
    for key in ("Escape", "x", "ArrowLeft"):
        ask_at_the_end_of(page, ADD)
        scripted.wait_for_state("busy")
        page.keyboard.press(key)
        page.keyboard.press("Escape")  # typing asks again by itself
        scripted.wait_for_state("ready")
    page.close()  # before the daemon ends, which it would complain of


def test_typing_ahead_of_a_slow_stream_keeps_it(page: Page, shared: Appliance) -> None:
    scripted = answer(page, {"complete.start": [OK]})
    sign_in(page, shared)
    ask_at_the_end_of(page, ADD)
    until(page, lambda: scripted.asked)
    id_ = scripted.asked[0]["id"]
    scripted.tell(id_, {"type": "complete.delta", "text": "a"})
    expect(ghost(page)).to_have_text("a")
    page.keyboard.type("a +")
    scripted.tell(id_, {"type": "complete.delta", "text": " + b"})
    expect(ghost(page)).to_have_text(" b")
    assert len(scripted.asked) == 1


def test_the_request_holds_the_text_around_the_cursor_the_other_files_and_the_settings(
    page: Page, shared: Appliance
) -> None:
    scripted = answer(page, {"complete.start": completion("b")})
    sign_in(page, shared)
    write(page, "LIMIT = 3\n")
    page.get_by_role("button", name="New file").click()
    expect(page.get_by_role("tab")).to_have_text(["main.py", "untitled.py"])
    page.get_by_label("Fill").select_option("several lines")
    page.get_by_label("Tokens").fill("12")
    page.get_by_label("Temperature").fill("0.5")
    write(page, f"{ADD}\nprint(1)", len(ADD))
    page.keyboard.press("Control+Space")
    expect(ghost(page)).to_have_text("b")
    sent = scripted.asked[-1]
    assert {name: sent[name] for name in ("prefix", "suffix", "mode", "max_tokens", "temperature", "files")} == {
        "prefix": ADD,
        "suffix": "\nprint(1)",
        "mode": "block",
        "max_tokens": 12,
        "temperature": 0.5,
        "files": [{"path": "main.py", "text": "LIMIT = 3\n"}],
    }


def test_the_temperature_is_asked_for_only_where_the_engine_honours_it(page: Page, shared: Appliance) -> None:
    engine = {**shared.command("engine.get"), "type": "engine.changed", "topic": "engine"}
    assert "temperature" in engine["honours"]
    scripted = answer(page, {})
    scripted.replace["engine.changed"] = {**engine, "honours": []}
    sign_in(page, shared)
    expect(page.get_by_label("Temperature")).to_be_disabled()


def test_what_was_trimmed_is_said(page: Page, shared: Appliance) -> None:
    trimmed = {"prefix_chars": 1200, "suffix_chars": 30, "files": 1}
    answer(page, {"complete.start": completion("b", trimmed=trimmed)})
    sign_in(page, shared)
    ask_at_the_end_of(page, ADD)
    expect(outcome(page, "Trimmed")).to_have_text("1,200 characters before, 30 after, 1 file")


def test_work_in_the_tabs_survives_a_reload(page: Page, shared: Appliance) -> None:
    sign_in(page, shared)
    write(page, "first = 1\n")
    page.get_by_role("button", name="New file").click()
    write(page, "second = 2\n")
    page.reload()
    expect(page.get_by_role("tab")).to_have_text(["main.py", "untitled.py"])
    assert text(page) == "second = 2\n"
    page.get_by_role("tab", name="main.py").click()
    assert text(page) == "first = 1\n"


def test_files_are_opened_and_what_is_no_text_is_refused(page: Page, shared: Appliance) -> None:
    sign_in(page, shared)
    page.get_by_label("Open…").set_input_files(
        [
            FilePayload(name="lib.rs", mimeType="text/plain", buffer=b"fn main() {\r\n}\r\n"),
            FilePayload(name="photo.png", mimeType="image/png", buffer=b"\x89PNG\0\0"),
        ]
    )
    expect(page.get_by_role("tab")).to_have_text(["main.py", "lib.rs"])
    assert text(page) == "fn main() {\n}\n"
    expect(page.locator("#complete").get_by_role("alert")).to_contain_text("photo.png is not text.")
    expect(page.locator(".cm-line span").first).to_have_text("fn")  # highlighted: the language was found


def test_a_file_is_dropped_on_the_editor(page: Page, shared: Appliance) -> None:
    sign_in(page, shared)
    page.evaluate(
        """() => {
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File(["x = 1\\n"], "dropped.py"));
            document.querySelector(".cm-content").dispatchEvent(
                new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
        }"""
    )
    expect(page.get_by_role("tab")).to_have_text(["main.py", "dropped.py"])
    assert text(page) == "x = 1\n"


def test_a_tab_is_renamed_and_closed_after_a_question(page: Page, shared: Appliance) -> None:
    sign_in(page, shared)
    page.get_by_role("button", name="New file").click()
    write(page, "x = 1\n")
    page.get_by_role("tab", name="untitled.py").click()
    page.get_by_role("textbox", name="Name of the file").fill("other.py")
    page.keyboard.press("Enter")
    expect(page.get_by_role("tab")).to_have_text(["main.py", "other.py"])
    page.get_by_role("button", name="Close other.py").click()
    page.get_by_role("button", name="Keep it").click()
    expect(page.get_by_role("tab")).to_have_text(["main.py", "other.py"])
    page.get_by_role("button", name="Close other.py").click()
    page.get_by_role("button", name="Close it").click()
    expect(page.get_by_role("tab")).to_have_text(["main.py"])


def test_without_an_offer_tab_leaves_the_editor(page: Page, shared: Appliance) -> None:
    sign_in(page, shared)
    editor(page).focus()
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Complete")).to_be_focused()


def test_an_error_is_shown_under_the_editor_until_the_next_attempt(page: Page, shared: Appliance) -> None:
    scripted = answer(page, {"complete.start": [refusal("queue_full", "Busy.", "Ask later.")]})
    sign_in(page, shared)
    ask_at_the_end_of(page, ADD)
    expect(page.get_by_role("alert")).to_have_text("Busy. Ask later. queue_full")
    error = refusal("engine_crashed", "It crashed.")["error"]
    scripted.answers["complete.start"] = [
        OK,
        {"type": "complete.delta", "text": "a +"},
        {"type": "complete.failed", "error": error},
    ]
    page.keyboard.press("Control+Space")
    expect(page.get_by_role("alert")).to_contain_text("It crashed.")
    expect(ghost(page)).to_have_count(0)
    del scripted.answers["complete.start"]
    page.keyboard.press("Control+Space")
    expect(ghost(page)).to_have_text(SOMETHING)
    expect(page.get_by_role("alert")).to_have_count(0)


def test_markup_in_a_completion_and_in_a_file_name_is_text(page: Page, shared: Appliance) -> None:
    markup = "<img src=x onerror='window.hit = true'><script>window.hit = true</script>"
    answer(page, {"complete.start": completion(markup[:9], markup[9:])})
    sign_in(page, shared)
    page.get_by_label("Open…").set_input_files([FilePayload(name=f"{markup}.py", mimeType="text/x", buffer=b"")])
    expect(page.get_by_role("tab")).to_have_count(2)
    ask_at_the_end_of(page, ADD)
    expect(status(page)).to_contain_text(markup)
    assert ghost(page).text_content() == markup
    page.keyboard.press("Tab")
    assert text(page) == ADD + markup
    expect(page.get_by_role("tab").nth(1)).to_contain_text("<img src=x")
    assert page.locator("main :is(img, script)").count() == 0
    assert page.evaluate("window.hit") is None


def test_the_ghost_text_stands_where_the_cursor_is(page: Page, shared: Appliance) -> None:
    """At the end of a text longer than the editor, too, and with what comes after the cursor behind it."""
    answer(page, {"complete.start": completion("first\nsecond")})
    sign_in(page, shared)
    content = "x = 1\n" * 60 + "last = "
    write(page, f"{content}!", len(content))
    page.keyboard.press("Control+Space")
    expect(ghost(page)).to_have_text("first\nsecond", use_inner_text=False)
    expect(page.locator(".cm-line", has=ghost(page))).to_have_text("last = first\nsecond!", use_inner_text=False)

    def is_in_view() -> bool:
        sheet, offered = boxes([page.locator("#sheet"), ghost(page)])
        return sheet["y"] <= offered["y"] and offered["y"] + offered["height"] <= sheet["y"] + sheet["height"]

    until(page, is_in_view)  # it is scrolled there with the next frame


def test_the_exact_prompt_is_shown_with_its_control_tokens(page: Page, shared: Appliance) -> None:
    sign_in(page, shared)
    expect(page.get_by_role("button", name="Exact prompt")).to_be_disabled()  # nothing has been asked yet
    ask_at_the_end_of(page, "<b>not bold</b>\nx = ")
    expect(ghost(page)).to_have_text(SOMETHING)
    page.get_by_role("button", name="Exact prompt").click()
    prompt = page.get_by_role("dialog", name="The exact prompt").locator(".prompt")
    expect(prompt).to_contain_text("<b>not bold</b>\nx = ")
    assert prompt.locator("mark").count() >= 3  # the markers of prefix, suffix and middle
    expect(page.get_by_role("dialog")).to_contain_text("tokens")
    page.get_by_role("button", name="Close").click()
    expect(editor(page)).to_be_focused()


def test_the_command_is_copied_without_the_clipboard_api(page: Page, shared: Appliance) -> None:
    sign_in(page, shared)
    assert page.evaluate("[window.isSecureContext, navigator.clipboard === undefined]") == [False, True]
    write(page, "it's = ")
    has_said = says_from_now_on(page, page.locator("#complete button.copy"))
    page.get_by_role("button", name="Copy as curl").click()
    has_said("Copied")
    write(page, "")
    editor(page).focus()
    page.keyboard.press("Control+v")
    pasted = text(page)
    assert pasted.startswith('curl -H "Authorization: Bearer $ROCKFILL_TOKEN" http://rock5.local')
    assert '"prefix":"it\'\\\'\'s = "' in pasted
