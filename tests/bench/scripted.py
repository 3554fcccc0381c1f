"""The appliance with an engine that costs nothing: `fakes/worker.py` without what it spends on misbehaving.

One module, two roles: ``python -m tests.bench.scripted serve …`` is the daemon, ``python -m tests.bench.scripted FD``
the worker that it starts.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any

from tests.fakes.worker import FakeSession

if TYPE_CHECKING:
    from rockfill.link.messages import Load
    from rockfill.session import Run

ENDED = "ended"  # beside the script: when the engine last fell idle, on the monotonic clock that all processes share


class QuickSession(FakeSession):
    """Reads its script only when that has changed, since a read at every token costs more than Rockfill does."""

    def __init__(self, path: str) -> None:
        self._read: tuple[int, dict[str, Any]] = (0, {})
        super().__init__(path)

    def generate(self, *arguments: Any) -> Run:
        run = super().generate(*arguments)
        self._path.with_name(ENDED).write_text(repr(time.monotonic()))
        return run

    def _script(self) -> dict[str, Any]:
        changed_ns = self._path.stat().st_mtime_ns
        if changed_ns != self._read[0]:
            self._read = changed_ns, super()._script()
        return self._read[1]

    def _misbehave(self, when: str | int) -> None:
        pass


def _open(load: Load) -> FakeSession:
    return QuickSession(load.path)


def _serve() -> None:
    from rockfill import app, config, paths
    from rockfill.cli.main import parser
    from rockfill.state import StateDir

    arguments = parser().parse_args()
    configuration = config.load(paths.config_file(arguments.config))
    worker = (sys.executable, "-m", "tests.bench.scripted")
    options = app.Options(configuration, model="fake", listen=arguments.listen, worker=worker)
    with StateDir.acquire(paths.state_dir(arguments.state_dir)) as state:
        asyncio.run(app.serve(options, state, lambda line: print(line, flush=True)))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _serve()
    else:
        from rockfill.worker import main

        main(sys.argv, {"fake": _open})
