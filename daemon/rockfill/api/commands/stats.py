"""The live figures and what they were."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

from rockfill.access.tokens import Scope
from rockfill.api.commands.table import Json, NoParameters, command
from rockfill.decode import MaxLength, Range

if TYPE_CHECKING:
    from rockfill.telemetry.service import Telemetry


class Resolution(StrEnum):
    SECONDS = "seconds"
    MINUTES = "minutes"


@dataclass(frozen=True, slots=True)
class HistoryParameters:
    """`resolution` "seconds" goes back 15 minutes, "minutes" 24 hours. `keys` names figures, [] means all; `last_s`
    leaves out what is older than so many seconds."""

    resolution: Resolution = Resolution.SECONDS
    keys: Annotated[tuple[str, ...], MaxLength(100)] = ()
    last_s: Annotated[float, Range(0, 86400)] = 86400


@command("stats.get", scope=Scope.READ)
async def get(_: NoParameters, telemetry: Telemetry) -> Json:
    """The figures of now. For ten seconds after each call they are taken once a second."""
    return asdict(await telemetry.look())


@command("stats.history", scope=Scope.READ, parameters=HistoryParameters)
async def history(parameters: HistoryParameters, telemetry: Telemetry) -> Json:
    """What the figures were, a column each. There are gaps of up to a minute where nobody looked and nothing ran."""
    kept = telemetry.history
    ring = kept.seconds if parameters.resolution is Resolution.SECONDS else kept.minutes
    since_s = time.time() - parameters.last_s
    # Up to 100,000 numbers: a thread makes them, as the event loop has tokens to pass on.
    columns = await asyncio.to_thread(ring.rows, since_s, parameters.keys or None)
    return {"resolution": parameters.resolution.value, "columns": columns}
