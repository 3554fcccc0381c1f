"""How text becomes fill-in-the-middle examples."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

import examples
from examples import BOS, END, EOS, MIDDLE, MIDDLE_FLAG, PREFIX, SUFFIX, Examples

TEXT = """import os


def f(x):
    if x:
        return os.sep
    return x


class A:
    def g(self):
        y = 1
        return y
"""


@dataclass(frozen=True, slots=True)
class Encoded:
    ids: list[int]


class Characters:
    """A tokenizer whose tokens are characters."""

    def encode_batch(self, input: list[str], *, add_special_tokens: bool) -> list[Encoded]:  # noqa: A002
        assert not add_special_tokens
        return [Encoded([ord(character) + 100 for character in text]) for text in input]


def decoded(ids: list[int]) -> str:
    return "".join(chr((token & ~MIDDLE_FLAG) - 100) for token in ids)


def test_the_three_pieces_of_a_cut_are_the_text() -> None:
    rng = random.Random(1)
    orders = set()
    for _ in range(300):
        cut = examples.cut(TEXT, 1000, rng)
        if cut is not None:
            assert cut.prefix + cut.middle + cut.suffix == TEXT
            assert cut.middle.strip()
            orders.add(cut.spm)
    assert orders == {True, False}


@pytest.mark.parametrize(("kind", "share"), list(examples.KINDS.items()))
def test_each_kind_of_middle_begins_and_ends_where_it_says(
    kind: str, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert share > 0
    monkeypatch.setattr(examples, "KINDS", {kind: 1})
    lines = TEXT.split("\n")
    rng = random.Random(2)
    for _ in range(100):
        piece = examples.middle_of(lines, rng)
        assert piece is not None
        first, start, last, end = piece
        indent = len(lines[first]) - len(lines[first].lstrip())
        if kind == "line":
            assert (start, last, end) == (0, first, len(lines[first]))
        elif kind == "after_indent":
            assert (start, last, end) == (indent, first, len(lines[first]))
        elif kind == "rest_of_line":
            assert (last, end) == (first, len(lines[first]))
            assert start >= indent
        elif kind == "span":
            assert last == first
            assert start < end
        else:
            assert last > first or first == len(lines) - 1


def test_functions_stand_on_their_own_without_their_outer_indentation() -> None:
    assert list(examples.functions_of(TEXT)) == [
        "def f(x):\n    if x:\n        return os.sep\n    return x\n",
        "def g(self):\n    y = 1\n    return y\n",
    ]


def test_an_example_is_a_prompt_in_one_of_the_orders_with_its_middle_flagged_to_the_end() -> None:
    made = Examples([(TEXT, 1.0)], Characters())
    orders = set()
    rng = random.Random(3)
    for _ in range(200):
        example = made.example(400, rng)
        if example is None or MIDDLE not in example:
            continue
        at = example.index(MIDDLE)
        context, middle = example[1:at], example[at + 1 :]
        assert example[0] == BOS
        assert len(example) <= 400
        assert middle[-1] == END | MIDDLE_FLAG
        assert all(token & MIDDLE_FLAG for token in middle)
        assert not any(token & MIDDLE_FLAG for token in context)
        spm = context[0] == SUFFIX
        orders.add(spm)
        between = context.index(PREFIX if spm else SUFFIX)
        first, second = context[1:between], context[between + 1 :]
        prefix, suffix = (second, first) if spm else (first, second)
        assert decoded(prefix) + decoded(middle[:-1]) + decoded(suffix) in TEXT
    assert orders == {True, False}


def test_rows_are_full_or_padded_and_the_same_for_the_same_seed() -> None:
    made = Examples([(TEXT, 1.0)], Characters())
    rows = made.rows(5, 300, "seed")
    assert len(rows) == 1500
    assert rows != made.rows(5, 300, "another")
    assert rows == made.rows(5, 300, "seed")
    assert rows == Examples([(TEXT, 1.0)], Characters()).rows(5, 300, "seed")
    for start in range(0, 1500, 300):
        row = list(rows[start : start + 300])
        assert row[0] == BOS
        padding = len(row) - row.index(EOS) if EOS in row else 0
        assert padding < examples.SMALLEST_EXAMPLE
        assert row.count(EOS) == padding
