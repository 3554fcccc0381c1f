"""The selftest of the chosen model."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING

from rockfill.access.tokens import Scope
from rockfill.api.commands.table import Json, NoParameters, command
from rockfill.selftest.result import key_of

if TYPE_CHECKING:
    from rockfill.completion.service import CompletionService
    from rockfill.engine.supervisor import Supervisor
    from rockfill.selftest.runner import SelfTest
    from rockfill.state import StateDir
    from rockfill.store.models import ModelStore


@command("selftest.run", scope=Scope.CONTROL, long=True)
async def run(
    _: NoParameters,
    selftest: SelfTest,
    completions: CompletionService,
    supervisor: Supervisor,
    models: ModelStore,
    state: StateDir,
) -> Json:
    """Find out what the chosen model and its runtime do on this machine, and remember it. Takes a minute on a board."""
    target = models.find("")
    async with completions.alone():
        result = await selftest.run(target)
    value = asdict(result)
    assert supervisor.loaded is not None
    await asyncio.to_thread(state.keep_selftest, key_of(supervisor.loaded), value)
    if result.best_order not in (None, supervisor.snapshot.fim_order):
        supervisor.restart()  # which loads it again, in the order that has now been proven
    return {**value, "best_order": result.best_order, "report": result.report()}
