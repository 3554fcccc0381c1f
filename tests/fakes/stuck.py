"""``rockfill serve`` with the scripted worker that can be brought to a standstill: ``stuck.py FOLDER serve …``.

It stands still for as long as a file of that name is in FOLDER, and leaves ``NAME.reached`` there once it does:

    start   before the page is served
    loop    the event loop as a whole, from SIGUSR1 on
    queue   the engine's supervisor, from its next effect on
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path
from typing import Any

from rockfill import app
from rockfill.engine.supervisor import Supervisor
from tests.fakes import daemon

POLL_S = 0.01


def main(folder: Path, *arguments: str) -> None:
    async def stand_still(name: str) -> None:
        while (folder / name).exists():
            (folder / f"{name}.reached").touch()
            await asyncio.sleep(POLL_S)

    listen, perform = vars(app)["listen"], Supervisor._perform

    async def listen_later(*arguments: Any) -> Any:
        await stand_still("start")
        return await listen(*arguments)

    async def perform_later(supervisor: Supervisor, effect: Any) -> None:
        await stand_still("queue")
        await perform(supervisor, effect)

    def block(*_: object) -> None:
        while (folder / "loop").exists():
            (folder / "loop.reached").touch()
            time.sleep(POLL_S)

    vars(app)["listen"] = listen_later
    Supervisor._perform = perform_later  # type: ignore[method-assign,assignment] # to be stuck in
    signal.signal(signal.SIGUSR1, block)
    daemon.main(arguments)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
