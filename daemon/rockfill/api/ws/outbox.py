"""What is yet to be sent to one client. Pure.

Nobody who puts something in ever waits. What a newer value makes superfluous is replaced, pieces of a text that waits
grow together, and whoever leaves more than that unread is given up: the state that it believes in would be wrong.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# As many as other servers of this protocol allow; the bytes count once it is more than one message.
MOST_MESSAGES = 512
MOST_BYTES = 1 << 20


class Overflow(Exception):  # noqa: N818 - not an error of ours
    """The client has left too much unread."""


class Outbox:
    """Messages, oldest first. Whatever puts one in raises `Overflow` where that is too much."""

    def __init__(
        self,
        text_message: Callable[[int, str], bytes],
        most_messages: int = MOST_MESSAGES,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        """`text_message` makes the message that carries a piece of the text of a command."""
        self._text_message = text_message
        self._most_messages = most_messages
        self._most_bytes = most_bytes
        self._waiting: OrderedDict[object, bytes | list[str]] = OrderedDict()
        self._serial = 0
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, message: bytes) -> None:
        """One more, which must not be lost."""
        self._serial += 1
        self._waiting[self._serial] = message
        self._count(len(message))

    def replace(self, key: str, message: bytes) -> None:
        """One in the place of an earlier one of the same `key` that still waits."""
        earlier = self._waiting.get(key, b"")
        self._waiting[key] = message
        self._count(len(message) - len(earlier))

    def text(self, command: int, text: str) -> None:
        """A piece of the text of the command with that id, in one message with those that still wait."""
        key = ("text", command)
        pieces = self._waiting.setdefault(key, [])
        assert isinstance(pieces, list)
        pieces.append(text)
        self._count(len(text))

    def take(self) -> bytes | None:
        """The oldest one, None if there is none."""
        if not self._waiting:
            return None
        key, waiting = self._waiting.popitem(last=False)
        if isinstance(waiting, bytes):
            self.size_bytes -= len(waiting)
            return waiting
        text = "".join(waiting)
        self.size_bytes -= len(text)
        assert isinstance(key, tuple)
        return self._text_message(key[1], text)

    def _count(self, size_bytes: int) -> None:
        self.size_bytes += size_bytes
        many = len(self._waiting)
        if many > self._most_messages or (many > 1 and self.size_bytes > self._most_bytes):
            raise Overflow
