from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rockfill.completion.cache import ENTRIES_PER_PLACE, Entry, Remembered, TypedAhead


def known(text: str, *, complete: bool = True) -> TypedAhead:
    memory = TypedAhead(10_000)
    memory.remember("here", Entry("x = ", text, len(text), complete))
    return memory


def test_what_is_typed_as_foreseen_is_answered_with_the_rest() -> None:
    memory = known("foo(bar)")
    assert memory.find("here", "x = ") == Remembered("foo(bar)", 8, complete=True)
    assert memory.find("here", "x = foo(") == Remembered("bar)", 4, complete=True)


def test_what_is_typed_otherwise_or_elsewhere_is_not() -> None:
    memory = known("foo(bar)")
    assert memory.find("here", "x = fog") is None
    assert memory.find("here", "y = ") is None
    assert memory.find("here", "x =") is None
    assert memory.find("there", "x = ") is None


def test_an_entry_typed_to_its_end_is_a_new_question() -> None:
    assert known("foo").find("here", "x = foo") is None
    assert known("foo").find("here", "x = foo()") is None


def test_an_empty_completion_is_an_answer() -> None:
    assert known("").find("here", "x = ") == Remembered("", 0, complete=True)


def test_of_several_entries_the_one_that_knows_most_answers() -> None:
    memory = known("foo", complete=False)
    memory.remember("here", Entry("x = f", "oo(bar)", 7, complete=True))
    assert memory.find("here", "x = fo") == Remembered("o(bar)", 6, complete=True)


def test_a_shorter_or_cut_entry_does_not_replace_a_longer_or_whole_one() -> None:
    memory = known("foo(bar)")
    memory.remember("here", Entry("x = ", "foo", 3, complete=False))
    memory.remember("here", Entry("x = ", "foo(bar) + 1", 12, complete=False))
    assert memory.find("here", "x = ") == Remembered("foo(bar)", 8, complete=True)


def test_a_longer_one_replaces_a_cut_one() -> None:
    memory = known("foo", complete=False)
    memory.remember("here", Entry("x = ", "foo(bar)", 8, complete=True))
    assert memory.find("here", "x = ") == Remembered("foo(bar)", 8, complete=True)
    assert memory.size_bytes == len("x = foo(bar)")


def test_the_place_used_longest_ago_is_forgotten_first_and_a_giant_never_kept() -> None:
    memory = TypedAhead(100)
    for place in "abcd":
        memory.remember(place, Entry("p" * 15, "t" * 10, 10, complete=True))
    memory.find("a", "p" * 15)
    memory.remember("e", Entry("p" * 15, "t" * 10, 10, complete=True))
    assert [place for place in "abcde" if memory.find(place, "p" * 15)] == ["a", "c", "d", "e"]
    memory.remember("f", Entry("p" * 20, "t" * 10, 10, complete=True))
    assert memory.find("f", "p" * 20) is None


def test_a_place_keeps_its_last_few() -> None:
    memory = TypedAhead(10_000)
    for number in range(ENTRIES_PER_PLACE + 1):
        memory.remember("here", Entry(str(number), "text", 4, complete=True))
    assert memory.find("here", "0") is None
    assert memory.find("here", "1") is not None


@given(st.lists(st.tuples(st.sampled_from("ab"), st.text("xy", max_size=6), st.text("xy", max_size=30), st.booleans())))
def test_it_never_answers_with_anything_that_was_not_said_and_stays_bounded(
    said: list[tuple[str, str, str, bool]],
) -> None:
    memory = TypedAhead(120)
    for place, prefix, text, complete in said:
        memory.remember(place, Entry(prefix, text, len(text), complete))
        assert 0 <= memory.size_bytes <= 120
    for place, prefix, _, _ in said:
        found = memory.find(place, prefix)
        if found is not None:
            assert any(
                (prefix + found.text) == (other + text) and complete == found.complete
                for where, other, text, complete in said
                if where == place
            )
    memory.clear()
    assert memory.size_bytes == 0


def test_its_bound_is_one_of_bytes() -> None:
    memory = TypedAhead(1000)
    memory.remember("here", Entry("é" * 60, "☃" * 20, 1, complete=True))
    assert memory.size_bytes == 60 * 2 + 20 * 3
