"""What of the text around the cursor is sent: trimming to a token budget so that the KV cache of the last request
still matches the next one.

An engine reuses its cache as far as two prompts are equal from the start. If the kept prefix began at an exact token
count before the cursor, each key would move its start and throw the whole cache away (measured with llama.cpp: 9 of
521 tokens reused). So the start lies on a line chosen by its content, not its number: a line starts a block if the
CRC-32 of its bytes has its low bits clear, more bits for coarser blocks. As text grows, the start stays where it is
until the budget is exceeded, then jumps by a block. Content, because editors send windows that slide by whole lines
(llama.vim: the last 256), under which line numbers change and lines do not.
"""

from __future__ import annotations

import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, pairwise

TokensOf = Callable[[str], int]

# Text is looked at in windows of this many characters for each token of room, widened while a window is all kept.
# Code has 3 to 4 characters a token; runs of spaces have up to 16. What is denser than the last is not looked for.
_WINDOW_CHARS = 6
_MOST_CHARS = 64

_CODE_CHARS = 3.6
_GUESSES = 4

# A block is to hold about a quarter of the room, and a line of code is about 10 tokens.
_HYSTERESIS_SHARE = 4
_LINE_TOKENS = 10

# A prefix is not cut to fewer tokens than this where the room allows them: some fourteen lines. A steadier beginning is
# not worth a model that has not seen the function it is in.
LEAST_PREFIX_TOKENS = 128

# Grants move in eighths of the budget: a prefix that grows by a token must not take one from the suffix at each key.
_STEPS = 8


@dataclass(frozen=True, slots=True)
class ContextFile:
    """Another file, or a piece of one, that helps to complete this one. `path` may be empty."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Context:
    """The text before and after the cursor, other files in prompt order, and the path of this one (may be empty).

    The later a file stands, the more it matters: it is nearer to the cursor, and llama.vim lists its newest chunk last.
    """

    prefix: str
    suffix: str = ""
    files: tuple[ContextFile, ...] = ()
    path: str = ""


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What is left of a context, how many tokens that is, and how much was dropped."""

    context: Context
    tokens: int
    prefix_chars_dropped: int = 0
    suffix_chars_dropped: int = 0
    files_dropped: int = 0

    @property
    def is_whole(self) -> bool:
        return not (self.prefix_chars_dropped or self.suffix_chars_dropped or self.files_dropped)


@dataclass(frozen=True, slots=True)
class FileCost:
    """What a prompt's layout adds to its files: `first_tokens` once if there is any, `each_tokens` for every one."""

    first_tokens: int = 0
    each_tokens: Callable[[ContextFile], int] = lambda file: 0


def trim(
    context: Context,
    budget_tokens: int,
    tokens_of: TokensOf,
    *,
    prefix_share: float = 0.75,
    file_cost: FileCost | None = None,
) -> Trimmed:
    """The part of `context` whose pieces have at most `budget_tokens`, counted by `tokens_of` piece by piece.

    The prefix keeps its end and the suffix its start, both at line boundaries unless a single line is too long. Each
    may have its share and what the other does not need. Files are kept whole, from the last listed to the first, in
    what both leave of the budget while neither had to be cut; the first that does not fit drops all before it.
    `tokens_of` is called a few times, on text in proportion to the budget rather than to what came in.
    """
    budget = max(0, budget_tokens)
    prefix_tokens, prefix_window = _measure(context.prefix, budget, tokens_of, from_end=True)
    suffix_tokens, suffix_window = _measure(context.suffix, budget, tokens_of)
    used = prefix_tokens + suffix_tokens
    if used <= budget:
        room = budget - _in_steps(used, budget)
        files, files_tokens = _last_files(context.files, room, tokens_of, file_cost or FileCost())
        dropped = len(context.files) - len(files)
        return Trimmed(replace(context, files=files), used + files_tokens, files_dropped=dropped)

    suffix_room = max(budget - int(budget * prefix_share), budget - _in_steps(prefix_tokens, budget))
    suffix_chars = len(context.suffix)
    if suffix_tokens > suffix_room:
        suffix_chars, suffix_tokens = _head(context.suffix[:suffix_window], suffix_room, tokens_of)
    prefix_start = 0
    if prefix_tokens > budget - suffix_tokens:
        prefix_start, prefix_tokens = _tail(context.prefix, prefix_window, budget - suffix_tokens, tokens_of)
    return Trimmed(
        Context(context.prefix[prefix_start:], context.suffix[:suffix_chars], (), context.path),
        prefix_tokens + suffix_tokens,
        prefix_chars_dropped=prefix_start,
        suffix_chars_dropped=len(context.suffix) - suffix_chars,
        files_dropped=len(context.files),
    )


def _in_steps(tokens: int, budget: int) -> int:
    step = max(1, budget // _STEPS)
    return min(budget, -(-tokens // step) * step)


def _measure(text: str, limit: int, tokens_of: TokensOf, *, from_end: bool = False) -> tuple[int, int]:
    """The tokens of `text`, or any number above `limit` if it has more, and how many characters from its start (or
    end) had to be looked at: where these are not all, `limit` tokens end within them."""
    chars = _WINDOW_CHARS * limit
    while chars < min(len(text), _MOST_CHARS * limit):
        if tokens_of(text[-chars:] if from_end else text[:chars]) > limit + 1:  # + 1: the cut may split a token
            return limit + 1, chars
        chars *= 2
    if len(text) > _MOST_CHARS * limit:
        return limit + 1, _MOST_CHARS * limit
    return (tokens_of(text) if text else 0), len(text)


def _last_files(
    files: tuple[ContextFile, ...], room: int, tokens_of: TokensOf, cost: FileCost
) -> tuple[tuple[ContextFile, ...], int]:
    kept = tokens = 0
    for file in reversed(files):
        extra = cost.each_tokens(file) + (0 if kept else cost.first_tokens)
        left = room - tokens - extra
        text_tokens = _measure(file.text, left, tokens_of)[0] if left > 0 else 1
        if text_tokens > left:
            break
        tokens += extra + text_tokens
        kept += 1
    return files[len(files) - kept :], tokens


def _head(text: str, room: int, tokens_of: TokensOf) -> tuple[int, int]:
    """Where the longest start of `text` that fits ends, and its tokens. Prefers whole lines.

    Plain line ends will do: while the prefix is typed the suffix does not change, and neither does its cut.
    """
    search = _Search(lambda end: tokens_of(text[:end]), room, least=1, position=0, too_much=len(text) + 1)
    if search.settles(_positions_after_newlines(text)):
        return search.position, search.tokens
    for step in (max(1, room), 1):
        if search.settles(range(step, len(text) + 1, step)):
            break
    return search.position, search.tokens


def _tail(text: str, window: int, room: int, tokens_of: TokensOf) -> tuple[int, int]:
    """Where the kept end of `text` starts, within its last `window` characters, and its tokens.

    On the coarsest block boundary that keeps half the room, else on any line, else within a line, at steps counted
    from its start so that typing does not move the cut.
    """
    size = len(text)
    begin = size - window
    least = max(room // 2, LEAST_PREFIX_TOKENS if room >= LEAST_PREFIX_TOKENS else 0)
    search = _Search(lambda at: tokens_of(text[at:]), room, least, position=size, too_much=begin - 1)

    starts = [begin + at for at in _positions_after_newlines(text[begin:])]
    if not begin:
        starts.insert(0, 0)
    level = max(0, room // (_HYSTERESIS_SHARE * _LINE_TOKENS)).bit_length() - 1
    for mask_bits in dict.fromkeys((max(0, level), max(0, level) // 2)):
        blocks = list(_block_starts(text, starts, mask_bits)) if mask_bits else []
        if search.settles(blocks):
            return search.position, search.tokens
    enough = max(room // _HYSTERESIS_SHARE + 1, LEAST_PREFIX_TOKENS if room >= LEAST_PREFIX_TOKENS else 0)
    if search.settles(starts) or search.tokens >= enough:
        return search.position, search.tokens

    line_start = text.rfind("\n", 0, max(0, search.too_much)) + 1
    for step in (max(1, room), max(1, room // _STEPS), 1):
        first = line_start + -(-max(0, search.too_much + 1 - line_start) // step) * step
        if search.settles(range(first, search.position, step)):
            break
    return search.position, search.tokens


@dataclass(slots=True)
class _Search:
    """The cut that keeps most among those tried: what `position` keeps fits, what `too_much` would keep does not.

    Probes are guessed from the density of the last one, as each costs a tokenisation: 3 or so settle most texts.
    """

    kept_by: Callable[[int], int]
    room: int
    least: int
    position: int
    too_much: int
    tokens: int = 0

    def settles(self, candidates: Sequence[int]) -> bool:
        """Search the ascending `candidates` between the two; whether what is kept has `least` tokens now."""
        low = bisect_right(candidates, min(self.position, self.too_much))
        high = bisect_left(candidates, max(self.position, self.too_much))
        forward = 1 if self.position < self.too_much else -1
        origin, origin_tokens, chars_per_token = self.position, self.tokens, _CODE_CHARS
        for probe in count():
            if low >= high:
                break
            guess = bisect_left(candidates, origin + forward * int((self.room - origin_tokens) * chars_per_token))
            middle = min(max(guess, low), high - 1) if probe < _GUESSES else (low + high) // 2
            at = candidates[middle]
            tokens = self.kept_by(at)
            if tokens > origin_tokens:
                chars_per_token = abs(at - origin) / (tokens - origin_tokens)
            if tokens <= self.room:
                self.position, self.tokens = at, tokens
            else:
                self.too_much = at
            if (tokens <= self.room) == (forward > 0):
                low = middle + 1
            else:
                high = middle
        return self.tokens >= self.least


def _positions_after_newlines(text: str) -> list[int]:
    positions, at = [], text.find("\n") + 1
    while at:
        positions.append(at)
        at = text.find("\n", at) + 1
    return positions


def _block_starts(text: str, starts: list[int], mask_bits: int) -> Iterator[int]:
    """The line starts at which a block of this level begins; those of a coarser level are among them.

    Never the last line: it is the cursor's own and changes with each key.
    """
    mask = (1 << mask_bits) - 1
    for start, end in pairwise(starts):
        if zlib.crc32(text[start:end].encode("utf-8", "surrogatepass")) & mask == 0:
            yield start
