"""What of a document has been typed since the last prompt was made."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockfill.fim.context import Context, ContextFile
from rockfill.fim.growth import Laid, goes_behind_marker, grown, typed_since

FILES = (ContextFile("a.py", "a = 1\n"),)
WHOLE = Laid(Context("x = ", "\n", FILES), 10, prefix_cut=False, suffix_cut=False, files=FILES)
CUT = Laid(Context("x = ", "\nprint(x)\n"), 10, prefix_cut=True, suffix_cut=True, files=FILES)


@pytest.mark.parametrize(
    ("prefix", "suffix", "typed"),
    [
        ("x = ", "\n", ""),
        ("x = foo(", "\n", "foo("),
        ("x =", "\n", None),  # something was deleted
        ("y = foo", "\n", None),
        ("x = foo", ")\n", None),  # an editor has closed a bracket
        ("x = foo", "\n\n", None),
        ("import os\nx = foo", "\n", None),  # that was not there before
        ("x = " + "y" * 5000, "\n", None),  # nobody types so fast
    ],
)
def test_of_a_whole_document_only_its_end_may_have_grown(prefix: str, suffix: str, typed: str | None) -> None:
    assert typed_since(WHOLE, Context(prefix, suffix, FILES)) == typed


def test_other_files_are_another_prompt() -> None:
    assert typed_since(WHOLE, Context("x = f", "\n", ())) is None
    assert typed_since(WHOLE, Context("x = f", "\n", FILES, "b.py")) is None


@pytest.mark.parametrize(
    ("prefix", "suffix", "typed"),
    [
        ("lines before\nx = foo", "\nprint(x)\nmore", "foo"),
        ("x = foo", "\nprint(x)\n", "foo"),  # the editor's window has slid
        ("x = 1\nx = foo", "\nprint(x)\n", "foo"),  # the last such place
        ("lines before\nx = foo", "\nprint(y)\n", None),
        ("lines before\ny = foo", "\nprint(x)\n", None),
    ],
)
def test_a_trimmed_document_may_have_slid(prefix: str, suffix: str, typed: str | None) -> None:
    assert typed_since(CUT, Context(prefix, suffix)) == typed


def test_where_no_file_had_room_other_files_change_nothing() -> None:
    assert typed_since(CUT, Context("x = f", "\nprint(x)\n", (ContextFile("b.py", "b"),), "c.py")) == "f"


def test_without_a_prefix_every_place_would_be_the_same() -> None:
    assert typed_since(Laid(Context("", "\n"), 5, False, False, ()), Context("anything", "\n")) is None


def test_no_text_of_a_middle_ends_within_a_token() -> None:
    assert all(map(goes_behind_marker, ("", "(", "a, b)", "\n")))
    assert not any(map(goes_behind_marker, (" ", "\t", "a ", "a", "(é", "x_", "7")))


@given(st.text(max_size=30), st.text(min_size=1, max_size=30), st.text(max_size=30), st.booleans())
def test_what_was_kept_and_what_was_typed_are_the_end_of_the_document(
    before: str, kept: str, typed: str, cut: bool
) -> None:
    laid = Laid(Context(kept, "s"), 5, prefix_cut=cut, suffix_cut=False, files=())
    now = Context(before + kept + typed, "s")
    found = typed_since(laid, now)
    if found is not None:
        assert now.prefix.endswith(kept + found)
        assert grown(laid, found).prefix == kept + found
    else:
        assert before
        assert not cut
