"""The one writer of the engine's state: a task that reads a queue, steps the machine and carries out its effects."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from rockfill.compat.runtime_log import facts_of, load_failed, problem_of
from rockfill.engine import events as ev
from rockfill.engine import machine
from rockfill.engine.process import KEPT_LINES
from rockfill.engine.stream import TextStream
from rockfill.errors import Code, Problem, ProblemInfo
from rockfill.hardware.own_thread import LATE_S
from rockfill.hardware.process import is_at_work, resident_bytes
from rockfill.link import messages
from rockfill.snapshots import EngineSnapshot, Phase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from rockfill.compat.runtime_log import RuntimeFacts
    from rockfill.engine.events import Timeouts
    from rockfill.engine.process import Child, Listener
    from rockfill.session import ModelFacts, Run
    from rockfill.snapshots import Target

log = logging.getLogger(__name__)

# Shorter runs say more of the overhead than of the rate.
MEASURABLE_PREFILL_TOKENS = 32
MEASURABLE_DECODED_TOKENS = 8

JOURNAL_LINES = 10

# How many times as long a worker may take that is seen to be at something, for what takes an idle one milliseconds.
AT_WORK_FACTOR = 10

# What the daemon adds to a worker's problems. A worker that says such a thing itself, in whatever shape, is not heard.
TOLD_BY_DAEMON = frozenset({"exit_status", "last_lines"})

_ANSWERS = (ev.Settle, ev.EndRun)

NOT_LOADED = ProblemInfo(Code.ENGINE_STOPPED, "No model is loaded.", "Ask for a completion first: that loads one.")


class Spawner(Protocol):
    async def __call__(self, listener: Listener) -> Child:
        """Start a worker that reports to `listener`."""
        ...


class Generation:
    """One run of the engine, from the wish to its end.

    Its text comes in `stream`; iterating over the generation itself reads that to the end, and raises the `Problem`
    that ended it. `cancel` may be called at any time and any number of times.
    """

    def __init__(self, request: messages.Generate, cancel: Callable[[int], None], stream: TextStream | None) -> None:
        self.request = request
        self.stream = stream or TextStream()
        self._closes_stream = stream is None
        self.accepted: messages.Accepted | None = None
        self.run: Run | None = None
        self.problem: ProblemInfo | None = None
        self.tokens = 0
        self.last_token_at_s = 0.0
        self._cancel = cancel
        self._when_over: list[Callable[[], None]] = []
        self._taken_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def over(self) -> bool:
        return self.run is not None or self.problem is not None

    def cancel(self) -> None:
        """Give it up; the engine is free again once `over`."""
        if not self.over:
            self._cancel(self.request.id)

    async def taken_up(self) -> None:
        """Wait until the engine has accepted it, or it is over."""
        if self.accepted is None and not self.over:
            await self._taken_up

    def when_over(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the engine is done with it, at once if it is."""
        if self.over:
            callback()
        else:
            self._when_over.append(callback)

    def __aiter__(self) -> AsyncIterator[str]:
        return aiter(self.stream.reader())

    # ---- for the supervisor

    def accept(self, accepted: messages.Accepted) -> None:
        self.accepted = accepted
        if not self._taken_up.done():
            self._taken_up.set_result(None)

    def push(self, text: str, tokens: int, now_s: float) -> None:
        self.tokens += tokens
        self.last_token_at_s = now_s
        self.stream.push(text)

    def end(self, run: Run | None, problem: ProblemInfo | None) -> None:
        if self.over:
            return
        self.run, self.problem = run, problem
        if self._closes_stream:
            self.stream.close(problem)
        if not self._taken_up.done():
            self._taken_up.set_result(None)
        for callback in self._when_over:
            callback()
        self._when_over.clear()


class Supervisor:
    """Keeps one worker in the state that callers want. `run` must be running for anything to happen."""

    def __init__(
        self,
        spawn: Spawner,
        timeouts: Timeouts,
        *,
        prepare_load: Callable[[messages.Load], messages.Load] = lambda load: load,
        changed: Callable[[EngineSnapshot], None] = lambda snapshot: None,
        printed: Callable[[str], None] = lambda line: None,
        recycle_growth_bytes: int = 0,
    ) -> None:
        """`prepare_load` completes a `Load` with what this machine and its configuration say, or raises a `Problem`.

        `changed` gets every snapshot, `printed` the workers' lines as the journal does. An idle worker that has grown
        by more than `recycle_growth_bytes` since its first ping is replaced (0: never).
        """
        self._spawn = spawn
        self._prepare_load = prepare_load
        self._changed = changed
        self._line_printed = printed
        self._recycle_growth_bytes = recycle_growth_bytes
        self._resident_at_first: int | None = None
        self._prefill_rates: deque[float] = deque(maxlen=16)
        self._state = machine.State(timeouts)
        self._queue: asyncio.Queue[ev.Event | asyncio.Future[None]] = asyncio.Queue()
        self._timer: asyncio.TimerHandle | None = None
        self._armed: machine.Deadline | None = None
        self._was_late = False  # of the deadline that is armed: whether it was noticed late once
        self._seen_at_work = 0  # and how many times it was prolonged because the worker is at something
        self._child: Child | None = None
        self._earlier_lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._earlier_lines_total = 0
        self._facts: ModelFacts | None = None
        self._fim_order: str | None = None
        self._tickets = 0
        self._generations: dict[int, Generation] = {}
        self._ready: dict[int, asyncio.Future[None]] = {}
        self._asked: dict[int, asyncio.Future[Any]] = {}  # what is no run: tokens and texts
        self._answered_at_s = 0.0  # when the worker last answered such a question
        self._snapshot = EngineSnapshot(Phase.STOPPED)
        self.tokens_per_second: float | None = None
        self.memory_bytes: int | None = None  # the most that the worker has held, as its engine told last
        self.runtime_facts: RuntimeFacts | None = None  # what the RKLLM runtime said at the last load, if it ran
        self.loaded: messages.Load | None = None  # what the present worker, or the last one, was told to load

    @property
    def snapshot(self) -> EngineSnapshot:
        return self._snapshot

    @property
    def last_lines(self) -> tuple[str, ...]:
        """What the present worker, or the last one, printed last."""
        return tuple(self._child.lines) if self._child is not None else ()

    @property
    def prefill_tokens_per_second(self) -> float | None:
        """The slowest prefill lately, None while none was long enough to be measured."""
        return min(self._prefill_rates, default=None)

    @property
    def printed(self) -> tuple[tuple[str, ...], int]:
        """What the workers printed last, one after another, and how many lines they have printed in all."""
        lines, total = self._earlier_lines.copy(), self._earlier_lines_total
        if self._child is not None:
            lines += self._child.lines
            total += self._child.lines_total
        return tuple(lines), total

    # ---- wishes

    def submit(
        self, target: Target, request: messages.Generate, fingerprint: str = "", stream: TextStream | None = None
    ) -> Generation:
        """Run `request` (its id is given here) on `target`, loading that first if need be.

        One at a time: a second meanwhile gets `model_busy`. Requests of equal `fingerprint` that take two workers
        with them are refused from then on. The text goes to `stream`, which is then the caller's to close.
        """
        self._tickets += 1
        request = replace(request, id=self._tickets)
        generation = Generation(request, lambda ticket: self._queue.put_nowait(ev.Cancel(ticket)), stream)
        self._generations[request.id] = generation
        self._queue.put_nowait(ev.Submit(request.id, target, fingerprint))
        return generation

    async def ensure_ready(self, target: Target) -> None:
        """Return once `target` is loaded, or raise the `Problem` that prevents it."""
        self._tickets += 1
        ticket = self._tickets
        self._ready[ticket] = settled = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(ev.EnsureReady(ticket, target))
        try:
            await settled
        except asyncio.CancelledError:
            self._queue.put_nowait(ev.Cancel(ticket))
            raise
        finally:
            self._ready.pop(ticket, None)

    async def tokenize(self, text: str) -> tuple[int, ...]:
        """The loaded model's ids of ordinary `text`, once the engine is between runs. Raises `engine_stopped`."""
        token_ids: tuple[int, ...] = await self._ask(lambda ticket: messages.Tokenize(ticket, text))
        return token_ids

    async def detokenize(self, token_ids: tuple[int, ...]) -> str:
        """The text of `token_ids`, likewise. Raises `engine_stopped`, or `invalid_value` for an id that is none."""
        text: str = await self._ask(lambda ticket: messages.Detokenize(ticket, token_ids))
        return text

    async def prompt(self, request: messages.Render) -> messages.Prompt:
        """The prompt that the loaded model would be given, likewise; the request's id is filled in."""
        prompt: messages.Prompt = await self._ask(lambda ticket: replace(request, id=ticket))
        return prompt

    async def _ask(self, question: Callable[[int], messages.Tokenize | messages.Detokenize | messages.Render]) -> Any:
        if self._state.phase not in (Phase.READY, Phase.BUSY):
            raise NOT_LOADED.raised()
        self._tickets += 1
        ticket = self._tickets
        self._asked[ticket] = settled = asyncio.get_running_loop().create_future()
        self._tell(question(ticket))
        try:
            return await settled
        finally:
            del self._asked[ticket]

    def unload(self) -> None:
        self._queue.put_nowait(ev.Unload())

    def restart(self) -> None:
        self._queue.put_nowait(ev.Restart())

    def pin(self, *, pinned: bool) -> None:
        """Keep the model loaded however long it is idle, or not."""
        self._queue.put_nowait(ev.Pin(pinned))

    def reconfigure(self, timeouts: Timeouts, recycle_growth_bytes: int) -> None:
        """Use these from now on."""
        self._recycle_growth_bytes = recycle_growth_bytes
        self._queue.put_nowait(ev.Reconfigure(timeouts))

    async def heartbeat(self) -> None:
        """Return once the queue has been worked off to here: whoever waits in vain knows that it is stuck."""
        beat = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(beat)
        await beat

    def close(self) -> None:
        """End the worker for good; `run` returns when it is gone."""
        self._queue.put_nowait(ev.Close())

    # ---- the task

    async def run(self) -> None:
        """Drive the engine until `close` has done its work."""
        try:
            while self._state.phase is not Phase.CLOSED:
                await self._step(await self._queue.get())
            while not self._queue.empty():  # whoever came too late is told so
                await self._step(self._queue.get_nowait())
        finally:
            if self._timer is not None:
                self._timer.cancel()
            if self._child is not None and self._state.phase is not Phase.CLOSED:
                self._child.kill()

    async def _step(self, event: ev.Event | asyncio.Future[None]) -> None:
        if isinstance(event, asyncio.Future):
            if not event.done():
                event.set_result(None)
            return
        before = self._state
        self._state, effects = machine.step(before, event)
        if self._state is not before:
            log.debug("%s: %s -> %s", type(event).__name__, before.phase, self._state.phase)
        for effect in effects:
            if not isinstance(effect, _ANSWERS):
                await self._perform(effect)
        if self._state.deadline is not self._armed:
            self._arm(self._state.deadline)
        if self._state is not before:
            self._publish()
        for effect in effects:  # whoever is answered may look at once, and finds it so
            if isinstance(effect, _ANSWERS):
                await self._perform(effect)

    async def _perform(self, effect: ev.Effect) -> None:
        match effect:
            case ev.Spawn(epoch):
                self._facts = self._fim_order = self._resident_at_first = None
                self.memory_bytes = self.runtime_facts = None
                try:
                    child = await self._spawn(_Ear(self, epoch))
                except Problem as problem:
                    self._queue.put_nowait(ev.Exited(epoch, problem.info))
                else:
                    if self._child is not None:
                        self._earlier_lines += self._child.lines
                        self._earlier_lines_total += self._child.lines_total
                    self._child = child
            case ev.SendLoad(target):
                load = messages.Load(target.engine, target.path, target.family)
                try:
                    self.loaded = self._prepare_load(load)
                    self._tell(self.loaded)
                except Problem as problem:
                    self._queue.put_nowait(ev.LoadFailed(self._state.epoch, problem.info))
            case ev.SendGenerate(ticket):
                if self._child is not None:
                    self._child.mark()
                self._tell(self._generations[ticket].request)
            case ev.SendAbort(ticket):
                self._tell(messages.Abort(ticket))
            case ev.SendPing():
                self._tell(messages.Ping(0))
            case ev.Terminate():
                if self._child is not None:
                    self._child.terminate()
            case ev.Kill():
                if self._child is not None:
                    self._child.kill()
            case ev.Settle(ticket, problem):
                settled = self._ready.get(ticket)
                if settled is not None and not settled.done():
                    if problem is None:
                        settled.set_result(None)
                    else:
                        settled.set_exception(problem.raised())
            case ev.EndRun(ticket, problem):
                self.ended(ticket, None, problem)

    def _tell(self, message: messages.ToWorker) -> None:
        assert self._child is not None
        self._child.send(message)

    def _arm(self, deadline: machine.Deadline | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._armed, self._was_late, self._seen_at_work = deadline, False, 0
        if deadline is not None:
            self._timer = asyncio.get_running_loop().call_later(deadline.seconds, self._expire, deadline)

    def _expire(self, deadline: machine.Deadline) -> None:
        loop = asyncio.get_running_loop()
        running = self._state.running
        generation = self._generations.get(running.ticket) if running is not None else None
        if deadline.limit is machine.Limit.TOKEN_GAP and generation is not None:
            # Tokens do not pass through the queue; the time of the last one says whether the gap is real.
            left_s = generation.last_token_at_s + deadline.seconds - loop.time()
        elif deadline.limit in (machine.Limit.ACCEPTED, machine.Limit.PONG):
            # Questions that were there before are answered first, and each may take its time.
            left_s = self._answered_at_s + deadline.seconds - loop.time()
        else:
            left_s = 0.0
        late_s = loop.time() - self._timer.when() if self._timer is not None else 0.0
        if late_s > LATE_S and not self._was_late:
            # Once only, or a machine that is always late would find no hang.
            self._was_late, left_s = True, max(left_s, late_s)
        elif left_s <= 0 and deadline.limit is machine.Limit.ACCEPTED and self._is_at_work():
            left_s = deadline.seconds
        if left_s > 0:
            self._timer = loop.call_later(left_s, self._expire, deadline)
            return
        # Behind what the worker said in this turn of the loop, which is put into the queue at its end.
        loop.call_soon(self._queue.put_nowait, ev.DeadlinePassed(deadline.serial))

    def _is_at_work(self) -> bool:
        """Whether the worker is seen to be at something, which is believed of it only so many times."""
        if self._child is None or self._seen_at_work + 1 >= AT_WORK_FACTOR:
            return False
        self._seen_at_work += 1
        return is_at_work(self._child.pid)

    def _publish(self) -> None:
        state = self._state
        loaded = state.phase in (Phase.READY, Phase.BUSY)
        if not loaded:
            self._give_up_asking(NOT_LOADED, *self._asked)
        retrying = state.deadline is not None and state.deadline.limit is machine.Limit.RETRY
        snapshot = EngineSnapshot(
            phase=state.phase,
            target=state.target,
            facts=self._facts if loaded else None,
            fim_order=self._fim_order if loaded else None,
            problem=state.problem,
            next_retry_at_s=self._timer.when() if retrying and self._timer is not None else None,
            worker_pid=self._child.pid if self._child is not None and _has_child(state.phase) else None,
            pinned=state.pinned,
        )
        if snapshot != self._snapshot:
            previous, self._snapshot = self._snapshot, snapshot
            if snapshot.problem is not None and snapshot.problem != previous.problem:
                log.warning("engine %s: %s%s", snapshot.phase, snapshot.problem.message, _last_words(snapshot.problem))
            self._changed(snapshot)

    def _give_up_asking(self, problem: ProblemInfo, *tickets: int) -> None:
        for settled in map(self._asked.get, tickets):
            if settled is not None and not settled.done():
                settled.set_exception(problem.raised())

    # ---- what the child says; called by `_Ear` on the event loop

    def heard(self, epoch: int, message: messages.ToDaemon) -> None:
        if epoch != self._state.epoch:
            return
        match message:
            case messages.Token(ticket, text, tokens):
                generation = self._in_worker(ticket)
                if generation is not None:
                    first = generation.tokens == 0
                    generation.push(text, tokens, asyncio.get_running_loop().time())
                    if first:
                        self._put_behind_text(ev.FirstToken(epoch, ticket))
            case messages.Accepted(ticket):
                generation = self._in_worker(ticket)
                if generation is not None:
                    generation.accept(message)
                rate = self.prefill_tokens_per_second
                self._put_behind_text(ev.AcceptedCame(epoch, ticket, message.prompt_tokens, rate))
            case messages.Done(ticket, run):
                generation = self._in_worker(ticket)
                if generation is not None:
                    self._measure(generation, run)
                    self._queue.put_nowait(ev.RunEnded(epoch, ticket, well=run.finish != "aborted"))
                    self.ended(ticket, run, None)
            case messages.Failed(None):
                # What the library printed before was written before; one turn of the loop later it has been read.
                asyncio.get_running_loop().call_soon(self._load_failed, epoch, message.problem)
            case messages.Failed(ticket) if ticket in self._asked:
                self._answered_at_s = asyncio.get_running_loop().time()
                self._give_up_asking(message.problem, ticket)
            case messages.Failed(ticket):
                assert ticket is not None
                asyncio.get_running_loop().call_soon(self._run_failed, epoch, ticket, message.problem)
            case messages.Hello(version, _) if version != messages.LINK_VERSION:
                self._queue.put_nowait(ev.LinkLost(epoch, _wrong_version(version)))
            case messages.Hello():
                self._queue.put_nowait(ev.HelloCame(epoch))
            case messages.Loaded(facts, fim_order):
                self._facts, self._fim_order = facts, fim_order
                asyncio.get_running_loop().call_soon(self._loaded, epoch)
            case messages.Pong():
                self._queue.put_nowait(ev.PongCame(epoch))
                self._recycle_if_grown(epoch)
            case (
                messages.Tokenized(ticket, answer)
                | messages.Detokenized(ticket, answer)
                | messages.Rendered(ticket, answer)
            ):
                self._answered_at_s = asyncio.get_running_loop().time()
                settled = self._asked.get(ticket)
                if settled is not None and not settled.done():
                    settled.set_result(answer)

    def _put_behind_text(self, event: ev.Event) -> None:
        """Whoever reads the text that came along goes first. If the run's end comes first too, `event` is refused."""
        asyncio.get_running_loop().call_soon(self._queue.put_nowait, event)

    def _in_worker(self, ticket: int) -> Generation | None:
        """The generation that runs under `ticket`; None if none does, and whatever a worker says of it is idle talk."""
        running = self._state.running
        return self._generations.get(ticket) if running is not None and running.ticket == ticket else None

    def _loaded(self, epoch: int) -> None:
        if load_failed(self.last_lines):
            broken = ProblemInfo(Code.INVALID_MODEL, "The runtime could not load the model.", "Choose another variant.")
            self._load_failed(epoch, broken)
        else:
            self.runtime_facts = facts_of(self.last_lines)
            self._queue.put_nowait(ev.LoadDone(epoch))

    def _load_failed(self, epoch: int, problem: ProblemInfo) -> None:
        """A load failed; the library's lines may know better why."""
        known = problem_of(self.last_lines) if problem.code in (Code.ENGINE_FAILED, Code.INVALID_MODEL) else None
        self._queue.put_nowait(ev.LoadFailed(epoch, self._with_last_lines(known or problem)))

    def _run_failed(self, epoch: int, ticket: int, problem: ProblemInfo) -> None:
        """A run failed; what the library printed since it began may know better why."""
        detail = {name: value for name, value in (problem.detail or {}).items() if name not in TOLD_BY_DAEMON}
        problem = replace(problem, detail=detail or None)
        if problem.code is Code.ENGINE_FAILED and self._child is not None and epoch == self._state.epoch:
            problem = self._with_last_lines(problem_of(self._child.lines_since_mark) or problem)
        self._queue.put_nowait(ev.RunEnded(epoch, ticket, problem))

    def _with_last_lines(self, problem: ProblemInfo) -> ProblemInfo:
        return replace(problem, detail={**(problem.detail or {}), "last_lines": list(self.last_lines[-20:])})

    def _measure(self, generation: Generation, run: Run) -> None:
        if run.decode_s and run.generated_tokens >= MEASURABLE_DECODED_TOKENS:
            self.tokens_per_second = round((run.generated_tokens - 1) / run.decode_s, 2)
        self.memory_bytes = run.memory_bytes or self.memory_bytes
        prefilled = run.prefilled_tokens
        if prefilled is None and generation.accepted is not None:
            # What the engine may have had was not read: a rate taken too high would make prompts too long.
            prefilled = generation.accepted.prompt_tokens - generation.accepted.shared_tokens
        if prefilled is not None and prefilled >= MEASURABLE_PREFILL_TOKENS and run.prefill_s:
            self._prefill_rates.append(prefilled / run.prefill_s)

    def _recycle_if_grown(self, epoch: int) -> None:
        """The idle worker has answered; is it larger than when it was loaded, by more than runs should leave?"""
        assert self._child is not None
        resident = resident_bytes(self._child.pid)
        if resident is None:
            return
        if self._resident_at_first is None:
            self._resident_at_first = resident
        elif 0 < self._recycle_growth_bytes < resident - self._resident_at_first:
            log.warning("the worker has grown by %d MB and is replaced", (resident - self._resident_at_first) / 1e6)
            self._queue.put_nowait(ev.Recycle(epoch))

    def lost(self, epoch: int, problem: ProblemInfo | None) -> None:
        self._queue.put_nowait(ev.LinkLost(epoch, problem))

    def exited(self, epoch: int, problem: ProblemInfo) -> None:
        self._queue.put_nowait(ev.Exited(epoch, problem))

    def heard_printing(self, line: str) -> None:
        self._line_printed(line)

    def ended(self, ticket: int, run: Run | None, problem: ProblemInfo | None) -> None:
        generation = self._generations.pop(ticket, None)
        if generation is not None:
            generation.end(run, problem)


class _Ear:
    """Passes on what one child says, marked with its epoch."""

    def __init__(self, supervisor: Supervisor, epoch: int) -> None:
        self._supervisor = supervisor
        self._epoch = epoch

    def message(self, message: messages.ToDaemon) -> None:
        self._supervisor.heard(self._epoch, message)

    def link_lost(self, problem: ProblemInfo | None) -> None:
        self._supervisor.lost(self._epoch, problem)

    def exited(self, problem: ProblemInfo) -> None:
        self._supervisor.exited(self._epoch, problem)

    def printed(self, line: str) -> None:
        self._supervisor.heard_printing(line)


def _has_child(phase: Phase) -> bool:
    return phase in (Phase.STARTING, Phase.LOADING, Phase.READY, Phase.BUSY, Phase.STOPPING)


def _last_words(problem: ProblemInfo) -> str:
    """For the journal, where a worker's lines do not stand otherwise unless everything is logged."""
    lines: list[str] = (problem.detail or {}).get("last_lines", [])
    return "".join(f"\n  | {line}" for line in lines[-JOURNAL_LINES:])


def _wrong_version(version: int) -> ProblemInfo:
    return ProblemInfo(
        Code.LINK_BROKEN,
        f"The worker speaks link version {version}, the daemon {messages.LINK_VERSION}.",
        "Reinstall Rockfill: its parts are of different versions.",
    )
