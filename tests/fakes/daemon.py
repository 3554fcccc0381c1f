"""``rockfill serve`` with the scripted worker in place of the real one; takes the same arguments."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rockfill import config, paths
from rockfill.app import Options, serve
from rockfill.cli.main import parser
from rockfill.state import StateDir

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WORKER = (sys.executable, "-P", str(Path(__file__).with_name("worker.py")))


def main(
    argv: Sequence[str] | None = None, worker: Sequence[str] = WORKER, prepare: Callable[[], None] = lambda: None
) -> None:
    """Serve until told to stop. `prepare` is called in the event loop before anything else."""
    arguments = parser().parse_args(argv)
    config_path = paths.config_file(arguments.config)
    options = Options(
        config.load(config_path), config_path, model=arguments.model or "fake", listen=arguments.listen, worker=worker
    )

    async def run(state: StateDir) -> None:
        prepare()
        await serve(options, state, lambda line: print(line, flush=True))

    with StateDir.acquire(paths.state_dir(arguments.state_dir)) as state:
        asyncio.run(run(state))


if __name__ == "__main__":
    main()
