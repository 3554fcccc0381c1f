"""``POST /api/command/TYPE``: every command for scripts, its parameters as the body, its result as the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rockfill.api.commands import config, engine, evaluations, selftest
from rockfill.api.errors import json_response
from rockfill.api.server import Gate, Route, read_json

if TYPE_CHECKING:
    from aiohttp import web

    from rockfill.api.commands.table import Command, Dispatch

COMMANDS: tuple[Command, ...] = (
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
)


class CommandsOverHttp:
    """The route for commands."""

    def __init__(self, dispatch: Dispatch, gate: Gate) -> None:
        self._dispatch = dispatch
        self._gate = gate

    def routes(self) -> list[Route]:
        # The scope depends on the command, so the handler itself asks the gate.
        return [Route("POST", "/api/command/{type}", self.run, None)]

    async def run(self, request: web.Request) -> web.StreamResponse:
        self._gate.check_known(request)
        command = self._dispatch.find(request.match_info["type"])
        self._gate.check(request, command.scope)
        body = await read_json(request) if await request.read() else {}
        return json_response({"success": True, "result": await self._dispatch.run(command, body)})
