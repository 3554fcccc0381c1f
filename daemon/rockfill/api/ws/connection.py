"""One client of the websocket: it is let in, its commands are run side by side, and what comes of them is sent.

Nothing here ever waits for the socket but the one task that writes to it.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web

from rockfill.api.commands.table import Caller
from rockfill.api.dialects.asking import client_of
from rockfill.api.errors import dumps, frame_error, info_of
from rockfill.api.server import MAX_BODY_BYTES, Route
from rockfill.api.ws import frames
from rockfill.api.ws.outbox import Outbox, Overflow
from rockfill.decode import DecodeError
from rockfill.errors import Code, Problem, ProblemInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rockfill.access.tokens import Visitor
    from rockfill.api.commands.table import Command, Dispatch
    from rockfill.api.gate import Gate
    from rockfill.api.ws.subscriptions import Subscription, Subscriptions
    from rockfill.bus import Topic

AUTH_TIMEOUT_S = 10.0

# Routers forget a quiet connection after a few minutes, and a client that vanished is to be noticed.
HEARTBEAT_S = 30.0

# How many commands of one connection may run at the same time, and how many subscriptions it may have.
MOST_COMMANDS = 32
MOST_SUBSCRIPTIONS = 32

CANCELLED = ProblemInfo(Code.CANCELLED, "It was cancelled.")
AUTH_MISSING = ProblemInfo(
    Code.UNAUTHORIZED, "The first frame must be the authentication.", 'Send {"type": "auth", "token": "…"}.'
)


class WebSockets:
    """The route, and every connection."""

    def __init__(self, dispatch: Dispatch, gate: Gate, subscriptions: Subscriptions) -> None:
        self._dispatch = dispatch
        self._gate = gate
        self._subscriptions = subscriptions
        self._connections: set[_Connection] = set()
        self._closing = False

    def routes(self) -> list[Route]:
        # Who has no token yet sends it in the first frame.
        return [Route("GET", "/ws", self.serve, None)]

    async def serve(self, request: web.Request) -> web.StreamResponse:
        visitor = self._gate.visitor(request)
        self._gate.refuse_other_origins(request, unknown=self._gate.cookie_name not in request.cookies)
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT_S, compress=False, max_msg_size=MAX_BODY_BYTES)
        await socket.prepare(request)
        log_in = partial(self._gate.log_in, request)
        connection = _Connection(socket, request, self._dispatch, self._subscriptions, visitor, log_in)
        self._connections.add(connection)
        try:
            if self._closing:
                connection.close_when_idle()
            await connection.run()
        except* Exception as defects:  # an HTTP answer has no place in a websocket any more
            for defect in defects.exceptions:
                info_of(defect)
            connection.drop()
        finally:
            self._connections.discard(connection)
        return socket

    def revoked(self, token_name: str) -> None:
        """End the connections of those who came by that token."""
        for connection in self._connections:
            connection.revoked(token_name)

    def close_when_idle(self) -> None:
        """End every connection as soon as none of its commands runs any more."""
        self._closing = True
        for connection in self._connections:
            connection.close_when_idle()


class _Connection:
    def __init__(
        self,
        socket: web.WebSocketResponse,
        request: web.Request,
        dispatch: Dispatch,
        subscriptions: Subscriptions,
        visitor: Visitor | None,
        log_in: Callable[[str], Visitor],
    ) -> None:
        self._socket = socket
        self._request = request
        self._dispatch = dispatch
        self._subscriptions = subscriptions
        self._visitor = visitor
        self._log_in = log_in
        self._outbox = Outbox(_delta)
        self._tasks = asyncio.TaskGroup()
        self._open = False  # while it is not, no task of it is begun
        self._writing = False
        self._closing = False
        self._last_id = 0
        self._running: dict[int, asyncio.Task[None]] = {}
        self._streaming: set[int] = set()
        self._cancelled: set[int] = set()
        self._subscribed: dict[int, Subscription] = {}

    async def run(self) -> None:
        """Serve the client until it goes, or is sent away."""
        async with self._tasks:
            self._open = True
            try:
                if self._visitor is not None or await self._is_let_in():
                    self._send(frames.greeting("auth_ok"))
                    async for message in self._socket:
                        self._received(message.data if message.type is WSMsgType.TEXT else None)
            except ConnectionError:
                pass  # it went while we wrote
            finally:
                self._open = False
                for subscription in self._subscribed.values():
                    self._subscriptions.close(subscription)
                for task in self._running.values():
                    task.cancel()

    def close_when_idle(self) -> None:
        """Also before it runs: then once it has been greeted."""
        self._closing = True
        self._close_if_idle()

    def revoked(self, token_name: str) -> None:
        if self._visitor is not None and self._visitor.token_name == token_name:
            self.drop()

    # ---- letting in

    async def _is_let_in(self) -> bool:
        self._send(frames.greeting("auth_required"))
        try:
            # Not receive's own timeout, which begins anew with each ping.
            async with asyncio.timeout(AUTH_TIMEOUT_S):
                message = await self._socket.receive()
        except TimeoutError:
            await self._socket.close(code=1008)
            return False
        if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
            return False
        problem = self._auth_problem(message.data if message.type is WSMsgType.TEXT else "")
        if problem is None:
            return True
        await self._socket.send_frame(frames.auth_invalid(problem), WSMsgType.TEXT)
        await self._socket.close(code=1008)
        return False

    def _auth_problem(self, text: str) -> ProblemInfo | None:
        """Why `text` does not let its sender in."""
        try:
            auth = frames.auth_of(frames.parse(text))
            if auth.type != "auth":
                return AUTH_MISSING
            if auth.protocol != frames.PROTOCOL_VERSION:
                return ProblemInfo(
                    Code.UNSUPPORTED,
                    f"Protocol {auth.protocol} is not spoken here.",
                    f"This release speaks protocol {frames.PROTOCOL_VERSION}.",
                )
            self._visitor = self._log_in(auth.token)
        except DecodeError:
            return AUTH_MISSING
        except Problem as problem:
            return problem.info
        return None

    # ---- commands

    def _received(self, text: str | None) -> None:
        value: object = None
        try:
            if text is None:
                raise Problem(Code.INVALID_FORMAT, "Binary frames mean nothing here.", "Send text frames.")
            value = frames.parse(text)
            frame = frames.frame_of(value, self._last_id)
            self._last_id = frame.id
            if len(self._running) >= MOST_COMMANDS:
                raise Problem(
                    Code.TOO_MANY_REQUESTS,
                    f"{MOST_COMMANDS} commands of this connection are running already.",
                    "Wait until one is over.",
                )
        except Problem as problem:
            self._send(frames.failure(frames.id_of(value), problem.info))
            return
        task = self._tasks.create_task(self._run(frame), name=f"command {frame.type[:40]}")
        self._running[frame.id] = task
        task.add_done_callback(lambda _: self._ended(frame.id))

    def _ended(self, id_: int) -> None:
        del self._running[id_]
        self._streaming.discard(id_)
        self._cancelled.discard(id_)
        self._close_if_idle()

    async def _run(self, frame: frames.Frame) -> None:
        call = _Call(self, frame.id)
        try:
            command = self._dispatch.find(frame.type)
            assert self._visitor is not None
            caller = Caller(self._visitor, client_of(self._request), call)
            if command.streams:
                await self._stream(command, frame, caller)
            else:
                self._send(frames.result(frame.id, await self._dispatch.run(command, frame.parameters, caller)))
                for subscribe in call.after_result:
                    subscribe()
        except Exception as error:  # the one catch-all of the websocket: every failure becomes an answer
            if isinstance(error, ConnectionError):
                raise
            self._send(frames.failure(frame.id, info_of(error)))

    async def _stream(self, command: Command, frame: frames.Frame, caller: Caller) -> None:
        """The result of a command that streams, then its events; of those there is always a last one."""
        failed = f"{command.type.partition('.')[0]}.failed"
        self._streaming.add(frame.id)
        begun = False
        try:
            async with contextlib.aclosing(self._dispatch.stream(command, frame.parameters, caller)) as events:
                async for event in events:
                    if not begun:
                        self._send(frames.result(frame.id, event))
                        begun = True
                    elif event["type"] == "complete.delta":
                        self._put(partial(self._outbox.text, frame.id, event["text"]))
                    else:
                        self._send(frames.event(frame.id, dumps(event)))
        except Exception as error:
            if not begun or isinstance(error, ConnectionError):
                raise
            self._fail(frame.id, failed, info_of(error))
        except asyncio.CancelledError:
            if frame.id in self._cancelled:
                if begun:
                    self._fail(frame.id, failed, CANCELLED)
                else:
                    self._send(frames.failure(frame.id, CANCELLED))
            raise

    def _fail(self, id_: int, type_: str, info: ProblemInfo) -> None:
        self._send(frames.event(id_, dumps({"type": type_, "error": frame_error(info)})))

    def cancel(self, command: int) -> bool:
        if command not in self._streaming:
            return False
        self._cancelled.add(command)
        self._running[command].cancel()
        return True

    # ---- subscriptions

    def subscribe(self, id_: int, topics: Sequence[Topic], interval_s: float) -> None:
        self._subscribed[id_] = self._subscriptions.open(self, id_, topics, interval_s)

    def check_room_for_subscription(self) -> None:
        if len(self._subscribed) >= MOST_SUBSCRIPTIONS:
            raise Problem(
                Code.TOO_MANY_REQUESTS,
                f"This connection has {MOST_SUBSCRIPTIONS} subscriptions already.",
                "Subscribe to several topics at once, or unsubscribe first.",
            )

    def unsubscribe(self, subscription: int) -> bool:
        found = self._subscribed.pop(subscription, None)
        if found is not None:
            self._subscriptions.close(found)
        return found is not None

    def event(self, subscription: int, event: bytes) -> None:
        self._send(frames.event(subscription, event))

    def latest(self, subscription: int, event: bytes) -> None:
        self._put(partial(self._outbox.replace, f"latest {subscription}", frames.event(subscription, event)))

    # ---- writing

    def _send(self, message: bytes) -> None:
        self._put(partial(self._outbox.put, message))

    def _put(self, put: Callable[[], None]) -> None:
        if not self._open:
            return
        try:
            put()
        except Overflow:
            self.drop()
            return
        if not self._writing:
            self._writing = True
            self._tasks.create_task(self._write(), name="websocket writer")

    async def _write(self) -> None:
        try:
            while (message := self._outbox.take()) is not None:
                await self._socket.send_frame(message, WSMsgType.TEXT)
        except ConnectionError:
            self.drop()
        finally:
            self._writing = False
        self._close_if_idle()

    def drop(self) -> None:
        """End the connection without waiting for its client, who may not read, to say goodbye."""
        transport = self._request.transport
        if transport is not None:
            transport.abort()

    def _close_if_idle(self) -> None:
        if self._open and self._closing and not self._running and not self._outbox and not self._writing:
            self._closing = False
            self._tasks.create_task(self._say_goodbye(), name="websocket close")

    async def _say_goodbye(self) -> None:
        await self._socket.close(code=1001, message=b"the appliance stops")


class _Call:
    """The connection as one command sees it."""

    def __init__(self, connection: _Connection, id_: int) -> None:
        self._connection = connection
        self._id = id_
        self.after_result: list[Callable[[], None]] = []

    def subscribe(self, topics: Sequence[Topic], interval_s: float) -> None:
        self._connection.check_room_for_subscription()
        self.after_result.append(partial(self._connection.subscribe, self._id, topics, interval_s))

    def unsubscribe(self, subscription: int) -> bool:
        return self._connection.unsubscribe(subscription)

    def cancel(self, command: int) -> bool:
        return self._connection.cancel(command)


def _delta(id_: int, text: str) -> bytes:
    return frames.event(id_, dumps({"type": "complete.delta", "text": text}))
