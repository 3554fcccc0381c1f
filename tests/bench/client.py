"""HTTP/1.1 over one kept-alive socket and no more: what a measurement spends on its own client must be next to nothing.

`bare_server` answers as the daemon does and does nothing else; against it a client measures loopback and itself.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import re
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT_S = 30.0
TEXT = re.compile(rb'"text":"[^"]')
FINAL = re.compile(rb'data: (\{[^\n]*"rockfill":[^\n]*\})\n')
END_OF_CHUNKS = b"\r\n0\r\n\r\n"  # nowhere else: JSON escapes line ends


class Refused(Exception):  # noqa: N818 - an answer, not a defect
    """The daemon answered with something other than 200."""


@dataclass(frozen=True, slots=True)
class Streamed:
    """A completion that was streamed. Times from just before the request was written."""

    first_s: float
    total_s: float
    raw: bytes

    @property
    def events(self) -> int:
        """How many events carried text."""
        return len(TEXT.findall(self.raw))

    @property
    def extension(self) -> dict[str, Any]:
        """What stands under ``rockfill`` in the last event."""
        match = FINAL.search(self.raw)
        assert match is not None, self.raw[-500:]
        value: dict[str, Any] = json.loads(match[1])["rockfill"]
        return value


class Connection:
    """One socket to a daemon on loopback, used for one request after another."""

    def __init__(self, port: int, token: str = "") -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head = f"Host: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def send(self, method: str, path: str, value: object = None) -> None:
        self._socket.sendall(self._message(method, path, value))

    def _message(self, method: str, path: str, value: object) -> bytes:
        body = b"" if value is None else json.dumps(value).encode()
        head = f"{method} {path} HTTP/1.1\r\n{self._head}Content-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    def exchange(self, method: str, path: str, value: object = None) -> tuple[int, bytes]:
        """Status and body of an answer that says its length."""
        self.send(method, path, value)
        raw = self._receive()
        while (head_end := raw.find(b"\r\n\r\n")) < 0:
            raw += self._receive()
        length = int(raw.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        while len(raw) < head_end + 4 + length:
            raw += self._receive()
        return int(raw.split(b" ", 2)[1]), raw[head_end + 4 :]

    def command(self, type_: str) -> Any:
        status, body = self.exchange("POST", f"/api/command/{type_}")
        assert status == 200, body
        return json.loads(body)["result"]

    def complete(self, request: dict[str, Any]) -> Streamed:
        """Stream a completion to its end."""
        message = self._message("POST", "/v1/completions", {**request, "stream": True})
        sent_s = time.perf_counter()
        self._socket.sendall(message)
        raw = self.until_text()
        first_s = time.perf_counter() - sent_s
        while not raw.endswith(END_OF_CHUNKS):
            raw += self._receive()
        return Streamed(first_s, time.perf_counter() - sent_s, bytes(raw))

    def until_text(self) -> bytearray:
        """What comes, to the first event that carries text."""
        raw = bytearray(self._receive())
        while TEXT.search(raw) is None:
            if not raw.startswith(b"HTTP/1.1 200"):
                raise Refused(bytes(raw))
            assert not raw.endswith(END_OF_CHUNKS), raw
            raw += self._receive()
        return raw

    def until_error(self) -> None:
        """Read to an error, which may be the answer or come in the middle of a stream."""
        raw = bytearray(self._receive())
        while b'"error":' not in raw:
            assert not raw.endswith(END_OF_CHUNKS), raw[-500:]
            raw += self._receive()

    def _receive(self) -> bytes:
        data = self._socket.recv(1 << 18)
        if not data:
            raise ConnectionError("the daemon closed the connection")
        return data


@contextlib.contextmanager
def bare_server(answer: bytes) -> Iterator[int]:
    """A process on the port given that sends `answer` for whatever it receives."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = multiprocessing.get_context("fork").Process(target=_answer, args=(listener, answer), daemon=True)
        process.start()
        try:
            yield listener.getsockname()[1]
        finally:
            process.kill()
            process.join()


def _answer(listener: socket.socket, answer: bytes) -> None:
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while connection.recv(1 << 18):
        connection.sendall(answer)
