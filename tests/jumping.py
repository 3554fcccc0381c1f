"""An event loop whose time jumps, for what takes minutes."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from rockfill.hardware.sampler import Sampler


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting, and which counts these wake-ups.

    While `busy` says that a thread owes an answer, it waits for that instead, and looks every moment whether it does.
    """

    def __init__(self) -> None:
        self.now_s, self.wake_ups = 1000.0, 0
        self.busy: Callable[[], bool] = lambda: False
        loop = self

        class Selector(selectors.DefaultSelector):
            def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
                ready = super().select(0.01 if loop.busy() and timeout != 0 else 0)
                if not ready and timeout and not loop.busy():
                    loop.now_s += timeout
                    loop.wake_ups += 1
                return ready

        super().__init__(Selector())

    def time(self) -> float:
        return self.now_s


def hangs_in(sampler: Sampler, files: Mapping[str, Path]) -> bool:
    """Whether `sampler` is at one of `files`, by the names of its sources, that is a FIFO, and so hangs."""
    reading = sampler._reading
    return reading is not None and reading.name in files and files[reading.name].is_fifo()
