"""Real workers under a real supervisor, for the tests of whatever drives an engine."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rockfill.engine import machine
from rockfill.engine.events import Timeouts
from rockfill.engine.process import Child
from rockfill.engine.supervisor import Supervisor
from rockfill.errors import Problem
from rockfill.snapshots import EngineSnapshot, Phase, Target

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from rockfill.engine.process import Listener
    from rockfill.engine.supervisor import Generation, Spawner
    from rockfill.errors import ProblemInfo

ROOT = Path(__file__).parent.parent
FAKES = ROOT / "tests" / "fakes"
WORKER = (sys.executable, "-P", str(FAKES / "worker.py"))
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT / 'daemon'}{os.pathsep}{ROOT}"}

# Beyond a unit test's own limit, so that no deadline passes but the one that a test shortens.
PATIENCE_S = 600
PATIENT = Timeouts(
    hello_s=PATIENCE_S,
    load_s=PATIENCE_S,
    accepted_s=PATIENCE_S,
    first_token_s=PATIENCE_S,
    token_gap_s=PATIENCE_S,
    abort_s=PATIENCE_S,
    stop_s=PATIENCE_S,
    ping_s=PATIENCE_S,
    pong_s=PATIENCE_S,
    idle_unload_s=0,
)


def rogue(mode: str) -> tuple[str, ...]:
    """The command of a child that breaks the link's rules in the way of `fakes/rogue.py`."""
    return (sys.executable, "-P", str(FAKES / "rogue.py"), mode)


class Script:
    """What the scripted worker does from its next run on (`fakes/worker.py` lists the keys)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.says()

    @property
    def target(self) -> Target:
        """The "model" that runs this script."""
        return Target(name="fake", engine="fake", path=str(self.path), family="codegemma")

    def says(self, **script: object) -> None:
        temporary = self.path.with_suffix(".new")
        temporary.write_text(json.dumps(script))
        temporary.replace(self.path)


@dataclass(slots=True)
class Engine:
    """A running supervisor, every snapshot that it has published, and the lines that it has passed on."""

    supervisor: Supervisor
    snapshots: list[EngineSnapshot]
    lines: list[str] = field(default_factory=list)
    published: asyncio.Event = field(default_factory=asyncio.Event)

    async def hears(self, line: str) -> None:
        """Wait until a worker has printed `line`."""
        while line not in self.lines:
            self.published.clear()
            await self.published.wait()

    async def reaches(self, *phases: Phase) -> EngineSnapshot:
        """Wait until the engine is in one of `phases`."""
        while self.supervisor.snapshot.phase not in phases:
            self.published.clear()
            await self.published.wait()
        return self.supervisor.snapshot


@asynccontextmanager
async def engine(
    argv: Sequence[str] = WORKER,
    timeouts: Timeouts = PATIENT,
    *,
    spawn: Spawner | None = None,
    linger_s: float = PATIENCE_S,
) -> AsyncIterator[Engine]:
    """A supervisor whose workers are started with `argv`, or by `spawn`; closed, its worker gone, at the end.

    How long an ending worker may take beyond `timeouts` is as long as the machine needs, and `linger_s` after its link.
    """

    def changed(snapshot: EngineSnapshot) -> None:
        running.snapshots.append(snapshot)
        running.published.set()

    def printed(line: str) -> None:
        running.lines.append(line)
        running.published.set()

    supervisor = Supervisor(spawn or partial(_spawn, argv), timeouts, changed=changed, printed=printed)
    running = Engine(supervisor, [])
    with pytest.MonkeyPatch.context() as patient:
        patient.setattr(machine, "LINGER_S", linger_s)
        patient.setattr(machine, "CLOSING_REAP_S", PATIENCE_S)
        task = asyncio.create_task(running.supervisor.run())
        try:
            yield running
        finally:
            running.supervisor.close()
            await task


async def ending(generation: Generation) -> tuple[str, ProblemInfo]:
    """The text that came, and the problem that it ended with."""
    text = ""
    try:
        async for part in generation:
            text += part
    except Problem as problem:
        return text, problem.info
    raise AssertionError(f"it ended well: {text}")


async def _spawn(argv: Sequence[str], listener: Listener) -> Child:
    return await Child.spawn(argv, listener, ENVIRONMENT)
