"""What the tests do with the page again and again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page, Request, Route

    from tests.appliance import Appliance

HOST = "rock5.local"
COMPLETIONS = "**/v1/completions"


def address(appliance: Appliance) -> str:
    return f"http://{HOST}:{appliance.port}/"


def sign_in(page: Page, appliance: Appliance) -> None:
    page.goto(f"{address(appliance)}#token={appliance.token}")
    expect(page.locator("#engine")).to_contain_text("ready")


def editor(page: Page) -> Locator:
    return page.get_by_role("textbox", name="Code")


def ghost(page: Page) -> Locator:
    return page.locator("#ghost")


def ask_at_the_end_of(page: Page, text: str) -> None:
    editor(page).fill(text)
    page.keyboard.press("Control+Space")


def stream(*texts: str, last: dict[str, Any] | None = None) -> str:
    """An answer with these texts; `last` stands in the place of how it went."""
    timings = {"first_token_ms": 12.5, "prompt_tokens": 20, "generated_tokens": len(texts)}
    report = {"trimmed": {"prefix_chars": 0, "suffix_chars": 0, "files": 0}, "reused_tokens": None, "timings": timings}
    events: list[Any] = [{"choices": [{"text": text, "finish_reason": None}]} for text in texts]
    events.append(last or {"choices": [{"text": "", "finish_reason": "stop"}], "rockfill": report})
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


def answer_with(page: Page, body: str) -> list[Request]:
    """From now on completions are answered with `body`; gives the requests as they come."""
    requests: list[Request] = []

    def answer(route: Route) -> None:
        requests.append(route.request)
        route.fulfill(body=body, content_type="text/event-stream")

    page.route(COMPLETIONS, answer)
    return requests
