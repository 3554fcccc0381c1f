from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rockfill.bus import Bus, Event, Topic
from rockfill.compat.verdict import BoardFacts
from rockfill.downloads.jobs import Downloads
from rockfill.downloads.models import ModelLibrary
from rockfill.downloads.runtimes import RuntimeLibrary
from rockfill.hub.client import Hub
from rockfill.hub.transfer import Patience, Transfer
from rockfill.snapshots import Target
from rockfill.state import StateDir
from rockfill.store.models import ModelStore
from rockfill.store.shelf import Shelf
from tests.fakes.hub import HubServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rockfill.downloads.jobs import Job
    from rockfill.downloads.plan import Plan

QUICK = Patience(attempts=2, first_pause_s=0.001, longest_pause_s=0.01)


@dataclass
class Place:
    """A state directory with all the services on it. `board` may be changed at any time."""

    state: StateDir
    hub: HubServer
    board: BoardFacts = field(default_factory=lambda: BoardFacts("rk3588", 8 * 10**9, "0.9.8"))
    token: str | None = None
    configured: str = ""
    system: tuple[Path, ...] = ()
    events: list[Event] = field(default_factory=list)
    arrived: list[Target] = field(default_factory=list)
    bus: Bus = field(init=False)
    downloads: Downloads = field(init=False)
    models: ModelStore = field(init=False)
    runtimes: RuntimeLibrary = field(init=False)
    library: ModelLibrary = field(init=False)

    def __post_init__(self) -> None:
        self.open()

    def open(self) -> None:
        self.bus = Bus()
        self.bus.subscribe(self.events.append)
        shelves = {kind: Shelf(self.state.path / f"{kind}s") for kind in ("model", "runtime")}
        self.models = ModelStore([self.state.path / "models"])
        hub = Hub(self.hub.url, lambda: self.token, self.state.path / "hub-cache")
        self.downloads = Downloads(shelves, self._transfer, self.bus, installed=self._installed)
        self.runtimes = RuntimeLibrary(
            shelves["runtime"],
            self.downloads,
            self.state,
            configured=self.configured,
            endpoint=f"{self.hub.url}/airockchip/rknn-llm",
            system=self.system,
        )
        self.library = ModelLibrary(
            hub,
            self.models,
            shelves["model"],
            self.downloads,
            self.runtimes,
            self.state,
            lambda: self.board,
            self._transfer,
            self.arrived.append,
        )

    def _transfer(self, kind: str) -> Transfer:
        return Transfer(self.hub.url, lambda: self.token if kind == "model" else None, patience=QUICK)

    async def reopen(self) -> None:
        """Build the services anew, as a start of the daemon does."""
        await asyncio.to_thread(self.open)

    async def _installed(self, plan: Plan) -> None:
        await self.library.installed(plan)

    async def work(self) -> dict[str, Job]:
        """Work the queue off; the downloads by their ids."""
        working = asyncio.create_task(self.downloads.run())
        await self.downloads.idle()
        working.cancel()
        await asyncio.wait([working])
        return {job.id: job for job in self.downloads.jobs}

    def happened(self) -> list[tuple[str, Any]]:
        """What was published for automations: its type, and the id of the download."""
        return [(event.type, event.value["id"]) for event in self.events if event.topic is Topic.EVENTS]


@pytest.fixture
def place(tmp_path: Path, hub: HubServer) -> Iterator[Place]:
    with StateDir.acquire(tmp_path / "state") as state:
        yield Place(state, hub)
