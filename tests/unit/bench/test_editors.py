"""The editors ask, wait and hang up as the real ones do, and a screen shows only what is for its document."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web

from tests.bench.accounting import Ask, Stop
from tests.bench.editors import Clock, Continue, Editor, LlamaVim, Offer, Screen, Server, ThreeAtOnce
from tests.bench.replay import Event, Replay, Site

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SCALE = 4.0  # a pause of 350 ms is still told from a key 100 ms later where the machine is busy
SITE = Site("total = ", "price * count", "\nprint(total)\n")


@dataclass
class Slow:
    """A server that takes `answer_s` for each answer, and notes who asks and who hangs up."""

    answer_s: float
    asked: list[dict[str, Any]] = field(default_factory=list)
    under_way: int = 0
    most_at_once: int = 0
    left: int = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        try:
            await asyncio.sleep(self.answer_s / SCALE)
            prefix = body.get("prompt") if "suffix" in body else body["input_prefix"] + body["prompt"]
            typed = str(prefix).removeprefix(SITE.head)
            text = SITE.middle[len(typed) :]
            if body["stream"]:
                data = json.dumps({"choices": [{"text": text + "\n"}]})
                return web.Response(text=f"data: {data}\n\ndata: [DONE]\n\n", content_type="text/event-stream")
            return web.json_response({"content": text})
        except asyncio.CancelledError:
            self.left += 1
            raise
        finally:
            self.under_way -= 1


@asynccontextmanager
async def _typed(kind: type[Editor], slow: Slow, events: list[Event]) -> AsyncIterator[Editor]:
    """`kind` of editor, into which `events` have been typed."""
    app = web.Application()
    app.router.add_post("/{path:.*}", slow.answer)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as http:
            host, port = runner.addresses[0][:2]
            editor = kind(Server(f"http://{host}:{port}", "", http), Clock(time.monotonic(), SCALE), "/infill")
            await editor.work(Replay((SITE,), tuple(events)))
            yield editor
    finally:
        await runner.cleanup()


def _keys(text: str, after_s: float) -> list[Event]:
    return [Event(after_s, "key", 0, text[:length]) for length in range(1, len(text) + 1)]


JUMP = Event(0.1, "jump", 0, "")


async def test_llama_vim_has_one_request_under_way_and_never_leaves_it() -> None:
    slow = Slow(answer_s=2.0)
    async with _typed(LlamaVim, slow, [JUMP, *_keys("quantum", 0.4), Event(9, "key", 0, "quantum ")]):
        assert slow.most_at_once == 1
        assert len(slow.asked) >= 2
        assert slow.left == 0


async def test_llama_vim_shows_what_it_knows_without_asking_again() -> None:
    slow = Slow(answer_s=0.2)
    async with _typed(LlamaVim, slow, [JUMP, Event(3, "key", 0, "p"), Event(3, "key", 0, "pr")]) as editor:
        assert slow.asked[0]["prompt"] == SITE.head
        after = SITE.head + SITE.middle  # what would come next, and along the hint, which the server has in memory
        assert {asked["prompt"] for asked in slow.asked} == {SITE.head, after, SITE.head + "p"}
        assert editor.screen.line() == "ice * count"


async def test_continue_asks_only_after_a_pause_and_hangs_up_at_the_next_key() -> None:
    slow = Slow(answer_s=4.0)
    events = [JUMP, *_keys("price", 0.1), Event(2, "key", 0, "price "), Event(9, "key", 0, "price *")]
    async with _typed(Continue, slow, events) as editor:
        assert [asked["prompt"] for asked in slow.asked] == [SITE.head + "price", SITE.head + "price "]
        assert slow.left == 1
        assert [stop.whole_s is None for stop in editor.screen.stops] == [True, False]
        assert editor.screen.stops[-1].exact


async def test_three_at_once_are_three() -> None:
    slow = Slow(answer_s=4.0)
    async with _typed(ThreeAtOnce, slow, [JUMP, Event(5, "key", 0, "p")]):
        assert slow.most_at_once == 3
        assert {asked["prompt"] for asked in slow.asked} == {SITE.head}


async def test_who_accepts_goes_on_behind_the_line() -> None:
    slow = Slow(answer_s=0.2)
    jump = Event(0.1, "jump", 0, "", accepts=True)
    async with _typed(Continue, slow, [jump, Event(8, "key", 0, "p"), *_keys(SITE.middle, 0.1)[1:]]) as editor:
        assert [stop.taken for stop in editor.screen.stops] == [True]
        assert editor.screen.prefix == SITE.head + SITE.middle


@pytest.mark.parametrize(
    ("typed", "line"), [("", "b + c"), ("b", " + c"), ("b + c", None), ("x", None), ("b + c + d", None)]
)
def test_an_offer_stands_as_long_as_the_typing_goes_its_way(typed: str, line: str | None) -> None:
    screen = Screen(Clock(time.monotonic(), 1))
    screen.change("a = ", "\n", None)
    screen.show(Offer("a = ", "\n", "b + c\nd", whole=False, ask=Ask("a = ", "\n", 0)))
    screen.change("a = " + typed, "\n", None)
    assert screen.line() == line


def test_an_offer_for_another_document_is_not_shown() -> None:
    screen = Screen(Clock(time.monotonic(), 1))
    stop, ask = Stop(0, 1), Ask("a = ", "\n", 0)
    screen.change("b = ", "\n", (stop, "c"))
    for prefix, suffix in (("a = ", "\n"), ("b = ", ")\n")):
        screen.show(Offer(prefix, suffix, "c", whole=True, ask=ask))
    assert (stop.first_s, ask.useful) == (None, False)
    screen.show(Offer("b = ", "\n", "c", whole=True, ask=ask))
    assert stop.first_s is not None
    assert (stop.exact, ask.useful) == (True, True)
