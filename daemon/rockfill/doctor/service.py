"""The doctor inside the daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rockfill.doctor.checks import diagnose
from rockfill.doctor.facts import Finding, Level
from rockfill.doctor.gather import gather, hub_facts
from rockfill.errors import Code, Problem
from rockfill.hardware.board import read_board
from rockfill.hardware.own_thread import OwnThread

if TYPE_CHECKING:
    from collections.abc import Callable

    from rockfill.doctor.gather import Asked
    from rockfill.hardware.board import Board

# Longer than the Hub is waited for, so that only what the kernel does not answer is called so.
TIMEOUT_S = 30.0


class Doctor:
    """Looks at everything when asked to."""

    def __init__(self, asked: Callable[[], Asked]) -> None:
        """`asked` says about which appliance; it is called in a thread."""
        self._asked = asked
        self._thread = OwnThread("doctor")

    async def board(self) -> Board:
        """What machine this is. Raises `board_stuck` if the kernel does not answer."""
        try:
            return await self._thread.call(read_board, TIMEOUT_S)
        except TimeoutError:
            raise Problem(Code.BOARD_STUCK, "The kernel does not answer.", "Restart the board.") from None

    async def run(self) -> tuple[Finding, ...]:
        """All findings, in the order in which things have to be mended."""
        try:
            facts = await self._thread.call(lambda: gather(self._asked(), ask_hub=hub_facts), TIMEOUT_S)
        except TimeoutError:
            says = f"The kernel has not answered for {TIMEOUT_S:.0f} s."
            return (Finding("kernel", Level.PROBLEM, says, "sudo reboot"),)
        return diagnose(facts)
