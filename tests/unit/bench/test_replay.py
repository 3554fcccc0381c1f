"""A replay is the same for the same seed, and ends with the files as they were."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bench.replay import STOP_S, Oracle, Replay, Site, replay

TEXT = '''def total(items, *, start=0):
    """The sum of what `items` cost."""
    for item in items:
        start += item.price * item.count
    return start


class Basket:
    def __init__(self, owner):
        self.owner = owner
        self.items = []

    def add(self, item):
        if item not in self.items:
            self.items.append(item)
        return self
'''
TEXTS = [TEXT.replace("item", thing) for thing in ("item", "box", "order", "line", "part", "row", "book", "tool")]

seeds = st.integers(0, 10_000)
few = settings(max_examples=40, deadline=None)


def test_the_same_seed_gives_the_same_replay_and_another_another() -> None:
    assert replay(TEXTS, 1, 6) == replay(TEXTS, 1, 6)
    assert replay(TEXTS, 1, 6) != replay(TEXTS, 2, 6)


def test_no_two_sites_end_at_the_same_place() -> None:
    tails = [site.tail for site in replay(TEXTS, 1, 60).sites]
    assert len(tails) == len(set(tails)) == 60


@few
@given(seeds)
def test_every_site_is_filled_with_what_its_file_says(seed: int) -> None:
    made = replay(TEXTS, seed, 4)
    for number, site in enumerate(made.sites):
        assert site.head + site.middle + site.tail in TEXTS
        typed = [event.typed for event in made.events if event.site == number]
        assert (typed[0], typed[-1]) == ("", site.middle)
    assert [event.site for event in made.events] == sorted(event.site for event in made.events)
    assert all(event.after_s > 0 for event in made.events)


@few
@given(seeds)
def test_a_key_adds_one_character_and_a_backspace_takes_one_away(seed: int) -> None:
    events = replay(TEXTS, seed, 4).events
    for before, event in pairwise(events):
        match event.kind:
            case "jump":
                assert event.typed == ""
            case "key" | "slip":
                assert event.typed[:-1] == before.typed
            case "newline":
                assert event.typed.startswith(before.typed + "\n")
                assert not event.typed[len(before.typed) :].strip()
            case "backspace":
                assert event.typed == before.typed[:-1]


def test_slips_are_taken_back_and_nothing_is_offered_right_while_they_stand() -> None:
    made = replay(TEXTS, 3, 40)
    slips = [index for index, event in enumerate(made.events) if event.kind == "slip"]
    assert slips
    for index in slips:
        assert made.rest(made.events[index]) is None
        assert not made.stops(index)


@few
@given(seeds)
def test_a_stop_is_a_pause_with_something_left_of_the_line(seed: int) -> None:
    made = replay(TEXTS, seed, 4)
    for index, event in enumerate(made.events):
        if made.stops(index):
            assert made.events[index + 1].after_s >= STOP_S
            rest = made.rest(event)
            assert rest
            assert made.sites[event.site].middle.startswith(event.typed + rest)


@few
@given(seeds)
def test_who_accepts_a_line_goes_on_after_it(seed: int) -> None:
    made = replay(TEXTS, seed, 3)
    for index, event in enumerate(made.events):
        rest = made.rest(event)
        if rest is None:
            continue
        following = made.past_line(index)
        assert following > index
        if following < len(made.events) and made.events[following].site == event.site:
            assert made.events[following].typed.startswith(event.typed + rest + "\n")
        else:
            assert made.sites[event.site].middle == event.typed + rest


def _sites(made: Replay) -> list[tuple[Site, str]]:
    return [(made.sites[event.site], event.typed) for event in made.events if made.rest(event) is not None]


def test_the_oracle_is_sometimes_right_sometimes_wrong_and_right_at_the_end_of_a_line() -> None:
    made = replay(TEXTS, 5, 40)
    oracle = Oracle(made.sites, 5)
    at_start = [oracle.says(site.head, site.tail).partition("\n")[0] == site.rest("") for site in made.sites]
    assert 0.2 < sum(at_start) / len(at_start) < 0.8
    for site, typed in _sites(made):
        if site.rest(typed) == "":
            said = oracle.says(site.head + typed, site.tail)
            assert said.startswith("\n") if "\n" in site.middle[len(typed) :] else said == ""


@few
@given(seeds)
def test_typing_what_the_oracle_says_does_not_change_its_mind(seed: int) -> None:
    made = replay(TEXTS, seed, 3)
    oracle = Oracle(made.sites, seed)
    for site in made.sites:
        said = oracle.says(site.head, site.tail)
        agreed = next((n for n, (a, b) in enumerate(zip(said, site.middle, strict=False)) if a != b), len(site.middle))
        for length in range(min(agreed, len(said))):
            assert oracle.says(site.head + said[:length], site.tail).startswith(said[length:agreed])


def test_the_oracle_knows_a_place_from_a_window_round_the_cursor() -> None:
    site = Site("x = 1\n" * 400 + "y = ", "x + 2", "\nz = y\n" * 100)
    oracle = Oracle([site], 0)
    assert oracle.says(site.head[-300:], site.tail[:500]) == oracle.says(site.head, site.tail)
    assert oracle.says("somewhere else ", site.tail) == oracle.says("quite ", "different")
