"""Somebody edits a file: pure. Real source texts and a seed in, what happens at the keyboard out.

A site is a place in a text from which a few lines, or a piece of one, have been taken away; the typist puts them back
key by key, in bursts, with pauses where people think, with slips and backspaces, and jumps to the next site. What the
file really says there is known, and so is whether an offer is right. Nothing here waits or looks at a clock.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Kind = Literal["jump", "key", "newline", "slip", "backspace"]

# Between two keys of a burst, logarithmically normal: fast typists press one every 0.12 s, the mean of 168,000 people
# is 0.24 s ("Observations on Typing from 136 Million Keystrokes", CHI 2018); who writes code for a living is between.
KEY_S, KEY_SPREAD = 0.17, 0.35
BACKSPACE_S = 0.12
NEWLINE_S = 0.3
JUMP_S = 1.5

# A stop: so long without a key that an offer could be read. Its length is this and an exponential part.
STOP_S = 0.6
MORE_S = 1.8
LONGEST_STOP_S = 12.0

# How likely they are. People think before a line far more often than within one.
STOP_BEFORE_LINE = 0.6
STOP_BEFORE_WORD = 0.12
SLIP = 0.02
ACCEPTS = 0.7

# Whoever stops at less than this much left of a line knows what comes.
WORTH_CHARS = 4

MOST_LINES = 4
MOST_LINE_CHARS = 110
WITHIN_LINE = 0.25  # of the sites


@dataclass(frozen=True, slots=True)
class Site:
    """`head` + `middle` + `tail` is the real text; the cursor starts between head and tail."""

    head: str
    middle: str
    tail: str

    def rest(self, typed: str) -> str | None:
        """What the line that the cursor is in really goes on with; None where `typed` has a slip in it."""
        if not self.middle.startswith(typed):
            return None
        return self.middle[len(typed) :].partition("\n")[0]


@dataclass(frozen=True, slots=True)
class Event:
    """A change of the document, `after_s` seconds after the one before.

    From then on `typed` stands between head and tail of the site of number `site`. `accepts` is whether the typist, if
    the right offer comes before the next event, takes it.
    """

    after_s: float
    kind: Kind
    site: int
    typed: str
    accepts: bool = False


@dataclass(frozen=True, slots=True)
class Replay:
    """`sites`, and the events that fill them one after another."""

    sites: tuple[Site, ...]
    events: tuple[Event, ...]

    @property
    def seconds(self) -> float:
        """How long it takes if nothing is accepted."""
        return sum(event.after_s for event in self.events)

    def rest(self, event: Event) -> str | None:
        """As `Site.rest`, after `event`."""
        return self.sites[event.site].rest(event.typed)

    def stops(self, index: int) -> bool:
        """Whether after event `index` the typist stops where an offer would be welcome."""
        following = self.events[index + 1 : index + 2]
        rest = self.rest(self.events[index])
        return bool(following and following[0].after_s >= STOP_S and rest and len(rest.strip()) >= WORTH_CHARS)

    def past_line(self, index: int) -> int:
        """The event that comes next if the rest of the line at event `index` appears by itself."""
        event = self.events[index]
        whole = event.typed + (self.rest(event) or "")
        for number in range(index + 1, len(self.events)):
            later = self.events[number]
            beyond = later.typed.startswith(whole) and len(later.typed) > len(whole)
            if later.site != event.site or beyond:
                return number
        return len(self.events)


def replay(texts: Sequence[str], seed: int, sites: int) -> Replay:
    """The same texts, seed and number of sites give the same replay, here and anywhere.

    No two sites end at the same place, so `texts` must have enough of them.
    """
    chance = random.Random(seed)
    made: dict[str, Site] = {}
    while len(made) < sites:
        site = _site(chance, texts)
        made.setdefault(site.tail[:_LOOK_AHEAD_CHARS], site)  # by which the oracle tells them apart
    events = [event for number, site in enumerate(made.values()) for event in _fill(chance, number, site)]
    return Replay(tuple(made.values()), tuple(events))


def _site(chance: random.Random, texts: Sequence[str]) -> Site:
    while True:
        text = chance.choice(texts)
        starts = [0, *(at + 1 for at, character in enumerate(text) if character == "\n")]
        lines = [text[start : end - 1] for start, end in pairwise([*starts, len(text) + 1])]
        first = chance.randrange(len(lines))
        last = min(first + chance.randrange(MOST_LINES), len(lines) - 1)
        picked = lines[first : last + 1]
        if not (picked[0].strip() and picked[-1].strip()) or max(map(len, picked)) > MOST_LINE_CHARS:
            continue
        begin = starts[first] + _indent(lines[first])
        end = starts[last] + len(lines[last])
        if chance.random() < WITHIN_LINE:
            begin, end = _within(chance, text, begin, starts[first] + len(lines[first]))
        if len(text[begin:end].strip()) >= WORTH_CHARS:
            return Site(text[:begin], text[begin:end], text[end:])


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _within(chance: random.Random, text: str, begin: int, end: int) -> tuple[int, int]:
    """From one beginning of a word to the end of that word or a later one, both in the line."""
    begins = [at for at in range(begin, end) if _begins_word(text, at)] or [begin]
    start = chance.choice(begins)
    ends = [at for at in range(start + 1, end + 1) if at == end or not (text[at].isalnum() or text[at] == "_")]
    return start, chance.choice(ends[:4])


def _begins_word(text: str, at: int) -> bool:
    word = text[at].isalnum() or text[at] == "_"
    return word and (at == 0 or not (text[at - 1].isalnum() or text[at - 1] == "_"))


def _fill(chance: random.Random, number: int, site: Site) -> Iterator[Event]:
    def event(after_s: float, kind: Kind, typed: str) -> Event:
        return Event(round(after_s, 4), kind, number, typed, chance.random() < ACCEPTS)

    yield event(JUMP_S + chance.expovariate(1), "jump", "")
    middle, at = site.middle, 0
    while at < len(middle):
        after_s = _before_next(chance, middle, at)
        if middle[at] == "\n":
            line = middle[at + 1 :].partition("\n")[0]
            at += 1 + _indent(line)  # editors indent by themselves
            yield event(max(after_s, NEWLINE_S), "newline", middle[:at])
            continue
        if middle[at].isalpha() and chance.random() < SLIP:
            wrong = chance.choice("etaoinsr".replace(middle[at].lower(), ""))
            seen = 1 + chance.randrange(3)  # slips are noticed a key or two later
            line_end = (middle + "\n").index("\n", at)
            slip = wrong + middle[at + 1 : min(at + seen, line_end)]
            for length in range(1, len(slip) + 1):
                yield event(after_s if length == 1 else _key_s(chance), "slip", middle[:at] + slip[:length])
            for length in range(len(slip) - 1, -1, -1):
                yield event(BACKSPACE_S, "backspace", middle[:at] + slip[:length])
            after_s = _key_s(chance)
        at += 1
        yield event(after_s, "key", middle[:at])


def _key_s(chance: random.Random) -> float:
    return min(chance.lognormvariate(0, KEY_SPREAD) * KEY_S, STOP_S * 0.9)


def _before_next(chance: random.Random, middle: str, at: int) -> float:
    rest = middle[at:].partition("\n")[0]
    new_line = not middle[:at].rpartition("\n")[2].strip()
    likely = STOP_BEFORE_LINE if new_line else STOP_BEFORE_WORD if _begins_word(middle, at) else 0.0
    if len(rest.strip()) >= WORTH_CHARS and chance.random() < likely:
        return min(STOP_S + chance.expovariate(1 / MORE_S), LONGEST_STOP_S)
    return _key_s(chance)


# What the oracle knows: of four lines it has one or two right from their beginning, the others once somebody has typed
# as far as where they become unlike others. Until then it goes wrong before every second word, so that nobody gets far
# with what it has said once. CodeGemma 2B has 78 % of HumanEval's single lines right (its model card),
# with the whole function round them; at a keyboard people accept about a third of what they are offered.
KNOWN_AT_ONCE = 0.4
GOES_WRONG = 0.5

_LOOK_BACK_CHARS = 80
_LOOK_AHEAD_CHARS = 400
_OTHERWISE = "_other()"


class Oracle:
    """Stands in for a model where only its speed is simulated: says what the file really says, as often as one would.

    Its answers depend on place and seed alone, so that typing into one gets the rest of it, as greedy decoding does.
    It does not suffer from too short a prompt; what that costs can be seen with a real model only.
    """

    def __init__(self, sites: Sequence[Site], seed: int) -> None:
        self._sites = sites
        self._seed = seed

    def says(self, prefix: str, suffix: str) -> str:
        """What comes between: "" where nothing is missing."""
        for number, site in enumerate(self._sites):
            ahead = suffix[:_LOOK_AHEAD_CHARS].rstrip("\n")
            if ahead != site.tail[:_LOOK_AHEAD_CHARS].rstrip("\n"):  # llama.vim adds a line end
                continue
            before = site.head[-_LOOK_BACK_CHARS:]
            at = prefix.rfind(before) if len(before) == _LOOK_BACK_CHARS else 0
            typed = prefix[at + len(before) :]
            if at >= 0 and prefix.startswith(before, at) and site.middle.startswith(typed):
                return self._go_on(number, typed)
        return _OTHERWISE

    def _go_on(self, number: int, typed: str) -> str:
        lines = self._sites[number].middle.split("\n")
        line, column = typed.count("\n"), len(typed) - typed.rfind("\n") - 1
        said = ""
        for number_of_line in range(line, len(lines)):
            whole = lines[number_of_line]
            chance = random.Random(f"{self._seed}:{number}:{number_of_line}")
            known_from = 0 if chance.random() < KNOWN_AT_ONCE else chance.randrange(len(whole) + 1)
            if column < known_from:
                turns = (at for at in range(known_from) if _begins_word(whole, at) and chance.random() < GOES_WRONG)
                wrong_from = next((at for at in list(turns) if at >= column), known_from)
                return said + whole[column:wrong_from] + _OTHERWISE
            said += whole[column:] + "\n"
            column = 0
        return said[:-1]
