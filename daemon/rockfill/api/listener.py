"""Accepting connections: not too many of one address, and none that takes for ever over a request or an answer."""

from __future__ import annotations

import asyncio
import errno
import logging
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage

if TYPE_CHECKING:
    import socket
    import ssl

    from rockfill.access.connections import Connections

log = logging.getLogger(__name__)

# From the opening of a connection, or the first byte of a further request, to the end of its header.
HEADER_TIMEOUT_S = 20.0

# For how long a connection may do nothing between two requests. Editors ask again and again, proxies keep 60 s or 75 s.
KEEPALIVE_S = 75.0

# For how long a client may leave an answer unread, once more of it waits than the kernel takes.
UNREAD_TIMEOUT_S = 60.0

HANDSHAKE_TIMEOUT_S = 10.0

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
EXHAUSTION_PAUSE_S = 60.0
LINGER_S = 2.0

REFUSAL = (
    b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 10\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: 147\r\n\r\n"
    b'{"success":false,"error":{"code":"too_many_requests","message":"Too many connections are open.","advice":'
    b'"Close some, and try again.","detail":{}}}'
)


class GuardedHandler(web.RequestHandler):
    """A connection with limits on its patience."""

    def __init__(
        self, server: web.Server, connections: Connections, logger: logging.Logger, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=cast(logging.Logger, None),  # which turns it off
            logger=logger,
            keepalive_timeout=KEEPALIVE_S,
            lingering_time=LINGER_S,
        )
        self._connections = connections
        self._peer: str | None = None
        self._socket: asyncio.Transport | None = None
        self._in_request = False
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = cast(asyncio.Transport, transport)
        peername = transport.get_extra_info("peername")
        peer = str(peername[0]) if isinstance(peername, tuple) else ""
        if not self._connections.open(peer):
            self._socket.write(REFUSAL)
            self._socket.close()
            return
        self._peer = peer
        self._wait(HEADER_TIMEOUT_S)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_waiting()
        if self._peer is not None:
            self._connections.close(self._peer)
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._peer is None:
            return
        if data and not self._in_request and self._patience is None:
            self._wait(HEADER_TIMEOUT_S)
        super().data_received(data)

    def pause_writing(self) -> None:
        self._wait(UNREAD_TIMEOUT_S)
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stop_waiting()
        super().resume_writing()

    def request_began(self) -> None:
        """A request's header is there, and its handler runs."""
        self._in_request = True
        self._stop_waiting()

    def request_over(self) -> None:
        """The handler is done."""
        self._in_request = False

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        assert self._socket is not None
        self._patience = asyncio.get_running_loop().call_later(seconds, self._socket.abort)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


async def listen(
    runner: web.AppRunner,
    listener: socket.socket,
    connections: Connections,
    tls: ssl.SSLContext | None,
) -> asyncio.Server:
    """Serve what `runner` was set up for on `listener`, with those limits.

    Close the result before the runner is cleaned up.
    """
    server = runner.server
    assert server is not None
    loop = asyncio.get_running_loop()
    logger = _http_log()
    loop.set_exception_handler(_ExhaustionOnce())
    return await loop.create_server(
        lambda: GuardedHandler(server, connections, logger, loop),
        sock=listener,
        ssl=tls,
        ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S if tls is not None else None,
        backlog=256,
    )


def _http_log() -> logging.Logger:
    """aiohttp's own log, without a traceback for every port scan: what is not HTTP is answered 400 and forgotten."""
    logger = logging.getLogger("rockfill.http")
    logger.addFilter(lambda record: not (record.exc_info and isinstance(record.exc_info[1], BadHttpMessage)))
    return logger


class _ExhaustionOnce:
    """The event loop's exceptions as asyncio logs them, but that no descriptor is left only once a minute: asyncio says
    so for each connection that waits, every second, and a log that nobody empties would stop the daemon."""

    def __init__(self) -> None:
        self._said_s = -EXHAUSTION_PAUSE_S

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in EXHAUSTED:
            loop.default_exception_handler(context)
        elif loop.time() - self._said_s >= EXHAUSTION_PAUSE_S:
            self._said_s = loop.time()
            log.error("no further connection can be accepted: %s", error.strerror)
