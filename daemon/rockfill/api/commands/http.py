"""``POST /api/command/TYPE``: every command for scripts, its parameters as the body, its result as the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rockfill.api.commands.table import Caller
from rockfill.api.dialects.asking import client_of
from rockfill.api.errors import json_response
from rockfill.api.server import Route, read_body, read_json

if TYPE_CHECKING:
    from aiohttp import web

    from rockfill.api.commands.table import Dispatch
    from rockfill.api.gate import Gate


class CommandsOverHttp:
    """The route for commands."""

    def __init__(self, dispatch: Dispatch, gate: Gate) -> None:
        self._dispatch = dispatch
        self._gate = gate

    def routes(self) -> list[Route]:
        # The scope depends on the command, so the dispatch asks for it.
        return [Route("POST", "/api/command/{type}", self.run, None)]

    async def run(self, request: web.Request) -> web.StreamResponse:
        caller = Caller(self._gate.known_visitor(request).scopes, client=client_of(request))
        command = self._dispatch.find(request.match_info["type"])
        body = await read_json(request) if await read_body(request) else {}
        return json_response({"success": True, "result": await self._dispatch.run(command, body, caller)})
