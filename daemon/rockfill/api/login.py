"""How a browser comes to its session cookie: by a token, or by a link that is good once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from aiohttp import web

from rockfill.access.tokens import SESSION_S
from rockfill.api.server import Route, read_json
from rockfill.decode import MaxLength, decode_request

if TYPE_CHECKING:
    from rockfill.access.tokens import Visitor
    from rockfill.api.gate import Gate
    from rockfill.api.pages import Pages


@dataclass(frozen=True, slots=True)
class Login:
    token: Annotated[str, MaxLength(1000)]


class Sessions:
    """Login and logout of the page."""

    def __init__(self, gate: Gate, pages: Pages) -> None:
        self._gate = gate
        self._pages = pages

    def routes(self) -> list[Route]:
        return [
            Route("POST", "/login", self.log_in, None),
            Route("POST", "/logout", self.log_out, None),
            Route("GET", "/login/{nonce}", self.ask, None),
            Route("POST", "/login/{nonce}", self.follow, None),
        ]

    async def log_in(self, request: web.Request) -> web.StreamResponse:
        """Exchange a token for a session cookie that scripts in the page can't read."""
        visitor = self._gate.log_in(request, decode_request(Login, await read_json(request)).token)
        return self._with_session(web.Response(status=204), request, visitor)

    async def log_out(self, request: web.Request) -> web.StreamResponse:
        """Have the browser forget its cookie. Nothing is kept of sessions, so that a copy of it stays good."""
        response = web.Response(status=204)
        response.del_cookie(self._gate.cookie_name)
        return response

    async def ask(self, request: web.Request) -> web.StreamResponse:
        """The page behind a one-time link. Looking at it, as programs do that show previews, uses nothing up."""
        return await self._pages.render("login.html", "../", failed=False)

    async def follow(self, request: web.Request) -> web.StreamResponse:
        """Use the link up, and go on to the page."""
        self._gate.refuse_other_origins(request, unknown=False)
        visitor = self._gate.use_link(request, request.match_info["nonce"])
        if visitor is None:
            return await self._pages.render("login.html", "../", status=403, failed=True)
        response = web.Response(status=303, headers={"Location": "../"})
        return self._with_session(response, request, visitor)

    def _with_session(self, response: web.Response, request: web.Request, visitor: Visitor) -> web.Response:
        response.set_cookie(
            self._gate.cookie_name,
            self._gate.new_session(visitor),
            max_age=SESSION_S,
            httponly=True,
            samesite="Strict",
            secure=self._gate.is_encrypted(request),
        )
        return response
