"""The completion service: waits a request's turn, runs it on the engine, filters the text, reports how it went.

A request is a `Completion`. What the engine runs is a `_Flight`, for one completion or several that ask the same; it
may take several runs, as background work makes way. The policy of all this is `scheduler`'s.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from rockfill.bus import Bus, Event, Topic
from rockfill.completion import scheduler as policy
from rockfill.completion.budget import Budget
from rockfill.completion.cache import Entry, Remembered, TypedAhead
from rockfill.completion.guesses import FAST_TOKENS, Guesses
from rockfill.completion.scheduler import Arrival, Priority, Scheduler
from rockfill.engine.stream import Reader, TextStream
from rockfill.errors import Code, Problem, ProblemInfo
from rockfill.fim.families import BY_NAME
from rockfill.fim.output import Mode, OutputFilter, OutputRules, Reason
from rockfill.link.messages import File, Generate, Render, Trimmed
from rockfill.session import Sampling
from rockfill.snapshots import Phase

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable
    from typing import Self

    from rockfill.engine.supervisor import Generation, Supervisor
    from rockfill.link.messages import Accepted, Prompt
    from rockfill.snapshots import Target

# The engine's own figures of a run come with its end. Where a filter ends the text earlier, they are waited for this
# long: enough for the CPU engine, and nothing that anybody feels.
FIGURES_WAIT_S = 0.005

# Some thousands of completions with their prefixes; a board has 4 GB and needs most of them for the model.
CACHE_BYTES = 4_000_000

# Editors that want the likeliest text say so with a little more than 0: Continue 0.01, llama.vscode 0.1, Zed and twinny
# 0.2. Whoever types is served better by a text at once, and by one that stays while it is typed, than by another.
NEARLY_GREEDY = 0.2

# How often a full queue is an event: clients that are refused ask again at once.
FULL_PAUSE_S = 10.0

SUPERSEDED = ProblemInfo(Code.SUPERSEDED, "A newer request has made this one pointless.")
PAUSED = ProblemInfo(
    Code.ENGINE_PAUSED, "The engine is paused.", "`rockfill engine resume`, or the page, lets it go on."
)


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """What to complete, whatever dialect it came in.

    `suffix` None asks for plain continuation. `mode` says how the text is ended and tidied (`fim.output`).
    `model` is a name as the caller wrote it, "" for whichever is chosen. `priority` says who goes first. Only
    `Priority.TYPING` is answered from memory, and kept within a prompt that the engine can read in time (where
    `budget_tokens` does not say otherwise). `client` is whatever tells one from another: turns go round among them.
    `supersedes`: an earlier request of the same client, of this kind too, that this is an edit of has become pointless;
    so has any earlier one of the same `session`, where that is not "". `predict_s` is how long the text may take before
    it ends at the next line's end.
    """

    prefix: str
    suffix: str | None = None
    files: tuple[File, ...] = ()
    model: str = ""
    max_tokens: int = 64
    budget_tokens: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    stops: tuple[str, ...] = ()
    mode: Mode = "raw"
    n_indent: int = 0
    priority: Priority = Priority.PLAIN
    client: str = ""
    supersedes: bool = False
    session: str = ""
    predict_s: float | None = None


@dataclass(frozen=True, slots=True)
class Timings:
    """In milliseconds; None where the engine did not tell, or was not asked."""

    queue_ms: float
    first_token_ms: float | None
    prefill_ms: float | None
    decode_ms: float | None
    total_ms: float


# What ended a text: the model, the bound on its tokens, its time, or one of the filter's reasons.
Ending = Literal["model", "length", "time"] | Reason


@dataclass(frozen=True, slots=True)
class CompletionResult:
    """How a completion went.

    `ended` is what ended its text; `stop` the stop text of the request's that did, "" if none.
    `reused_tokens` of the prompt were still in the engine's KV cache. `from_memory` is how many characters of the
    engine's text were known from an earlier request; if all were, the engine was not asked, its figures are None, and
    `prompt_tokens` are those of the earlier request.
    """

    model: str
    ended: Ending
    stop: str
    prompt_tokens: int
    generated_tokens: int
    reused_tokens: int | None
    from_memory: int
    trimmed: Trimmed
    ignored: tuple[str, ...]
    timings: Timings

    @property
    def finish_reason(self) -> Literal["stop", "length"]:
        """Whether the text ended where it should, or its bound was in the way."""
        return "length" if self.ended == "length" else "stop"


@dataclass(slots=True)
class Totals:
    """What has been done since the start, of completions that came to their end."""

    completions: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0


class CompletionService:
    """Runs completions on the engine, one flight at a time."""

    def __init__(
        self,
        supervisor: Supervisor,
        find_model: Callable[[str], Target],
        *,
        max_queue: int,
        switch_idle_s: float,
        first_token_target_s: float,
        bus: Bus | None = None,
    ) -> None:
        """`find_model` resolves a name ("" for the chosen model) or raises `model_not_found`.

        `bus` hears of a full queue, as ``queue.full``: how many wait, and how many were refused since it was last told.
        """
        self._supervisor = supervisor
        self._find_model = find_model
        self._switch_idle_s = switch_idle_s
        self._scheduler = Scheduler(max_queue)
        self._memory = TypedAhead(CACHE_BYTES)
        self._guesses = Guesses()
        self._first_token_target_s = first_token_target_s
        self._budget = Budget(first_token_target_s)
        self._tickets = itertools.count(1)
        self._flights: dict[int, _Flight] = {}
        self._completions: dict[int, Completion] = {}
        self._last_used_s = -switch_idle_s
        self._bus = bus or Bus()
        self._refused = 0
        self._told_full_s = -FULL_PAUSE_S
        self.paused = False
        self.first_token_s: float | None = None  # of the last request that the engine answered, waiting included
        self.totals = Totals()

    def reconfigure(self, *, max_queue: int, switch_idle_s: float, first_token_target_s: float) -> None:
        """Use these from the next request on."""
        self._switch_idle_s = switch_idle_s
        self._scheduler.max_queue = max_queue
        self._budget.target_s = self._first_token_target_s = first_token_target_s

    def count(self, result: CompletionResult) -> None:
        """A completion has come to its end."""
        self.totals.completions += 1
        self.totals.prompt_tokens += result.prompt_tokens
        self.totals.generated_tokens += result.generated_tokens

    @property
    def queue_depth(self) -> int:
        return self._scheduler.depth

    def is_guess(self, request: CompletionRequest) -> bool:
        """Whether an editor asks for what would follow an offer that nobody has taken, of an engine too slow for that.

        Such a request is better not taken up: whoever takes the offer asks again. What is in memory costs nothing.
        """
        fast = (self._supervisor.tokens_per_second or 0.0) * self._first_token_target_s >= FAST_TOKENS
        if fast or not request.supersedes:
            return False
        if _is_memorable(request) and self._remembered(request, self._find_model(request.model)) is not None:
            return False
        now_s = time.monotonic()
        return self._guesses.is_guess(request.client, request.prefix, predict_s=request.predict_s, at_s=now_s)

    def start(self, request: CompletionRequest) -> Completion:
        """Take up `request`; to be entered with ``async with`` at once.

        Raises `model_not_found`, `model_busy`, `engine_paused` or `queue_full`.
        """
        if self.paused:
            raise PAUSED.raised()
        target = self._find_model(request.model)
        request = self._within_budget(request)
        remembered = None
        if _is_memorable(request):
            remembered = self._remembered(request, target)
        completion = Completion(self, request, target, next(self._tickets), remembered)
        if completion.needs_engine:
            self._refuse_hasty_switch(target)
            self._arrive(completion)
        return completion

    async def prompt(self, request: CompletionRequest) -> Prompt:
        """The prompt that the loaded model would be given for `request` now. Raises `engine_stopped` without one."""
        request = self._within_budget(request)
        asked = Render(
            0, request.prefix, request.suffix, request.files, request.max_tokens, budget_tokens=request.budget_tokens
        )
        return await self._supervisor.prompt(asked)

    def _within_budget(self, request: CompletionRequest) -> CompletionRequest:
        """`request` with a bound on its prompt, if it is somebody's who types and has none of its own."""
        if request.priority is not Priority.TYPING or request.budget_tokens:
            return request
        tokens = self._budget.tokens(self._supervisor.prefill_tokens_per_second)
        return replace(request, budget_tokens=tokens)

    def pause(self) -> None:
        """Refuse every request from now on, those that wait or run included."""
        self.paused = True
        for completion in list(self._completions.values()):
            completion.interrupt(PAUSED)
        for flight in self._flights.values():
            flight.wake()

    def resume(self) -> None:
        """Take up requests again."""
        self.paused = False

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Wait for a turn and hold it: nobody else's request reaches the engine meanwhile.

        Whoever holds it leaves the engine idle. Raises `queue_full` or `engine_paused`.
        """
        if self.paused:
            raise PAUSED.raised()
        ticket = next(self._tickets)
        flight = self._flights[ticket] = _Flight(self, None)
        effects = self._scheduler.arrive(Arrival(ticket))
        try:
            self._refuse(effects, ticket)
            self._perform(effects)
            await flight.turn
            if self.paused:
                raise PAUSED.raised()
            yield
        finally:
            gone = [effect for effect in self._scheduler.leave(ticket) if isinstance(effect, policy.Gone)]
            self._perform([*gone, *self._scheduler.over(ticket)])

    def _arrive(self, completion: Completion) -> None:
        request, ticket = completion.request, completion.ticket
        key = _key(completion) if _is_steady(request) else ""
        document = request.prefix + (request.suffix or "")
        edits = document if request.supersedes else ""
        arrival = Arrival(ticket, request.priority, request.client, request.session, key, edits)
        self._flights[ticket] = _Flight(self, completion)
        self._completions[ticket] = completion
        effects = self._scheduler.arrive(arrival)
        self._refuse(effects, ticket)
        for effect in effects:
            if isinstance(effect, policy.Join):
                del self._flights[ticket]
                completion.flight_number = effect.flight
        self._perform(effects)

    def _refuse(self, effects: list[policy.Effect], ticket: int) -> None:
        if policy.Refuse(ticket) in effects:
            del self._flights[ticket]
            self._completions.pop(ticket, None)
            self._perform([effect for effect in effects if effect != policy.Refuse(ticket)])
            self._tell_full()
            raise Problem(
                Code.QUEUE_FULL,
                f"{self._scheduler.depth} requests are waiting already.",
                "Ask again in a moment.",
                retry_after_s=1,
            )

    def _tell_full(self) -> None:
        """Say that somebody was refused; a burst of refusals is one event."""
        self._refused += 1
        now_s = time.monotonic()
        if now_s - self._told_full_s >= FULL_PAUSE_S:
            self._told_full_s = now_s
            value = {"waiting": self._scheduler.depth, "refused": self._refused}
            self._refused = 0
            self._bus.publish(Event(Topic.EVENTS, "queue.full", value))

    def _refuse_hasty_switch(self, target: Target) -> None:
        """Two clients that name two models must not make the engine load them in turn for ever."""
        snapshot = self._supervisor.snapshot
        if snapshot.target in (None, target) or snapshot.phase is Phase.FAILED:
            return
        left_s = self._last_used_s + self._switch_idle_s - time.monotonic()
        if left_s > 0 or snapshot.pinned or snapshot.phase is not Phase.READY:
            assert snapshot.target is not None
            raise Problem(
                Code.MODEL_BUSY,
                f"The engine is busy with {snapshot.target.name}; {target.name} is loaded once that has been idle "
                f"for {self._switch_idle_s:g} s.",
                "Ask again later, name the loaded model, or load the other one with `rockfill engine load`.",
                retry_after_s=max(1, round(left_s)),
            )

    def _perform(self, effects: list[policy.Effect]) -> None:
        for effect in effects:
            match effect:
                case policy.Run(number):
                    self._flights[number].take_off()
                case policy.Abort(number):
                    self._flights[number].abort()
                case policy.Yield(number):
                    self._flights[number].make_way()
                case policy.Supersede(ticket):
                    self._completions.pop(ticket).interrupt(SUPERSEDED)
                case policy.Gone(number):
                    del self._flights[number]
                case policy.Join() | policy.Refuse():
                    pass

    # ---- for flights and completions

    def flight(self, number: int) -> _Flight:
        return self._flights[number]

    def submit(self, flight: _Flight, completion: Completion) -> Generation:
        """Run what `completion` asks for, from where what is known and what the flight has brought end."""
        request = completion.request
        generate = Generate(
            id=0,
            prefix=request.prefix + completion.known_text + flight.text,
            suffix=request.suffix,
            files=request.files,
            max_tokens=self.tokens_left(flight, completion),
            budget_tokens=request.budget_tokens,
            sampling=request.sampling,
        )
        return self._supervisor.submit(completion.target, generate, _key(completion), flight.stream)

    def tokens_left(self, flight: _Flight, completion: Completion) -> int:
        """How many tokens the engine may still give."""
        return completion.request.max_tokens - completion.known_tokens - flight.tokens

    def landed(self, number: int, *, again: bool) -> None:
        """The engine is free of this flight, for good or (`again`) until its next turn."""
        self._last_used_s = time.monotonic()
        self._perform(self._scheduler.again(number) if again else self._scheduler.over(number))

    def leave(self, completion: Completion) -> None:
        """`completion` wants nothing more of its flight."""
        self._completions.pop(completion.ticket, None)
        self._perform(self._scheduler.leave(completion.ticket))

    def offered(self, request: CompletionRequest, text: str) -> None:
        """`text` is the whole answer to `request`."""
        if request.supersedes:
            suffix, now_s = request.suffix or "", time.monotonic()
            self._guesses.offered(request.client, request.prefix, text, suffix, predict_s=request.predict_s, at_s=now_s)

    def remember(self, completion: Completion, flight: _Flight) -> None:
        """Keep what `completion` got from its flight for whoever types it."""
        text = completion.known_text + flight.text
        request, accepted = completion.request, flight.accepted
        if not _is_memorable(request) or not (text or flight.complete) or accepted is None:
            return
        entry = Entry(
            request.prefix, text, completion.known_tokens + flight.tokens, flight.complete, accepted.prompt_tokens
        )
        self._memory.remember(self._memory_place(request, completion.target), entry)

    def _remembered(self, request: CompletionRequest, target: Target) -> Remembered | None:
        return self._memory.find(self._memory_place(request, target), request.prefix)

    def _memory_place(self, request: CompletionRequest, target: Target) -> str:
        """Another model or other settings of its load are another place."""
        return _place(request, (target, self._supervisor.loaded))


class _Flight:
    """What the engine does for one completion, or several that are the same, in one run or several."""

    def __init__(self, service: CompletionService, completion: Completion | None) -> None:
        """Without a completion it only holds the turn."""
        self._service = service
        self._completion = completion
        self.stream = TextStream()
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.generation: Generation | None = None
        self.started_s: float | None = None
        self._yielding = False
        self._tokens_before = 0  # those of the runs before the present one

    @property
    def text(self) -> str:
        """All that the engine has said."""
        return "".join(self.stream.pieces)

    @property
    def tokens(self) -> int:
        """How many tokens that was."""
        return self._tokens_before + (self.generation.tokens if self.generation is not None else 0)

    @property
    def accepted(self) -> Accepted | None:
        """What the engine made of the prompt."""
        return self.generation.accepted if self.generation is not None else None

    @property
    def complete(self) -> bool:
        """Whether the engine ended it by itself."""
        run = self.generation.run if self.generation is not None else None
        return run is not None and run.finish == "stop"

    def wake(self) -> None:
        """Whoever waits for the turn need not any longer."""
        if not self.turn.done():
            self.turn.set_result(None)

    def take_off(self) -> None:
        """The engine is ours: run, or go on where we made way."""
        self.wake()
        if self._completion is None:
            return
        if self._service.paused or self._service.tokens_left(self, self._completion) <= 0:
            self.stream.close(PAUSED if self._service.paused else None)
            self._service.landed(self._completion.ticket, again=False)
            return
        if self.started_s is None:
            self.started_s = time.perf_counter()
        self._yielding = False
        self._tokens_before = self.tokens
        self.generation = None
        self.generation = self._service.submit(self, self._completion)
        self.generation.when_over(self._land)

    def abort(self) -> None:
        if self.generation is not None:
            self.generation.cancel()

    def make_way(self) -> None:
        self._yielding = True
        self.abort()

    def _land(self) -> None:
        assert self.generation is not None
        assert self._completion is not None
        run = self.generation.run
        again = self._yielding and run is not None and run.finish == "aborted"
        if not again:
            self.stream.close(self.generation.problem)
        self._service.landed(self._completion.ticket, again=again)


class Completion:
    """One completion under way.

    Iterate once for its text; then `result` tells how it went. Leaving the ``async with`` block early, by whatever
    way, ends the engine's run, unless somebody else asked for the same.
    """

    def __init__(
        self,
        service: CompletionService,
        request: CompletionRequest,
        target: Target,
        ticket: int,
        remembered: Remembered | None,
    ) -> None:
        self.request = request
        self.target = target
        self.ticket = self.flight_number = ticket
        self.known_text = remembered.text if remembered is not None else ""
        self.known_tokens = remembered.tokens if remembered is not None else 0
        self._service = service
        self._arrived_s = time.perf_counter()
        self._output = OutputFilter(_rules(request, target.family))
        self._first_text = self._output.feed(self.known_text)
        self._all_known = remembered is not None and remembered.complete
        self._remembered_prompt_tokens = remembered.prompt_tokens if remembered is not None else 0
        self._reader: Reader | None = None
        self._flight: _Flight | None = None
        self._interrupted: ProblemInfo | None = None
        self._timed_out = False
        self._result: CompletionResult | None = None

    @property
    def needs_engine(self) -> bool:
        """Whether what is remembered is not enough."""
        enough = self._all_known or self.known_tokens >= self.request.max_tokens
        return not enough and self._output.finished is None

    @property
    def result(self) -> CompletionResult:
        """How it went; there once the text has been iterated to its end."""
        assert self._result is not None
        return self._result

    def interrupt(self, problem: ProblemInfo) -> None:
        """End it with `problem`, wherever it is."""
        self._interrupted = problem
        if self._reader is not None:
            self._reader.interrupt(problem)

    async def __aenter__(self) -> Self:
        if self.needs_engine:
            self._flight = self._service.flight(self.flight_number)
            self._reader = self._flight.stream.reader()
            if self._interrupted is not None:
                self._reader.interrupt(self._interrupted)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._flight is not None:
            self._service.remember(self, self._flight)
            self._service.leave(self)

    async def __aiter__(self) -> AsyncGenerator[str, None]:
        first_s: float | None = None
        said: list[str] = []
        if self._first_text:
            first_s = time.perf_counter()
            said.append(self._first_text)
            yield self._first_text
        if self._reader is not None:
            async for text in self._reader:
                if first_s is None:
                    first_s = time.perf_counter()
                out = self._output.feed(self._in_time(text, first_s))
                if out:
                    said.append(out)
                    yield out
                if self._output.finished is not None or self._timed_out:
                    await self._wait_for_figures()
                    break
        tail = self._output.flush()
        if tail:
            said.append(tail)
            yield tail
        self._service.offered(self.request, "".join(said))
        self._result = self._report(first_s)
        self._service.count(self._result)

    def _in_time(self, text: str, first_s: float) -> str:
        """`text`, up to the end of its line if the time is up."""
        limit_s = self.request.predict_s
        if limit_s is None or time.perf_counter() - first_s < limit_s or "\n" not in text:
            return text
        self._timed_out = True
        return text[: text.index("\n")]

    async def _wait_for_figures(self) -> None:
        """The engine need not go on; give it a moment to tell how it went."""
        assert self._flight is not None
        generation = self._flight.generation
        self._service.leave(self)
        if generation is not None:
            await _over(generation, FIGURES_WAIT_S)

    def _report(self, first_s: float | None) -> CompletionResult:
        flight = self._flight
        generation = flight.generation if flight is not None else None
        run = generation.run if generation is not None else None
        accepted = flight.accepted if flight is not None else None
        started_s = flight.started_s if flight is not None and flight.started_s is not None else self._arrived_s
        finished = self._output.finished
        ended: Ending = "model" if self._all_known or (run is not None and run.finish == "stop") else "length"
        if finished is not None:
            ended = finished.reason
        elif self._timed_out:
            ended = "time"
        if first_s is not None and generation is not None:
            self._service.first_token_s = round(first_s - self._arrived_s, 4)
        return CompletionResult(
            model=self.target.name,
            ended=ended,
            stop=finished.stop if finished is not None and finished.stop in self.request.stops else "",
            prompt_tokens=accepted.prompt_tokens if accepted else self._remembered_prompt_tokens,
            generated_tokens=self.known_tokens + (flight.tokens if flight is not None else 0),
            reused_tokens=run.reused_tokens if run else None,
            from_memory=len(self.known_text),
            trimmed=accepted.trimmed if accepted else Trimmed(),
            ignored=accepted.ignored if accepted else (),
            timings=Timings(
                queue_ms=_ms(max(0.0, started_s - self._arrived_s)),
                first_token_ms=None if first_s is None else _ms(first_s - self._arrived_s),
                prefill_ms=_ms(run.prefill_s) if run and run.prefill_s is not None else None,
                decode_ms=_ms(run.decode_s) if run and run.decode_s is not None else None,
                total_ms=_ms(time.perf_counter() - self._arrived_s),
            ),
        )


async def _over(generation: Generation, seconds: float) -> None:
    """Wait for the end of `generation`, but not for longer than `seconds`."""
    if generation.over:
        return
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()

    def settle() -> None:
        if not over.done():
            over.set_result(None)

    generation.when_over(settle)
    timer = loop.call_later(seconds, settle)
    try:
        await over
    finally:
        timer.cancel()


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _rules(request: CompletionRequest, family_name: str | None) -> OutputRules:
    family = BY_NAME.get(family_name or "")
    return OutputRules(
        mode=request.mode,
        stops=request.stops + (family.stop_texts if family is not None else ()),
        suffix=request.suffix or "",
        line_prefix=request.prefix.rpartition("\n")[2],
        n_indent=request.n_indent,
    )


def _is_memorable(request: CompletionRequest) -> bool:
    """Only somebody who types comes back to the same text."""
    return request.priority is Priority.TYPING and _is_steady(request)


def _is_steady(request: CompletionRequest) -> bool:
    """Whether one answer is as good as another: the engine would give the same, or one of a few nearly equal."""
    most = NEARLY_GREEDY if request.priority is Priority.TYPING else 0.0
    return request.sampling.temperature <= most


def _place(request: CompletionRequest, load: object) -> str:
    """Whatever, beside the prefix, decides what the engine says; `load` is the model with its settings."""
    sampling = request.sampling if request.sampling.temperature else None
    files = (part for file in request.files for part in (file.path, file.text))
    return _digest(repr(load), repr(sampling), request.suffix, *files)


def _key(completion: Completion) -> str:
    """What tells one run from another: which requests may share it, and which of them crash the engine."""
    request = completion.request
    limits = (request.max_tokens, request.budget_tokens, len(completion.known_text))
    return _digest(_place(request, completion.target), request.prefix, *map(str, limits))


def _digest(*parts: str | None) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = b"" if part is None else part.encode()
        digest.update(b"%d:%d:" % (part is not None, len(data)))
        digest.update(data)
    return digest.hexdigest()
