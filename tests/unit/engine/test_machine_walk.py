"""What holds after any events in any order: of callers, of a child that may say anything, and of the clock."""

from __future__ import annotations

import random
from collections import Counter

import pytest

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
    Unload,
)
from rockfill.engine.machine import Limit, State, step
from rockfill.errors import Code
from rockfill.snapshots import Phase
from tests.unit.engine.lifecycle import CRASH, INVALID, NONSENSE, TIMEOUTS, A, B

WITH_A_CHILD = (Phase.STARTING, Phase.LOADING, Phase.READY, Phase.BUSY, Phase.STOPPING)


class Walk:
    """Plays the supervisor's part: carries effects out on a child that is only a number, and keeps count."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.trail: list[Event] = []
        self.state = State(TIMEOUTS)
        self.child: int | None = None
        self.jobs: list[int] = []
        self.waiters: list[int] = []
        self.answered: Counter[int] = Counter()
        self.in_worker: int | None = None  # the job that the child was last told to run

    def feed(self, event: Event) -> None:
        self.trail.append(event)
        before = self.state
        if isinstance(event, RunEnded) and event.problem is None and self.runs(event.ticket):
            self.answered[event.ticket] += 1  # the child's own end of a job reaches the caller without an effect
        self.state, effects = step(before, event)
        if self.state == before and not effects:
            assert self.state is before
        for effect in effects:
            self.carry_out(effect)

    def carry_out(self, effect: Effect) -> None:
        match effect:
            case Spawn(epoch):
                assert self.child is None, "two children at once"
                self.child, self.in_worker = epoch, None
            case SendLoad(target):
                assert target == self.state.target
                assert self.child is not None
            case SendGenerate(ticket):
                assert self.child is not None
                assert self.state.running is not None
                assert self.state.running.ticket == ticket
                self.in_worker = ticket
            case SendAbort(ticket):
                assert ticket == self.in_worker
            case SendPing() | Terminate() | Kill():
                assert self.child is not None
            case Settle(ticket, _):
                assert ticket in self.waiters
                self.answered[ticket] += 1
            case EndRun(ticket, _):
                assert ticket in self.jobs
                self.answered[ticket] += 1

    def runs(self, ticket: int) -> bool:
        running = self.state.running
        return self.state.phase is Phase.BUSY and running is not None and running.ticket == ticket

    def new_ticket(self) -> int:
        return len(self.jobs) + len(self.waiters) + 1

    # ---- what happens

    def ensure_ready(self) -> None:
        ticket = self.new_ticket()
        self.waiters.append(ticket)
        self.feed(EnsureReady(ticket, self.chance.choice((A, A, A, B))))

    def submit(self) -> None:
        ticket = self.new_ticket()
        self.jobs.append(ticket)
        self.feed(Submit(ticket, self.chance.choice((A, A, A, B)), self.chance.choice(("", "x"))))

    def cancel(self) -> None:
        self.feed(Cancel(self.a_ticket()))

    def command(self) -> None:
        self.feed(self.chance.choice((Unload(), Restart(), Pin(pinned=True), Pin(pinned=False))))

    def the_child_goes_on(self) -> None:
        """What it would say next if all went well; this is what takes a walk through the whole lifecycle."""
        if self.child is None:
            return
        running = self.state.running.ticket if self.state.running else 0
        match self.state.phase, self.state.deadline and self.state.deadline.limit:
            case Phase.STARTING, _:
                self.feed(HelloCame(self.child))
            case Phase.LOADING, _:
                self.feed(LoadDone(self.child))
            case Phase.BUSY, Limit.ACCEPTED:
                self.feed(AcceptedCame(self.child, running))
            case Phase.BUSY, Limit.FIRST_TOKEN:
                self.feed(FirstToken(self.child, running))
            case Phase.BUSY, _:
                self.feed(RunEnded(self.child, running))
            case Phase.READY, Limit.PONG:
                self.feed(PongCame(self.child))
            case Phase.STOPPING, _:
                self.the_child_exits()
            case _:
                pass

    def the_child_says_anything(self) -> None:
        if self.child is None:
            return
        epoch, ticket = self.child, self.a_ticket()
        sayings: tuple[Event, ...] = (
            HelloCame(epoch),
            LoadDone(epoch),
            LoadFailed(epoch, self.chance.choice((CRASH, INVALID))),
            AcceptedCame(epoch, ticket),
            FirstToken(epoch, ticket),
            RunEnded(epoch, ticket, self.chance.choice((None, INVALID))),
            PongCame(epoch),
            Recycle(epoch),
            LinkLost(epoch, self.chance.choice((None, NONSENSE))),
            PongCame(epoch),
            Recycle(epoch),
        )
        self.feed(self.chance.choice(sayings))

    def an_earlier_child_is_heard(self) -> None:
        epoch = self.state.epoch - 1
        self.feed(self.chance.choice((HelloCame(epoch), LoadDone(epoch), LinkLost(epoch, None), Exited(epoch, CRASH))))

    def the_child_exits(self) -> None:
        if self.child is not None:
            epoch, self.child = self.child, None
            self.feed(Exited(epoch, CRASH))

    def the_deadline_passes(self) -> None:
        if self.state.deadline is not None:
            self.feed(DeadlinePassed(self.state.deadline.serial))

    def an_old_deadline_passes(self) -> None:
        self.feed(DeadlinePassed(self.state.serial - 1))

    def step(self) -> None:
        [action] = self.chance.choices(tuple(WEIGHTS), tuple(WEIGHTS.values()))
        action(self)
        self.check()

    def end(self) -> None:
        """Closing ends everything, wherever the walk has led to."""
        self.feed(Close())
        self.check()
        self.submit()  # too late, but before the child is gone
        self.the_child_exits()
        self.ensure_ready()
        self.submit()
        self.check()
        assert self.state.phase is Phase.CLOSED
        assert self.answered == Counter(self.jobs + self.waiters)

    def a_ticket(self) -> int:
        """Mostly one that still means something."""
        known = [waiter.ticket for waiter in self.state.waiters] + [self.in_worker or 0]
        return self.chance.choice((*known, self.chance.randint(0, self.new_ticket())))

    # ---- what holds at every step

    def check(self) -> None:
        self.check_that_everybody_is_answered_once_and_nobody_forgotten()
        self.check_that_a_deadline_runs_wherever_there_is_a_child()
        self.check_that_only_a_wedged_worker_outlives_its_state()
        self.check_that_the_state_makes_sense()

    def check_that_everybody_is_answered_once_and_nobody_forgotten(self) -> None:
        remembered = [waiter.ticket for waiter in self.state.waiters]
        if self.state.running is not None:
            remembered.append(self.state.running.ticket)
        assert max(self.answered.values(), default=1) == 1
        assert sorted(remembered) == [ticket for ticket in range(1, self.new_ticket()) if not self.answered[ticket]]

    def check_that_a_deadline_runs_wherever_there_is_a_child(self) -> None:
        limit = self.state.deadline.limit if self.state.deadline else None
        if self.state.phase in WITH_A_CHILD:
            assert limit not in (None, Limit.RETRY)
            assert (limit in (Limit.PING, Limit.PONG)) == (self.state.phase is Phase.READY)
            assert self.child == self.state.epoch
        elif self.state.phase is Phase.FAILED:
            assert limit in (None, Limit.RETRY)
        else:
            assert limit is None

    def check_that_only_a_wedged_worker_outlives_its_state(self) -> None:
        state = self.state
        if state.phase in (Phase.STOPPED, Phase.FAILED, Phase.CLOSED) and self.child is not None:
            assert state.problem is not None
            assert state.problem.code is Code.NPU_WEDGED

    def check_that_the_state_makes_sense(self) -> None:
        state = self.state
        assert (state.then is not None) == (state.phase is Phase.STOPPING)
        if state.phase not in (Phase.STOPPED, Phase.CLOSED):
            assert state.target is not None
        if state.running is not None:
            assert state.phase in (Phase.BUSY, Phase.STOPPING)
        if state.waiters:
            assert state.phase in (Phase.STARTING, Phase.LOADING, Phase.STOPPING)
        if state.phase is Phase.FAILED:
            assert state.problem is not None
        if state.phase in (Phase.READY, Phase.BUSY):
            assert state.problem is None
        assert (state.phase is Phase.BUSY) <= (state.running is not None)


WEIGHTS = {
    Walk.ensure_ready: 5,
    Walk.submit: 20,
    Walk.cancel: 6,
    Walk.command: 4,
    Walk.the_child_goes_on: 50,
    Walk.the_child_says_anything: 6,
    Walk.an_earlier_child_is_heard: 1,
    Walk.the_child_exits: 4,
    Walk.the_deadline_passes: 8,
    Walk.an_old_deadline_passes: 1,
}


@pytest.mark.parametrize("hundred", range(10))
def test_what_must_hold_holds_on_a_hundred_random_walks(hundred: int) -> None:
    phases = set()
    for seed in range(hundred * 100, hundred * 100 + 100):
        walk = Walk(seed)
        try:
            for _ in range(walk.chance.randint(1, 80)):
                walk.step()
                phases.add(walk.state.phase)
            walk.end()
        except AssertionError as error:
            error.add_note("\n".join(map(repr, walk.trail)))
            raise
    assert phases == set(Phase) - {Phase.CLOSED}  # else the walks prove little
