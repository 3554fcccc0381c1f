"""What the engine said before, served again to somebody who types it: pure.

An entry is what came after a prefix. Whoever then asks with a longer prefix that goes the way the entry went is given
the rest of it, and the engine is not touched; if the entry was cut short, only what comes after its end is left to run.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

# Per suffix, the last few: a user goes back a few keys, hardly more.
ENTRIES_PER_PLACE = 8


@dataclass(frozen=True, slots=True)
class Entry:
    """`text`, of `tokens` tokens, came after `prefix`; `complete` if the engine ended it by itself.

    `prompt_tokens` is what the engine had to read for it.
    """

    prefix: str
    text: str
    tokens: int
    complete: bool
    prompt_tokens: int = 0

    @property
    def size_bytes(self) -> int:
        return sum(len(text.encode("utf-8", "surrogatepass")) for text in (self.prefix, self.text))


@dataclass(frozen=True, slots=True)
class Remembered:
    """The rest of an entry from the asked prefix on; `complete` if nothing comes after it.

    `tokens` is its share of the entry's: what has been typed of it was not counted apart.
    """

    text: str
    tokens: int
    complete: bool
    prompt_tokens: int = 0


class TypedAhead:
    """Entries by place: whatever, beside the prefix, decides the text (model, suffix, files, settings)."""

    def __init__(self, max_bytes: int) -> None:
        """Keeps at most `max_bytes` of prefixes and texts, dropping the place used longest ago."""
        self._max_bytes = max_bytes
        self._size_bytes = 0
        self._places: OrderedDict[str, deque[Entry]] = OrderedDict()

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    def find(self, place: str, prefix: str) -> Remembered | None:
        """What is known to come after `prefix` at `place`: the most of it, if several entries know."""
        entries = self._places.get(place)
        if entries is None:
            return None
        self._places.move_to_end(place)
        best: Remembered | None = None
        for entry in entries:
            typed = len(prefix) - len(entry.prefix)
            if not 0 <= typed <= len(entry.text) or not prefix.startswith(entry.prefix):
                continue
            if not entry.text.startswith(prefix[len(entry.prefix) :]):
                continue
            text = entry.text[typed:]
            if not text and typed:
                continue  # typed to its end: what comes now is a new question
            tokens = -(-entry.tokens * len(text) // max(1, len(entry.text)))
            rest = Remembered(text, tokens, entry.complete, entry.prompt_tokens)
            if best is None or (rest.complete, len(rest.text)) > (best.complete, len(best.text)):
                best = rest
        return best

    def remember(self, place: str, entry: Entry) -> None:
        """Note what the engine said. What an older entry for the same prefix knew less of is replaced."""
        if entry.size_bytes > self._max_bytes // 4:
            return  # one giant must not push everybody else out
        entries = self._places.setdefault(place, deque())
        self._places.move_to_end(place)
        for older in list(entries):
            if older.prefix == entry.prefix:
                if len(older.text) > len(entry.text) or (older.complete and not entry.complete):
                    return
                self._drop(entries, older)
        entries.append(entry)
        self._size_bytes += entry.size_bytes
        if len(entries) > ENTRIES_PER_PLACE:
            self._drop(entries, entries[0])
        while self._size_bytes > self._max_bytes:
            _, dropped = self._places.popitem(last=False)
            self._size_bytes -= sum(gone.size_bytes for gone in dropped)

    def clear(self) -> None:
        """Forget everything."""
        self._places.clear()
        self._size_bytes = 0

    def _drop(self, entries: deque[Entry], entry: Entry) -> None:
        entries.remove(entry)
        self._size_bytes -= entry.size_bytes
