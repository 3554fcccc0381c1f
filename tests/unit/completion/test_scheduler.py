from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rockfill.completion.scheduler import Admission, Scheduler


def test_one_runs_and_the_others_wait_in_the_order_of_their_coming() -> None:
    scheduler = Scheduler(2)
    assert [scheduler.arrive(ticket) for ticket in (1, 2, 3)] == [Admission.RUN, Admission.WAIT, Admission.WAIT]
    assert scheduler.depth == 2
    assert [scheduler.leave(1), scheduler.leave(2), scheduler.leave(3)] == [2, 3, None]
    assert scheduler.arrive(4) is Admission.RUN


def test_a_full_queue_refuses_until_somebody_leaves_it() -> None:
    scheduler = Scheduler(1)
    assert [scheduler.arrive(ticket) for ticket in (1, 2, 3)] == [Admission.RUN, Admission.WAIT, Admission.REFUSE]
    assert scheduler.leave(3) is None  # it never got in
    assert scheduler.arrive(4) is Admission.REFUSE
    assert scheduler.leave(2) is None
    assert scheduler.arrive(5) is Admission.WAIT


def test_without_a_queue_only_one_gets_in() -> None:
    scheduler = Scheduler(0)
    assert [scheduler.arrive(1), scheduler.arrive(2)] == [Admission.RUN, Admission.REFUSE]


def test_leaving_twice_takes_nobody_else_s_turn() -> None:
    scheduler = Scheduler(5)
    for ticket in (1, 2, 3):
        scheduler.arrive(ticket)
    assert scheduler.leave(1) == 2
    assert scheduler.leave(1) is None
    assert scheduler.leave(2) == 3


@given(st.integers(0, 3), st.lists(st.integers(0, 9)))
def test_whoever_gets_in_runs_once_in_turn(max_queue: int, choices: list[int]) -> None:
    """Choice 0 to 4: a new one arrives; else one of those within leaves. The model is a list, its head runs."""
    scheduler, within, new = Scheduler(max_queue), list[int](), 0
    for choice in choices:
        if choice < 5:
            new += 1
            expected = Admission.RUN if not within else Admission.WAIT
            if len(within) > max_queue:
                expected = Admission.REFUSE
            assert scheduler.arrive(new) is expected
            within += [new] if expected is not Admission.REFUSE else []
        elif within:
            leaving = within.pop((choice - 5) % len(within))
            was_running = not within or leaving < within[0]
            assert scheduler.leave(leaving) == (within[0] if was_running and within else None)
        assert scheduler.depth == max(0, len(within) - 1)
