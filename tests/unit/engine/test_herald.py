"""What the bus is told of the engine, along the machine's real ways from state to state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rockfill.bus import Event, Topic
from rockfill.engine.events import (
    DeadlinePassed,
    EnsureReady,
    Exited,
    HelloCame,
    LoadDone,
    LoadFailed,
    Recycle,
    Restart,
    RunEnded,
    Submit,
    Unload,
)
from rockfill.engine.herald import Herald
from rockfill.engine.machine import Limit, State, step
from rockfill.snapshots import EngineSnapshot
from tests.unit.engine.lifecycle import CRASH, INVALID, TIMEOUTS, A, B

if TYPE_CHECKING:
    from rockfill.engine import events as ev

PASSED = object()  # the running deadline


def told(*events: ev.Event | object) -> list[tuple[str, str | None]]:
    """What is told on the way through `events`: the type, and the code of the problem if there is one."""
    herald, state, heard = Herald(), State(TIMEOUTS), list[Event]()
    for event in events:
        if event is PASSED:
            assert state.deadline is not None
            event = DeadlinePassed(state.deadline.serial)
        after, _ = step(state, event)  # type: ignore[arg-type]
        assert after is not state, event
        state = after
        retrying = state.deadline is not None and state.deadline.limit is Limit.RETRY
        at_s = 1.0 if retrying else None
        heard += herald.events(EngineSnapshot(state.phase, state.target, problem=state.problem, next_retry_at_s=at_s))
    assert all(event.topic is Topic.EVENTS for event in heard)
    return [(event.type, (event.value.get("problem") or {}).get("code")) for event in heard]


LOAD = (EnsureReady(1, A), HelloCame(1), LoadDone(1))


def test_a_load_and_the_completions_after_it_are_one_event() -> None:
    runs = (Submit(2, A), RunEnded(1, 2), Submit(3, A), RunEnded(1, 3))
    assert told(*LOAD, *runs) == [("model.loaded", None)]
    assert told(Submit(1, A), HelloCame(1), LoadDone(1), RunEnded(1, 1)) == [("model.loaded", None)]


def test_a_crash_tells_of_the_restart_and_of_the_model_that_is_back() -> None:
    again = (Exited(1, CRASH), HelloCame(2), LoadDone(2))
    expected = [("model.loaded", None), ("engine.restarted", "engine_crashed"), ("model.loaded", None)]
    assert told(*LOAD, *again) == expected


def test_a_crash_that_is_paused_after_is_no_failed_load() -> None:
    crashes = (Exited(1, CRASH), HelloCame(2), LoadDone(2), Submit(2, A), Exited(2, CRASH))
    assert told(*LOAD, *crashes, PASSED)[3:] == [("engine.restarted", "engine_crashed")]


def test_loads_that_fail_again_and_again_after_a_crash_are_one_restart_and_each_a_failure() -> None:
    failing = (Exited(1, CRASH), Exited(2, CRASH), PASSED, Exited(3, CRASH), PASSED)
    assert told(*LOAD, *failing)[1:] == [
        ("engine.restarted", "engine_crashed"),
        ("model.load_failed", "engine_crashed"),
        ("model.load_failed", "engine_crashed"),
    ]


def test_a_load_that_fails_for_good() -> None:
    failing = (EnsureReady(1, A), HelloCame(1), LoadFailed(1, INVALID), Exited(1, CRASH))
    assert told(*failing) == [("model.load_failed", "invalid_model")]


def test_a_worker_that_cannot_be_ended_means_that_no_model_runs() -> None:
    assert told(*LOAD, Unload(), PASSED, PASSED)[1:] == [("model.load_failed", "npu_wedged")]


def test_a_restart_on_request_and_a_grown_worker_have_no_problem() -> None:
    for event in (Restart(), Recycle(1)):
        assert told(*LOAD, event, Exited(1, CRASH))[1:] == [("engine.restarted", None)]


def test_another_model_or_a_load_after_an_unload_is_no_restart() -> None:
    assert told(*LOAD, EnsureReady(2, B), Exited(1, CRASH), HelloCame(2), LoadDone(2))[1:] == [("model.loaded", None)]
    assert told(*LOAD, Unload(), Exited(1, CRASH), EnsureReady(2, A))[1:] == []
