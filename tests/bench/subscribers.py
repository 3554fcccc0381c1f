"""A thousand websockets that want the figures of each second, and what becomes of them when a hundred stop reading."""

from __future__ import annotations

import asyncio
import re
import resource
import socket
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tests.bench.lab import BenchAppliance, Row, cpu_s, rss_mb

if TYPE_CHECKING:
    from collections.abc import Iterator

SUBSCRIBERS = 1000
STALLED = 100
SETTLE_S, MEASURE_S = 4.0, 12.0

HANDSHAKE = (
    "GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
SUBSCRIBE = b'{"id":1,"type":"subscribe","topics":["stats"],"interval_s":1}'
TIME_S = re.compile(rb'"time_s":(\d+\.?\d*)')
TEXT, PING, PONG = 0x81, 0x89, 0x8A


@dataclass(eq=False)
class Subscriber(asyncio.Protocol):
    """One client that costs next to nothing. `late_s` has how long after its making each sample came."""

    hello: bytes
    late_s: list[float] = field(default_factory=list)
    transport: asyncio.Transport | None = None
    lost: bool = False
    _buffer: bytes = b""
    _upgraded: bool = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self.hello)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True

    def data_received(self, data: bytes) -> None:
        now_s = time.time()
        self._buffer += data
        if not self._upgraded:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            assert b" 101 " in head, head
            self._upgraded, self._buffer = True, rest
            self.send(TEXT, SUBSCRIBE)
        while (frame := self._frame()) is not None:
            kind, payload = frame
            if kind == PING:
                self.send(PONG, payload)
            elif b'"topic":"stats"' in payload and (made := TIME_S.search(payload)):
                self.late_s.append(now_s - float(made[1]))

    def send(self, kind: int, payload: bytes) -> None:
        """A frame with a mask of zeros, as the protocol wants one of clients."""
        assert self.transport is not None
        assert len(payload) < 126
        self.transport.write(bytes([kind, 0x80 | len(payload), 0, 0, 0, 0]) + payload)

    def _frame(self) -> tuple[int, bytes] | None:
        if len(self._buffer) < 2:
            return None
        length, at = self._buffer[1], 2
        if length == 126:
            length, at = int.from_bytes(self._buffer[2:4], "big"), 4
        if len(self._buffer) < at + length:
            return None
        frame = self._buffer[0], self._buffer[at : at + length]
        self._buffer = self._buffer[at + length :]
        return frame


def subscribers() -> Iterator[Row]:
    """CPU, memory and punctuality of a thousand subscribers of figures at 1 Hz."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="rockfill-bench-") as folder:
        config = Path(folder, "config.toml")
        config.write_text(f"[server]\nmax_connections_per_address = {2 * SUBSCRIBERS}\n")
        appliance = BenchAppliance(Path(folder, "state"), ["--config", str(config)])
        appliance.start()
        try:
            yield from asyncio.run(_measure(appliance))
        finally:
            appliance.stop()


async def _measure(appliance: BenchAppliance) -> list[Row]:
    before_mb, alone = rss_mb(appliance.pid), await _cpu_percent(appliance, MEASURE_S / 2)
    hello = HANDSHAKE.format(port=appliance.port, token=appliance.token).encode()
    clients = [await _connect(appliance.port, hello) for _ in range(SUBSCRIBERS)]
    await asyncio.sleep(SETTLE_S)
    each_kb = (rss_mb(appliance.pid) - before_mb) * 1000 / SUBSCRIBERS
    _forget(clients)
    busy = await _cpu_percent(appliance, MEASURE_S)
    late = [late_s * 1000 for client in clients for late_s in client.late_s]
    got = len(late)

    stalled, reading = clients[:STALLED], clients[STALLED:]
    for client in stalled:
        assert client.transport is not None
        client.transport.pause_reading()
    stalled_from_mb = rss_mb(appliance.pid)
    _forget(reading)
    most_mb, until_s = 0.0, time.monotonic() + 2 * MEASURE_S
    while time.monotonic() < until_s:
        await asyncio.sleep(0.5)
        most_mb = max(most_mb, rss_mb(appliance.pid))
    late_beside = [late_s * 1000 for client in reading for late_s in client.late_s]
    assert not any(client.lost for client in reading)
    for client in clients:
        assert client.transport is not None
        client.transport.abort()
    expected = SUBSCRIBERS * MEASURE_S
    return [
        Row(f"{SUBSCRIBERS} subscribers of stats at 1 Hz: CPU", "%", (busy,), 15, f"{alone:.1f} % without any"),
        Row("  memory, each", "kB", (each_kb,), 40),
        Row("  from the sample to each client", "ms", tuple(late), None, f"{got} of about {expected:.0f} came"),
        Row(f"  likewise while {STALLED} of them do not read", "ms", tuple(late_beside)),
        Row("  growth of memory meanwhile", "MB", (most_mb - stalled_from_mb,), 20),
    ]


async def _connect(port: int, hello: bytes) -> Subscriber:
    loop = asyncio.get_running_loop()
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)  # so that one who does not read is soon noticed
    connection.setblocking(False)
    await loop.sock_connect(connection, ("127.0.0.1", port))
    _, client = await loop.create_connection(lambda: Subscriber(hello), sock=connection)
    return client


async def _cpu_percent(appliance: BenchAppliance, seconds: float) -> float:
    before, started_s = cpu_s(appliance.pid), time.perf_counter()
    await asyncio.sleep(seconds)
    return 100 * (cpu_s(appliance.pid) - before) / (time.perf_counter() - started_s)


def _forget(clients: list[Subscriber]) -> None:
    for client in clients:
        client.late_s.clear()
