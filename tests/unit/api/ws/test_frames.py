from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockfill.api.ws import frames
from rockfill.errors import Code, Problem


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "1", '"x"', "null", "[" * 100_000, '{"a":' * 100_000, "1" * 5000, '{"id":' + "1" * 5000 + "}"],
)
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(Problem) as caught:
        frames.parse(text)
    assert caught.value.code is Code.INVALID_FORMAT


@given(st.text())
def test_any_text_is_an_object_or_refused(text: str) -> None:
    with contextlib.suppress(Problem):
        assert isinstance(frames.parse(text), dict)


@pytest.mark.parametrize(
    "frame",
    [
        {},
        {"id": 1},
        {"type": "ping"},
        {"id": "1", "type": "ping"},
        {"id": True, "type": "ping"},
        {"id": 1.0, "type": "ping"},
        {"id": None, "type": "ping"},
        {"id": 0, "type": "ping"},
        {"id": -1, "type": "ping"},
        {"id": 2**53, "type": "ping"},
        {"id": [1], "type": "ping"},
        {"id": 1, "type": 1},
        {"id": 1, "type": None},
        {"id": 1, "type": ["ping"]},
    ],
)
def test_what_is_no_command_is_refused(frame: dict[str, object]) -> None:
    with pytest.raises(Problem) as caught:
        frames.frame_of(frame, 0)
    assert caught.value.code is Code.INVALID_FORMAT


def test_ids_count_upwards() -> None:
    assert frames.frame_of({"id": 5, "type": "ping", "x": 1}, 4).parameters == {"id": 5, "type": "ping", "x": 1}
    for again in (5, 4):
        with pytest.raises(Problem) as caught:
            frames.frame_of({"id": again, "type": "ping"}, 5)
        assert caught.value.code is Code.ID_REUSE


@pytest.mark.parametrize(("value", "id_"), [({"id": 3}, 3), ({"id": "3"}, None), ({"id": True}, None), ([], None)])
def test_a_wrong_frame_is_answered_under_its_id_if_it_has_one(value: object, id_: int | None) -> None:
    assert frames.id_of(value) == id_


def test_an_event_that_was_written_down_is_put_under_an_id() -> None:
    assert json.loads(frames.event(7, b'{"type":"x"}')) == {"id": 7, "type": "event", "event": {"type": "x"}}
