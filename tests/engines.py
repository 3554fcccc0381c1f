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

from rockfill.engine.events import Timeouts
from rockfill.engine.process import Child
from rockfill.engine.supervisor import Supervisor
from rockfill.snapshots import EngineSnapshot, Phase, Target

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from rockfill.engine.process import Listener
    from rockfill.engine.supervisor import Spawner

ROOT = Path(__file__).parent.parent
FAKES = ROOT / "tests" / "fakes"
WORKER = (sys.executable, "-P", str(FAKES / "worker.py"))
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT / 'daemon'}{os.pathsep}{ROOT}"}

# Beyond a unit test's own limit, so that no deadline passes but the one that a test shortens.
PATIENT = Timeouts(
    hello_s=60,
    load_s=60,
    accepted_s=60,
    first_token_s=60,
    token_gap_s=60,
    abort_s=60,
    stop_s=60,
    ping_s=60,
    pong_s=60,
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
    argv: Sequence[str] = WORKER, timeouts: Timeouts = PATIENT, *, spawn: Spawner | None = None
) -> AsyncIterator[Engine]:
    """A supervisor whose workers are started with `argv`, or by `spawn`; closed, its worker gone, at the end."""

    def changed(snapshot: EngineSnapshot) -> None:
        running.snapshots.append(snapshot)
        running.published.set()

    def printed(line: str) -> None:
        running.lines.append(line)
        running.published.set()

    supervisor = Supervisor(spawn or partial(_spawn, argv), timeouts, changed=changed, printed=printed)
    running = Engine(supervisor, [])
    task = asyncio.create_task(running.supervisor.run())
    try:
        yield running
    finally:
        running.supervisor.close()
        await task


async def _spawn(argv: Sequence[str], listener: Listener) -> Child:
    return await Child.spawn(argv, listener, ENVIRONMENT)
