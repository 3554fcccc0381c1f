"""Places in source files at which somebody could have stopped typing: what stands there is the answer."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal["line", "rest"]

# A bracket alone, or `pass`, says little about a model.
_LEAST_CHARS = 3
_WORD_START = re.compile(r"(?<=\W)\w|(?<=\w)\W")
_COMMENT = re.compile(r"\s*(#|//|/\*|\*|--|%|;|\"\"\"|''')")


@dataclass(frozen=True, slots=True)
class Place:
    """A cursor in a file. `line` asks for a whole line after its indentation, `rest` for the rest of one from the
    beginning or the end of a word."""

    kind: Kind
    file: str
    line: int
    prefix: str
    answer: str
    suffix: str


def places(files: Mapping[str, str], limit: int, seed: int) -> list[Place]:
    """At most `limit` places, half of each kind, chosen by `seed` from all lines of code that are worth asking for.

    The same files, limit and seed give the same places. Comments and very short lines are left out.
    """
    lines = [
        (name, number)
        for name, text in sorted(files.items())
        for number, line in enumerate(text.split("\n"))
        if len(line.strip()) >= _LEAST_CHARS and not _COMMENT.match(line)
    ]
    order = random.Random(seed)  # noqa: S311 - a sample, not a secret
    order.shuffle(lines)
    found: list[Place] = []
    for name, number in lines:
        if len(found) == limit:
            break
        place = _place("rest" if len(found) % 2 else "line", name, files[name], number, order)
        if place is not None:
            found.append(place)
    return found


def _place(kind: Kind, name: str, text: str, number: int, order: random.Random) -> Place | None:
    lines = text.split("\n")
    line = lines[number]
    indent = len(line) - len(line.lstrip())
    columns = [indent] if kind == "line" else [m.start() for m in _WORD_START.finditer(line) if m.start() > indent]
    columns = [column for column in columns if line[column:].strip()]
    if not columns:
        return None
    column = order.choice(columns)
    before = "".join(f"{earlier}\n" for earlier in lines[:number])
    after = "".join(f"\n{later}" for later in lines[number + 1 :])
    return Place(kind, name, number + 1, before + line[:column], line[column:].rstrip(), after)
