"""Whether the daemon lives, and whether it would complete: for balancers and service monitors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rockfill.api.errors import json_response
from rockfill.api.server import Route
from rockfill.snapshots import Phase

if TYPE_CHECKING:
    from aiohttp import web

    from rockfill.engine.supervisor import Supervisor


class Health:
    """``/health`` and ``/ready``, open to everybody and saying nothing more than a state."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def routes(self) -> list[Route]:
        return [Route("GET", "/health", self.health, None), Route("GET", "/ready", self.ready, None)]

    async def health(self, request: web.Request) -> web.StreamResponse:
        """200 while the daemon lives."""
        return json_response({"status": "ok", "engine": self._supervisor.snapshot.phase.value})

    async def ready(self, request: web.Request) -> web.StreamResponse:
        """200 while a model is loaded, else 503."""
        phase = self._supervisor.snapshot.phase
        ready = phase in (Phase.READY, Phase.BUSY)
        return json_response({"ready": ready, "engine": phase.value}, 200 if ready else 503)
