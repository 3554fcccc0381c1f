from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockfill.completion.scheduler import (
    Abort,
    Arrival,
    Effect,
    Gone,
    Join,
    Priority,
    Refuse,
    Run,
    Scheduler,
    Supersede,
    Yield,
    is_edit,
)

TYPING, PLAIN, BACKGROUND = Priority.TYPING, Priority.PLAIN, Priority.BACKGROUND
DOCUMENT = "def add(a, b):\n    return a + b\n" * 5


def arrived(scheduler: Scheduler, *arrivals: Arrival) -> list[list[Effect]]:
    return [scheduler.arrive(arrival) for arrival in arrivals]


def over(scheduler: Scheduler, flight: int) -> list[Effect]:
    """What follows the end of the flight in the air, besides that it is gone."""
    gone, *following = scheduler.over(flight)
    assert gone == Gone(flight)
    return following


# ---- whose turn it is


def test_one_runs_and_the_others_wait_in_the_order_of_their_coming() -> None:
    scheduler = Scheduler(2)
    assert arrived(scheduler, Arrival(1), Arrival(2), Arrival(3)) == [[Run(1)], [], []]
    assert scheduler.depth == 2
    assert [over(scheduler, flight) for flight in (1, 2, 3)] == [[Run(2)], [Run(3)], []]
    assert scheduler.arrive(Arrival(4)) == [Run(4)]


def test_a_full_queue_refuses_until_somebody_leaves_it() -> None:
    scheduler = Scheduler(1)
    assert arrived(scheduler, Arrival(1), Arrival(2), Arrival(3)) == [[Run(1)], [], [Refuse(3)]]
    assert scheduler.leave(3) == []  # it never got in
    assert scheduler.leave(2) == [Gone(2)]
    assert scheduler.arrive(Arrival(4)) == []
    assert over(scheduler, 1) == [Run(4)]


def test_without_a_queue_only_one_gets_in() -> None:
    assert arrived(Scheduler(0), Arrival(1), Arrival(2)) == [[Run(1)], [Refuse(2)]]


def test_whoever_leaves_the_engine_has_it_until_it_is_over() -> None:
    scheduler = Scheduler(5)
    arrived(scheduler, Arrival(1), Arrival(2))
    assert scheduler.leave(1) == [Abort(1)]
    assert scheduler.leave(1) == []
    assert scheduler.over(1) == [Gone(1), Run(2)]
    assert scheduler.over(1) == []


def test_typing_goes_first_and_background_last() -> None:
    scheduler = Scheduler(5)
    arrived(scheduler, Arrival(1), Arrival(2, BACKGROUND), Arrival(3), Arrival(4, TYPING))
    assert [over(scheduler, flight) for flight in (1, 4, 3)] == [[Run(4)], [Run(3)], [Run(2)]]


def test_among_equals_the_client_goes_first_that_was_served_longest_ago() -> None:
    scheduler = Scheduler(5)
    arrived(scheduler, *(Arrival(ticket, client="busy") for ticket in (1, 2, 3)), Arrival(4, client="new"))
    assert [over(scheduler, flight) for flight in (1, 4, 2)] == [[Run(4)], [Run(2)], [Run(3)]]


def test_background_makes_way_once_and_goes_on_afterwards() -> None:
    scheduler = Scheduler(5)
    assert arrived(scheduler, Arrival(1, BACKGROUND), Arrival(2), Arrival(3)) == [[Run(1)], [Yield(1)], []]
    assert scheduler.again(1) == [Run(2)]
    assert [over(scheduler, flight) for flight in (2, 3)] == [[Run(3)], [Run(1)]]


def test_background_makes_no_way_for_background() -> None:
    assert arrived(Scheduler(5), Arrival(1, BACKGROUND), Arrival(2, BACKGROUND)) == [[Run(1)], []]


def test_one_that_made_way_and_has_nobody_aboard_any_more_is_over() -> None:
    scheduler = Scheduler(5)
    arrived(scheduler, Arrival(1, BACKGROUND), Arrival(2))
    assert scheduler.leave(1) == [Abort(1)]
    assert scheduler.again(1) == [Gone(1), Run(2)]
    assert scheduler.over(2) == [Gone(2)]


def test_whoever_joins_background_work_in_a_hurry_hurries_it() -> None:
    scheduler = Scheduler(5)
    scheduler.arrive(Arrival(1, BACKGROUND, key="x"))
    assert scheduler.arrive(Arrival(2, TYPING, key="x")) == [Join(2, 1)]
    assert scheduler.arrive(Arrival(3)) == []
    assert scheduler.leave(2) == []
    assert scheduler.arrive(Arrival(4)) == [Yield(1)]


# ---- sharing


def test_the_same_requests_share_a_run_whether_it_waits_or_is_under_way() -> None:
    scheduler = Scheduler(1)
    arrived(scheduler, Arrival(1, key="x"), Arrival(2, key="y"))
    assert arrived(scheduler, Arrival(3, key="x"), Arrival(4, key="y")) == [[Join(3, 1)], [Join(4, 2)]]
    assert scheduler.depth == 1
    assert scheduler.leave(1) == []
    assert scheduler.leave(3) == [Abort(1)]
    assert over(scheduler, 1) == [Run(2)]


def test_nobody_joins_a_run_that_is_being_aborted() -> None:
    scheduler = Scheduler(1)
    scheduler.arrive(Arrival(1, key="x"))
    scheduler.leave(1)
    assert scheduler.arrive(Arrival(2, key="x")) == []
    assert over(scheduler, 1) == [Run(2)]


# ---- what makes what pointless


def edit(ticket: int, client: str = "editor", priority: Priority = TYPING, document: str = DOCUMENT) -> Arrival:
    return Arrival(ticket, priority, client, document=document + "x" * ticket)


def test_an_edit_of_the_same_client_supersedes_what_it_typed_before() -> None:
    scheduler = Scheduler(5)
    assert arrived(scheduler, edit(1), edit(2), edit(3)) == [
        [Run(1)],
        [Supersede(1), Abort(1)],
        [Supersede(2), Gone(2)],
    ]
    assert scheduler.depth == 1
    assert over(scheduler, 1) == [Run(3)]


@pytest.mark.parametrize(
    "newer",
    [
        edit(2, client="another"),
        edit(2, client=""),
        edit(2, document=""),
        edit(2, document="something else entirely"),
        Arrival(2, TYPING, "editor", document=DOCUMENT + "x"),  # the same place once more
    ],
)
def test_anything_else_supersedes_nothing(newer: Arrival) -> None:
    assert arrived(Scheduler(5), edit(1), newer) == [[Run(1)], []]


def test_a_session_has_one_request_at_a_time_whatever_it_is() -> None:
    scheduler = Scheduler(5)
    arrived(scheduler, Arrival(1), Arrival(2, session="s", key="x"))
    assert scheduler.arrive(Arrival(3, session="s", key="y")) == [Supersede(2), Gone(2)]
    assert scheduler.arrive(Arrival(4, session="s", key="y")) == [Join(4, 3)]
    assert scheduler.arrive(Arrival(5, session="t", key="z")) == []


def test_a_run_that_somebody_else_shares_goes_on_without_the_superseded() -> None:
    scheduler = Scheduler(5)
    arrived(scheduler, Arrival(1, session="s", key="x"), Arrival(2, key="x"))
    assert scheduler.arrive(Arrival(3, session="s", key="y")) == [Supersede(1)]
    assert scheduler.leave(2) == [Abort(1)]


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=8), st.text(max_size=8))
def test_an_edit_is_what_leaves_nine_tenths(head: str, tail: str, old: str, new: str) -> None:
    older, newer = head + old + tail, head + new + tail
    assert is_edit(older, newer) == is_edit(newer, older)
    assert is_edit(older, older) or not older
    if len(head) + len(tail) >= 0.9 * max(len(older), len(newer)) > 0:
        assert is_edit(older, newer)
    if not set(older) & set(newer) and (older or newer):
        assert not is_edit(older, newer)


# ---- what holds whatever comes


class Airport:
    """Takes the scheduler at its word, and keeps count of what became of everybody."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.max_queue = self.chance.randint(0, 4)
        self.scheduler = Scheduler(self.max_queue)
        self.air: int | None = None
        self.yielding = False
        self.tickets = 0
        self.flight_of: dict[int, int] = {}  # of everybody who still waits for a text
        self.flown: set[int] = set()

    def apply(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Run(flight):
                    assert self.air is None, "two at once"
                    self.air, self.yielding = flight, False
                    self.flown.add(flight)
                case Join(ticket, flight):
                    assert flight in self.flight_of.values()
                    self.flight_of[ticket] = flight
                case Refuse(ticket) | Supersede(ticket):
                    del self.flight_of[ticket]
                case Abort(flight):
                    assert flight == self.air
                    assert flight not in self.flight_of.values()
                case Yield(flight):
                    assert flight == self.air
                    assert not self.yielding
                    self.yielding = True
                case Gone(flight):
                    assert flight != self.air
                    assert flight not in self.flight_of.values()

    def arrive(self) -> None:
        self.tickets += 1
        self.flight_of[self.tickets] = self.tickets
        document = DOCUMENT + self.chance.choice(("", "a", "b"))
        choose = self.chance.choice
        priority, client, session = choose(list(Priority)), choose(("", "a", "b")), choose(("", "", "s"))
        key = choose(("", "", "x", "y"))
        self.apply(self.scheduler.arrive(Arrival(self.tickets, priority, client, session, key, document)))

    def leave(self) -> None:
        ticket = self.chance.randint(1, self.tickets + 1)
        self.flight_of.pop(ticket, None)
        self.apply(self.scheduler.leave(ticket))

    def land(self) -> None:
        if self.air is None:
            return
        flight, self.air = self.air, None
        if self.yielding:
            self.apply(self.scheduler.again(flight))
            return
        for ticket in [ticket for ticket, its in self.flight_of.items() if its == flight]:
            del self.flight_of[ticket]
        self.apply(self.scheduler.over(flight))

    def check(self) -> None:
        wanted = set(self.flight_of.values())
        assert self.scheduler.depth == len(wanted - {self.air})
        assert self.scheduler.depth <= self.max_queue + 1  # one that made way comes on top
        assert self.air is not None or not wanted


@pytest.mark.parametrize("seed", range(0, 1000, 100))
def test_everybody_gets_the_engine_or_is_told_and_one_has_it_at_a_time(seed: int) -> None:
    for number in range(seed, seed + 100):
        airport = Airport(number)
        for _ in range(60):
            airport.chance.choice((airport.arrive, airport.arrive, airport.leave, airport.land))()
            airport.check()
        for _ in range(30):
            airport.land()
            airport.check()
        assert (airport.air, airport.flight_of, airport.scheduler.depth) == (None, {}, 0)
