"""The configuration in force."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from rockfill.access.tokens import Scope
from rockfill.api.commands.table import Json, NoParameters, command

if TYPE_CHECKING:
    from rockfill.config import Settings


@command("config.get", scope=Scope.ADMIN)
async def get(_: NoParameters, configuration: Settings) -> Json:
    """The configuration in force, defaults included. It holds no secrets."""
    return asdict(configuration.config)
