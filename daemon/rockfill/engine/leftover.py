"""The worker of an earlier daemon that even SIGKILL did not end: it hangs in the kernel's driver, and has the NPU.

A daemon writes down which worker it has. The next one looks whether that is still there, ends it if it can, and starts
none beside it if it can't.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rockfill.decode import DecodeError, decode
from rockfill.errors import Code, Problem
from rockfill.hardware.board import boot_id
from rockfill.hardware.process import started_ticks

if TYPE_CHECKING:
    from typing import Self

GONE_S = 5.0  # an ordinary one has got its SIGKILL by the death of its daemon already, and needs milliseconds
POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class Leftover:
    """A worker as it is written down. Its start in this boot tells it from another process of the same number."""

    pid: int
    started_ticks: int
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """Process `pid` as it is now, None if it is not there."""
        ticks, boot = started_ticks(pid), boot_id()
        return cls(pid, ticks, boot) if ticks is not None and boot is not None else None

    @classmethod
    def stored(cls, value: Any) -> Self | None:
        try:
            return decode(cls, value)
        except DecodeError:
            return None

    def value(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def lives(self) -> bool:
        return Leftover.of(self.pid) == self

    async def end(self) -> None:
        """Return once it is gone, or raise `npu_wedged`."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + GONE_S
        while await asyncio.to_thread(lambda: self.lives):
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)
            if loop.time() > deadline_s:
                raise Problem(
                    Code.NPU_WEDGED,
                    f"An earlier engine (process {self.pid}) can't be ended: it hangs in the kernel's driver.",
                    "Reboot the machine; no second engine is started beside it.",
                )
            await asyncio.sleep(POLL_S)
