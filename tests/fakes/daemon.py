"""``rockfill serve`` with the scripted worker in place of the real one; takes the same arguments."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from rockfill import config, paths
from rockfill.app import Options, serve
from rockfill.cli.main import parser
from rockfill.state import StateDir

WORKER = (sys.executable, "-P", str(Path(__file__).with_name("worker.py")))

if __name__ == "__main__":
    arguments = parser().parse_args()
    config_path = paths.config_file(arguments.config)
    options = Options(
        config.load(config_path), config_path, model=arguments.model or "fake", listen=arguments.listen, worker=WORKER
    )
    with StateDir.acquire(paths.state_dir(arguments.state_dir)) as state:
        asyncio.run(serve(options, state, lambda line: print(line, flush=True)))
