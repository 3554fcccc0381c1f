"""What the engine was told is so for whoever asks after the answer, whatever the supervisor does meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rockfill.api.commands import engine as commands
from rockfill.api.commands.table import NoParameters
from rockfill.engine.process import Child
from rockfill.snapshots import Phase
from tests.engines import ENVIRONMENT, WORKER, Script, engine

if TYPE_CHECKING:
    import pytest

    from rockfill.engine.process import Listener


async def test_a_pin_is_answered_once_it_holds(script: Script) -> None:
    """Also while a worker is being started, when the supervisor takes up nothing else."""
    spawning = asyncio.Event()

    async def spawn(listener: Listener) -> Child:
        spawning.set()
        await asyncio.wait([pinning], timeout=0.1)
        return await Child.spawn(WORKER, listener, ENVIRONMENT)

    async def pin() -> bool:
        await spawning.wait()
        await commands.pin.run(NoParameters(), running.supervisor)
        return running.supervisor.snapshot.pinned

    async with engine(spawn=spawn) as running:
        pinning = asyncio.create_task(pin())
        await running.supervisor.ensure_ready(script.target)
        assert await pinning
        await commands.unpin.run(NoParameters(), running.supervisor)
        assert not running.supervisor.snapshot.pinned
        await commands.unload.run(NoParameters(), running.supervisor)
        assert running.supervisor.snapshot.phase is not Phase.READY


async def test_a_supervisor_that_is_stuck_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch, script: Script) -> None:
    monkeypatch.setattr(commands, "TAKEN_UP_S", 0.05)
    stuck = asyncio.Event()

    async def spawn(listener: Listener) -> Child:
        await stuck.wait()
        return await Child.spawn(WORKER, listener, ENVIRONMENT)

    async with engine(spawn=spawn) as running:
        loading = asyncio.create_task(running.supervisor.ensure_ready(script.target))
        await asyncio.sleep(0)
        assert await commands.restart.run(NoParameters(), running.supervisor) == {}
        stuck.set()
        await loading
