"""What the tests do with the page again and again."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from playwright.sync_api import Route, WebSocketRoute, expect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from playwright.sync_api import FloatRect, Locator, Page

    from tests.appliance import Appliance

HOST = "rock5.local"
# What Chromium itself says of a daemon that is gone, and of a refused login.
GONE = ("WebSocket connection to", "net::ERR_CONNECTION_REFUSED", "net::ERR_CONNECTION_RESET")
REFUSED = "the server responded with a status of 401"
SOMETHING = re.compile(r"\S")


def address(appliance: Appliance) -> str:
    return f"http://{HOST}:{appliance.port}/"


def sign_in(page: Page, appliance: Appliance, view: str = "complete") -> None:
    """Open the page with its token, show `view`, and wait for the engine."""
    page.goto(f"{address(appliance)}#token={appliance.token}")
    expect(state(page)).to_contain_text("Ready")
    expect(editor(page)).to_be_visible()
    if view != "complete":
        page.get_by_role("navigation").get_by_role("link", name=view.capitalize()).click()
        expect(page.locator(f"#{view}")).to_be_visible()


def state(page: Page) -> Locator:
    """What the rail says of the engine."""
    return page.locator("#state")


def editor(page: Page) -> Locator:
    return page.get_by_role("textbox", name="Code")


def ghost(page: Page) -> Locator:
    return page.locator(".ghost")


def status(page: Page) -> Locator:
    """The line that says how a completion goes."""
    return page.locator("#complete .hint")


def write(page: Page, text: str, cursor: int | None = None) -> None:
    """Make `text` the editor's, with the cursor at `cursor` (its end), and the editor focused."""
    expect(editor(page)).to_be_visible()  # until then it takes no focus
    page.evaluate(
        """async ([text, cursor]) => {
            const base = document.querySelector('script[type=module]').src.replace('main.js', '');
            const { EditorView } = await import(base + 'vendor/editor.js');
            const view = EditorView.findFromDOM(document.querySelector('.cm-editor'));
            const changes = { from: 0, to: view.state.doc.length, insert: text };
            view.dispatch({ changes, selection: { anchor: cursor ?? text.length }, scrollIntoView: true });
            view.focus();
        }""",
        [text, cursor],
    )


def text(page: Page) -> str:
    """What the editor holds, once it is there."""
    expect(editor(page)).to_be_visible()
    value = page.evaluate(
        """async () => {
            const base = document.querySelector('script[type=module]').src.replace('main.js', '');
            const { EditorView } = await import(base + 'vendor/editor.js');
            return EditorView.findFromDOM(document.querySelector('.cm-editor')).state.doc.toString();
        }"""
    )
    assert isinstance(value, str)
    return value


def until(page: Page, condition: Callable[[], object]) -> None:
    """Wait, and let what the browser tells come in, until `condition` holds."""
    while not condition():
        page.wait_for_timeout(20)


@dataclass
class Held:
    """Requests that wait until they are let go."""

    routes: list[Route] = field(default_factory=list)
    holds: bool = True

    def let_go(self) -> None:
        self.holds = False
        for route in self.routes:
            route.continue_()


def hold(page: Page, addresses: str) -> Held:
    """From here on, requests for `addresses` wait."""
    held = Held()
    page.route(addresses, lambda route: held.routes.append(route) if held.holds else route.continue_())
    return held


def says_from_now_on(page: Page, place: Locator) -> Callable[[str], None]:
    """Gives what waits until `place` says a text, or has said it: also one that was there for a moment only."""
    place.evaluate(
        """(element) => {
            window.said = [];
            const note = () => window.said.push(element.textContent);
            new MutationObserver(note).observe(element, { childList: true, characterData: true, subtree: true });
        }"""
    )
    return lambda text: until(page, lambda: page.evaluate("text => window.said.includes(text)", text))


def ask_at_the_end_of(page: Page, content: str) -> None:
    write(page, content)
    page.keyboard.press("Control+Space")


@dataclass
class Scripted:
    """A websocket that goes through to the daemon, but for the commands that `answers` knows.

    An answer is a list of what comes: a dict with `success` is the result (its id is filled in), any other dict an
    event under the command's id. `asked` are the frames of those commands, as they come. `replace` gives what stands in
    for the daemon's events, by their type.
    """

    answers: dict[str, list[dict[str, Any]]]
    replace: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)
    socket: WebSocketRoute | None = None

    def tell(self, id_: int, message: dict[str, Any]) -> None:
        assert self.socket is not None
        if "success" in message:
            self.socket.send(json.dumps({"id": id_, "type": "result", **message}))
        else:
            self.socket.send(json.dumps({"id": id_, "type": "event", "event": message}))


def answer(page: Page, answers: dict[str, list[dict[str, Any]]]) -> Scripted:
    """From the next connection on, answer commands by `answers` instead of the daemon."""
    scripted = Scripted(answers)

    def connect(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()
        scripted.socket = socket

        def passed(message: str | bytes) -> None:
            frame = json.loads(message)
            wanted = scripted.answers.get(frame.get("type"))
            if wanted is None:
                server.send(message)
                return
            scripted.asked.append(frame)
            for said in wanted:
                scripted.tell(frame["id"], said)

        def told(message: str | bytes) -> None:
            frame = json.loads(message)
            instead = scripted.replace.get(frame.get("event", {}).get("type"))
            socket.send(message if instead is None else json.dumps({**frame, "event": instead}))

        socket.on_message(passed)
        server.on_message(told)

    page.route_web_socket("**/ws", connect)
    return scripted


OK: dict[str, Any] = {"success": True, "result": {}}


def refusal(code: str, message: str, advice: str = "") -> dict[str, Any]:
    return {"success": False, "error": {"code": code, "message": message, "advice": advice, "detail": {}}}


def completion(*pieces: str, **report: Any) -> list[dict[str, Any]]:
    """The answer to `complete.start` that gives `pieces`; `report` changes what stands at its end."""
    timings = {"first_token_ms": 12.5, "decode_ms": 100.0, "prompt_tokens": 20, "generated_tokens": len(pieces)}
    trimmed = {"prefix_chars": 0, "suffix_chars": 0, "files": 0}
    done = {"finish_reason": "stop", "trimmed": trimmed, "ignored": [], "timings": {**timings, "reused_tokens": None}}
    deltas = [{"type": "complete.delta", "text": piece} for piece in pieces]
    return [OK, *deltas, {"type": "complete.done", "text": "".join(pieces), **done, **report}]


def boxes(locators: Iterable[Locator]) -> list[FloatRect]:
    """Where they stand on the page."""
    found = []
    for locator in locators:
        box = locator.bounding_box()
        assert box is not None
        found.append(box)
    return found


def received(page: Page) -> list[tuple[str, int]]:
    """From here on, what comes over the wire: addresses, and bytes with headers, as Chromium counts them."""
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    urls: dict[str, str] = {}
    got: list[tuple[str, int]] = []
    session.on("Network.requestWillBeSent", lambda event: urls.update({event["requestId"]: event["request"]["url"]}))
    session.on(
        "Network.loadingFinished",
        lambda event: got.append((urls.get(event["requestId"], ""), event["encodedDataLength"])),
    )
    return got
