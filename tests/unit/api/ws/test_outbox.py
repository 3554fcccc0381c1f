from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockfill.api.ws.outbox import Outbox, Overflow


def text_message(command: int, text: str) -> bytes:
    return f"{command}:{text}".encode()


def box(most_messages: int = 512, most_bytes: int = 1 << 20) -> Outbox:
    return Outbox(text_message, most_messages, most_bytes)


def taken(outbox: Outbox) -> list[bytes]:
    return list(iter(outbox.take, None))


def test_messages_leave_in_the_order_in_which_they_came() -> None:
    outbox = box()
    for message in (b"a", b"b", b"a"):
        outbox.put(message)
    assert taken(outbox) == [b"a", b"b", b"a"]


def test_only_the_newest_of_what_replaces_each_other_is_sent() -> None:
    outbox = box()
    outbox.replace("x", b"1")
    outbox.put(b"between")
    outbox.replace("x", b"2")
    outbox.replace("y", b"3")
    assert taken(outbox) == [b"2", b"between", b"3"]
    outbox.replace("x", b"4")
    assert taken(outbox) == [b"4"]


def test_pieces_of_text_that_wait_become_one_and_those_of_two_commands_do_not_mix() -> None:
    outbox = box()
    for command, piece in ((1, "a"), (2, "x"), (1, "b"), (2, "y")):
        outbox.text(command, piece)
    assert taken(outbox) == [b"1:ab", b"2:xy"]
    outbox.text(1, "c")
    assert taken(outbox) == [b"1:c"]


def test_text_comes_before_what_ends_it() -> None:
    outbox = box()
    outbox.text(1, "a")
    outbox.text(1, "b")
    outbox.put(b"done")
    assert taken(outbox) == [b"1:ab", b"done"]


def test_too_many_messages_are_an_overflow_but_not_too_many_of_what_is_replaced_or_grows() -> None:
    outbox = box(most_messages=3)
    for number in range(100):
        outbox.replace("x", b"%d" % number)
        outbox.text(1, "a")
    outbox.put(b"a")
    with pytest.raises(Overflow):
        outbox.put(b"b")


def test_too_many_bytes_are_an_overflow_unless_they_are_one_message() -> None:
    outbox = box(most_bytes=10)
    outbox.put(b"x" * 100)
    assert taken(outbox) == [b"x" * 100]
    outbox.put(b"x" * 6)
    with pytest.raises(Overflow):
        outbox.text(1, "x" * 6)


@given(st.lists(st.tuples(st.sampled_from("prtn"), st.text(max_size=5))))
def test_the_size_is_that_of_what_waits(steps: list[tuple[str, str]]) -> None:
    outbox = box()
    for what, text in steps:
        match what:
            case "p":
                outbox.put(text.encode())
            case "r":
                outbox.replace("key", text.encode())
            case "t":
                outbox.text(1, text)
            case _:
                outbox.take()
    while len(outbox):
        assert outbox.take() is not None
    assert outbox.size_bytes == 0
