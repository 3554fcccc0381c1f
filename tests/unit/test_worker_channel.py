"""The worker's end of the link, over a real socket: it loses nothing, mixes nothing and never makes the engine wait."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest

from rockfill import worker
from rockfill.link.codec import daemon_side
from rockfill.link.messages import Done, Pong, ToDaemon, Token
from rockfill.session import Run
from rockfill.worker import Channel

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN = Run("stop", 1, None, None, None, None)


class Reader:
    """The daemon's end, read when the test says."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link
        self.decoder = daemon_side()

    def until(self, last: type[ToDaemon], size_bytes: int = 1 << 16) -> list[ToDaemon]:
        """Everything up to the first `last`."""
        messages: list[ToDaemon] = []
        while not any(isinstance(message, last) for message in messages):
            data = self.link.recv(size_bytes)
            assert data, "the link ended"
            messages += self.decoder.feed(data)
        return messages


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Reader]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Channel(ours), Reader(theirs)
        ours.shutdown(socket.SHUT_RDWR)  # which ends a write that is still waiting


def texts(messages: list[ToDaemon]) -> str:
    return "".join(message.text for message in messages if isinstance(message, Token))


def test_a_first_text_goes_out_at_once(ends: tuple[Channel, Reader]) -> None:
    channel, reader = ends
    channel.text(1, "a", 1)
    assert reader.until(Token) == [Token(1, "a", 1)]


def test_texts_that_come_together_travel_together_and_none_is_lost(
    ends: tuple[Channel, Reader], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "COALESCE_S", 30)  # on a busy machine a thousand of them need not be together
    channel, reader = ends
    for number in range(1000):
        channel.text(1, f"{number} ", 2)
    channel.send(Done(1, RUN))
    messages = reader.until(Done)
    assert texts(messages) == "".join(f"{number} " for number in range(1000))
    assert sum(message.tokens for message in messages if isinstance(message, Token)) == 2000
    assert [type(message) for message in messages] == [Token, Token, Done]


def test_a_text_that_nothing_follows_is_not_kept(ends: tuple[Channel, Reader]) -> None:
    channel, reader = ends
    channel.text(1, "a", 1)
    channel.text(1, "b", 1)
    messages: list[ToDaemon] = []
    while texts(messages) != "ab":
        messages += reader.until(Token)
    assert len(messages) <= 2


def test_a_message_comes_after_the_text_before_it_and_before_the_text_after_it(ends: tuple[Channel, Reader]) -> None:
    channel, reader = ends
    for ticket in range(1, 50):
        channel.text(ticket, "a", 1)
        channel.text(ticket, "b", 1)
        channel.send(Done(ticket, RUN))
    channel.send(Pong(0))
    said = [
        (message.id, message.text if isinstance(message, Token) else "done")
        for message in reader.until(Pong)
        if isinstance(message, Token | Done)
    ]
    assert [ticket for ticket, _ in said] == sorted(ticket for ticket, _ in said)
    for ticket in range(1, 50):
        parts = [what for its, what in said if its == ticket]
        assert parts[-1] == "done"
        assert "".join(parts[:-1]) == "ab"


def test_a_reader_that_does_not_read_does_not_stop_the_engine(ends: tuple[Channel, Reader]) -> None:
    channel, reader = ends
    for number in range(2000):  # 20 MB; a socket takes some 200 kB
        channel.send(Token(number, "x" * 10_000, 1))
    channel.send(Done(1, RUN))
    messages = reader.until(Done)
    assert [message.id for message in messages[:-1] if isinstance(message, Token)] == list(range(2000))


class Halting(socket.socket):
    """Its `sendall` stops half-way until told to go on."""

    def __init__(self, fileno: int) -> None:
        super().__init__(fileno=fileno)
        self.halfway = threading.Event()
        self.go_on = threading.Event()

    def sendall(self, data: bytes, flags: int = 0, /) -> None:  # type: ignore[override] # bytes will do here
        super().sendall(data[: len(data) // 2], flags)
        self.halfway.set()
        self.go_on.wait()
        super().sendall(data[len(data) // 2 :], flags)


def drained(link: socket.socket) -> bytes:
    """All that is there to be read."""
    try:
        return link.recv(1 << 20) + drained(link)
    except BlockingIOError:
        return b""


def test_what_is_sent_while_a_line_is_half_written_comes_after_it() -> None:
    """The socket may have room again by then; the engine's thread must not use it."""
    ours, theirs = socket.socketpair()
    with theirs, Halting(ours.detach()) as link:
        channel, reader = Channel(link), Reader(theirs)
        channel.send(Token(1, "x" * 1_000_000, 1))  # more than the socket takes
        received = b""
        theirs.setblocking(False)
        while not link.halfway.wait(0.001):
            received += drained(theirs)
        received += drained(theirs)
        theirs.setblocking(True)
        channel.send(Done(1, RUN))
        link.go_on.set()
        assert reader.decoder.feed(received) == []
        assert [type(message) for message in reader.until(Done)] == [Token, Done]


def test_many_threads_may_send(ends: tuple[Channel, Reader]) -> None:
    channel, reader = ends

    def send_many() -> None:
        for _ in range(100):
            channel.send(Token(1, "y" * 3000, 1))

    threads = [threading.Thread(target=send_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    channel.send(Done(1, RUN))
    assert texts(reader.until(Done)) == "y" * 3000 * 400


def test_a_daemon_that_is_gone_is_no_error() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        channel = Channel(ours)
        theirs.close()
        for _ in range(3):
            channel.text(1, "a", 1)
            channel.send(Done(1, RUN))
