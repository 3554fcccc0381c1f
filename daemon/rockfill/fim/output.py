"""What of the engine's text reaches the client, decided while it streams.

Every decision is a function of the engine's text alone, never of the chunks it came in, and what was emitted is never
withdrawn: text that a rule may still cut is held back until the rule has decided, and no longer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Mode = Literal["raw", "line", "block"]
Reason = Literal["stop", "line", "suffix", "indent", "repetition"]

# A loop is one unit of at most 96 characters, 4 times over and 24 characters at least, or 3 equal lines; the unit has
# a word in it, so that rules, brackets and rows of numbers are none. In 5.5 million characters of Python and C
# headers this found 7 and 22 places, all of them in data tables.
_LOOP_UNIT_CHARS = 96
_LOOP_TIMES = 4
_LOOP_CHARS = 24
_PROBE_CHARS = 8
_WORD = re.compile(r"(?<![^\W_])[^\W\d_]{3}")  # three letters, but not of 0xff

_BRACKETS = (("(", ")"), ("[", "]"), ("{", "}"))
_QUOTES = "\"'`"


@dataclass(frozen=True, slots=True)
class OutputRules:
    """How a completion is post-processed.

    - ``raw``: ends at a stop text, nothing else.
    - ``line``: the rest of the cursor's line. Ends before the first newline, a leading one included: that there is
      nothing to add to this line is an answer.
    - ``block``: as many lines as the engine writes. Ends before a line, the first aside, that is indented by fewer
      than `n_indent` characters (as llama.cpp's server does, but blank lines do not count), before a line that
      repeats the first non-blank line of the suffix, and where the cursor's line is closed as the suffix closes it.

    Line and block also end at a degenerate repetition, lose an end that the rest of the cursor's line repeats, and
    are empty if they are blank. What would be cut as a repetition of the suffix stays where the brackets and quotes
    of the completion need it.

    `suffix` is the text after the cursor, `line_prefix` the text of the cursor's line before it.
    """

    mode: Mode = "raw"
    stops: tuple[str, ...] = ()
    suffix: str = ""
    line_prefix: str = ""
    n_indent: int = 0


@dataclass(frozen=True, slots=True)
class Ended:
    """Why the filter wants no more text; `stop` is the stop text that was met, if that is the reason."""

    reason: Reason
    stop: str = ""


@dataclass(frozen=True, slots=True)
class _Cut:
    """The text ends at `at`, as known once `decided_at` characters are there. `exact`: nothing more is trimmed."""

    decided_at: int
    at: int
    ended: Ended
    exact: bool = False


class OutputFilter:
    """Takes the engine's text in chunks and gives what may be emitted.

    Once `finished` is set the caller should abort the engine; whatever still comes is ignored.
    """

    finished: Ended | None

    def __init__(self, rules: OutputRules) -> None:
        self.finished = None
        self._mode = rules.mode
        self._stops = tuple(sorted(filter(None, set(rules.stops)), key=len, reverse=True))
        self._n_indent = rules.n_indent
        self._line_prefix = rules.line_prefix
        self._rest = rules.suffix.partition("\n")[0].rstrip()
        self._next_line = "" if self._rest else _first_line(rules.suffix)
        self._text = ""
        self._emitted = 0
        self._line_start = 0
        self._closed = False

    def feed(self, text: str) -> str:
        """The engine's next text in, what may be emitted now out."""
        if self._closed:
            return ""
        begin = len(self._text)
        self._text += text
        cut = self._first_cut(begin)
        if cut is None:
            return self._emit(self._safe_length())
        self.finished = cut.ended
        return self._close(cut.at, exact=cut.exact)

    def flush(self) -> str:
        """The engine has ended: what is left to emit. `finished` stays None if no rule had ended it before."""
        return "" if self._closed else self._close(len(self._text), exact=False)

    def _emit(self, length: int) -> str:
        text = self._text[self._emitted : length]
        self._emitted = max(self._emitted, length)
        return text

    def _close(self, at: int, *, exact: bool) -> str:
        self._closed = True
        if self._mode != "raw":
            if not exact:
                unwanted = self._unwanted_line(self._start_of_line(at), at) if self._mode == "block" else None
                at = unwanted.at if unwanted else at - self._overlap_with_rest(at)
            if not self._text[:at].strip():
                at = 0
        return self._emit(at)

    # What ends the text

    def _first_cut(self, begin: int) -> _Cut | None:
        """The first decision among the characters from `begin` on."""
        cuts = [self._stop_cut(begin)]
        if self._mode == "line":
            cuts.append(self._line_cut(begin))
        elif self._mode == "block":
            cuts.append(self._block_cut(begin))
        if self._mode != "raw":
            cuts.append(self._loop_cut(begin))
        return min((cut for cut in cuts if cut), key=lambda cut: cut.decided_at, default=None)

    def _stop_cut(self, begin: int) -> _Cut | None:
        found: _Cut | None = None
        for stop in self._stops:
            at = self._text.find(stop, max(0, begin - len(stop) + 1))
            if at >= 0 and (found is None or at + len(stop) < found.decided_at):
                found = _Cut(at + len(stop), at, Ended("stop", stop))
        return found

    def _line_cut(self, begin: int) -> _Cut | None:
        newline = self._text.find("\n", begin)
        return None if newline < 0 else _Cut(newline + 1, self._before_newline(newline), Ended("line"))

    def _block_cut(self, begin: int) -> _Cut | None:
        text = self._text
        while True:
            start = self._line_start
            newline = text.find("\n", max(begin, start))
            end = len(text) if newline < 0 else newline
            if start and self._n_indent:
                indent = end - start - len(text[start:end].lstrip())
                if indent < self._n_indent and start + indent < end:
                    return _Cut(start + indent + 1, self._drop_at(start), Ended("indent"), exact=True)
            if newline < 0:
                return None
            if unwanted := self._unwanted_line(start, self._before_newline(newline)):
                return _Cut(newline + 1, unwanted.at, unwanted.ended, exact=True)
            self._line_start = newline + 1

    def _loop_cut(self, begin: int) -> _Cut | None:
        """Where the text has become periodic. Looked for at each character: the period is the distance to where the
        last few characters stood before."""
        text = self._text
        for end in range(max(begin + 1, _LOOP_CHARS), len(text) + 1):
            probe = end - _PROBE_CHARS
            before = text.rfind(text[probe:end], max(0, probe - _LOOP_UNIT_CHARS), end - 1)
            if before < 0:
                continue
            period = probe - before
            start = end - max(_LOOP_CHARS, _LOOP_TIMES * period)
            if (
                start >= 0
                and text[start : end - period] == text[start + period : end]
                and _WORD.search(text, end - 2 * period, end)
            ):
                return _Cut(end, end, Ended("repetition"))
        return None

    def _unwanted_line(self, start: int, end: int) -> _Cut | None:
        """The cut before the line that ends at `end`, if it repeats lines of its own or of the suffix."""
        text = self._text
        whole = self._whole_line(start, end)
        if not whole:
            return None
        if _WORD.search(whole) and self._repeated_line_before(start) == whole:
            return _Cut(end, self._drop_at(start), Ended("repetition"))
        at = None
        if self._next_line and whole == self._next_line and self._may_repeat_next_line(start):
            at = self._drop_at(start)
        elif self._rest and start and whole.strip() == self._rest.strip():
            at = end - len(text[start:end].lstrip())
        if at is not None and _imbalance(text[:at]) <= _imbalance(text[:end]):
            return _Cut(end, at, Ended("suffix"))
        if self._rest and text.endswith(self._rest, start, end):
            at = end - len(self._rest)
            # to close the first line as the suffix does is to write the suffix again; a later one may well end so
            if _imbalance(text[:at]) - _imbalance(text[:end]) < (not start):
                return _Cut(end, at, Ended("suffix"))
        return None

    def _overlap_with_rest(self, end: int) -> int:
        """How many characters before `end` are the rest of the cursor's line again, or a start of it that only
        brackets or quotes explain."""
        text, rest = self._text, self._rest
        longest = _tail_overlap(text, end, rest) if rest else 0
        for length in range(longest, 0, -1):
            if rest[:length].strip() and text.endswith(rest[:length], 0, end):
                gain = _imbalance(text[:end]) - _imbalance(text[: end - length])
                if gain > 0 or (gain == 0 and length == len(rest)):
                    return length
        return 0

    # What may be emitted before anything is decided

    def _safe_length(self) -> int:
        text = self._text
        limit = len(text) - max((_tail_overlap(text, len(text), stop) for stop in self._stops), default=0)
        if self._mode == "raw":
            return limit
        if text[max(0, limit - 1) : limit] == "\r":
            limit -= 1
        safe = limit - (_tail_overlap(text, limit, self._rest) if self._rest else 0)
        if self._mode == "block":
            safe = min(safe, self._safe_lines(limit))
        return safe if text[:safe].strip() else 0

    def _safe_lines(self, limit: int) -> int:
        start = self._start_of_line(limit)
        whole = self._whole_line(start, limit)
        may_be_dropped = (
            not whole
            or (self._may_repeat_next_line(start) and self._next_line.startswith(whole))
            or (bool(start and self._rest) and self._rest.strip().startswith(whole.strip()))
            or self._repeated_line_before(start).startswith(whole)
        )
        return self._drop_at(start) if may_be_dropped else limit

    # Lines

    def _start_of_line(self, end: int) -> int:
        return self._text.rfind("\n", 0, end) + 1

    def _whole_line(self, start: int, end: int) -> str:
        line = self._text[start:end]
        return (line if start else self._line_prefix + line).rstrip()

    def _before_newline(self, newline: int) -> int:
        return newline - 1 if self._text[max(0, newline - 1) : newline] == "\r" else newline

    def _drop_at(self, start: int) -> int:
        """Where the text ends without the line at `start` and the blank lines before it."""
        kept = len(self._text[:start].rstrip())
        return self._before_newline(self._text.index("\n", kept)) if kept else 0

    def _may_repeat_next_line(self, start: int) -> bool:
        return bool(start) or not self._line_prefix.strip()

    def _repeated_line_before(self, start: int) -> str:
        """The line that stands twice right before the one at `start`; empty if there is none."""
        if not start:
            return ""
        second = self._start_of_line(start - 1)
        if not second:
            return ""
        line = self._whole_line(second, start - 1)
        first = self._whole_line(self._start_of_line(second - 1), second - 1)
        return line if line == first else ""


def _first_line(text: str) -> str:
    """The first line of `text` that is not blank, without its trailing whitespace."""
    return next((line.rstrip() for line in text.split("\n") if line.strip()), "")


def _tail_overlap(text: str, end: int, pattern: str) -> int:
    """How many characters before `end` are a start of `pattern`."""
    at = text.find(pattern[0], max(0, end - len(pattern)), end)
    while at >= 0:
        if pattern.startswith(text[at:end]):
            return end - at
        at = text.find(pattern[0], at + 1, end)
    return 0


def _imbalance(text: str) -> int:
    """How many brackets and quotes of `text` lack their other half, by counting: cheap, and blind to comments."""
    brackets = sum(abs(text.count(left) - text.count(right)) for left, right in _BRACKETS)
    return brackets + sum(text.count(quote) % 2 for quote in _QUOTES)
