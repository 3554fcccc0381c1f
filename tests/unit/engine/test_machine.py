"""Every event in every state of the engine's lifecycle."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rockfill import app
from rockfill.engine.events import (
    AcceptedCame,
    Cancel,
    Close,
    DeadlinePassed,
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
    Spawn,
    Submit,
    Terminate,
    Unload,
)
from rockfill.engine.machine import REAP_S, Limit, State, refuses, step
from rockfill.errors import Code
from rockfill.snapshots import Phase
from tests.unit.engine.lifecycle import (
    ABORTING,
    BUSY,
    CRASH,
    DECODING,
    INVALID,
    LOADING,
    NEVER,
    NEW,
    NONSENSE,
    PREFILLING,
    READY,
    STARTING,
    STATES,
    TIMEOUTS,
    A,
    B,
)


def events(state: State) -> dict[str, Event]:
    """One event of every kind, as it would come in `state`, and the kinds that come too late or from nowhere."""
    epoch, serial = state.epoch, state.deadline.serial if state.deadline else -1
    return {
        "ensure": EnsureReady(NEW, A),
        "ensure other": EnsureReady(NEW, B),
        "submit": Submit(NEW, A),
        "submit other": Submit(NEW, B),
        "cancel": Cancel(1),
        "unload": Unload(),
        "restart": Restart(),
        "close": Close(),
        "hello": HelloCame(epoch),
        "loaded": LoadDone(epoch),
        "load failed": LoadFailed(epoch, INVALID),
        "accepted": AcceptedCame(epoch, 1),
        "first token": FirstToken(epoch, 1),
        "run ended": RunEnded(epoch, 1),
        "run failed": RunEnded(epoch, 1, INVALID),
        "pong": PongCame(epoch),
        "recycle": Recycle(epoch),
        "pin": Pin(pinned=True),
        "reconfigure": Reconfigure(replace(TIMEOUTS, hello_s=77)),
        "link lost": LinkLost(epoch, None),
        "nonsense": LinkLost(epoch, NONSENSE),
        "exited": Exited(epoch, CRASH),
        "deadline": DeadlinePassed(serial),
    }


OF_A_CHILD = (HelloCame, LoadDone, LoadFailed, AcceptedCame, FirstToken, RunEnded, PongCame, Recycle, LinkLost, Exited)
WISHES = ("ensure", "ensure other", "submit", "submit other", "close")
CHILD_ENDS = ("link lost", "nonsense", "exited")
RUN_ENDS = ("run ended", "run failed")

# What has an effect where; everything else is refused there. Read a line as: in this state, these matter.
TAKEN_UP: dict[str, tuple[str, ...]] = {
    "stopped": WISHES,
    "starting": (*WISHES, "cancel", "unload", "restart", "hello", *CHILD_ENDS, "deadline"),
    "starting for a job": (*WISHES, "cancel", "unload", "restart", "hello", *CHILD_ENDS, "deadline"),
    "loading": (*WISHES, "cancel", "unload", "restart", "loaded", "load failed", *CHILD_ENDS, "deadline"),
    "ready": (*WISHES, "unload", "restart", "recycle", *CHILD_ENDS, "deadline"),
    "pinged": (*WISHES, "unload", "restart", "pong", "recycle", *CHILD_ENDS, "deadline"),
    "busy": (*WISHES, "cancel", "unload", "restart", "accepted", *RUN_ENDS, *CHILD_ENDS, "deadline"),
    "prefilling": (*WISHES, "cancel", "unload", "restart", "first token", *RUN_ENDS, *CHILD_ENDS, "deadline"),
    "decoding": (*WISHES, "cancel", "unload", "restart", *RUN_ENDS, *CHILD_ENDS, "deadline"),
    "aborting": (*WISHES, "unload", "restart", "accepted", *RUN_ENDS, *CHILD_ENDS, "deadline"),
    "hung": (*WISHES, "cancel", "unload", "exited", "deadline"),
    "unloading": (*WISHES, "exited", "deadline"),
    "switching": (*WISHES, "cancel", "unload", "exited", "deadline"),
    "load failing": (*WISHES, "cancel", "unload", "exited", "deadline"),
    "link gone": (*WISHES, "cancel", "unload", "exited", "deadline"),
    "closing": (*WISHES[:4], "exited", "deadline"),
    "killed": (*WISHES, "exited", "deadline"),
    "retrying": (*WISHES, "unload", "restart", "deadline"),
    "failed": (*WISHES, "unload", "restart"),
    "wedged": (*WISHES, "exited"),
    "closed": WISHES[:4],
    "closed, wedged": WISHES[:4],
}


def test_every_phase_has_its_states() -> None:
    assert {state.phase for state in STATES.values()} == set(Phase)
    assert TAKEN_UP.keys() == STATES.keys()
    assert {type(event) for event in events(READY).values()} == set(Event.__args__)


@pytest.mark.parametrize("name", STATES)
def test_a_state_takes_up_what_it_has_a_use_for_and_refuses_the_rest(name: str) -> None:
    state = STATES[name]
    taken_up = {kind for kind, event in events(state).items() if not refuses(state, event)}
    settings = set() if state.phase is Phase.CLOSED else {"pin", "reconfigure"}
    assert taken_up == set(TAKEN_UP[name]) | settings


@pytest.mark.parametrize("name", STATES)
def test_a_refused_event_leaves_the_very_same_state(name: str) -> None:
    """The supervisor tells by identity whether there is anything to publish."""
    state = STATES[name]
    for kind, event in events(state).items():
        changed, effects = step(state, event)
        assert effects or changed != state or changed is state, kind


@pytest.mark.parametrize("name", STATES)
def test_what_comes_too_late_or_from_nowhere_is_refused(name: str) -> None:
    state = STATES[name]
    late = [event for event in events(state).values() if isinstance(event, OF_A_CHILD)]
    stale: list[Event] = [replace(event, epoch=state.epoch - 1) for event in late]
    strangers: list[Event] = [
        AcceptedCame(state.epoch, NEVER),
        FirstToken(state.epoch, NEVER),
        RunEnded(state.epoch, NEVER),
    ]
    for event in (*stale, *strangers, Cancel(NEVER), DeadlinePassed(state.serial + 1), DeadlinePassed(0)):
        assert refuses(state, event), event


@pytest.mark.parametrize("name", STATES)
def test_close_leads_to_closed_once_the_child_is_gone(name: str) -> None:
    state, effects = step(STATES[name], Close())
    if state.phase is not Phase.CLOSED:
        assert Terminate() in effects or STATES[name].phase is Phase.STOPPING
        state, effects = step(state, Exited(state.epoch, CRASH))
    assert state.phase is Phase.CLOSED
    assert state.deadline is None
    assert Spawn(state.epoch + 1) not in effects


@pytest.mark.parametrize("name", STATES)
def test_close_leads_to_closed_in_time_whatever_the_child_does(name: str) -> None:
    """And `systemctl stop`, requests in progress and a second for everything else included, within 5 s."""
    state, took_s = step(STATES[name], Close())[0], 0.0
    while state.phase is not Phase.CLOSED:
        assert state.deadline is not None
        took_s += state.deadline.seconds
        state = step(state, DeadlinePassed(state.deadline.serial))[0]
    assert app.DRAIN_S + max(took_s, 2 * app.CLEAN_UP_S) + 1 <= 5


@pytest.mark.parametrize(
    ("state", "limit", "seconds"),
    [
        (STARTING, Limit.HELLO, TIMEOUTS.hello_s),
        (LOADING, Limit.LOAD, TIMEOUTS.load_s),
        (BUSY, Limit.ACCEPTED, TIMEOUTS.accepted_s),
        (PREFILLING, Limit.FIRST_TOKEN, TIMEOUTS.first_token_s),
        (DECODING, Limit.TOKEN_GAP, TIMEOUTS.token_gap_s),
        (ABORTING, Limit.ABORT, TIMEOUTS.abort_s),
    ],
)
def test_a_child_that_misses_its_deadline_is_killed_and_called_hung(state: State, limit: Limit, seconds: float) -> None:
    assert state.deadline is not None
    assert (state.deadline.limit, state.deadline.seconds) == (limit, seconds)
    killed, effects = step(state, DeadlinePassed(state.deadline.serial))
    assert effects == (Kill(),)
    assert killed.phase is Phase.STOPPING
    assert killed.deadline is not None
    assert (killed.deadline.limit, killed.deadline.seconds) == (Limit.REAP, REAP_S)
    assert killed.problem is not None
    assert killed.problem.code is Code.ENGINE_HUNG
    assert killed.problem.detail == {"limit": limit.value, "seconds": seconds}
