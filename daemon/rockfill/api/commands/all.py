"""The one table of commands: what can be done to the appliance, over the websocket, HTTP and the command line alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rockfill.api.commands import (
    clocks,
    complete,
    config,
    connection,
    engine,
    evaluations,
    models,
    runtimes,
    selftest,
    stats,
    tokens,
)

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
    models.list_models,
    models.show,
    models.variants,
    models.catalogue,
    models.pull,
    models.use,
    models.list_downloads,
    models.cancel,
    models.verify,
    models.remove,
    models.bring_in,
    runtimes.list_runtimes,
    runtimes.install,
    runtimes.use,
    runtimes.remove,
    runtimes.get,
    runtimes.login,
    runtimes.logout,
    config.get,
    selftest.run,
    evaluations.keep,
    evaluations.list_results,
    clocks.board,
    clocks.get,
    clocks.set_policy,
    clocks.restore,
    stats.get,
    stats.history,
    tokens.get,
    tokens.link,
    tokens.add,
    tokens.list_tokens,
    tokens.revoke,
    connection.subscribe,
    connection.unsubscribe,
    connection.ping,
)
