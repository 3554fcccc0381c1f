"""Everything about models and runtimes, built together: for the daemon, and for a command that works without one."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rockfill.compat.verdict import BoardFacts
from rockfill.downloads.jobs import Downloads
from rockfill.downloads.models import ModelLibrary
from rockfill.downloads.runtimes import RuntimeLibrary
from rockfill.hardware.board import read_board
from rockfill.hub.client import Hub
from rockfill.hub.transfer import Limit, Transfer
from rockfill.store.runtimes import SYSTEM_DIRECTORIES
from rockfill.store.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Callable

    from rockfill.bus import Bus
    from rockfill.config import Config
    from rockfill.downloads.plan import Plan
    from rockfill.snapshots import Target
    from rockfill.state import StateDir
    from rockfill.store.models import ModelStore


@dataclass(frozen=True, slots=True)
class Libraries:
    """The services of this package."""

    downloads: Downloads
    models: ModelLibrary
    runtimes: RuntimeLibrary

    async def run(self) -> None:
        """Take up what was left unfinished and fetch whatever is asked for, until cancelled."""
        await self.runtimes.refresh()
        await self.downloads.take_up()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.downloads.run(), name="download queue")
            tasks.create_task(self.models.run(), name="chosen model")


def board_facts() -> BoardFacts:
    """What a verdict needs to know of this machine. Blocks for some milliseconds."""
    board = read_board()
    return BoardFacts(board.platform or "", board.ram_bytes, board.npu.version)


def build_libraries(
    config: Config,
    state: StateDir,
    models: ModelStore,
    bus: Bus,
    board: Callable[[], BoardFacts],
    *,
    arrived: Callable[[Target], None] = lambda target: None,
    runtime_arrived: Callable[[], None] = lambda: None,
) -> Libraries:
    """The services, given just what each uses.

    `arrived` is called with a model that was to be run once it is here, and `runtime_arrived` when
    there is another runtime.
    """
    limit = Limit(config.hub.bandwidth_limit_mb_s * 1e6)
    hub = Hub(
        config.hub.endpoint_in_use,
        lambda: os.environ.get("HF_TOKEN") or state.hub_token(),
        state.path / "hub-cache",
    )
    shelves = {"model": Shelf(state.path / "models"), "runtime": Shelf(state.path / "runtimes")}

    def transfer(kind: str) -> Transfer:
        if kind == "runtime":
            return Transfer(config.hub.runtimes, limit=limit)
        return Transfer(hub.endpoint, lambda: hub.token, limit=limit)

    async def installed(plan: Plan) -> None:
        await library.installed(plan)

    downloads = Downloads(shelves, transfer, bus, installed=installed)
    runtimes = RuntimeLibrary(
        shelves["runtime"],
        downloads,
        state,
        configured=config.rkllm.library_in_use,
        endpoint=config.hub.runtimes,
        system=SYSTEM_DIRECTORIES,
        arrived=runtime_arrived,
    )
    library = ModelLibrary(hub, models, shelves["model"], downloads, runtimes, state, board, transfer, arrived)
    return Libraries(downloads, library, runtimes)
