"""Fetches one model as the daemon does, and nothing else: for tests that end it by force, or take its disk away.

``fetcher.py STATE-DIR HUB-URL REPOSITORY [SYNC-BYTES]`` goes on with what is unfinished, or begins, and prints the last
word on it as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from rockfill.bus import Bus
from rockfill.compat.verdict import BoardFacts
from rockfill.downloads.jobs import Downloads
from rockfill.downloads.models import ModelLibrary, Request
from rockfill.downloads.runtimes import RuntimeLibrary
from rockfill.errors import Problem
from rockfill.hub.client import Hub
from rockfill.hub.transfer import SYNC_BYTES, Patience, Transfer
from rockfill.state import StateDir
from rockfill.store.models import ModelStore
from rockfill.store.shelf import Shelf

QUICK = Patience(attempts=3, first_pause_s=0.01, longest_pause_s=0.05, silence_s=5)


async def fetch(state: StateDir, url: str, repository: str, sync_bytes: int) -> dict[str, object]:
    shelves = {kind: Shelf(state.path / f"{kind}s") for kind in ("model", "runtime")}
    models = ModelStore([state.path / "models"])
    hub = Hub(url, lambda: None, state.path / "hub-cache")

    def transfer(kind: str) -> Transfer:
        return Transfer(url, patience=QUICK, sync_bytes=sync_bytes)

    downloads = Downloads(shelves, transfer, Bus())
    runtimes = RuntimeLibrary(shelves["runtime"], downloads, state, configured="", endpoint=url, system=())
    library = ModelLibrary(hub, models, shelves["model"], downloads, runtimes, state, BoardFacts, transfer)
    await downloads.take_up()
    if not downloads.jobs:
        await library.pull(Request(repository, accept_licence=True))
    working = asyncio.create_task(downloads.run())
    await downloads.idle()
    working.cancel()
    await asyncio.wait([working])
    return downloads.jobs[-1].value() if downloads.jobs else {"state": "here"}


def main(state_dir: str, url: str, repository: str, sync_bytes: int = SYNC_BYTES) -> None:
    try:
        with StateDir.acquire(Path(state_dir)) as state:
            print(json.dumps(asyncio.run(fetch(state, url, repository, sync_bytes))))
    except Problem as problem:
        print(json.dumps({"state": "refused", "problem": problem.info.value()}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], *map(int, sys.argv[4:]))
