"""The one table of commands: what can be done to the appliance, over the websocket, HTTP and the command line alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rockfill.api.commands import complete, config, connection, engine, evaluations, selftest, stats

if TYPE_CHECKING:
    from rockfill.api.commands.table import Command

COMMANDS: tuple[Command, ...] = (
    complete.start,
    complete.cancel,
    engine.get,
    engine.load,
    engine.unload,
    engine.restart,
    engine.pin,
    engine.unpin,
    engine.pause,
    engine.resume,
    engine.logs,
    engine.history,
    engine.list_models,
    config.get,
    selftest.run,
    evaluations.keep,
    evaluations.list_results,
    stats.get,
    stats.history,
    connection.subscribe,
    connection.unsubscribe,
    connection.ping,
)
