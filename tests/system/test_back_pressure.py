"""A client that does not read costs the others nothing, and the daemon little."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING

import psutil

from rockfill.api.ws.connection import MOST_SUBSCRIPTIONS
from rockfill.client import Client

if TYPE_CHECKING:
    from tests.appliance import ScriptedAppliance

CHANGES = 400


def frame(value: object) -> bytes:
    """A client's frame, with a mask of zeros."""
    payload = json.dumps(value).encode()
    return bytes([0x81, 0x80 | 126]) + len(payload).to_bytes(2, "big") + bytes(4) + payload


def stalled(appliance: ScriptedAppliance) -> socket.socket:
    """A connection with as many subscriptions as there may be, that never reads."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(60)
    connection.connect(("127.0.0.1", appliance.port))
    head = (
        f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {appliance.token}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'A' * 22}==\r\n\r\n"
    )
    connection.sendall(head.encode())
    for id_ in range(1, MOST_SUBSCRIPTIONS + 1):
        connection.sendall(frame({"id": id_, "type": "subscribe", "topics": ["engine"]}))
    return connection


async def test_who_does_not_read_is_cut_off_and_the_others_miss_nothing(scripted: ScriptedAppliance) -> None:
    process = psutil.Process(scripted.pid)
    with stalled(scripted) as connection:
        async with Client(scripted.url, scripted.token) as client:
            pins: list[bool] = []
            begun = asyncio.Event()

            async def read() -> None:
                async for event in client.subscribe(["engine"]):
                    pins.append(event["pinned"])
                    begun.set()
                    if len(pins) == CHANGES + 1:
                        break

            reading = asyncio.create_task(read())
            await begun.wait()
            before = process.memory_info().rss
            for number in range(CHANGES):
                await client.call("engine.pin" if number % 2 == 0 else "engine.unpin")
            await asyncio.wait_for(reading, 60)
            assert pins == [number % 2 == 1 for number in range(CHANGES + 1)]
            assert process.memory_info().rss - before < 16e6
        owed = CHANGES * MOST_SUBSCRIPTIONS
        got, ended = b"", False
        while not ended:
            try:
                more = await asyncio.to_thread(connection.recv, 1 << 20)
            except ConnectionResetError:
                more = b""
            got, ended = got + more, not more
    assert got.count(b"engine.changed") < owed
