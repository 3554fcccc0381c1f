"""What machine this is, and what keeps the appliance from working well on it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from rockfill.access.tokens import Scope
from rockfill.api.commands.table import Json, NoParameters, command
from rockfill.doctor.facts import worst

if TYPE_CHECKING:
    from rockfill.doctor.service import Doctor


@command("board.get", scope=Scope.READ)
async def board(_: NoParameters, doctor: Doctor) -> Json:
    """What machine this is: SoC, NPU and its driver, cores, memory, disks, system. What can't be read is null."""
    return asdict(await doctor.board())


@command("doctor.run", scope=Scope.CONTROL)
async def run(_: NoParameters, doctor: Doctor) -> Json:
    """Check the board, the system and what is installed: `level` (ok, warning, problem) and `findings`, each with its
    `check`, `level`, `message`, and in `fix` the command that mends it. Takes seconds where the Hub does not answer.
    """
    findings = await doctor.run()
    return {"level": worst(findings).value, "findings": [asdict(finding) for finding in findings]}
