"""Fill-in-the-middle examples from source text, packed into rows of a fixed length.

An example is a window of a file with a piece cut out, in SPM order (`ORDER_SPM` of them) or PSM, or, now and then,
plain text. What is cut out is mostly what an editor asks for: a line, a line after its indentation, the rest of a line.
"""

from __future__ import annotations

import random
import re
from array import array
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SPECIAL_TOKENS = ("<bos>", "<eos>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|file_separator|>")
BOS, EOS, PREFIX, MIDDLE, SUFFIX, END = range(len(SPECIAL_TOKENS))

# Set in an id where the token belongs to a middle: those weigh more in the loss. Vocabularies stay below it.
MIDDLE_FLAG = 0x8000

ORDER_SPM = 0.8
PLAIN_TEXT = 0.07
# Kinds of middles and their shares; the kind says where it starts and ends.
KINDS = {"line": 0.24, "after_indent": 0.16, "rest_of_line": 0.35, "span": 0.08, "lines": 0.17}
MOST_LINES = 8
# A middle that goes to the end of a line has that line's end too, and the suffix begins at the next line, this often.
WITH_NEWLINE = 0.2
SUFFIX_SHARES = (0.0, 0.1, 0.2, 0.25, 0.25, 0.3, 0.4, 0.5)

SMALLEST_EXAMPLE = 72
# What is read of a file around the middle; more text than that a token never stands for in practice.
CHARS_PER_TOKEN = 6
# Documents count by their length up to this, so that a few long ones do not crowd out the rest.
MOST_CHARS_COUNTED = 30_000

_WORD = re.compile(r"\w+|[^\w\s]")
_FUNCTION = re.compile(r"( *)(?:async )?def ")


class Encoding(Protocol):
    @property
    def ids(self) -> list[int]: ...


class Tokenizer(Protocol):
    """The part of `tokenizers.Tokenizer` that is used here."""

    def encode_batch(self, input: list[str], *, add_special_tokens: bool) -> Sequence[Encoding]: ...  # noqa: A002


@dataclass(frozen=True, slots=True)
class Cut:
    """A document in three pieces, and whether the middle's context comes suffix first."""

    prefix: str
    middle: str
    suffix: str
    spm: bool


def middle_of(lines: Sequence[str], rng: random.Random) -> tuple[int, int, int, int] | None:
    """A piece worth asking for: first line, its start in it, last line, its end in that. None if none was found."""
    kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
    for _ in range(12):
        first = rng.randrange(len(lines))
        line = lines[first]
        stripped = line.strip()
        # Comments, docstrings and lone brackets are common and say little.
        if (
            not stripped
            or (stripped[0] == "#" or stripped[:3] in ('"""', "'''") or len(stripped) < 3) * rng.random() > 0.3
        ):
            continue
        indent = len(line) - len(line.lstrip())
        bounds = sorted({index for match in _WORD.finditer(line) for index in match.span()})
        if kind == "line":
            piece = first, 0, first, len(line)
        elif kind == "after_indent":
            piece = first, indent, first, len(line)
        elif kind == "rest_of_line":
            starts = range(indent, len(line)) if rng.random() < 0.2 else bounds[:-1]
            piece = first, rng.choice(starts), first, len(line)
        elif kind == "span":
            start, end = sorted(rng.sample(bounds, 2))
            piece = first, start, first, end
        else:
            last = min(len(lines) - 1, first + rng.randint(1, MOST_LINES - 1))
            piece = first, rng.choice((0, indent, rng.randint(indent, len(line)))), last, len(lines[last])
        if text_of(lines, piece).strip():
            return piece
    return None


def text_of(lines: Sequence[str], piece: tuple[int, int, int, int]) -> str:
    first, start, last, end = piece
    if first == last:
        return lines[first][start:end]
    return "\n".join((lines[first][start:], *lines[first + 1 : last], lines[last][:end]))


def cut(text: str, room_chars: int, rng: random.Random) -> Cut | None:
    """One example's text, with at most about `room_chars` on either side, cut at line starts."""
    lines = text.split("\n")
    piece = middle_of(lines, rng)
    if piece is None:
        return None
    first, start, last, end = piece
    middle = text_of(lines, piece)
    if end == len(lines[last]) and last + 1 < len(lines) and rng.random() < WITH_NEWLINE:
        middle, last, end = f"{middle}\n", last + 1, 0
    prefix = "\n".join((*lines[max(0, first - room_chars // 8) : first], lines[first][:start]))
    if len(prefix) > room_chars:
        prefix = prefix[-room_chars:]
        prefix = prefix[prefix.find("\n") + 1 :]
    suffix = "\n".join((lines[last][end:], *lines[last + 1 : last + 1 + room_chars // 8]))[:room_chars]
    return Cut(prefix, middle, suffix, rng.random() < ORDER_SPM)


def functions_of(text: str) -> Iterator[str]:
    """The functions and methods of a file, each as a text of its own without its outer indentation."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        match = _FUNCTION.match(line)
        if match is None:
            continue
        indent = len(match[1])
        end = number + 1
        while end < len(lines) and (
            not lines[end].strip() or lines[end].startswith(" " * (indent + 1)) or lines[end].lstrip()[:1] == ")"
        ):
            end += 1
        body = [each[indent:] for each in lines[number:end]]
        while not body[-1].strip():
            body.pop()
        if len(body) >= 3:
            yield "\n".join(body) + "\n"


class Examples:
    """Rows of examples from `texts`; the same seed gives the same rows, whatever was made before."""

    def __init__(self, texts: Sequence[tuple[str, float]], tokenizer: Tokenizer) -> None:
        """`texts` come with weights: how often each is taken, relative to its length."""
        self._texts = [text for text, _ in texts]
        self._weights = list(accumulate(min(len(text), MOST_CHARS_COUNTED) * weight for text, weight in texts))
        self._tokenizer = tokenizer

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return [each.ids for each in self._tokenizer.encode_batch(texts, add_special_tokens=False)]

    def _text(self, rng: random.Random) -> str:
        return self._texts[bisect_left(self._weights, rng.random() * self._weights[-1])]

    def example(self, budget_tokens: int, rng: random.Random) -> list[int] | None:
        """The ids of one example of at most `budget_tokens`, those of its middle flagged; None if nothing was found."""
        text = self._text(rng)
        if rng.random() < PLAIN_TEXT:
            begins = rng.randrange(len(text)) if len(text) > budget_tokens * CHARS_PER_TOKEN else 0
            start = text.rfind("\n", 0, begins) + 1
            ids = self._encode([text[start : start + budget_tokens * CHARS_PER_TOKEN]])[0]
            return [BOS, *ids[: budget_tokens - 1]]
        parts = cut(text, budget_tokens * CHARS_PER_TOKEN, rng)
        if parts is None:
            return None
        prefix, middle, suffix = self._encode([parts.prefix, parts.middle, parts.suffix])
        room = budget_tokens - len(middle) - 5
        if room < 24 or len(middle) > budget_tokens // 2:
            return None
        suffix = suffix[: int(room * rng.choice(SUFFIX_SHARES))]
        room -= len(suffix)
        prefix = prefix[-room:] if room else []
        context = [SUFFIX, *suffix, PREFIX, *prefix] if parts.spm else [PREFIX, *prefix, SUFFIX, *suffix]
        return [BOS, *context, MIDDLE, *(token | MIDDLE_FLAG for token in middle), END | MIDDLE_FLAG]

    def rows(self, count: int, row_tokens: int, seed: str) -> array[int]:
        """`count` rows of `row_tokens` ids, one after the other; `<eos>` fills what is left of a row."""
        rng = random.Random(seed)  # noqa: S311 a choice of examples, not a secret
        flat = array("H")
        for _ in range(count):
            row: list[int] = []
            whole = rng.random() < 0.25
            while (left := row_tokens - len(row)) >= SMALLEST_EXAMPLE:
                # Small windows are as common as large ones, by their logarithm: each has a middle.
                budget = left if whole else int(SMALLEST_EXAMPLE * (left / SMALLEST_EXAMPLE) ** rng.random())
                row += self.example(budget, rng) or []
            flat.extend(row + [EOS] * left)
        return flat
