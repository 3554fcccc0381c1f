"""Deadlines where the event loop, or the whole machine, stood still meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest

from rockfill.engine import supervisor as supervision
from rockfill.engine.machine import Deadline, Limit
from rockfill.errors import Code
from rockfill.link.messages import Accepted, Generate, Trimmed
from rockfill.snapshots import Phase
from tests.engines import Engine, Script, ending, engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from rockfill.engine.supervisor import Generation, Supervisor


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path / "script.json")


@pytest.fixture
async def running() -> AsyncIterator[Engine]:
    async with engine() as found:
        yield found


async def taken_by_a_stopped_worker(running: Engine, script: Script) -> tuple[Generation, Deadline, int]:
    """A run that its worker has not taken up, the deadline for that, and the worker."""
    await running.supervisor.ensure_ready(script.target)
    pid = running.supervisor.snapshot.worker_pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    await asyncio.to_thread(os.waitid, os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
    generation = running.supervisor.submit(script.target, Generate(0, "a"))
    await running.reaches(Phase.BUSY)
    armed = running.supervisor._armed
    assert armed is not None
    assert armed.limit is Limit.ACCEPTED
    return generation, armed, pid


async def settles(supervisor: Supervisor) -> None:
    """What the loop has before it now is done, and the supervisor's part of it as well."""
    for _ in range(3):
        await asyncio.sleep(0)
    await supervisor.heartbeat()


async def passes_late(running: Engine, deadline: Deadline) -> None:
    """The timer of `deadline` is seen a minute after its time."""
    loop, supervisor = asyncio.get_running_loop(), running.supervisor
    assert supervisor._timer is not None
    supervisor._timer.cancel()
    supervisor._timer = loop.call_at(loop.time() - 60, supervisor._expire, deadline)
    await settles(supervisor)


async def test_a_deadline_that_is_noticed_late_is_prolonged_by_that(running: Engine, script: Script) -> None:
    generation, deadline, pid = await taken_by_a_stopped_worker(running, script)
    await passes_late(running, deadline)
    assert running.supervisor.snapshot.phase is Phase.BUSY
    os.kill(pid, signal.SIGCONT)
    assert [text async for text in generation] == ["a"]
    assert running.supervisor.snapshot.worker_pid == pid


async def test_but_once_only(running: Engine, script: Script) -> None:
    generation, deadline, _ = await taken_by_a_stopped_worker(running, script)
    await passes_late(running, deadline)
    await passes_late(running, deadline)
    assert (await ending(generation))[1].code is Code.ENGINE_HUNG


async def passes(running: Engine) -> None:
    """The timer of the deadline that is armed goes off, in time."""
    supervisor = running.supervisor
    deadline, timer = supervisor._armed, supervisor._timer
    assert deadline is not None
    assert timer is not None
    timer.cancel()
    supervisor._expire(deadline)
    await settles(supervisor)


async def test_a_worker_that_is_at_something_may_take_up_a_request_later(
    running: Engine, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def at_work(pid: int) -> bool:
        asked.append(pid)
        return True

    monkeypatch.setattr(supervision, "is_at_work", at_work)
    generation, _, pid = await taken_by_a_stopped_worker(running, script)
    for _ in range(supervision.AT_WORK_FACTOR - 1):
        await passes(running)
        assert running.supervisor.snapshot.phase is Phase.BUSY
    assert set(asked) == {pid}
    await passes(running)
    assert (await ending(generation))[1].code is Code.ENGINE_HUNG


async def test_one_that_is_at_nothing_may_not(running: Engine, script: Script) -> None:
    generation, _, _ = await taken_by_a_stopped_worker(running, script)
    await passes(running)
    assert (await ending(generation))[1].code is Code.ENGINE_HUNG


async def test_what_was_said_in_the_same_turn_counts_as_in_time(running: Engine, script: Script) -> None:
    generation, deadline, pid = await taken_by_a_stopped_worker(running, script)
    supervisor = running.supervisor
    supervisor.heard(supervisor._state.epoch, Accepted(generation.request.id, 1, Trimmed()))
    supervisor._expire(deadline)
    await settles(supervisor)
    assert supervisor.snapshot.phase is Phase.BUSY
    os.kill(pid, signal.SIGCONT)
    assert [text async for text in generation] == ["a"]
