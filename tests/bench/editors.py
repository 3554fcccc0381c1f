"""Editors as they behave, with somebody typing into them: one replay, one server, over HTTP.

An editor shows an offer while the document is the one that it was for, or what has been typed since goes the offer's
way. `Screen` keeps that, and what was offered at each stop; an `Editor` decides when to ask, and what to do with what
is under way; the wire format is `wire` and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import aiohttp

from tests.bench.accounting import Ask, Stop
from tests.bench.replay import STOP_S

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine

    from tests.bench.replay import Replay

# Reading a line of code takes about as long as typing two or three of its characters.
READING_S = 0.45


@dataclass(frozen=True, slots=True)
class Clock:
    """The typist's time, which passes `scale` times as fast as the clock on the wall."""

    started_s: float
    scale: float

    def now_s(self) -> float:
        return self.at_s(time.monotonic())

    def at_s(self, monotonic_s: float) -> float:
        """What this says when the machine's monotonic clock says that."""
        return (monotonic_s - self.started_s) * self.scale

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds) / self.scale)


# ---- the wire


@dataclass(frozen=True, slots=True)
class Wire:
    """What an editor says of itself: `path` of its dialect, whether the text is to come as it is made, and limits."""

    path: str
    stream: bool
    max_tokens: int
    line: bool = False
    predict_s: float | None = None
    temperature: float = 0.0


def body(path: str, wire: Wire, prefix: str, suffix: str, scale: float) -> dict[str, Any]:
    """The request in the dialect that lives at `path`."""
    if path == "/infill":
        before, _, line = prefix.rpartition("\n")
        made: dict[str, Any] = {
            "input_prefix": before + "\n" if before else "",
            "prompt": line,
            "input_suffix": suffix,
            "n_predict": wire.max_tokens,
            "n_indent": len(line) - len(line.lstrip()) if line.strip() else 0,
            "stream": wire.stream,
            "temperature": 0.0,
            "model": "",
        }
        if wire.predict_s is not None:
            made["t_max_predict_ms"] = max(1, round(1000 * wire.predict_s / scale))
        return made
    made = {"prompt": prefix, "suffix": suffix, "max_tokens": wire.max_tokens, "stream": wire.stream}
    made |= {"temperature": wire.temperature}
    return made | ({"rockfill": {"mode": "line"}} if wire.line else {})


def text_in(value: Any) -> str:
    """The text in an answer, or in one event of a stream, of any of the dialects."""
    if "choices" in value:
        return "".join(choice.get("text", "") for choice in value["choices"])
    return str(value.get("content", ""))


@dataclass(frozen=True, slots=True)
class Server:
    """Where it is and how it is spoken to."""

    url: str
    token: str
    http: aiohttp.ClientSession

    async def answers(self, path: str, request: dict[str, Any]) -> AsyncGenerator[str, None]:
        """The text as it comes. Ends at once if the request is refused or superseded; closing it hangs up."""
        headers = {"Authorization": f"Bearer {self.token}"}
        async with self.http.post(self.url + path, json=request, headers=headers) as response:
            if response.status != 200:
                await response.read()
            elif response.content_type != "text/event-stream":
                raw = await response.read()
                value = json.loads(raw) if raw else {}
                if "content" in value or "choices" in value:  # editors drop whatever else comes
                    yield text_in(value)
            else:
                async for line in response.content:
                    data = line.removeprefix(b"data: ").strip()
                    if data.startswith(b"{"):
                        yield text_in(json.loads(data))


# ---- what the typist sees


@dataclass(frozen=True, slots=True)
class Offer:
    """A text for a document; `whole` if the rest of its first line has come."""

    prefix: str
    suffix: str
    text: str
    whole: bool
    ask: Ask


class Screen:
    """The document and what is offered for it."""

    def __init__(self, clock: Clock) -> None:
        self.prefix = ""
        self.suffix = ""
        self.stops: list[Stop] = []
        self.seen = asyncio.Event()
        self.key_s = 0.0
        self._clock = clock
        self._offer: Offer | None = None
        self._stop: tuple[Stop, str] | None = None

    def change(self, prefix: str, suffix: str, stop: tuple[Stop, str] | None) -> None:
        """The document is another; `stop` and the real rest of the line if this is the last key for a while."""
        self.prefix, self.suffix = prefix, suffix
        self.key_s = self._clock.now_s()
        self._stop = stop
        if stop is not None:
            self.stops.append(stop[0])
        self._look()

    def show(self, offer: Offer) -> None:
        """An offer has come, or more of it. One that is for another document by now is not shown."""
        if self._rest(offer):
            self._offer = offer
            self._look()

    def line(self) -> str | None:
        """The offered rest of the line, if all of that is there."""
        rest = self._rest(self._offer)
        if self._offer is None or not rest:
            return None
        line, ended, _ = rest.partition("\n")
        return line if ended or self._offer.whole else None

    def _rest(self, offer: Offer | None) -> str:
        if offer is None or offer.suffix != self.suffix or not self.prefix.startswith(offer.prefix):
            return ""
        typed = self.prefix[len(offer.prefix) :]
        rest = offer.text[len(typed) :] if offer.text.startswith(typed) else ""
        return rest if rest.partition("\n")[0].strip() else ""

    def _look(self) -> None:
        if self._stop is None or not self._rest(self._offer):
            return
        assert self._offer is not None
        stop, wanted = self._stop
        after_s = self._clock.now_s() - stop.at_s
        if stop.first_s is None:
            stop.first_s = after_s
            self._offer.ask.useful = True
        line = self.line()
        if line is not None:
            self.seen.set()
            if stop.whole_s is None:
                stop.whole_s = after_s
                stop.exact = line.rstrip() == wanted.rstrip()


# ---- the editors


class Editor(ABC):
    """Runs in a task group of its own, all of whose tasks end with the replay."""

    name: ClassVar[str]
    wire: ClassVar[Wire]
    debounce_s: ClassVar[float] = 0.0

    def __init__(self, server: Server, clock: Clock, infill: str) -> None:
        """`infill` is the path for editors of that dialect, as the server may not have it."""
        self.asks: list[Ask] = []
        self.screen = Screen(clock)
        self._server = server
        self._clock = clock
        self._path = infill if self.wire.path == "/infill" else self.wire.path
        self._tasks: set[asyncio.Task[None]] = set()

    @abstractmethod
    def changed(self) -> None:
        """The document on the screen is another."""

    async def work(self, replay: Replay) -> None:
        """Be typed into until the end of `replay`."""
        index = 0
        await self._clock.sleep(replay.events[0].after_s)
        while index < len(replay.events):
            self._apply(replay, index)
            if replay.stops(index):
                index = await self._stop(replay, index)
            else:
                index += 1
                if index < len(replay.events):
                    await self._clock.sleep(replay.events[index].after_s)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _apply(self, replay: Replay, index: int, accepted: str = "") -> None:
        """Event `index` happens; or, with what was `accepted`, the rest of its line appears."""
        event = replay.events[index]
        site = replay.sites[event.site]
        stop = None
        if not accepted and replay.stops(index):
            stop = Stop(self._clock.now_s(), replay.events[index + 1].after_s), replay.rest(event) or ""
        self.screen.change(site.head + event.typed + accepted, site.tail, stop)
        self.changed()

    async def _stop(self, replay: Replay, index: int) -> int:
        """Wait until the stop is over; the number of the event that is due then."""
        event, stop = replay.events[index], self.screen.stops[-1]
        wanted = replay.rest(event) or ""
        with suppress(TimeoutError):
            async with asyncio.timeout((stop.at_s + stop.length_s - self._clock.now_s()) / self._clock.scale):
                while True:
                    line = self.screen.line()
                    if event.accepts and line is not None and line.rstrip() == wanted.rstrip():
                        await self._clock.sleep(READING_S)
                        break
                    self.screen.seen.clear()
                    await self.screen.seen.wait()
            stop.length_s = self._clock.now_s() - stop.at_s
            stop.taken = True
            self._apply(replay, index, wanted)
            following = replay.past_line(index)
            if following < len(replay.events):
                await self._clock.sleep(min(replay.events[following].after_s, STOP_S))
            return following
        return index + 1

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _ask(self, document: tuple[str, str], sent: tuple[str, str], wire: Wire) -> Ask:
        """Ask with `sent`, and show what comes for `document`."""
        ask = Ask(*sent, self._clock.now_s())
        self.asks.append(ask)
        request = body(self._path, wire, *sent, self._clock.scale)
        try:
            async with aclosing(self._server.answers(self._path, request)) as answers:
                async for text in answers:
                    ask.answered = True
                    ask.text += text
                    self.screen.show(Offer(*document, ask.text, not wire.stream, ask))
                    if self._enough(ask.text):
                        break
        except aiohttp.ClientError:
            pass  # what editors make of a server that hangs up
        finally:
            ask.ended_s = self._clock.now_s()
        if ask.text:
            self.screen.show(Offer(*document, ask.text, whole=True, ask=ask))
        return ask

    def _enough(self, text: str) -> bool:
        return False


class LlamaVim(Editor):
    """llama.vim: asks at every move, also along a hint, but has one request under way at a time and never ends one:
    whatever it wants meanwhile waits until 100 ms have passed without its wanting another thing. What it was told it
    keeps, and finds again when somebody types along; a hint once shown, it asks for what would come after it
    (autoload/llama.vim)."""

    name = "llama.vim"
    wire = Wire("/infill", stream=False, max_tokens=128, line=True, predict_s=0.25)
    speculative = Wire("/infill", stream=False, max_tokens=128, line=True, predict_s=1.0)
    defer_s = 0.1
    lines_before, lines_after = 256, 64
    entries, look_back_chars = 250, 128

    def __init__(self, server: Server, clock: Clock, infill: str) -> None:
        super().__init__(server, clock, infill)
        self._kept: OrderedDict[tuple[str, str], Ask] = OrderedDict()
        self._job: asyncio.Task[None] | None = None
        self._timer: asyncio.Task[None] | None = None

    def changed(self) -> None:
        self._hint()
        self._fim(None)

    def _window(self, prefix: str, suffix: str) -> tuple[str, str]:
        lines = prefix.split("\n")
        following = suffix.split("\n")
        return "\n".join(lines[-self.lines_before - 1 :]), "\n".join(following[: self.lines_after + 1]) + "\n"

    def _fim(self, accepted: tuple[str, str] | None) -> None:
        """Ask for the document, or for one in which a hint would have been `accepted`."""
        if self._job is not None:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._begin(self._later(accepted))
            return
        document = accepted or (self.screen.prefix, self.screen.suffix)
        if self._window(*document) not in self._kept:
            self._job = self._begin(self._run(document, self.speculative if accepted else self.wire))

    async def _later(self, accepted: tuple[str, str] | None) -> None:
        await self._clock.sleep(self.defer_s)
        self._timer = None
        self._fim(accepted)

    async def _run(self, document: tuple[str, str], wire: Wire) -> None:
        window = self._window(*document)
        try:
            ask = await self._ask(document, window, wire)
            if ask.answered:
                self._kept[window] = ask
                if len(self._kept) > self.entries:
                    self._kept.popitem(last=False)
                self._hint()  # its job counts as under way until the callback has returned
        finally:
            self._job = None

    def _hint(self) -> None:
        """Show what is known to go on here, and ask what would come after it."""
        prefix, suffix = self.screen.prefix, self.screen.suffix
        for back in range(min(self.look_back_chars, len(prefix)) + 1):
            before = prefix[: len(prefix) - back]
            ask = self._kept.get(self._window(before, suffix))
            if ask is None or not ask.text.startswith(prefix[len(before) :]) or len(ask.text) <= back:
                continue
            self.screen.show(Offer(before, suffix, ask.text, whole=True, ask=ask))
            self._fim((before + ask.text, suffix))
            return


class Continue(Editor):
    """Continue: waits until 350 ms have passed without a key, then asks, and hangs up at the next key. Of what comes it
    takes the first line (core/autocomplete). It sends 30 % of 1,024 tokens before the cursor and 20 % after, in whole
    lines."""

    name = "Continue"
    wire = Wire("/v1/completions", stream=True, max_tokens=256, temperature=0.01)
    debounce_s = 0.35
    chars_before, chars_after = 1100, 735

    def __init__(self, server: Server, clock: Clock, infill: str) -> None:
        super().__init__(server, clock, infill)
        self._last: asyncio.Task[None] | None = None

    def changed(self) -> None:
        if self._last is not None:
            self._last.cancel()
        self._last = self._begin(self._run(self.screen.prefix, self.screen.suffix))

    def _window(self, prefix: str, suffix: str) -> tuple[str, str]:
        if len(prefix) > self.chars_before:
            prefix = prefix[-self.chars_before :].partition("\n")[2] or prefix[-self.chars_before :]
        if len(suffix) > self.chars_after:
            suffix = suffix[: self.chars_after].rpartition("\n")[0] or suffix[: self.chars_after]
        return prefix, suffix

    async def _run(self, prefix: str, suffix: str) -> None:
        await self._clock.sleep(self.debounce_s)
        await self._ask((prefix, suffix), self._window(prefix, suffix), self.wire)

    def _enough(self, text: str) -> bool:
        return "\n" in text.lstrip("\n")


class Patient(Editor):
    """Asks 150 ms after each key, and waits for every answer: what speaks through a proxy that does not pass hang-ups
    on, or with an HTTP client that can't."""

    name = "no hang-up"
    wire = Wire("/infill", stream=False, max_tokens=128, line=True, predict_s=0.25)
    debounce_s = 0.15

    def __init__(self, server: Server, clock: Clock, infill: str) -> None:
        super().__init__(server, clock, infill)
        self._waiting: asyncio.Task[None] | None = None
        self._last: asyncio.Task[None] | None = None

    def changed(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
        self._waiting = self._begin(self._debounce())

    async def _debounce(self) -> None:
        await self._clock.sleep(self.debounce_s)
        self._waiting = None
        document = self.screen.prefix, self.screen.suffix
        self._last = self._begin(self._run(document))

    async def _run(self, document: tuple[str, str]) -> None:
        await self._ask(document, document, self.wire)


class ThreeAtOnce(Continue):
    """Asks three times for the same, to have a choice, from 16,000 characters round the cursor; waits 400 ms, and
    another 1,000 between two askings (the defaults of minuet, which can only ask a completions server for more than one
    that way)."""

    name = "three at once"
    wire = Wire("/v1/completions", stream=True, max_tokens=64)
    debounce_s = 0.4
    throttle_s = 1.0
    chars_before, chars_after = 12_000, 4_000

    def __init__(self, server: Server, clock: Clock, infill: str) -> None:
        super().__init__(server, clock, infill)
        self._asked_s = -self.throttle_s

    async def _run(self, prefix: str, suffix: str) -> None:
        now_s = self._clock.now_s()
        await self._clock.sleep(max(self.debounce_s, self._asked_s + self.throttle_s - now_s))
        self._asked_s = self._clock.now_s()
        window = self._window(prefix, suffix)
        async with asyncio.TaskGroup() as three:
            for _ in range(3):
                three.create_task(self._ask((prefix, suffix), window, self.wire))

    def _enough(self, text: str) -> bool:
        return False


EDITORS: tuple[type[Editor], ...] = (LlamaVim, Continue, ThreeAtOnce, Patient)
