"""The engine's lifecycle as a pure function: ``step(state, event) → (state, effects)``.

Nothing here waits, reads a clock or touches a process. The supervisor feeds events in and carries effects out. An
event that a state has no use for is refused: the same state comes back and nothing is to be done. Events of a child
carry its `epoch`; those of an earlier child are refused.

What is timed is `State.deadline`: the supervisor keeps exactly that one timer and answers with `DeadlinePassed`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from rockfill.engine.events import (
    AcceptedCame,
    Cancel,
    Close,
    DeadlinePassed,
    Effect,
    EndRun,
    EnsureReady,
    Event,
    Exited,
    FirstToken,
    HelloCame,
    Kill,
    LinkLost,
    LoadDone,
    LoadFailed,
    Pin,
    PongCame,
    Reconfigure,
    Recycle,
    Restart,
    RunEnded,
    SendAbort,
    SendGenerate,
    SendLoad,
    SendPing,
    Settle,
    Spawn,
    Submit,
    Terminate,
    Timeouts,
    Unload,
)
from rockfill.errors import Code, ProblemInfo
from rockfill.snapshots import Phase, Target

if TYPE_CHECKING:
    from collections.abc import Callable

# Seconds to wait after the nth attempt in a row that gave no completion; past the last, every ten minutes. The first
# retry is at once, since most crashes do not repeat.
BACKOFF_S = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
SLOW_RETRY_S = 600.0

# Load failures that another try can mend without anybody doing anything. All others wait for a person.
TRANSIENT = frozenset(
    {
        Code.ENGINE_CRASHED,
        Code.ENGINE_HUNG,
        Code.ENGINE_START_FAILED,
        Code.LINK_BROKEN,
        Code.NPU_UNAVAILABLE,
        Code.NPU_WEDGED,  # of a spawn: the worker of an earlier daemon may go after all
        Code.NPU_FAILED,
        Code.OUT_OF_NPU_MEMORY,
    }
)

# After a run that ended so, the worker is replaced: what a native library does after its own failure nobody knows.
UNTRUSTED = frozenset(
    {Code.ENGINE_FAILED, Code.NPU_FAILED, Code.NPU_UNAVAILABLE, Code.OUT_OF_NPU_MEMORY, Code.TOO_MANY_FILES}
)

# A process that SIGKILL has not ended by then sits in the kernel, in state D.
REAP_S = 5.0

# At the end of the daemon somebody waits for that: a worker that SIGTERM does not end is killed that soon, and what
# SIGKILL has not ended by then is left to systemd, and to the next daemon, which looks for it (`leftover`).
CLOSING_STOP_S = 0.25
CLOSING_REAP_S = 0.75

# What a load may take beside its deadline: the slowest card that anybody boots from reads 20 MB/s.
LOAD_BYTES_PER_S = 20e6

# A prefill may take four times what the slowest one lately would need, since long prompts are slower per token; one
# that was never measured gets ten tokens a second. A legitimate prefill must never be killed (rkllama issue 169).
PREFILL_MARGIN = 4.0
UNMEASURED_PREFILL_TOKENS_PER_S = 10.0

# A worker whose link ends is about to end itself; its exit status tells more than a signal of ours would.
LINGER_S = 0.5


class Next(StrEnum):
    """What follows once a stopping child is gone."""

    IDLE = "idle"
    LOAD = "load"
    FAIL = "fail"
    RETRY = "retry"
    CLOSE = "close"


class Limit(StrEnum):
    """What a deadline is for."""

    HELLO = "hello"
    LOAD = "load"
    ACCEPTED = "accepted"
    FIRST_TOKEN = "first_token"  # noqa: S105 - tokens of text
    TOKEN_GAP = "token_gap"  # noqa: S105 - likewise
    ABORT = "abort"
    STOP = "stop"
    PING = "ping"
    PONG = "pong"
    REAP = "reap"
    RETRY = "retry"


@dataclass(frozen=True, slots=True)
class Deadline:
    """One running timer. `serial` tells two of the same kind apart."""

    limit: Limit
    seconds: float
    serial: int


@dataclass(frozen=True, slots=True)
class Waiter:
    """Somebody who wants `target` loaded: a request to run (`job`), or a caller of `ensure_ready` (no job).

    A job is `accepted` once a worker has begun with it, `cancelled` once nobody wants it any more. `workers` counts
    those that it was sent to.
    """

    ticket: int
    job: bool
    fingerprint: str = ""
    accepted: bool = False
    cancelled: bool = False
    workers: int = 0


class State(NamedTuple):
    """All that the lifecycle depends on. A tuple, since each request replaces it a dozen times.

    `target` is the model that is, or is to be, loaded. `waiters` are answered when it is ready or has failed.
    `running` is the job in the worker. `then` is set in `stopping`. `attempts` counts the workers started since the
    last completion that ended well. `crashers` counts, by fingerprint, the workers that a request took with it.
    `idle_s` is for how long a loaded model has had nothing to do, `pinned` keeps it loaded all the same.
    """

    timeouts: Timeouts
    phase: Phase = Phase.STOPPED
    epoch: int = 0
    target: Target | None = None
    waiters: tuple[Waiter, ...] = ()
    running: Waiter | None = None
    then: Next | None = None
    problem: ProblemInfo | None = None
    attempts: int = 0
    deadline: Deadline | None = None
    serial: int = 0
    crashers: tuple[tuple[str, int], ...] = ()
    idle_s: float = 0.0
    pinned: bool = False


Step = tuple[State, tuple[Effect, ...]]

CANCELLED = ProblemInfo(Code.CANCELLED, "The request was cancelled.")
UNLOADED = ProblemInfo(Code.ENGINE_STOPPED, "The model was unloaded.", "Ask again, or load a model.")
LINK_ENDED = ProblemInfo(Code.LINK_BROKEN, "The engine's process ended its link, but not itself, and was killed.")
CLOSING = ProblemInfo(Code.ENGINE_STOPPED, "Rockfill is shutting down.", "Ask again when it is back.")


def step(state: State, event: Event) -> Step:
    """The next state, and what is to be done. A refused event returns `state` itself and no effects."""
    if state.phase is Phase.CLOSED:
        return _closed(state, event)
    epoch = getattr(event, "epoch", None)
    if epoch is not None and epoch != state.epoch:
        return state, ()
    if isinstance(event, DeadlinePassed) and (state.deadline is None or event.serial != state.deadline.serial):
        return state, ()
    return _TABLE[type(event)](state, event)


def refuses(state: State, event: Event) -> bool:
    """Whether `event` would change nothing."""
    after, effects = step(state, event)
    return after is state and not effects


# ---- wishes of callers


def _want(state: State, waiter: Waiter, target: Target, *, insists: bool) -> Step:
    """Somebody wants `target`: answered at once where the state says how, else kept among the waiters."""
    if waiter.fingerprint and dict(state.crashers).get(waiter.fingerprint, 0) >= 2:
        return state, _answer(waiter, _crashes_engine())
    waiting = (*state.waiters, waiter)
    same = state.target == target
    match state.phase:
        case Phase.STOPPED:
            return _spawn(state._replace(waiters=waiting, target=target, attempts=0))
        case Phase.FAILED if _is_wedged(state):
            assert state.problem is not None
            return state, _answer(waiter, state.problem)
        case Phase.FAILED if not same or insists:
            return _spawn(state._replace(waiters=waiting, target=target, attempts=0))
        case Phase.FAILED:
            assert state.problem is not None
            return state, _answer(waiter, state.problem)
        case Phase.STARTING | Phase.LOADING if same:
            return state._replace(waiters=waiting), ()
        case Phase.STARTING | Phase.LOADING if waiter.job:
            return state, _answer(waiter, _model_busy(state))
        case Phase.STARTING | Phase.LOADING:
            # the latest wish wins; who waited for the other model is told
            told = _answers(state.waiters, _replaced(target))
            return _then(_stop(state._replace(waiters=(waiter,), target=target), Next.LOAD), told)
        case Phase.READY if same:
            return _admit(state._replace(waiters=waiting))
        case Phase.READY:
            return _stop(state._replace(waiters=waiting, target=target), Next.LOAD)
        case Phase.BUSY if same and not waiter.job:
            return state, _answer(waiter, None)
        case Phase.BUSY:
            if insists and not same:
                return _stop(state._replace(waiters=waiting, target=target), Next.LOAD, _replaced(target))
            return state, _answer(waiter, _model_busy(state))
        case Phase.STOPPING if state.then is Next.CLOSE:
            return state, _answer(waiter, CLOSING)
        case Phase.STOPPING if same and state.then in (Next.LOAD, Next.FAIL, Next.RETRY):
            return state._replace(waiters=waiting), ()
        case Phase.STOPPING if waiter.job and state.then is Next.LOAD:
            return state, _answer(waiter, _model_busy(state))
        case Phase.STOPPING:
            told = _answers(state.waiters, _replaced(target))
            return state._replace(waiters=(waiter,), target=target, then=Next.LOAD, attempts=0), told
        case _:
            raise AssertionError(state.phase)


def _ensure_ready(state: State, event: EnsureReady) -> Step:
    return _want(state, Waiter(event.ticket, job=False), event.target, insists=True)


def _submit(state: State, event: Submit) -> Step:
    waiter = Waiter(event.ticket, job=True, fingerprint=event.fingerprint)
    return _want(state, waiter, event.target, insists=False)


def _cancel(state: State, event: Cancel) -> Step:
    if _is_running(state, event.ticket):
        if _awaits(state, Limit.ABORT):
            return state, ()
        seconds = state.timeouts.abort_s
        if state.deadline is not None and _awaits(state, Limit.FIRST_TOKEN):
            seconds += state.deadline.seconds  # a prefill can't be interrupted on the NPU
        assert state.running is not None
        state = state._replace(running=replace(state.running, cancelled=True))
        return _timed(state, Limit.ABORT, seconds), (SendAbort(event.ticket),)
    if state.running is not None and state.running.ticket == event.ticket:  # its worker is on the way out
        return state._replace(running=None), (EndRun(event.ticket, CANCELLED),)
    gone = [waiter for waiter in state.waiters if waiter.ticket == event.ticket]
    if not gone:
        return state, ()
    left = tuple(waiter for waiter in state.waiters if waiter.ticket != event.ticket)
    return state._replace(waiters=left), _answer(gone[0], CANCELLED)


def _unload(state: State, event: Unload) -> Step:
    match state.phase:
        case Phase.STOPPED:
            return state, ()
        case Phase.FAILED if _is_wedged(state):
            return state, ()
        case Phase.FAILED:
            return state._replace(phase=Phase.STOPPED, target=None, problem=None, deadline=None, attempts=0), ()
        case Phase.STOPPING if state.then in (Next.IDLE, Next.CLOSE):
            return state, ()
        case Phase.STOPPING:
            return state._replace(then=Next.IDLE, waiters=()), _answers(state.waiters, UNLOADED)
        case _:
            told = _answers(state.waiters, UNLOADED)
            return _then(_stop(state._replace(waiters=(), problem=None), Next.IDLE, UNLOADED), told)


def _restart(state: State, event: Restart) -> Step:
    if state.target is None or state.phase in (Phase.STOPPED, Phase.STOPPING):
        return state, ()
    if _is_wedged(state):
        return state, ()
    fresh = state._replace(attempts=0, crashers=())
    if state.phase is Phase.FAILED:
        return _spawn(fresh)
    restarted = ProblemInfo(Code.ENGINE_STOPPED, "The engine was restarted on request.", "Ask again.")
    return _stop(fresh, Next.LOAD, restarted)


def _close(state: State, event: Close) -> Step:
    told = _answers(state.waiters, CLOSING)
    if state.phase in (Phase.STOPPED, Phase.FAILED):
        return state._replace(phase=Phase.CLOSED, waiters=(), deadline=None), told
    if state.phase is not Phase.STOPPING:
        return _then(_stop(state._replace(waiters=()), Next.CLOSE, CLOSING), told)
    if state.then is Next.CLOSE:
        return state, told
    assert state.deadline is not None
    return _ending(state._replace(then=Next.CLOSE, waiters=()), state.deadline.limit), told


# ---- what the child says


def _hello(state: State, event: HelloCame) -> Step:
    if state.phase is not Phase.STARTING:
        return state, ()
    assert state.target is not None
    seconds = state.timeouts.load_s + state.target.size_bytes / LOAD_BYTES_PER_S
    loading = _timed(state._replace(phase=Phase.LOADING), Limit.LOAD, seconds)
    return loading, (SendLoad(state.target),)


def _load_done(state: State, event: LoadDone) -> Step:
    if state.phase is not Phase.LOADING:
        return state, ()
    return _admit(state._replace(phase=Phase.READY, problem=None, deadline=None))


def _load_failed(state: State, event: LoadFailed) -> Step:
    if state.phase is not Phase.LOADING:
        return state, ()
    return _stop(state._replace(problem=event.problem), Next.FAIL)


def _accepted(state: State, event: AcceptedCame) -> Step:
    if not _is_running(state, event.ticket) or not (_awaits(state, Limit.ACCEPTED) or _awaits(state, Limit.ABORT)):
        return state, ()
    measured = event.prefill_tokens_per_second
    rate = measured / PREFILL_MARGIN if measured else UNMEASURED_PREFILL_TOKENS_PER_S
    seconds = state.timeouts.first_token_s + event.prompt_tokens / rate
    assert state.running is not None
    state = state._replace(running=replace(state.running, accepted=True))
    if _awaits(state, Limit.ABORT):  # a prefill that has begun can't be interrupted on the NPU
        return _timed(state, Limit.ABORT, seconds + state.timeouts.abort_s), ()
    return _timed(state, Limit.FIRST_TOKEN, seconds), ()


def _first_token(state: State, event: FirstToken) -> Step:
    if not _is_running(state, event.ticket) or not _awaits(state, Limit.FIRST_TOKEN):
        return state, ()
    return _timed(state, Limit.TOKEN_GAP, state.timeouts.token_gap_s), ()


def _run_ended(state: State, event: RunEnded) -> Step:
    if not _is_running(state, event.ticket):
        return state, ()
    told = (EndRun(event.ticket, event.problem),) if event.problem else ()
    assert state.running is not None
    if event.problem is not None and event.problem.code in UNTRUSTED:
        blamed = _blame(state.crashers, state.running.fingerprint)
        return _then(_stop(state._replace(running=None, problem=event.problem, crashers=blamed), Next.RETRY), told)
    ready = state._replace(phase=Phase.READY, running=None, deadline=None)
    if event.well:
        forgiven = tuple(entry for entry in state.crashers if entry[0] != state.running.fingerprint)
        ready = ready._replace(crashers=forgiven, attempts=0)
    return _then(_admit(ready), told)


def _pong(state: State, event: PongCame) -> Step:
    if state.phase is not Phase.READY or not _awaits(state, Limit.PONG):
        return state, ()
    return _timed(state, Limit.PING, state.timeouts.ping_s), ()


def _recycle(state: State, event: Recycle) -> Step:
    return _stop(state, Next.LOAD) if state.phase is Phase.READY else (state, ())


def _pin(state: State, event: Pin) -> Step:
    return (state if state.pinned == event.pinned else state._replace(pinned=event.pinned)), ()


def _reconfigure(state: State, event: Reconfigure) -> Step:
    return (state if state.timeouts == event.timeouts else state._replace(timeouts=event.timeouts)), ()


def _link_lost(state: State, event: LinkLost) -> Step:
    if state.phase in (Phase.STOPPING, Phase.STOPPED, Phase.FAILED):
        return state, ()
    lost = state._replace(phase=Phase.STOPPING, then=Next.FAIL, problem=event.problem)
    if event.problem is None:
        return _timed(lost, Limit.STOP, LINGER_S), ()
    return _timed(lost, Limit.REAP, REAP_S), (Kill(),)


def _exited(state: State, event: Exited) -> Step:
    """The child is gone. A job that was still in it ends now, with whatever explains the exit."""
    problem = event.problem
    if state.problem is not None and _ends_unasked(state) and not _was_only_slow_to_end(state, problem):
        # It was ended for that; the exit status only tells of our own signal, its last words may tell more.
        problem = _with_last_lines(state.problem, event.problem)
    told: tuple[Effect, ...] = ()
    waiters = state.waiters
    job = state.running
    if job is not None and _found_its_worker_dying(state, job, problem):
        waiters = (job, *waiters)
    elif job is not None:
        told = (EndRun(job.ticket, problem),)
        if not _killed_by_others(problem):
            state = state._replace(crashers=_blame(state.crashers, job.fingerprint))
    gone = state._replace(running=None, deadline=None, then=None, waiters=waiters)
    match state.phase, state.then:
        case Phase.STOPPING, Next.CLOSE:
            return gone._replace(phase=Phase.CLOSED, target=None, problem=None), told
        case Phase.STOPPING, Next.IDLE:
            return gone._replace(phase=Phase.STOPPED, target=None, problem=None), told
        case Phase.STOPPING, Next.LOAD:
            return _then(_spawn(gone), told)
        case Phase.FAILED, _ if _is_wedged(state):  # one that could not be killed has gone after all
            return gone._replace(phase=Phase.STOPPED, target=None, problem=None), told
        case Phase.STOPPED | Phase.FAILED, _:
            return state, ()
        case _:
            transient = state.then is Next.RETRY or problem.code in TRANSIENT
            return _then(_retry_or_fail(gone._replace(problem=problem), problem, transient=transient), told)


def _retry_or_fail(state: State, problem: ProblemInfo, *, transient: bool) -> Step:
    """The child ended and nobody had asked it to: try again, at once or later, or wait for a person."""
    failed = state._replace(phase=Phase.FAILED, waiters=())
    if not transient:
        return failed, _answers(state.waiters, problem)
    step_number = max(state.attempts - 1, 0)
    delay_s = BACKOFF_S[step_number] if step_number < len(BACKOFF_S) else SLOW_RETRY_S
    if delay_s == 0:
        return _spawn(state)
    return _timed(failed, Limit.RETRY, delay_s), _answers(state.waiters, problem)


def _deadline_passed(state: State, event: DeadlinePassed) -> Step:
    assert state.deadline is not None
    limit, seconds = state.deadline.limit, state.deadline.seconds
    if limit is Limit.RETRY:
        return _spawn(state)
    if limit is Limit.PING:
        idle = state._replace(idle_s=state.idle_s + seconds)
        if 0 < state.timeouts.idle_unload_s <= idle.idle_s and not state.pinned:
            return _stop(idle, Next.IDLE)
        return _timed(idle, Limit.PONG, state.timeouts.pong_s), (SendPing(),)
    if limit is Limit.STOP:
        if state.problem is None and _ends_unasked(state):
            state = state._replace(problem=LINK_ENDED)
        return _ending(state, Limit.REAP), (Kill(),)
    if limit is Limit.REAP:
        wedged = ProblemInfo(
            Code.NPU_WEDGED,
            "The engine's process can't be ended: it hangs inside the kernel's driver.",
            "Reboot the machine; no second engine is started beside it.",
        )
        told = _answers(state.waiters, wedged)
        if state.running is not None:
            told = (EndRun(state.running.ticket, wedged), *told)
        phase = Phase.CLOSED if state.then is Next.CLOSE else Phase.FAILED
        wedged_state = state._replace(phase=phase, problem=wedged, waiters=(), running=None, deadline=None, then=None)
        return wedged_state, told
    hung = state._replace(phase=Phase.STOPPING, then=Next.FAIL, problem=_hung(limit, seconds))
    return _timed(hung, Limit.REAP, REAP_S), (Kill(),)


def _closed(state: State, event: Event) -> Step:
    match event:
        case EnsureReady(ticket):
            return state, (Settle(ticket, CLOSING),)
        case Submit(ticket):
            return state, (EndRun(ticket, CLOSING),)
        case _:
            return state, ()


# ---- transitions that several events share


def _spawn(state: State) -> Step:
    epoch = state.epoch + 1
    starting = state._replace(phase=Phase.STARTING, epoch=epoch, attempts=state.attempts + 1, then=None, running=None)
    return _timed(starting, Limit.HELLO, state.timeouts.hello_s), (Spawn(epoch),)


def _stop(state: State, then: Next, problem: ProblemInfo | None = None) -> Step:
    """Tell the child to go. A running job ends with `problem`, or with whatever explains the exit if None."""
    told: tuple[Effect, ...] = ()
    if state.running is not None and problem is not None:
        told = (EndRun(state.running.ticket, problem),)
        state = state._replace(running=None)
    return _ending(state._replace(phase=Phase.STOPPING, then=then), Limit.STOP), (*told, Terminate())


def _ending(state: State, limit: Limit) -> State:
    """Give the child as long as it may take to end: by itself (`STOP`), and then from SIGKILL (`REAP`)."""
    closing = state.then is Next.CLOSE
    if limit is Limit.STOP:
        return _timed(state, limit, CLOSING_STOP_S if closing else state.timeouts.stop_s)
    return _timed(state, limit, CLOSING_REAP_S if closing else REAP_S)


def _admit(state: State) -> Step:
    """In `ready`: answer who waits, and run the first job among them. The others are told that it is busy."""
    effects: list[Effect] = []
    running: Waiter | None = None
    for waiter in state.waiters:
        if not waiter.job:
            effects.append(Settle(waiter.ticket, None))
        elif running is None:
            running = replace(waiter, workers=waiter.workers + 1)
            effects.append(SendGenerate(waiter.ticket))
        else:
            effects.append(EndRun(waiter.ticket, _model_busy(state)))
    state = state._replace(waiters=(), running=running, idle_s=0.0)
    if running is not None:
        state = _timed(state._replace(phase=Phase.BUSY), Limit.ACCEPTED, state.timeouts.accepted_s)
    else:
        state = _timed(state, Limit.PING, state.timeouts.ping_s)
    return state, tuple(effects)


def _timed(state: State, limit: Limit, seconds: float) -> State:
    serial = state.serial + 1
    return state._replace(serial=serial, deadline=Deadline(limit, seconds, serial))


def _then(first: Step, told: tuple[Effect, ...]) -> Step:
    return first[0], told + first[1]


def _answer(waiter: Waiter, problem: ProblemInfo | None) -> tuple[Effect, ...]:
    if waiter.job:
        assert problem is not None
        return (EndRun(waiter.ticket, problem),)
    return (Settle(waiter.ticket, problem),)


def _answers(waiters: tuple[Waiter, ...], problem: ProblemInfo) -> tuple[Effect, ...]:
    return tuple(effect for waiter in waiters for effect in _answer(waiter, problem))


def _is_running(state: State, ticket: int) -> bool:
    return state.phase is Phase.BUSY and state.running is not None and state.running.ticket == ticket


def _is_wedged(state: State) -> bool:
    return state.problem is not None and state.problem.code is Code.NPU_WEDGED


def _ends_unasked(state: State) -> bool:
    """Whether nobody asked the stopping child to go, or its job is still to be told why."""
    return state.then in (Next.FAIL, Next.RETRY) or (state.then is not None and state.running is not None)


def _was_only_slow_to_end(state: State, exit_: ProblemInfo) -> bool:
    """Whether a worker that had ended its link went by itself, if later than it should: then its exit says why."""
    return state.problem == LINK_ENDED and (exit_.detail or {}).get("exit_status", -9) != -9


def _awaits(state: State, limit: Limit) -> bool:
    return state.deadline is not None and state.deadline.limit is limit


def _found_its_worker_dying(state: State, job: Waiter, problem: ProblemInfo) -> bool:
    """Whether the worker died before it began with the job: the next one may have it, once, if it is still wanted."""
    unasked = state.phase is not Phase.STOPPING or state.then is Next.FAIL
    untouched = not job.accepted and not job.cancelled and job.workers == 1
    return unasked and problem.code is Code.ENGINE_CRASHED and untouched


def _killed_by_others(problem: ProblemInfo) -> bool:
    """A SIGKILL that was not ours comes from the kernel, for want of memory, or from a person: not from the text."""
    return problem.code is Code.ENGINE_CRASHED and (problem.detail or {}).get("exit_status") == -9


def _blame(crashers: tuple[tuple[str, int], ...], fingerprint: str) -> tuple[tuple[str, int], ...]:
    if not fingerprint:
        return crashers
    count = dict(crashers).get(fingerprint, 0) + 1
    others = tuple(entry for entry in crashers if entry[0] != fingerprint)
    return (*others[-31:], (fingerprint, count))  # 32 suspects are more than ever matter, and bounded


# ---- what is said


def _with_last_lines(problem: ProblemInfo, source: ProblemInfo) -> ProblemInfo:
    lines = (source.detail or {}).get("last_lines")
    if lines is None or "last_lines" in (problem.detail or {}):
        return problem
    return replace(problem, detail={**(problem.detail or {}), "last_lines": lines})


def _replaced(target: Target) -> ProblemInfo:
    return ProblemInfo(Code.ENGINE_STOPPED, f"The engine was told to load {target.name} instead.", "Ask again.")


def _model_busy(state: State) -> ProblemInfo:
    name = state.target.name if state.target else "another model"
    return ProblemInfo(
        Code.MODEL_BUSY, f"The engine is busy with {name}.", "Ask again in a moment.", {"retry_after_s": 1}
    )


def _crashes_engine() -> ProblemInfo:
    return ProblemInfo(
        Code.REQUEST_CRASHES_ENGINE,
        "This request has crashed the engine twice, so it is not run again.",
        "Change the text; `rockfill status` shows the engine's last words.",
    )


def _hung(limit: Limit, seconds: float) -> ProblemInfo:
    waited = {
        Limit.HELLO: "did not start",
        Limit.LOAD: "did not finish loading the model",
        Limit.ACCEPTED: "did not take up the request",
        Limit.FIRST_TOKEN: "gave no first token",
        Limit.TOKEN_GAP: "gave no further token",
        Limit.ABORT: "did not stop when told to",
        Limit.PONG: "did not answer while idle",
    }[limit]
    message = f"The engine {waited} within {seconds:g} s and was ended."
    advice = "Ask again; if it repeats, the model may be too large for this machine, or the limit too short."
    return ProblemInfo(Code.ENGINE_HUNG, message, advice, {"limit": limit.value, "seconds": seconds})


_TABLE: dict[type[Event], Callable[[State, Any], Step]] = {
    EnsureReady: _ensure_ready,
    Submit: _submit,
    Cancel: _cancel,
    Unload: _unload,
    Restart: _restart,
    Close: _close,
    HelloCame: _hello,
    LoadDone: _load_done,
    LoadFailed: _load_failed,
    AcceptedCame: _accepted,
    FirstToken: _first_token,
    RunEnded: _run_ended,
    PongCame: _pong,
    Recycle: _recycle,
    Pin: _pin,
    Reconfigure: _reconfigure,
    LinkLost: _link_lost,
    Exited: _exited,
    DeadlinePassed: _deadline_passed,
}
