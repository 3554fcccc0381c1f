"""A loaded model with nothing to do: asked whether it lives, unloaded in time, replaced when it has grown."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rockfill.engine.events import (
    AcceptedCame,
    Cancel,
    DeadlinePassed,
    EnsureReady,
    FirstToken,
    HelloCame,
    Kill,
    LoadDone,
    Pin,
    PongCame,
    Reconfigure,
    Recycle,
    SendPing,
    Submit,
    Terminate,
)
from rockfill.engine.machine import LOAD_BYTES_PER_S, Limit, State, step
from rockfill.errors import Code
from rockfill.snapshots import Phase
from tests.unit.engine.lifecycle import BUSY, PINGED, PREFILLING, READY, STARTING, TIMEOUTS, A, after, expired


def test_an_idle_worker_is_pinged_again_and_again() -> None:
    assert READY.deadline is not None
    assert (READY.deadline.limit, READY.deadline.seconds) == (Limit.PING, TIMEOUTS.ping_s)
    asked, effects = step(READY, DeadlinePassed(READY.deadline.serial))
    assert effects == (SendPing(),)
    answered = after(PongCame(1), start=asked)
    assert answered.deadline is not None
    assert answered.deadline.limit is Limit.PING


def test_one_that_does_not_answer_is_killed_and_replaced() -> None:
    assert PINGED.deadline is not None
    killed, effects = step(PINGED, DeadlinePassed(PINGED.deadline.serial))
    assert effects == (Kill(),)
    assert killed.problem is not None
    assert killed.problem.code is Code.ENGINE_HUNG


def test_a_request_need_not_wait_for_the_answer() -> None:
    busy = after(Submit(9, A), start=PINGED)
    assert busy.phase is Phase.BUSY
    assert step(busy, PongCame(1))[0] is busy


def idle_for_two_pings(state: State) -> State:
    return expired(after(PongCame(1), start=expired(state)))


def test_a_model_idle_for_long_enough_is_unloaded_and_one_that_is_pinned_is_not() -> None:
    assert idle_for_two_pings(READY).phase is Phase.STOPPING
    assert idle_for_two_pings(after(Pin(pinned=True), start=READY)).phase is Phase.READY
    never = after(Reconfigure(replace(TIMEOUTS, idle_unload_s=0)), start=READY)
    assert idle_for_two_pings(never).phase is Phase.READY


def test_being_asked_for_begins_the_idle_time_anew() -> None:
    once_idle = after(PongCame(1), EnsureReady(9, A), start=PINGED)
    assert expired(once_idle).phase is Phase.READY


def test_a_worker_that_has_grown_is_replaced_only_while_idle() -> None:
    replaced, effects = step(READY, Recycle(1))
    assert effects == (Terminate(),)
    assert replaced.target == A
    assert step(BUSY, Recycle(1))[0] is BUSY


def test_a_load_may_take_as_long_as_its_size_wants() -> None:
    large = replace(A, size_bytes=int(60 * LOAD_BYTES_PER_S))
    loading = after(HelloCame(1), start=STARTING._replace(target=large))
    assert loading.deadline is not None
    assert loading.deadline.seconds == TIMEOUTS.load_s + 60


@pytest.mark.parametrize(("rate", "extra_s"), [(None, 100), (200.0, 20), (1000.0, 4)])
def test_a_prefill_may_take_as_long_as_its_prompt_wants(rate: float | None, extra_s: float) -> None:
    prefilling = after(AcceptedCame(1, 1, 1000, rate), start=BUSY)
    assert prefilling.deadline is not None
    assert prefilling.deadline.seconds == TIMEOUTS.first_token_s + extra_s


def test_an_abort_waits_for_a_prefill_that_can_not_be_interrupted() -> None:
    before = after(AcceptedCame(1, 1, 1000, 200.0), Cancel(1), start=BUSY)
    during = after(Cancel(1), AcceptedCame(1, 1, 1000, 200.0), start=BUSY)
    for state in (before, during):
        assert state.deadline is not None
        assert (state.deadline.limit, state.deadline.seconds) == (Limit.ABORT, TIMEOUTS.first_token_s + 20 + 6)
    decoding = after(FirstToken(1, 1), Cancel(1), start=PREFILLING)
    assert decoding.deadline is not None
    assert decoding.deadline.seconds == TIMEOUTS.abort_s


def test_new_deadlines_count_from_the_next_state_on() -> None:
    changed = after(Reconfigure(replace(TIMEOUTS, load_s=99)), start=STARTING)
    assert changed.deadline == STARTING.deadline
    loading = after(HelloCame(1), start=changed)
    assert loading.deadline is not None
    assert loading.deadline.seconds == 99
    assert after(LoadDone(1), start=loading).phase is Phase.READY
