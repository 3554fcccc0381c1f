"""The web application: routes, who may use them, and the one place where a failure becomes an answer.

Every route says which scope it needs; there is no way to add one without saying so.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import hdrs, web

from rockfill.access.hosts import host_name
from rockfill.access.tokens import SESSION_S, Scope
from rockfill.api.errors import (
    ErrorShape,
    command_shape,
    info_of,
    llamacpp_shape,
    ollama_shape,
    openai_shape,
    problem_response,
)
from rockfill.decode import decode_request
from rockfill.errors import Code, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rockfill.access.hosts import HostNames
    from rockfill.access.tokens import Access

MAX_BODY_BYTES = 4 * 1024 * 1024
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
STATIC_CACHE = "no-cache"  # kept by the browser, but asked about: an upgrade shows at the next load


@dataclass(frozen=True, slots=True)
class Route:
    """One address. `scope` None is open to everybody on the network."""

    method: str
    path: str
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    scope: Scope | None


# In whose shape errors are written under which addresses, unknown ones included; the first that fits counts.
ERROR_SHAPES: tuple[tuple[str, ErrorShape], ...] = (
    ("/v1/", openai_shape),
    ("/api/command/", command_shape),
    ("/api/stats", command_shape),
    ("/api/", ollama_shape),
    *((path, llamacpp_shape) for path in ("/infill", "/completion", "/tokenize", "/detokenize", "/props", "/slots")),
)


def error_shape(path: str) -> ErrorShape:
    """In whose shape errors at `path` are written."""
    return next((shape for prefix, shape in ERROR_SHAPES if path.startswith(prefix)), command_shape)


class Gate:
    """Decides who gets in, before any handler runs."""

    def __init__(self, access: Access, hosts: HostNames, cookie_name: str) -> None:
        self._access = access
        self._hosts = hosts
        self.cookie_name = cookie_name

    def check(self, request: web.Request, scope: Scope | None) -> None:
        """Raise what keeps this request out."""
        host = request.headers.get(hdrs.HOST, "")
        if not self._hosts.allows(host):
            raise Problem(
                Code.HOST_NOT_ALLOWED,
                f'This machine does not answer to the name "{(host_name(host) or "")[:100]}".',
                "Use its address, or add the name to [server] allowed_hosts in the configuration.",
            )
        if scope is None:
            return
        if scope not in self.check_known(request):
            raise forbidden(scope)

    def check_known(self, request: web.Request) -> frozenset[Scope]:
        """The scopes of whoever asks; `unauthorized` for a stranger."""
        scopes = self.scopes(request)
        if not scopes:
            raise Problem(
                Code.UNAUTHORIZED,
                "This needs the appliance's token.",
                "Send it as `Authorization: Bearer TOKEN`; `rockfill token` prints it.",
            )
        return scopes

    def scopes(self, request: web.Request) -> frozenset[Scope]:
        """The scopes of whoever asks; none for a stranger."""
        token = _presented_token(request)
        if token:
            return self._access.scopes_of_token(token)
        session = request.cookies.get(self.cookie_name)
        if session is None:
            return frozenset()
        if request.method not in SAFE_METHODS:
            refuse_other_origins(request, unknown=False)
        return self._access.scopes_of_session(session, time.time())

    def scopes_of_token(self, request: web.Request, token: str) -> frozenset[Scope]:
        """The scopes of a token that came with `request` otherwise than in its headers, or `unauthorized`."""
        scopes = self._access.scopes_of_token(token.strip())
        if not scopes:
            raise Problem(Code.UNAUTHORIZED, "That is not the appliance's token.", "`rockfill token` prints it.")
        return scopes


def forbidden(scope: Scope) -> Problem:
    """The problem of a caller who lacks `scope`."""
    return Problem(
        Code.FORBIDDEN,
        f'This needs a token with the scope "{scope}".',
        "Use the primary token, which `rockfill token` prints, or one with that scope.",
    )


def refuse_other_origins(request: web.Request, *, unknown: bool) -> None:
    """A browser tells where a page is from; only our own may act with what the browser holds for us.

    `unknown` allows a request that does not say, which no browser sends with a method that changes anything.
    """
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is None and unknown:
        return
    _, _, authority = (origin or "").partition("://")
    if authority.lower() != request.headers.get(hdrs.HOST, "").lower():
        raise Problem(Code.FORBIDDEN, "A page from elsewhere may not do this.", "Open the appliance's own page.")


def _presented_token(request: web.Request) -> str:
    scheme, _, credentials = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    if scheme.lower() == "bearer" and credentials.strip():
        return credentials.strip()
    return request.headers.get("X-API-Key", "").strip()


def build(routes: Sequence[Route], gate: Gate, in_flight: set[asyncio.Task[Any]]) -> web.Application:
    """The application of `routes`. Each request's task stands in `in_flight` while it is being answered."""
    scopes = {(route.method, route.path): route.scope for route in routes}

    @web.middleware
    async def edge(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        in_flight.add(task)
        try:
            if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
                raise Problem(Code.UNSUPPORTED, "Compressed bodies are not taken.", "Send the body plain.")
            resource = request.match_info.route.resource
            if resource is None:  # no such address: a stranger learns no more than that
                gate.check(request, None)
            else:
                method = "GET" if request.method == "HEAD" else request.method
                gate.check(request, scopes[method, resource.canonical])
            return await handler(request)
        except ConnectionError:  # the client has gone; nobody is left to be told anything
            raise asyncio.CancelledError from None
        except Exception as error:  # the one catch-all of HTTP: every failure becomes an answer
            if isinstance(error, web.HTTPException) and error.status < 400:
                raise
            return problem_response(info_of(error), error_shape(request.path))
        finally:
            in_flight.discard(task)

    app = web.Application(middlewares=[edge], client_max_size=MAX_BODY_BYTES)
    app.on_response_prepare.append(_add_security_headers)
    for route in routes:
        app.router.add_route(route.method, route.path, route.handler)
        if route.method == "GET":
            app.router.add_route("HEAD", route.path, route.handler)
    return app


async def _add_security_headers(request: web.Request, response: web.StreamResponse) -> None:
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)


async def read_json(request: web.Request) -> Any:
    """The request's body as JSON, whatever its Content-Type says; `invalid_json` if it is none."""
    try:
        body = await request.read()
    except web.RequestPayloadError:
        raise Problem(Code.INVALID_VALUE, "The body can't be read to its end.", "Send it plain and whole.") from None
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        where = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise Problem(Code.INVALID_JSON, f"The body is not JSON{where}.", "Send a JSON object.") from None


@dataclass(frozen=True, slots=True)
class Login:
    token: str


class Sessions:
    """Login and logout of the page."""

    def __init__(self, access: Access, gate: Gate) -> None:
        self._access = access
        self._gate = gate

    def routes(self) -> list[Route]:
        return [Route("POST", "/login", self.login, None), Route("POST", "/logout", self.logout, None)]

    async def login(self, request: web.Request) -> web.StreamResponse:
        """Exchange the token for a session cookie that scripts in the page can't read."""
        refuse_other_origins(request, unknown=True)
        token = decode_request(Login, await read_json(request)).token
        self._gate.scopes_of_token(request, token)
        response = web.Response(status=204)
        response.set_cookie(
            self._gate.cookie_name,
            self._access.new_session(time.time()),
            max_age=SESSION_S,
            httponly=True,
            samesite="Strict",
            secure=request.secure,
        )
        return response

    async def logout(self, request: web.Request) -> web.StreamResponse:
        refuse_other_origins(request, unknown=True)
        response = web.Response(status=204)
        response.del_cookie(self._gate.cookie_name)
        return response
