from __future__ import annotations

import argparse
import inspect
import re
import zlib
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rockfill.completion.budget import LEAST_TOKENS
from rockfill.fim.context import LEAST_PREFIX_TOKENS, Context, ContextFile, FileCost, trim

TOKEN = re.compile(r"\w+| +|\s|[^\w\s]")
SOURCE = inspect.getsource(argparse)


class Tokenizer:
    """A stand-in that counts what it is asked."""

    def __init__(self) -> None:
        self.calls = 0
        self.longest = 0

    def __call__(self, text: str) -> int:
        self.calls += 1
        self.longest = max(self.longest, len(text))
        return len(TOKEN.findall(text))


def count(text: str) -> int:
    return len(TOKEN.findall(text))


def quarters(text: str) -> int:
    return -(-len(text) // 4)


def bytewise(text: str) -> int:
    """A tokenizer that knows nothing: a character may be several tokens."""
    return len(text.encode())


code = st.text("ab_1 \n\n\t(){}é😀", max_size=400)
counters = st.sampled_from([count, quarters, bytewise])


@given(code, code, st.lists(code, max_size=3), st.integers(-1, 150), st.floats(0, 1), counters)
@settings(max_examples=300, deadline=None)
def test_the_result_is_within_budget_and_keeps_what_is_next_to_the_cursor(
    prefix: str,
    suffix: str,
    files: list[str],
    budget: int,
    share: float,
    tokens_of: object,
) -> None:
    assert callable(tokens_of)
    context = Context(prefix, suffix, tuple(ContextFile(str(i), text) for i, text in enumerate(files)), "x.py")
    trimmed = trim(context, budget, tokens_of, prefix_share=share)
    kept = trimmed.context
    tokens = sum(tokens_of(text) for text in (kept.prefix, kept.suffix, *(file.text for file in kept.files)) if text)
    assert tokens == trimmed.tokens <= max(0, budget)
    assert prefix.endswith(kept.prefix)
    assert suffix.startswith(kept.suffix)
    assert kept.files == context.files[trimmed.files_dropped :]
    assert len(prefix) == len(kept.prefix) + trimmed.prefix_chars_dropped
    assert len(suffix) == len(kept.suffix) + trimmed.suffix_chars_dropped
    assert kept.path == "x.py"
    if trimmed.is_whole:
        assert kept == context
    if trimmed.prefix_chars_dropped or trimmed.suffix_chars_dropped:
        assert not kept.files

    again = trim(kept, budget, tokens_of, prefix_share=share).context
    assert (again.prefix, again.suffix) == (kept.prefix, kept.suffix)


@given(code, code, st.integers(0, 50), counters)
def test_what_fits_is_left_alone(prefix: str, suffix: str, spare: int, tokens_of: object) -> None:
    assert callable(tokens_of)
    context = Context(prefix, suffix)
    budget = tokens_of(prefix) + tokens_of(suffix) + spare
    assert trim(context, budget, tokens_of).context == context


@pytest.mark.parametrize("tokens_of", [count, quarters])
@pytest.mark.parametrize("budget", [100, 200, 1000])
def test_at_least_half_of_the_budget_is_used(budget: int, tokens_of: object) -> None:
    assert callable(tokens_of)
    middle = len(SOURCE) // 2
    for cursor in range(middle, middle + 3000, 37):
        trimmed = trim(Context(SOURCE[:cursor], SOURCE[cursor:]), budget, tokens_of)
        assert trimmed.tokens >= budget // 2
        assert trimmed.context.suffix


def starts_while_typing(suffix: str, budget: int, window_lines: int | None = None) -> list[int]:
    """Where the kept prefix starts in the file after each of 4,000 keys."""
    starts = []
    for cursor in range(20_000, 24_000):
        prefix = SOURCE[:cursor]
        if window_lines is not None:
            prefix = "".join(prefix.splitlines(keepends=True)[-window_lines:])
        kept = trim(Context(prefix, suffix), budget, count).context
        starts.append(cursor - len(kept.prefix))
    return starts


@given(st.integers(0, len(SOURCE)), st.integers(LEAST_TOKENS, 600), st.booleans())
@settings(max_examples=200, deadline=None)
def test_a_prefix_is_never_starved_whatever_the_lines(at: int, budget: int, one_line: bool) -> None:
    """Three quarters of the least budget for typing are more than a line above what a prefix must have."""
    text = SOURCE.replace("\n", " ") if one_line else SOURCE
    trimmed = trim(Context(text[:at], text[at:]), budget, count)
    assert count(trimmed.context.prefix) >= min(count(text[:at]), LEAST_PREFIX_TOKENS)


@pytest.mark.parametrize("suffix", ["", ")\n", SOURCE[24_000:40_000]], ids=["no suffix", "short", "long"])
@pytest.mark.parametrize("window_lines", [None, 256, 64])
def test_typing_keeps_the_start_of_the_prefix_for_nearly_every_key(suffix: str, window_lines: int | None) -> None:
    starts = starts_while_typing(suffix, LEAST_TOKENS, window_lines)
    same = sum(a == b for a, b in pairwise(starts))
    assert same / (len(starts) - 1) >= 0.975
    assert all(SOURCE[start - 1] == "\n" for start in starts)


def test_a_window_that_slides_by_lines_starts_the_prompt_where_the_whole_file_does() -> None:
    assert starts_while_typing("x\n" * 40, 200, 128) == starts_while_typing("x\n" * 40, 200)


def test_typing_moves_the_cut_of_the_suffix_a_few_times_at_most() -> None:
    suffix = SOURCE[30_000:40_000]
    kept = [trim(Context(SOURCE[:cursor], suffix), 200, count).context.suffix for cursor in range(1500)]
    changes = sum(a != b for a, b in pairwise(kept))
    assert len(kept[0]) > len(kept[-1]) > 0
    assert changes <= 8


def test_a_coarser_block_level_uses_boundaries_of_the_finer_ones() -> None:
    starts = {
        budget: {
            cursor - len(trim(Context(SOURCE[:cursor]), budget, quarters).context.prefix)
            for cursor in range(20_000, 30_000, 50)
        }
        for budget in (160, 800)
    }

    def level(start: int) -> int:
        crc = zlib.crc32(SOURCE[start : SOURCE.index("\n", start) + 1].encode())
        return (crc & -crc).bit_length() - 1

    on_boundary = [level(start) >= 2 for start in starts[800]]
    assert sum(on_boundary) >= 0.9 * len(on_boundary)
    assert len(starts[800]) < len(starts[160])


def test_a_line_longer_than_the_budget_is_cut_at_steps_from_its_start() -> None:
    line = "x = [" + ", ".join(str(n) for n in range(3000))
    starts = []
    for cursor in range(8000, 8600):
        kept = trim(Context("# head\n" + line[:cursor], "]\n"), 100, count).context
        assert kept.suffix == "]\n"
        starts.append(cursor - len(kept.prefix))
    same = sum(a == b for a, b in pairwise(starts))
    assert same / (len(starts) - 1) >= 0.95


def test_a_suffix_of_one_long_line_keeps_its_start() -> None:
    line = ", ".join(str(n) for n in range(3000))
    trimmed = trim(Context("x = [", line), 100, count)
    assert line.startswith(trimmed.context.suffix)
    assert trimmed.tokens > 70


def test_the_prefix_has_three_quarters_and_what_the_suffix_does_not_need() -> None:
    long = SOURCE[:40_000]
    both = trim(Context(long, long), 1000, count)
    assert 150 <= count(both.context.suffix) <= 250
    assert 375 <= count(both.context.prefix) <= 850
    alone = trim(Context(long, ")\n"), 1000, count)
    assert count(alone.context.prefix) > 500
    other = trim(Context("def f(", long), 1000, count)
    assert other.context.prefix == "def f("
    assert 800 <= count(other.context.suffix) <= 1000


def test_few_calls_and_never_the_whole_of_a_large_text() -> None:
    prefix = (SOURCE * 60)[: 4 << 20]
    for suffix in ("", "\n", SOURCE):
        for budget in (100, 200, 448, 2000):
            tokenizer = Tokenizer()
            trim(Context(prefix, suffix), budget, tokenizer)
            assert tokenizer.calls <= 12
            assert tokenizer.longest <= 16 * budget


@pytest.mark.parametrize("text", ["\n" * 500_000, " " * 500_000, "😀" * 100_000, "a b" * 200_000, "}\n" * 200_000])
def test_odd_texts_cost_no_more_than_odd_ones_need(text: str) -> None:
    tokenizer = Tokenizer()
    trimmed = trim(Context(text, text), 200, tokenizer)
    assert trimmed.tokens <= 200
    assert tokenizer.calls <= 60
    assert tokenizer.longest <= 64 * 200


def test_files_are_whole_and_the_last_listed_stays_longest() -> None:
    files = tuple(ContextFile(f"{n}.py", "word " * 20) for n in range(4))  # 40 tokens each
    context = Context("a b c", "d", files)
    assert trim(context, 400, count).context.files == files
    fewer = trim(context, 100, count)
    assert fewer.context.files == files[2:]
    assert fewer.files_dropped == 2
    assert fewer.context.prefix == "a b c"


def test_files_get_nothing_while_the_prefix_has_to_be_cut() -> None:
    trimmed = trim(Context(SOURCE, "", (ContextFile("a", "x"),)), 200, count)
    assert trimmed.files_dropped == 1
    assert trimmed.tokens > 100


def test_the_layout_of_files_is_paid_for() -> None:
    files = tuple(ContextFile(f"{n}.py", "word " * 20) for n in range(2))
    cost = FileCost(first_tokens=5, each_tokens=lambda file: len(file.path))
    trimmed = trim(Context("", "", files), 40 + 5 + 4, count, file_cost=cost)
    assert trimmed.context.files == files[1:]
    assert trimmed.tokens == 49
    assert trim(Context("", "", files), 48, count, file_cost=cost).context.files == ()


def test_typing_a_prefix_drops_files_in_steps() -> None:
    files = tuple(ContextFile(str(n), "w " * 8) for n in range(12))
    kept = [len(trim(Context("a " * n, "", files), 240, count).context.files) for n in range(130)]
    assert kept[0] == 12
    assert kept[-1] == 0
    assert sum(a != b for a, b in pairwise(kept)) <= 8


def test_the_modules_own_text_has_no_boundary_at_every_line() -> None:
    # a sanity check of the stand-in data: blocks of the level that 200 tokens ask for are a few lines long
    lines = Path(argparse.__file__).read_bytes().splitlines(keepends=True)
    starts = sum(zlib.crc32(line) & 3 == 0 for line in lines)
    assert 0.15 < starts / len(lines) < 0.35
