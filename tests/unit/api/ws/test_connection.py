"""A connection that begins or ends while the appliance does."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from aiohttp import WSMsgType

from rockfill.access.tokens import EVERYTHING, Visitor
from rockfill.api.commands.table import Dispatch, Json, NoParameters, command
from rockfill.api.ws import connection
from rockfill.api.ws.connection import _Connection
from rockfill.api.ws.subscriptions import Subscriptions
from rockfill.bus import Bus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest


class Socket:
    """Says what the test wants said, until it is closed by either side."""

    def __init__(self, *texts: str) -> None:
        self.sent: list[Any] = []
        self.code: int | None = None
        self.over = asyncio.Event()
        self._texts = texts

    async def __aiter__(self) -> AsyncIterator[SimpleNamespace]:
        for text in self._texts:
            yield SimpleNamespace(type=WSMsgType.TEXT, data=text)
        await self.over.wait()

    async def send_frame(self, message: bytes, _type: WSMsgType) -> None:
        self.sent.append(json.loads(message))

    async def close(self, *, code: int, message: bytes = b"") -> None:
        self.code = code
        self.over.set()


def connected(socket: Socket, dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch) -> _Connection:
    monkeypatch.setattr(connection, "client_of", lambda request: "")
    visitor = Visitor(EVERYTHING)
    request = SimpleNamespace(transport=None)
    return _Connection(
        cast(Any, socket), cast(Any, request), dispatch, Subscriptions(Bus(), {}), visitor, lambda token: visitor
    )


async def test_who_comes_while_the_appliance_stops_is_greeted_and_told_goodbye(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    socket = Socket()
    opened = connected(socket, Dispatch([], {}), monkeypatch)
    opened.close_when_idle()
    await opened.run()
    assert [frame["type"] for frame in socket.sent] == ["auth_ok"]
    assert socket.code == 1001


async def test_who_goes_while_the_appliance_stops_ends_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = asyncio.Event()

    @command("wait", scope=None)
    async def wait(_: NoParameters) -> Json:
        """Wait for ever."""
        begun.set()
        await asyncio.Event().wait()
        return {}

    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    socket = Socket('{"id": 1, "type": "wait"}')
    opened = connected(socket, Dispatch([wait], {}), monkeypatch)
    running = asyncio.create_task(opened.run())
    await begun.wait()
    opened.close_when_idle()
    socket.over.set()
    await running
    assert failures == []
