"""The web application: routes, who may use them, and the one place where a failure becomes an answer.

Every route says which scope it needs; there is no way to add one without saying so.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import hdrs, web

from rockfill.access.tokens import Scope
from rockfill.api.errors import (
    ErrorShape,
    command_shape,
    info_of,
    llamacpp_shape,
    ollama_shape,
    openai_shape,
    problem_response,
)
from rockfill.api.listener import GuardedHandler
from rockfill.errors import Code, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rockfill.api.gate import Gate

MAX_BODY_BYTES = 4 * 1024 * 1024

# For the largest body over a network that nobody would want to use.
BODY_TIMEOUT_S = 60.0
CONTENT_SECURITY_POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Not "no-referrer": with that, browsers leave the Origin out of a form's request.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


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
        connection = request.protocol
        if isinstance(connection, GuardedHandler):
            connection.request_began()
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
            if isinstance(connection, GuardedHandler):
                connection.request_over()

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
    body = await read_body(request)
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        where = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise Problem(Code.INVALID_JSON, f"The body is not JSON{where}.", "Send a JSON object.") from None


async def read_body(request: web.Request) -> bytes:
    """The whole body, if it comes in time."""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await request.read()
    except TimeoutError:
        raise Problem(
            Code.REQUEST_TIMEOUT, f"The body did not come within {BODY_TIMEOUT_S:g} s.", "Send it faster."
        ) from None
    except web.RequestPayloadError:
        raise Problem(Code.INVALID_VALUE, "The body can't be read to its end.", "Send it plain and whole.") from None
