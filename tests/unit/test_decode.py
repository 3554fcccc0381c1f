from __future__ import annotations

import dataclasses
import json
import math
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockfill.api.commands.all import COMMANDS
from rockfill.api.dialects.openai import CompletionBody
from rockfill.api.login import Login
from rockfill.config import Config
from rockfill.decode import DecodeError, MaxLength, Range, decode, decode_request
from rockfill.errors import Code, Problem
from rockfill.link.messages import TO_DAEMON, TO_WORKER
from rockfill.state import Choices
from rockfill.store.models import Manifest

if TYPE_CHECKING:
    from collections.abc import Mapping


class Colour(StrEnum):
    RED = "red"
    GREEN = "green"


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: float = 0.5


@dataclass(frozen=True, slots=True)
class Everything:
    text: str = ""
    flag: bool = False
    count: Annotated[int, Range(1, 10)] = 1
    share: Annotated[float, Range(minimum=0.0)] = 0.0
    maybe: str | None = "set"
    either: str | int = ""
    numbers: tuple[int, ...] = ()
    points: list[Point] = field(default_factory=list)
    by_name: dict[str, Point] = field(default_factory=dict)
    mode: Literal["line", "block"] = "line"
    colour: Colour = Colour.RED
    short: Annotated[str, MaxLength(3)] = ""
    few: Annotated[tuple[str, ...], MaxLength(2)] = ()
    anything: Any = None
    nested: Point = field(default_factory=lambda: Point(0))
    renamed: int = field(default=0, metadata={"name": "re-named"})


def mistakes(
    value: object, cls: type[Any] = Everything, *, unknown: Literal["ignore", "refuse"] = "ignore"
) -> list[str]:
    with pytest.raises(DecodeError) as caught:
        decode(cls, value, unknown=unknown)
    return caught.value.errors


def test_absent_fields_have_their_defaults() -> None:
    assert decode(Everything, {}) == Everything()


def test_every_kind_of_value_is_taken() -> None:
    value = {
        "text": "é",
        "flag": True,
        "count": 10,
        "share": 3,
        "maybe": None,
        "either": 4,
        "numbers": [1, 2],
        "points": [{"x": 1, "y": 2}],
        "by_name": {"a": {"x": 3}},
        "mode": "block",
        "colour": "green",
        "short": "abc",
        "few": ["a", "b"],
        "anything": {"free": [None]},
        "nested": {"x": -1},
        "re-named": 7,
    }
    assert decode(Everything, value) == Everything(
        "é",
        True,
        10,
        3.0,
        None,
        4,
        (1, 2),
        [Point(1, 2.0)],
        {"a": Point(3)},
        "block",
        Colour.GREEN,
        "abc",
        ("a", "b"),
        {"free": [None]},
        Point(-1),
        7,
    )


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ({"text": 1}, "text: must be a string"),
        ({"text": "\ud800"}, "text: must not contain lone surrogates"),
        ({"flag": 1}, "flag: must be true or false"),
        ({"count": True}, "count: must be an integer"),
        ({"count": 1.5}, "count: must be an integer"),
        ({"count": "1"}, "count: must be an integer"),
        ({"count": math.inf}, "count: must be an integer"),
        ({"count": math.nan}, "count: must be an integer"),
        ({"count": 0}, "count: must be at least 1"),
        ({"count": 11}, "count: must be at most 10"),
        ({"count": 2**63}, "count: must fit in 64 bits"),
        ({"count": 1e300}, "count: must fit in 64 bits"),
        ({"count": -1e300}, "count: must fit in 64 bits"),
        ({"share": True}, "share: must be a number"),
        ({"share": math.nan}, "share: must be a finite number"),
        ({"share": -math.inf}, "share: must be a finite number"),
        ({"share": 10**400}, "share: must be a finite number"),
        ({"share": -0.1}, "share: must be at least 0"),
        ({"maybe": 1}, "maybe: must be a string"),
        ({"either": []}, "either: must be a string or an integer"),
        ({"numbers": 1}, "numbers: must be a list"),
        ({"numbers": [0, "x"]}, "numbers[1]: must be an integer"),
        ({"points": [{"x": 1}, {"y": 2}]}, "points[1].x: is missing"),
        ({"by_name": []}, "by_name: must be an object"),
        ({"by_name": {"a": {"x": None}}}, "by_name.a.x: must be an integer"),
        ({"mode": "raw"}, 'mode: must be one of "line", "block"'),
        ({"mode": []}, 'mode: must be one of "line", "block"'),
        ({"colour": "blue"}, 'colour: must be one of "red", "green"'),
        ({"short": "abcd"}, "short: must not be longer than 3"),
        ({"few": ["a", "b", "c"]}, "few: must not be longer than 2"),
        ({"nested": {"x": {}}}, "nested.x: must be an integer"),
        ({"nested": 3}, "nested: must be an object"),
        ({"re-named": ""}, "re-named: must be an integer"),
        ([], "the value: must be an object"),
        (None, "the value: must be an object"),
    ],
)
def test_a_mistake_is_named_with_its_place(value: object, complaint: str) -> None:
    assert mistakes(value) == [complaint]


def test_all_mistakes_are_named_at_once() -> None:
    assert mistakes({"text": 1, "nested": {"y": ""}, "numbers": ["a", 1, "b"]}) == [
        "text: must be a string",
        "numbers[0]: must be an integer",
        "numbers[2]: must be an integer",
        "nested.x: is missing",
        "nested.y: must be a number",
    ]


def test_what_is_not_known_is_ignored_or_refused_as_asked() -> None:
    value = {"texd": "x", "nested": {"x": 1, "z": 2}}
    assert decode(Everything, value).nested == Point(1)
    assert mistakes(value, unknown="refuse") == ["nested.z: is not known", "texd: is not known"]


def test_null_stands_for_a_default_but_not_for_what_is_required() -> None:
    assert decode(Everything, {"count": None, "text": None, "nested": None}) == Everything()
    assert mistakes({"x": None}, Point) == ["x: must be an integer"]


def test_whole_numbers_of_javascript_are_integers() -> None:
    assert decode(Point, {"x": 16.0}).x == 16
    assert isinstance(decode(Point, {"x": 16.0}).x, int)


def test_a_request_s_mistakes_become_one_problem() -> None:
    with pytest.raises(Problem) as caught:
        decode_request(Point, {"y": ""})
    assert caught.value.code is Code.INVALID_VALUE
    assert caught.value.detail == {"fields": ["x: is missing", "y: must be a number"]}


def test_nesting_deeper_than_the_type_is_not_followed() -> None:
    deep: Any = 0
    for _ in range(100_000):
        deep = [deep]
    assert mistakes({"x": deep}, Point) == ["x: must be an integer"]
    assert decode(Everything, {"anything": deep}).anything is deep


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
FIELDS = [entry.metadata.get("name", entry.name) for entry in dataclasses.fields(Everything)]


@given(st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_any_json_is_decoded_or_refused_and_never_breaks(value: Mapping[str, Any]) -> None:
    with suppress(DecodeError):
        assert isinstance(decode(Everything, value), Everything)


POINTS = st.builds(Point, st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False))
EVERYTHING = st.builds(
    Everything,
    text=st.text(),
    flag=st.booleans(),
    count=st.integers(1, 10),
    maybe=st.none() | st.text(),
    either=st.text() | st.integers(-9, 9),
    numbers=st.lists(st.integers(-9, 9)).map(tuple),
    points=st.lists(POINTS, max_size=3),
    by_name=st.dictionaries(st.text(), POINTS, max_size=3),
    mode=st.sampled_from(["line", "block"]),
    colour=st.sampled_from(Colour),
    nested=POINTS,
)


@given(EVERYTHING)
def test_what_is_written_as_json_is_read_back(value: Everything) -> None:
    written = dataclasses.asdict(value)
    written["re-named"] = written.pop("renamed")
    assert decode(Everything, json.loads(json.dumps(written)), unknown="refuse") == value


@pytest.mark.parametrize(
    "cls",
    {
        *(Config, CompletionBody, Manifest, Choices, Login),
        *TO_DAEMON,
        *TO_WORKER,
        *(command.parameters for command in COMMANDS),
    },
    ids=lambda cls: cls.__name__,
)
def test_everything_that_is_decoded_anywhere_can_be(cls: type[Any]) -> None:
    """A field of a kind that `decode` does not know is a TypeError at the first use, which may be in production."""
    with pytest.raises(DecodeError):
        decode(cls, None)


def test_a_kind_that_is_not_known_is_a_defect() -> None:
    @dataclass(frozen=True)
    class Odd:
        value: complex

    with pytest.raises(TypeError):
        decode(Odd, {})
