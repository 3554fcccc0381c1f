"""States of the engine's lifecycle to start from, each reached through real steps, and what its effects say."""

from __future__ import annotations

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
    LinkLost,
    LoadDone,
    LoadFailed,
    Settle,
    Submit,
    Timeouts,
    Unload,
)
from rockfill.engine.machine import State, refuses, step
from rockfill.errors import Code, ProblemInfo
from rockfill.snapshots import Target

TIMEOUTS = Timeouts(
    hello_s=1,
    load_s=2,
    accepted_s=3,
    first_token_s=4,
    token_gap_s=5,
    abort_s=6,
    stop_s=7,
    ping_s=8,
    pong_s=9,
    idle_unload_s=16,
)
A = Target("a", "fake", "/a", None)
B = Target("b", "fake", "/b", None)
CRASH = ProblemInfo(Code.ENGINE_CRASHED, "It crashed.")
OUT_OF_MEMORY = ProblemInfo(Code.ENGINE_CRASHED, "It was killed.")
INVALID = ProblemInfo(Code.INVALID_MODEL, "It is no model.")
NONSENSE = ProblemInfo(Code.LINK_BROKEN, "It talks nonsense.")

# Tickets: 1 asked for the model of each state below, or runs there; 9 is new; 99 was never given.
NEW, NEVER = 9, 99


def after(*events: Event, start: State | None = None) -> State:
    """The state after `events`, each of which must have been taken up."""
    state = start or State(TIMEOUTS)
    for event in events:
        assert not refuses(state, event), (state.phase, event)
        state, _ = step(state, event)
    return state


def expired(state: State) -> State:
    """The state after its deadline has passed."""
    assert state.deadline is not None
    return after(DeadlinePassed(state.deadline.serial), start=state)


STARTING = after(EnsureReady(1, A))
STARTING_FOR_A_JOB = after(Submit(1, A))
LOADING = after(HelloCame(1), start=STARTING)
READY = after(LoadDone(1), start=LOADING)
PINGED = expired(READY)
BUSY = after(Submit(1, A), start=READY)
PREFILLING = after(AcceptedCame(1, 1), start=BUSY)
DECODING = after(FirstToken(1, 1), start=PREFILLING)
ABORTING = after(Cancel(1), start=DECODING)
HUNG = expired(DECODING)  # killed, its job still to be answered for
UNLOADING = after(Unload(), start=READY)
SWITCHING = after(EnsureReady(1, B), start=READY)
LOAD_FAILING = after(LoadFailed(1, INVALID), start=LOADING)
LINK_GONE = after(LinkLost(1, None), start=DECODING)
CLOSING = after(Close(), start=READY)
KILLED = expired(UNLOADING)
RETRYING = after(Exited(1, CRASH), Exited(2, CRASH), start=READY)
FAILED = after(Exited(1, CRASH), start=LOAD_FAILING)
WEDGED = expired(KILLED)
CLOSED = after(Exited(1, CRASH), start=CLOSING)
CLOSED_WEDGED = expired(expired(CLOSING))

STATES: dict[str, State] = {
    "stopped": State(TIMEOUTS),
    "starting": STARTING,
    "starting for a job": STARTING_FOR_A_JOB,
    "loading": LOADING,
    "ready": READY,
    "pinged": PINGED,
    "busy": BUSY,
    "prefilling": PREFILLING,
    "decoding": DECODING,
    "aborting": ABORTING,
    "hung": HUNG,
    "unloading": UNLOADING,
    "switching": SWITCHING,
    "load failing": LOAD_FAILING,
    "link gone": LINK_GONE,
    "closing": CLOSING,
    "killed": KILLED,
    "retrying": RETRYING,
    "failed": FAILED,
    "wedged": WEDGED,
    "closed": CLOSED,
    "closed, wedged": CLOSED_WEDGED,
}


def told(effects: tuple[Effect, ...]) -> dict[int, Code | None]:
    """What callers hear: by ticket, the code, None for good news."""
    answers = [effect for effect in effects if isinstance(effect, Settle | EndRun)]
    assert len({answer.ticket for answer in answers}) == len(answers)
    return {answer.ticket: answer.problem.code if answer.problem else None for answer in answers}
