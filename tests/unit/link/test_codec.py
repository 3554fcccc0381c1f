from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from itertools import pairwise
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockfill.errors import Code, Problem
from rockfill.link.codec import LineDecoder, daemon_side, encode, worker_side
from rockfill.link.messages import TO_DAEMON, TO_WORKER, Abort, Ping, ToDaemon, Token, ToWorker

SCALARS: dict[object, st.SearchStrategy[Any]] = {
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    str: st.text(),
    Any: st.none() | st.booleans() | st.text() | st.lists(st.text()),
}


def of(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a type that messages are made of."""
    arguments = get_args(kind)
    if kind in SCALARS:
        return SCALARS[kind]
    if get_origin(kind) in (Union, UnionType):
        return st.one_of(*map(of, arguments))
    if get_origin(kind) is tuple:
        return st.lists(of(arguments[0]), max_size=3).map(tuple)
    if get_origin(kind) is dict:
        return st.dictionaries(st.text(), of(arguments[1]), max_size=3)
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        return st.builds(kind, **{field.name: of(hints[field.name]) for field in fields(kind)})
    return st.from_type(kind)


def feed_in_parts(decoder: LineDecoder[ToDaemon] | LineDecoder[ToWorker], data: bytes, cuts: list[int]) -> list[object]:
    bounds = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    read: list[object] = []
    for start, end in pairwise(bounds):
        read += decoder.feed(data[start:end])
    return read


CUTS = st.lists(st.integers(0, 10**6), max_size=8)


@given(st.lists(of(ToDaemon), max_size=4), CUTS)
def test_what_a_worker_writes_the_daemon_reads_however_it_is_cut(sent: list[ToDaemon], cuts: list[int]) -> None:
    assert feed_in_parts(daemon_side(), b"".join(map(encode, sent)), cuts) == sent


@given(st.lists(of(ToWorker), max_size=4), CUTS)
def test_what_the_daemon_writes_a_worker_reads_however_it_is_cut(sent: list[ToWorker], cuts: list[int]) -> None:
    assert feed_in_parts(worker_side(), b"".join(map(encode, sent)), cuts) == sent


@pytest.mark.parametrize("kind", [*TO_DAEMON, *TO_WORKER], ids=lambda kind: kind.TYPE)
def test_a_message_is_one_line_that_begins_with_its_type(kind: type[ToDaemon | ToWorker]) -> None:
    @given(of(kind))
    def check(message: ToDaemon | ToWorker) -> None:
        line = encode(message)
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        value = json.loads(line)
        assert next(iter(value.items())) == ("type", kind.TYPE)
        assert value.keys() == {"type", *(field.name for field in fields(kind))}

    check()


def refusal(decoder: LineDecoder[ToDaemon] | LineDecoder[ToWorker], data: bytes) -> str:
    with pytest.raises(Problem) as caught:
        decoder.feed(data)
    assert caught.value.code is Code.LINK_BROKEN
    return caught.value.message


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"9" * 10_000, "not JSON"),
        (b"null", "unknown type"),
        (b"{}", "unknown type"),
        (b'{"type":["ping"]}', "unknown type"),
        (b'{"type":"generate"}', "unknown type"),  # of the other direction
        (b'{"type":"token","id":1,"text":"x"}', "malformed token message: tokens: is missing"),
        (b'{"type":"token","id":1,"text":"\\ud800","tokens":1}', "text: must not contain lone surrogates"),
        (b'{"type":"problem","id":null,"code":"new","message":""}', "malformed problem message: code: must be one of"),
    ],
)
def test_what_is_no_message_breaks_the_link_and_is_named(line: bytes, says: str) -> None:
    assert says in refusal(daemon_side(), line + b"\n")


@given(st.binary())
def test_garbage_breaks_the_link_and_nothing_else(data: bytes) -> None:
    for decoder in (daemon_side(), worker_side()):
        if b"\n" in data:
            refusal(decoder, data)
        else:
            assert decoder.feed(data) == []


def test_what_came_before_the_nonsense_in_one_piece_is_not_trusted_either() -> None:
    refusal(daemon_side(), encode(Token(1, "x", 1)) + b"nonsense\n")


@pytest.mark.parametrize("finished", [True, False])
def test_a_line_over_the_limit_is_refused_whether_it_ends_or_not(finished: bool) -> None:
    line = encode(Abort(1))
    size = len(line) - 1
    assert LineDecoder(TO_WORKER, max_line_bytes=size).feed(line) == [Abort(1)]
    decoder = LineDecoder(TO_WORKER, max_line_bytes=size - 1)
    assert f"more than {size - 1} bytes" in refusal(decoder, line if finished else line[:-1])


def test_the_limit_holds_for_a_line_that_comes_in_small_parts() -> None:
    decoder = LineDecoder(TO_WORKER, max_line_bytes=1000)
    for _ in range(10):
        assert decoder.feed(b"x" * 100) == []
    refusal(decoder, b"x")


def test_the_limit_is_on_each_line_and_not_on_all() -> None:
    line = encode(Ping(1))
    assert LineDecoder(TO_WORKER, max_line_bytes=len(line)).feed(line * 100) == [Ping(1)] * 100
