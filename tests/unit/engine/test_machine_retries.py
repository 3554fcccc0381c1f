"""When the engine is tried again, when not, and which requests are not."""

from __future__ import annotations

import pytest

from rockfill.engine.events import (
    AcceptedCame,
    Cancel,
    EnsureReady,
    Exited,
    HelloCame,
    LoadDone,
    LoadFailed,
    Restart,
    RunEnded,
    SendGenerate,
    Spawn,
    Submit,
)
from rockfill.engine.machine import TRANSIENT, Limit, State, step
from rockfill.errors import Code, ProblemInfo
from rockfill.snapshots import Phase
from tests.unit.engine.lifecycle import (
    CRASH,
    FAILED,
    LOADING,
    NEW,
    READY,
    A,
    B,
    after,
    expired,
    told,
)


def crash(state: State, problem: ProblemInfo = CRASH) -> tuple[State, float]:
    """The child of `state` is gone; the state in which the next one is starting, and how long that took."""
    state, effects = step(state, Exited(state.epoch, problem))
    if state.phase is Phase.STARTING:
        assert effects[-1] == Spawn(state.epoch)
        return state, 0
    assert state.deadline is not None
    assert (state.phase, state.deadline.limit) == (Phase.FAILED, Limit.RETRY)
    return expired(state), state.deadline.seconds


def test_the_waits_between_crashes_grow_to_ten_minutes() -> None:
    state, waits = after(Submit(NEW, A), RunEnded(1, NEW), start=READY), []
    for _ in range(12):
        state, wait_s = crash(state)
        waits.append(wait_s)
    assert waits == [0, 0, 1, 2, 4, 8, 16, 32, 60, 600, 600, 600]


def test_a_first_load_that_crashes_is_tried_once_more_at_once() -> None:
    state, first_s = crash(LOADING)
    assert (first_s, state.waiters) == (0, LOADING.waiters)
    state, effects = step(state, Exited(2, CRASH))
    assert told(effects) == {1: Code.ENGINE_CRASHED}
    assert state.phase is Phase.FAILED


def test_a_completion_makes_the_waits_short_again() -> None:
    state, _ = crash(crash(crash(READY)[0])[0])
    state = after(HelloCame(4), LoadDone(4), Submit(NEW, A), RunEnded(4, NEW), start=state)
    assert crash(state)[1] == 0


def test_a_load_alone_does_not_make_the_waits_short_again() -> None:
    state, _ = crash(crash(READY)[0])
    assert crash(after(HelloCame(3), LoadDone(3), start=state))[1] == 2


@pytest.mark.parametrize("code", sorted(set(Code) - TRANSIENT))
def test_a_permanent_failure_waits_for_a_person(code: Code) -> None:
    problem = ProblemInfo(code, "It can't be loaded.")
    state = after(LoadFailed(1, problem), start=LOADING)
    state, effects = step(state, Exited(1, CRASH))
    assert told(effects) == {1: code}
    assert (state.phase, state.problem, state.deadline) == (Phase.FAILED, problem, None)


@pytest.mark.parametrize("code", sorted(TRANSIENT))
def test_a_transient_failure_is_tried_again_by_itself(code: Code) -> None:
    state = after(LoadFailed(1, ProblemInfo(code, "Not now.")), start=LOADING)
    assert step(state, Exited(1, CRASH))[1] == (Spawn(2),)


def test_jobs_hear_of_a_failure_and_a_person_who_asks_for_it_gets_another_try() -> None:
    assert told(step(FAILED, Submit(NEW, A))[1]) == {NEW: Code.INVALID_MODEL}
    for event in (EnsureReady(NEW, A), EnsureReady(NEW, B), Submit(NEW, B), Restart()):
        assert step(FAILED, event)[1] == (Spawn(2),)


def test_a_request_that_took_two_workers_with_it_is_refused_and_no_other() -> None:
    state = READY
    for epoch in (1, 2):
        state = after(Submit(NEW, A, "bad"), start=state)
        state = after(AcceptedCame(epoch, NEW), Exited(epoch, CRASH), start=state)
        state = expired(state) if state.phase is Phase.FAILED else state
        state = after(HelloCame(epoch + 1), LoadDone(epoch + 1), start=state)
    assert told(step(state, Submit(NEW, A, "bad"))[1]) == {NEW: Code.REQUEST_CRASHES_ENGINE}
    assert step(state, Submit(NEW, A, "good"))[1] == (SendGenerate(NEW),)
    assert step(state, Submit(NEW, A))[1] == (SendGenerate(NEW),)


def test_a_request_that_crashed_once_and_then_ran_is_forgiven() -> None:
    state = after(Submit(1, A, "odd"), AcceptedCame(1, 1), Exited(1, CRASH), HelloCame(2), LoadDone(2), start=READY)
    state = after(Submit(2, A, "odd"), RunEnded(2, 2), start=state)
    state = after(Submit(3, A, "odd"), AcceptedCame(2, 3), Exited(2, CRASH), start=state)
    assert step(state, Submit(4, A, "odd"))[0].waiters


def test_few_suspects_are_remembered() -> None:
    state = READY
    for number in range(100):
        ready = state._replace(attempts=0)
        accepted = AcceptedCame(ready.epoch, number)
        state = after(Submit(number, A, f"text {number}"), accepted, Exited(ready.epoch, CRASH), start=ready)
        state = after(HelloCame(state.epoch), LoadDone(state.epoch), start=state)
    assert [fingerprint for fingerprint, _ in state.crashers] == [f"text {number}" for number in range(68, 100)]


def test_a_job_that_found_its_worker_dying_goes_to_the_next_one_once() -> None:
    state = after(Submit(NEW, A, "text"), start=READY)
    state, effects = step(state, Exited(1, CRASH))
    assert effects == (Spawn(2),)
    state, effects = step(after(HelloCame(2), start=state), LoadDone(2))
    assert effects == (SendGenerate(NEW),)
    state, effects = step(state, Exited(2, CRASH))
    assert told(effects) == {NEW: Code.ENGINE_CRASHED}
    assert state.crashers == (("text", 1),)


def test_a_job_that_nobody_wants_any_more_does_not_go_to_the_next_worker() -> None:
    state, effects = step(after(Submit(NEW, A), Cancel(NEW), start=READY), Exited(1, CRASH))
    assert (told(effects), state.waiters) == ({NEW: Code.ENGINE_CRASHED}, ())


def test_a_kill_that_was_not_ours_is_not_blamed_on_the_text() -> None:
    killed = ProblemInfo(Code.ENGINE_CRASHED, "It was killed.", detail={"exit_status": -9})
    state = after(Submit(NEW, A, "text"), AcceptedCame(1, NEW), Exited(1, killed), start=READY)
    assert state.crashers == ()
