"""Messages to lines and back: UTF-8 JSON, one message a line, with a bound on the line's size."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from rockfill.decode import DecodeError, decode
from rockfill.errors import Code, Problem
from rockfill.link.messages import TO_DAEMON, TO_WORKER, ToDaemon, ToWorker

if TYPE_CHECKING:
    from collections.abc import Iterable

M = TypeVar("M", ToWorker, ToDaemon)

# A request body of 4 MiB, where JSON needs six bytes for each control character, and some room.
MAX_LINE_BYTES = 32 * 1024 * 1024


@cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


def _fields(value: Any) -> dict[str, Any]:
    kind: Any = type(value)
    return {name: getattr(value, name) for name in _names(kind)}


_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_fields)


def encode(message: ToWorker | ToDaemon) -> bytes:
    """The message as one line, newline included."""
    return _encoder.encode({"type": message.TYPE, **_fields(message)}).encode() + b"\n"


class LineDecoder(Generic[M]):
    """Bytes as they arrive into messages of one direction.

    `feed` raises a `link_broken` problem for anything that is not a line of the protocol; nothing that comes after
    it can be trusted then, and the link is to be closed.
    """

    def __init__(self, messages: Iterable[type[M]], *, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._types: dict[str, type[M]] = {message.TYPE: message for message in messages}
        self._max_line_bytes = max_line_bytes
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[M]:
        """The messages that `data` completes, in order."""
        *lines, rest = data.split(b"\n")
        if lines:
            if self._rest:
                lines[0] = bytes(self._rest) + lines[0]
                self._rest.clear()
            messages = [self._message(line) for line in lines]
        else:
            messages = []
        self._rest += rest
        if len(self._rest) > self._max_line_bytes:
            raise _broken(f"a line of more than {self._max_line_bytes} bytes")
        return messages

    def _message(self, line: bytes) -> M:
        if len(line) > self._max_line_bytes:
            raise _broken(f"a line of more than {self._max_line_bytes} bytes")
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            raise _broken(f"a line of {len(line)} bytes that is not JSON") from None
        kind = value.get("type") if isinstance(value, dict) else None
        message = self._types.get(kind) if isinstance(kind, str) else None
        if message is None:
            raise _broken(f"a message of an unknown type, {len(line)} bytes long")
        try:
            return decode(message, value)
        except DecodeError as error:
            raise _broken(f"a malformed {kind} message: {error}") from None


def _broken(what: str) -> Problem:
    return Problem(Code.LINK_BROKEN, f"The link between daemon and worker carried {what}.")


def daemon_side() -> LineDecoder[ToDaemon]:
    """What the daemon reads from a worker."""
    return LineDecoder(TO_DAEMON)


def worker_side() -> LineDecoder[ToWorker]:
    """What a worker reads from the daemon."""
    return LineDecoder(TO_WORKER)


assert all(dataclasses.is_dataclass(message) for message in (*TO_WORKER, *TO_DAEMON))
