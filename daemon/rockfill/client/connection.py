"""A connection to a running appliance, over its websocket."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp

from rockfill.errors import Code, Problem, ProblemInfo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from typing import Self

CONNECT_TIMEOUT_S = 5.0

# Longer than the appliance itself waits before it takes us for gone.
HEARTBEAT_S = 45.0

MAX_MESSAGE_BYTES = 64 * 1024 * 1024

Json = dict[str, Any]
_BROKEN_OFF = ProblemInfo(Code.NO_DAEMON, "The connection to Rockfill broke off.", "Ask again.")


class Client:
    """Use it as an async context manager. Every method raises the appliance's own `Problem`, or `no_daemon`.

    Any number of calls, subscriptions and completions may be under way at the same time, each in a task of its own.
    """

    def __init__(self, url: str, token: str | None) -> None:
        """`url` as ``http://HOST:PORT``, or ``https://…``, with a path prefix if a proxy gives it one."""
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._session: aiohttp.ClientSession
        self._socket: aiohttp.ClientWebSocketResponse
        self._reader: asyncio.Task[None]
        self._last_id = 0
        self._results: dict[int, asyncio.Future[Json]] = {}
        self._events: dict[int, asyncio.Queue[Json | None]] = {}
        self._over = False

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            trust_env=False,  # the appliance is on this network; a proxy has no business between
        )
        try:
            self._socket = await self._connect()
        except BaseException:
            await self._session.close()
            raise
        self._reader = asyncio.create_task(self._read(), name="rockfill client")
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._socket.close()
        self._reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader
        await self._session.close()

    async def call(self, type_: str, parameters: Mapping[str, Any] | None = None) -> Json:
        """Run the command `type_` and return its result."""
        _, result = await self._start(type_, parameters or {})
        return result

    async def subscribe(self, topics: Sequence[str], *, interval_s: float = 1.0) -> AsyncIterator[Json]:
        """The events of `topics`, the present state first, until the iteration is ended. `stats` come so often at most.

        Each has its `type` and `topic`, and beside them its values.
        """
        id_, _ = await self._start("subscribe", {"topics": list(topics), "interval_s": interval_s}, events=True)
        try:
            while True:
                yield await self._event(id_)
        finally:
            self._events.pop(id_, None)
            await self._post_quietly("unsubscribe", {"subscription": id_})

    def complete(self, prefix: str, suffix: str | None = None, **parameters: Any) -> Completion:
        """The completion between `prefix` and `suffix`: iterate over it for its text as it comes.

        `parameters` are those of `complete.start`, such as `mode` and `max_tokens`.
        """
        return Completion(self, {"prefix": prefix, "suffix": suffix, **parameters})

    # ---- for `Completion`

    async def _completion(self, parameters: Mapping[str, Any]) -> AsyncIterator[Json]:
        id_, result = await self._start("complete.start", parameters, events=True)
        over = False
        try:
            yield result
            while not over:
                event = await self._event(id_)
                over = event["type"] != "complete.delta"
                if event["type"] == "complete.failed":
                    raise _problem(event.get("error"))
                yield event
        finally:
            self._events.pop(id_, None)
            if not over:
                await self._post_quietly("complete.cancel", {"completion": id_})

    # ---- frames

    async def _connect(self) -> aiohttp.ClientWebSocketResponse:
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise _no_address(self.url)
        try:
            async with asyncio.timeout(2 * CONNECT_TIMEOUT_S):
                try:
                    socket = await self._session.ws_connect(
                        f"{self.url}/ws",
                        heartbeat=HEARTBEAT_S,
                        max_msg_size=MAX_MESSAGE_BYTES,
                        ssl=not _is_here(self.url),
                    )
                except aiohttp.WSServerHandshakeError as error:
                    raise await self._refusal(error.status) from None
                greeting = await socket.receive()
        except (aiohttp.ClientConnectionError, TimeoutError) as error:
            raise Problem(
                Code.NO_DAEMON,
                f"No Rockfill answers at {self.url} ({type(error).__name__}: {error}).",
                "Start it with `rockfill serve` or `systemctl start rockfill`, or set ROCKFILL_URL.",
            ) from None
        except (aiohttp.InvalidURL, ValueError) as error:
            raise _no_address(self.url) from error
        except aiohttp.ClientError:
            raise _BROKEN_OFF.raised() from None
        said = _object(greeting.data) if greeting.type is aiohttp.WSMsgType.TEXT else {}
        if said.get("type") == "auth_ok":
            return socket
        await socket.close()
        if said.get("type") == "auth_required":
            raise Problem(
                Code.UNAUTHORIZED,
                "This needs the appliance's token.",
                "Set ROCKFILL_TOKEN; `rockfill token` prints it.",
            )
        raise _not_rockfill(101)

    async def _refusal(self, status: int) -> Problem:
        """Why the websocket was refused: an answer to a handshake can't be read, one to an ordinary request can."""
        async with self._session.get(f"{self.url}/ws", ssl=not _is_here(self.url)) as response:
            value = _object(await response.content.read(1 << 16))
        error = value.get("error")
        return _problem(error) if isinstance(error, Mapping) else _not_rockfill(status)

    async def _start(self, type_: str, parameters: Mapping[str, Any], *, events: bool = False) -> tuple[int, Json]:
        """Send a command, and wait for its result. With `events`, those that follow it are kept."""
        self._last_id += 1
        id_ = self._last_id
        self._results[id_] = settled = asyncio.get_running_loop().create_future()
        if events:
            self._events[id_] = asyncio.Queue()
        try:
            await self._post({"id": id_, "type": type_, **parameters})
            return id_, await settled
        except BaseException:
            self._events.pop(id_, None)
            raise
        finally:
            del self._results[id_]

    async def _post(self, frame: Mapping[str, Any]) -> None:
        if self._over:
            raise _BROKEN_OFF.raised()
        try:
            await self._socket.send_str(json.dumps(frame))
        except ConnectionError:
            raise _BROKEN_OFF.raised() from None

    async def _post_quietly(self, type_: str, parameters: Mapping[str, Any]) -> None:
        """Send a command that nobody waits for, if there still is a connection."""
        self._last_id += 1
        with contextlib.suppress(Problem):
            await self._post({"id": self._last_id, "type": type_, **parameters})

    async def _event(self, id_: int) -> Json:
        event = await self._events[id_].get()
        if event is None:
            raise _BROKEN_OFF.raised()
        return event

    async def _read(self) -> None:
        try:
            async for message in self._socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    self._received(_object(message.data))
        finally:
            self._over = True
            for settled in self._results.values():
                if not settled.done():
                    settled.set_exception(_BROKEN_OFF.raised())
            for queue in self._events.values():
                queue.put_nowait(None)

    def _received(self, frame: Json) -> None:
        id_ = frame.get("id")
        if frame.get("type") == "event" and id_ in self._events:
            self._events[id_].put_nowait(frame["event"])
        elif frame.get("type") == "result" and id_ in self._results and not self._results[id_].done():
            if frame.get("success"):
                self._results[id_].set_result(frame["result"])
            else:
                self._results[id_].set_exception(_problem(frame.get("error")))


class Completion:
    """A completion under way. Iterate once for its text; ending the iteration early ends the completion."""

    def __init__(self, client: Client, parameters: Mapping[str, Any]) -> None:
        self._client = client
        self._parameters = parameters
        self.model = ""
        self.done: Json = {}

    async def __aiter__(self) -> AsyncIterator[str]:
        """The text; then `done` has what `complete.done` says: `text`, `finish_reason`, `timings` and the rest."""
        async for value in self._client._completion(self._parameters):
            match value.get("type"):
                case None:
                    self.model = value["model"]
                case "complete.delta":
                    yield value["text"]
                case _:
                    self.done = value

    async def text(self) -> str:
        """The whole text."""
        return "".join([text async for text in self])


def _is_here(url: str) -> bool:
    """Whether this very machine is asked, by an address that no certificate is made out to."""
    return urlsplit(url).hostname in ("127.0.0.1", "::1")


def _object(text: str | bytes) -> Json:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _no_address(url: str) -> Problem:
    return Problem(Code.INVALID_VALUE, f'"{url}" is no address.', "Write it like http://rock5.local:8012.")


def _not_rockfill(status: int) -> Problem:
    return Problem(Code.INTERNAL_ERROR, f"Something that is not Rockfill answered ({status}).", "Check the address.")


def _problem(error: object) -> Problem:
    """The appliance's problem, out of what a frame or an answer says of it."""
    if not isinstance(error, Mapping):
        return _not_rockfill(200)
    code, detail = error.get("code"), error.get("detail")
    known = Code(code) if code in set(Code) else Code.INTERNAL_ERROR
    facts = detail if isinstance(detail, Mapping) else {}
    return Problem(known, str(error.get("message", "")), str(error.get("advice", "")), **facts)
