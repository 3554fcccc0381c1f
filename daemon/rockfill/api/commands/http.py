"""``POST /api/command/TYPE``: every command for scripts, its parameters as the body, its result as the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rockfill.api.commands.jobs import wait_for
from rockfill.api.commands.table import Caller
from rockfill.api.dialects.asking import client_of
from rockfill.api.errors import json_response
from rockfill.api.server import Route, read_body, read_json

if TYPE_CHECKING:
    from aiohttp import web

    from rockfill.api.commands.jobs import Jobs
    from rockfill.api.commands.table import Dispatch
    from rockfill.api.gate import Gate

LONGEST_WAIT_S = 60.0


class CommandsOverHttp:
    """The route for commands."""

    def __init__(self, dispatch: Dispatch, jobs: Jobs, gate: Gate) -> None:
        self._dispatch = dispatch
        self._jobs = jobs
        self._gate = gate

    def routes(self) -> list[Route]:
        # The scope depends on the command, so the dispatch asks for it.
        return [Route("POST", "/api/command/{type}", self.run, None)]

    async def run(self, request: web.Request) -> web.StreamResponse:
        visitor = self._gate.known_visitor(request)
        caller = Caller(visitor, client_of(request))
        command = self._dispatch.find(request.match_info["type"])
        body = await read_json(request) if await read_body(request) else {}
        run = self._dispatch.run(command, body, caller)
        patience_s = _patience_s(request.headers.get("Prefer", "")) if command.long else None
        if patience_s is None:
            return json_response({"success": True, "result": await run})
        job = self._jobs.start(command, run)
        await wait_for(job, patience_s)
        if job.problem is not None:
            raise job.problem.raised()
        if job.result is not None:
            return json_response({"success": True, "result": job.result})
        told = {"success": True, "result": {"job": job.id, "state": "running"}}
        return json_response(told, 202, {"Preference-Applied": "respond-async"})


def _patience_s(prefer: str) -> float | None:
    """How long a client waits that prefers an answer before the end (RFC 7240); None for one that does not."""
    parted = [preference.partition("=") for preference in prefer.split(",")]
    preferences = {name.strip().lower(): value.strip() for name, _, value in parted}
    if "respond-async" not in preferences:
        return None
    wait = preferences.get("wait", "")
    return min(float(wait), LONGEST_WAIT_S) if wait.isascii() and wait.isdigit() else 0.0
