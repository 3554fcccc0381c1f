"""What holds after any events in any order: of callers, of a child that may say anything, and of the clock."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

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
    Restart,
    RunEnded,
    SendAbort,
    SendGenerate,
    SendLoad,
    Settle,
    Spawn,
    Submit,
    Terminate,
    Unload,
)
from rockfill.engine.machine import Limit, Next, State, step
from rockfill.errors import Code
from rockfill.snapshots import Phase, Target
from tests.unit.engine.lifecycle import CRASH, INVALID, NONSENSE, TIMEOUTS, A, B

TARGETS = st.sampled_from([A, B])
WITH_A_CHILD = (Phase.STARTING, Phase.LOADING, Phase.BUSY, Phase.STOPPING)


class Lifecycle(RuleBasedStateMachine):
    """Plays the supervisor's part: carries effects out on a child that is only a number, and keeps count."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State(TIMEOUTS)
        self.child: int | None = None
        self.jobs: list[int] = []
        self.waiters: list[int] = []
        self.answered: Counter[int] = Counter()
        self.in_worker: int | None = None  # the job that the child was last told to run

    def feed(self, event: Event) -> None:
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
            case Terminate() | Kill():
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

    # ---- callers

    @rule(model=TARGETS)
    def ensure_ready(self, model: Target) -> None:
        ticket = self.new_ticket()
        self.waiters.append(ticket)
        self.feed(EnsureReady(ticket, model))

    @rule(model=TARGETS, fingerprint=st.sampled_from(["", "x"]))
    def submit(self, model: Target, fingerprint: str) -> None:
        ticket = self.new_ticket()
        self.jobs.append(ticket)
        self.feed(Submit(ticket, model, fingerprint))

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.feed(Cancel(data.draw(st.integers(0, self.new_ticket()))))

    @rule(event=st.sampled_from([Unload(), Restart()]))
    def command(self, event: Event) -> None:
        self.feed(event)

    @precondition(lambda self: self.new_ticket() > 8)  # late, or few walks get anywhere
    @rule()
    def close(self) -> None:
        self.feed(Close())

    # ---- the child, well-behaved or not

    @precondition(lambda self: self.child is not None)
    @rule(data=st.data())
    def the_child_goes_on(self, data: st.DataObject) -> None:
        """What it would say next; this is what takes walks through the whole lifecycle."""
        assert self.child is not None
        epoch, running = self.child, self.state.running.ticket if self.state.running else 0
        match self.state.phase, self.state.deadline and self.state.deadline.limit:
            case Phase.STARTING, _:
                self.feed(HelloCame(epoch))
            case Phase.LOADING, _:
                fails = data.draw(st.sampled_from([False, False, True]))
                self.feed(LoadFailed(epoch, INVALID) if fails else LoadDone(epoch))
            case Phase.BUSY, Limit.ACCEPTED:
                self.feed(AcceptedCame(epoch, running))
            case Phase.BUSY, Limit.FIRST_TOKEN:
                self.feed(FirstToken(epoch, running))
            case Phase.BUSY, _:
                self.feed(RunEnded(epoch, running))
            case Phase.STOPPING, _:
                self.exits()
            case _:
                pass

    @precondition(lambda self: self.child is not None)
    @rule(data=st.data())
    def the_child_says_anything(self, data: st.DataObject) -> None:
        assert self.child is not None
        epoch = data.draw(st.integers(self.child - 1, self.child))
        ticket = data.draw(st.integers(0, self.new_ticket()))
        sayings: list[Event] = [
            HelloCame(epoch),
            LoadDone(epoch),
            LoadFailed(epoch, CRASH),
            AcceptedCame(epoch, ticket),
            FirstToken(epoch, ticket),
            RunEnded(epoch, ticket),
            RunEnded(epoch, ticket, INVALID),
            LinkLost(epoch, None),
            LinkLost(epoch, NONSENSE),
        ]
        event = data.draw(st.sampled_from(sayings))
        if epoch == self.child or not isinstance(event, RunEnded):
            self.feed(event)

    @precondition(lambda self: self.child is not None)
    @rule()
    def exits(self) -> None:
        assert self.child is not None
        epoch, self.child = self.child, None
        self.feed(Exited(epoch, CRASH))

    # ---- the clock

    @precondition(lambda self: self.state.deadline is not None)
    @rule(late=st.booleans())
    def deadline_passes(self, late: bool) -> None:
        assert self.state.deadline is not None
        self.feed(DeadlinePassed(self.state.deadline.serial - late))

    # ---- what holds

    @invariant()
    def nobody_is_answered_twice(self) -> None:
        assert all(count == 1 for count in self.answered.values())

    @invariant()
    def whoever_is_unanswered_is_remembered(self) -> None:
        remembered = [waiter.ticket for waiter in self.state.waiters]
        if self.state.running is not None:
            remembered.append(self.state.running.ticket)
        assert sorted(remembered) == [ticket for ticket in range(1, self.new_ticket()) if not self.answered[ticket]]

    @invariant()
    def a_deadline_runs_wherever_a_child_owes_something(self) -> None:
        state = self.state
        limit = state.deadline.limit if state.deadline else None
        if state.phase in WITH_A_CHILD:
            assert limit not in (None, Limit.RETRY)
            assert self.child == state.epoch
        elif state.phase is Phase.FAILED:
            assert limit in (None, Limit.RETRY)
        else:
            assert limit is None

    @invariant()
    def the_state_makes_sense(self) -> None:
        state = self.state
        assert (state.then is not None) == (state.phase is Phase.STOPPING)
        assert (state.target is None) <= (state.phase in (Phase.STOPPED, Phase.CLOSED))
        assert (state.phase is Phase.BUSY) <= (state.running is not None)
        assert (state.running is not None) <= (state.phase in (Phase.BUSY, Phase.STOPPING))
        assert bool(state.waiters) <= (state.phase in (Phase.STARTING, Phase.LOADING, Phase.STOPPING))
        assert (state.phase is Phase.FAILED) <= (state.problem is not None)
        if state.phase in (Phase.READY, Phase.BUSY):
            assert state.problem is None

    @invariant()
    def only_a_wedged_worker_outlives_its_state(self) -> None:
        state = self.state
        if state.phase in (Phase.STOPPED, Phase.FAILED, Phase.CLOSED) and self.child is not None:
            assert state.problem is not None
            assert state.problem.code is Code.NPU_WEDGED

    def teardown(self) -> None:
        """Closing ends everything, wherever the walk has led to."""
        self.feed(Close())
        assert self.state.phase is Phase.CLOSED or self.state.then is Next.CLOSE
        if self.child is not None:
            self.exits()
        self.ensure_ready(A)
        self.submit(B, "")
        assert self.state.phase is Phase.CLOSED
        assert self.child is None
        assert self.answered == Counter(self.jobs + self.waiters)


TestLifecycle = Lifecycle.TestCase
TestLifecycle.settings = settings(max_examples=60, stateful_step_count=50, deadline=None, derandomize=True)
