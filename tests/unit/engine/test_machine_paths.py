"""What callers live through while the engine goes from state to state."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rockfill.engine.events import (
    Cancel,
    Close,
    DeadlinePassed,
    EndRun,
    EnsureReady,
    Event,
    Exited,
    HelloCame,
    Kill,
    LinkLost,
    LoadDone,
    Restart,
    RunEnded,
    SendAbort,
    SendGenerate,
    SendLoad,
    Spawn,
    Submit,
    Terminate,
    Unload,
)
from rockfill.engine.machine import LINGER_S, Limit, State, refuses, step
from rockfill.errors import Code
from rockfill.snapshots import Phase
from tests.unit.engine.lifecycle import (
    BUSY,
    CLOSED,
    CLOSED_WEDGED,
    CRASH,
    DECODING,
    HUNG,
    INVALID,
    LINK_GONE,
    LOADING,
    NEW,
    NONSENSE,
    OUT_OF_MEMORY,
    READY,
    STARTING_FOR_A_JOB,
    TIMEOUTS,
    UNLOADING,
    WEDGED,
    A,
    B,
    after,
    expired,
    told,
)


def test_a_model_is_loaded_step_by_step_and_everybody_who_waits_is_answered() -> None:
    state, effects = step(State(TIMEOUTS), EnsureReady(1, A))
    assert effects == (Spawn(1),)
    state = after(Submit(2, A), EnsureReady(3, A), Submit(4, A), start=state)
    state, effects = step(state, HelloCame(1))
    assert effects == (SendLoad(A),)
    state, effects = step(state, LoadDone(1))
    assert SendGenerate(2) in effects
    assert told(effects) == {1: None, 3: None, 4: Code.MODEL_BUSY}
    assert state.phase is Phase.BUSY


def test_a_job_ends_in_ready_and_the_next_one_runs_at_once() -> None:
    state, effects = step(DECODING, RunEnded(1, 1))
    assert (state.phase, effects) == (Phase.READY, ())
    assert step(state, Submit(2, A))[1] == (SendGenerate(2),)


def test_a_job_that_fails_without_harm_is_told_so_and_the_worker_stays() -> None:
    state, effects = step(BUSY, RunEnded(1, 1, INVALID))
    assert (state.phase, effects) == (Phase.READY, (EndRun(1, INVALID),))


def test_cancelling_aborts_once_and_waits_for_the_end() -> None:
    state, effects = step(DECODING, Cancel(1))
    assert effects == (SendAbort(1),)
    assert step(state, Cancel(1)) == (state, ())
    assert after(RunEnded(1, 1), start=state).phase is Phase.READY


def test_cancelling_what_waits_ends_it_and_the_model_loads_on() -> None:
    state, effects = step(STARTING_FOR_A_JOB, Cancel(1))
    assert told(effects) == {1: Code.CANCELLED}
    assert after(HelloCame(1), LoadDone(1), start=state).phase is Phase.READY


def test_another_model_is_loaded_when_the_worker_of_this_one_is_gone() -> None:
    state, effects = step(READY, EnsureReady(1, B))
    assert effects == (Terminate(),)
    state, effects = step(state, Exited(1, CRASH))
    assert effects == (Spawn(2),)
    assert step(state, HelloCame(2))[1] == (SendLoad(B),)


def test_a_person_may_take_the_engine_from_a_job_but_another_job_may_not() -> None:
    assert told(step(DECODING, Submit(NEW, B))[1]) == {NEW: Code.MODEL_BUSY}
    state, effects = step(DECODING, EnsureReady(NEW, B))
    assert told(effects) == {1: Code.ENGINE_STOPPED}
    assert (state.phase, state.target) == (Phase.STOPPING, B)


def test_the_latest_wish_wins_while_loading() -> None:
    state, effects = step(LOADING, EnsureReady(NEW, B))
    assert told(effects) == {1: Code.ENGINE_STOPPED}
    state, effects = step(state, Exited(1, CRASH))
    assert (effects, state.target) == ((Spawn(2),), B)


def test_unload_ends_the_job_and_the_worker_and_forgets_the_model() -> None:
    state, effects = step(DECODING, Unload())
    assert effects[-1] == Terminate()
    assert told(effects) == {1: Code.ENGINE_STOPPED}
    state = after(Exited(1, CRASH), start=state)
    assert (state.phase, state.target, state.problem) == (Phase.STOPPED, None, None)


def test_a_wish_while_unloading_loads_again() -> None:
    state = after(EnsureReady(NEW, A), start=UNLOADING)
    assert step(state, Exited(1, CRASH))[1] == (Spawn(2),)


def test_a_worker_that_ignores_sigterm_is_killed() -> None:
    assert UNLOADING.deadline is not None
    assert (UNLOADING.deadline.limit, UNLOADING.deadline.seconds) == (Limit.STOP, TIMEOUTS.stop_s)
    assert step(UNLOADING, DeadlinePassed(UNLOADING.deadline.serial))[1] == (Kill(),)


# ---- what a job is told when its worker dies


def ends_with(state: State, event: Event) -> Code | None:
    return told(step(state, event)[1])[1]


def test_a_crash_is_explained_by_the_exit() -> None:
    assert ends_with(DECODING, Exited(1, OUT_OF_MEMORY)) is Code.ENGINE_CRASHED
    assert ends_with(LINK_GONE, Exited(1, OUT_OF_MEMORY)) is Code.ENGINE_CRASHED


def test_a_worker_whose_link_ended_has_a_moment_to_end_itself() -> None:
    assert LINK_GONE.deadline is not None
    assert (LINK_GONE.deadline.limit, LINK_GONE.deadline.seconds) == (Limit.STOP, LINGER_S)


def test_a_worker_that_was_slow_to_end_itself_is_explained_by_its_exit() -> None:
    """On a busy machine the end of a process may take longer than its link's."""
    for status, code in ((-11, Code.ENGINE_CRASHED), (3, Code.ENGINE_CRASHED), (-9, Code.LINK_BROKEN)):
        ended = replace(CRASH, detail={"exit_status": status})
        assert ends_with(expired(LINK_GONE), Exited(1, ended)) is code


@pytest.mark.parametrize("meanwhile", [(), (EnsureReady(NEW, B),), (Unload(),), (Close(),)])
def test_what_we_killed_is_explained_by_our_reason_and_not_by_our_signal(meanwhile: tuple[Event, ...]) -> None:
    lingering = expired(LINK_GONE)
    broken = after(LinkLost(1, NONSENSE), start=DECODING)
    for state, code in ((HUNG, Code.ENGINE_HUNG), (lingering, Code.LINK_BROKEN), (broken, Code.LINK_BROKEN)):
        assert ends_with(after(*meanwhile, start=state), Exited(1, OUT_OF_MEMORY)) is code


# ---- a process that can't be killed


def test_nothing_is_started_beside_a_worker_that_cannot_be_killed() -> None:
    assert WEDGED.problem is not None
    for event in (EnsureReady(NEW, A), Submit(NEW, B)):
        state, effects = step(WEDGED, event)
        assert told(effects) == {NEW: Code.NPU_WEDGED}
        assert state is WEDGED
    assert refuses(WEDGED, Restart())
    assert refuses(WEDGED, Unload())


def test_a_job_in_a_worker_that_cannot_be_killed_is_told() -> None:
    assert HUNG.deadline is not None
    state, effects = step(HUNG, DeadlinePassed(HUNG.deadline.serial))
    assert told(effects) == {1: Code.NPU_WEDGED}
    assert state.phase is Phase.FAILED


def test_one_that_goes_after_all_makes_room() -> None:
    state = after(Exited(WEDGED.epoch, CRASH), start=WEDGED)
    assert state.phase is Phase.STOPPED
    assert step(state, EnsureReady(NEW, A))[1] == (Spawn(WEDGED.epoch + 1),)


def test_closed_answers_every_wish_and_does_nothing() -> None:
    for state in (CLOSED, CLOSED_WEDGED):
        assert told(step(state, EnsureReady(NEW, A))[1]) == {NEW: Code.ENGINE_STOPPED}
        assert told(step(state, Submit(NEW, A))[1]) == {NEW: Code.ENGINE_STOPPED}
