"""``GET /api/stats``: the live figures, and what they were, for pages and scripts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from rockfill.access.tokens import Scope
from rockfill.api.commands import stats as commands
from rockfill.api.commands.stats import HistoryParameters
from rockfill.api.commands.table import NoParameters
from rockfill.api.errors import dumps
from rockfill.api.server import Route
from rockfill.decode import decode_request

if TYPE_CHECKING:
    from rockfill.telemetry.service import Telemetry


class StatsOverHttp:
    """The route for figures."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def routes(self) -> list[Route]:
        return [Route("GET", "/api/stats", self.stats, Scope.READ)]

    async def stats(self, request: web.Request) -> web.StreamResponse:
        """As `stats.get`; with ``?history=seconds`` or ``minutes`` also ``history``, as `stats.history` has it."""
        query = request.query
        parameters = None
        if "history" in query:
            value = {
                "resolution": query["history"],
                "keys": [key for key in query.get("keys", "").split(",") if key],
                **({"last_s": _number(query["last_s"])} if "last_s" in query else {}),
            }
            parameters = decode_request(HistoryParameters, value)
        answer = await commands.get.run(NoParameters(), self._telemetry)
        if parameters is not None:
            answer["history"] = await commands.history.run(parameters, self._telemetry)
        body = await asyncio.to_thread(dumps, answer)
        return web.Response(body=body, content_type="application/json")


def _number(text: str) -> float | str:
    """A number as the query has it; what is none is left for the decoder to complain of."""
    try:
        return float(text)
    except ValueError:
        return text
