"""The completion service: waits a request's turn, runs it on the engine, filters the text, reports how it went."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from rockfill.completion.scheduler import Admission, Priority, Scheduler
from rockfill.errors import Code, Problem
from rockfill.fim.families import BY_NAME
from rockfill.fim.output import Mode, OutputFilter, OutputRules
from rockfill.link.messages import File, Generate, Trimmed
from rockfill.session import Sampling
from rockfill.snapshots import Phase

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable
    from typing import Self

    from rockfill.engine.supervisor import Generation, Supervisor
    from rockfill.snapshots import Target

# The engine's own figures of a run come with its end. Where a filter ends the text earlier, they are waited for this
# long: enough for the CPU engine, and nothing that anybody feels.
FIGURES_WAIT_S = 0.005


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """What to complete, whatever dialect it came in.

    `suffix` None asks for plain continuation. `mode` says how the text is ended and tidied (`fim.output`).
    `model` is a name as the caller wrote it, "" for whichever is chosen. `priority` says who goes first; a request of
    `Priority.TYPING` supersedes an earlier one of the same `client` (whatever tells one from another) that it is an
    edit of, and any request one of the same `session`, where that is not "". `predict_s` is how long the text may take
    before it ends at the next line's end.
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
    session: str = ""
    predict_s: float | None = None


@dataclass(frozen=True, slots=True)
class Timings:
    """In milliseconds; None where the engine did not tell."""

    queue_ms: float
    first_token_ms: float | None
    prefill_ms: float | None
    decode_ms: float | None
    total_ms: float


@dataclass(frozen=True, slots=True)
class CompletionResult:
    """How a completion went. `reused_tokens` of the prompt were still in the engine's KV cache."""

    model: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    generated_tokens: int
    reused_tokens: int | None
    trimmed: Trimmed
    ignored: tuple[str, ...]
    timings: Timings


class CompletionService:
    """Runs completions on the engine, one at a time."""

    def __init__(
        self,
        supervisor: Supervisor,
        find_model: Callable[[str], Target],
        *,
        max_queue: int,
        switch_idle_s: float,
    ) -> None:
        """`find_model` resolves a name ("" for the chosen model) or raises `model_not_found`."""
        self._supervisor = supervisor
        self._find_model = find_model
        self._switch_idle_s = switch_idle_s
        self._scheduler = Scheduler(max_queue)
        self._tickets = itertools.count(1)
        self._turns: dict[int, asyncio.Future[None]] = {}
        self._last_used_s = -switch_idle_s
        self.paused = False

    @property
    def queue_depth(self) -> int:
        return self._scheduler.depth

    def start(self, request: CompletionRequest) -> Completion:
        """Take up `request`; to be entered with ``async with`` at once.

        Raises `model_not_found`, `model_busy`, `engine_paused` or `queue_full`.
        """
        if self.paused:
            raise Problem(
                Code.ENGINE_PAUSED, "The engine is paused.", "`rockfill engine resume`, or the page, lets it go on."
            )
        target = self._find_model(request.model)
        self._refuse_hasty_switch(target)
        ticket = next(self._tickets)
        return Completion(self, request, target, ticket, self._queue_up(ticket))

    def _queue_up(self, ticket: int) -> asyncio.Future[None]:
        """A future that is done when it is this ticket's turn."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        match self._scheduler.arrive(ticket):
            case Admission.RUN:
                turn.set_result(None)
            case Admission.WAIT:
                self._turns[ticket] = turn
            case Admission.REFUSE:
                raise Problem(
                    Code.QUEUE_FULL,
                    f"{self._scheduler.depth} requests are waiting already.",
                    "Ask again in a moment.",
                    retry_after_s=1,
                )
        return turn

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

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Wait for a turn and hold it: nobody else's request reaches the engine meanwhile. Raises `queue_full`."""
        ticket = next(self._tickets)
        turn = self._queue_up(ticket)
        try:
            await turn
            yield
        finally:
            self.leave(ticket)

    # ---- for Completion

    def submit(self, completion: Completion) -> Generation:
        request = completion.request
        generate = Generate(
            id=0,
            prefix=request.prefix,
            suffix=request.suffix,
            files=request.files,
            max_tokens=request.max_tokens,
            budget_tokens=request.budget_tokens,
            sampling=request.sampling,
        )
        return self._supervisor.submit(completion.target, generate, _fingerprint(request))

    def leave(self, ticket: int) -> None:
        """The engine is free of `ticket`, or it never got there: let the next one go."""
        self._last_used_s = time.monotonic()
        self._turns.pop(ticket, None)
        following = self._scheduler.leave(ticket)
        if following is not None:
            turn = self._turns.pop(following)
            if not turn.done():
                turn.set_result(None)


class Completion:
    """One completion under way.

    Iterate once for its text; then `result` tells how it went. Leaving the ``async with`` block early, by whatever
    way, ends the engine's run.
    """

    def __init__(
        self,
        service: CompletionService,
        request: CompletionRequest,
        target: Target,
        ticket: int,
        turn: asyncio.Future[None],
    ) -> None:
        self.request = request
        self.target = target
        self._service = service
        self._ticket = ticket
        self._turn = turn
        self._arrived_s = self._started_s = time.perf_counter()
        self._generation: Generation | None = None
        self._result: CompletionResult | None = None

    @property
    def result(self) -> CompletionResult:
        """How it went; there once the text has been iterated to its end."""
        assert self._result is not None
        return self._result

    async def __aenter__(self) -> Self:
        if self._turn.done():
            self._begin()  # the engine works while the caller still prepares its answer
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._generation is None:
            self._service.leave(self._ticket)
        else:
            self._generation.cancel()

    async def __aiter__(self) -> AsyncGenerator[str, None]:
        if self._generation is None:
            await self._turn
        generation = self._generation or self._begin()
        output = OutputFilter(_rules(self.request, self.target.family))
        first_s: float | None = None
        async for text in generation:
            if first_s is None:
                first_s = time.perf_counter()
            out = output.feed(text)
            if out:
                yield out
            if output.finished is not None:
                generation.cancel()
                await _over(generation, FIGURES_WAIT_S)
                break
        tail = output.flush()
        if tail:
            yield tail
        self._result = self._report(generation, output, first_s)

    def _begin(self) -> Generation:
        self._started_s = time.perf_counter()
        generation = self._generation = self._service.submit(self)
        generation.when_over(lambda: self._service.leave(self._ticket))
        return generation

    def _report(self, generation: Generation, output: OutputFilter, first_s: float | None) -> CompletionResult:
        run, accepted = generation.run, generation.accepted
        timings = Timings(
            queue_ms=_ms(self._started_s - self._arrived_s),
            first_token_ms=None if first_s is None else _ms(first_s - self._arrived_s),
            prefill_ms=_ms(run.prefill_s) if run and run.prefill_s is not None else None,
            decode_ms=_ms(run.decode_s) if run and run.decode_s is not None else None,
            total_ms=_ms(time.perf_counter() - self._arrived_s),
        )
        return CompletionResult(
            model=self.target.name,
            finish_reason="length"
            if output.finished is None and run is not None and run.finish == "length"
            else "stop",
            prompt_tokens=accepted.prompt_tokens if accepted else 0,
            generated_tokens=generation.tokens,
            reused_tokens=run.reused_tokens if run else None,
            trimmed=accepted.trimmed if accepted else Trimmed(),
            ignored=accepted.ignored if accepted else (),
            timings=timings,
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


def _fingerprint(request: CompletionRequest) -> str:
    """What tells one request from another when it comes to which of them crash the engine."""
    digest = hashlib.blake2b(digest_size=12)
    for text in (request.prefix, "\0", request.suffix or "", *(file.text for file in request.files)):
        digest.update(text.encode())
    return digest.hexdigest()
