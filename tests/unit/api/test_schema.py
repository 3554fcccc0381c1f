"""A schema and `decode` are made from the same annotations, so what one takes the other does."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest

from rockfill.api.commands.all import COMMANDS
from rockfill.api.schema import schema
from rockfill.decode import MaxLength, Range


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Inner:
    path: str


@dataclass(frozen=True)
class Outer:
    needed: int
    colour: Colour = Colour.RED
    share: Annotated[float, Range(0, 1)] = 0.5
    many: Annotated[tuple[Inner, ...], MaxLength(2)] = ()
    name: Annotated[str, MaxLength(3)] | None = None
    stop: str | Annotated[tuple[str, ...], MaxLength(4)] = ()
    mode: Literal["a", "b"] = "a"
    free: Any = None
    table: dict[str, int] = field(default_factory=dict)
    renamed: bool = field(default=False, metadata={"name": "class"})


def test_everything_that_decode_knows_has_a_schema() -> None:
    assert schema(Outer) == {
        "type": "object",
        "properties": {
            "needed": {"type": "integer"},
            "colour": {"enum": ["red", "blue"], "default": "red"},
            "share": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.5},
            "many": {
                "type": "array",
                "items": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
                "maxItems": 2,
                "default": [],
            },
            "name": {"anyOf": [{"type": "string", "maxLength": 3}, {"type": "null"}], "default": None},
            "stop": {
                "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "maxItems": 4}],
                "default": [],
            },
            "mode": {"enum": ["a", "b"], "default": "a"},
            "free": {"default": None},
            "table": {"type": "object", "additionalProperties": {"type": "integer"}},
            "class": {"type": "boolean", "default": False},
        },
        "required": ["needed"],
    }


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.type)
def test_every_command_has_one_and_says_what_it_does(command: Any) -> None:
    assert schema(command.parameters)["type"] == "object"
    assert command.doc.endswith(".")
