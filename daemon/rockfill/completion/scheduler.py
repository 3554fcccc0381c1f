"""Whose turn it is: pure policy, no tasks and no clocks.

What runs is a flight: one run of the engine for one request, or for several that are the same. One flight is in the
air at a time; the others wait. Typing goes before all else, and background work makes way for anybody; among equals
the client goes first that was served longest ago. A newer request can make an older one pointless, and ends it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# A request is an edit of another if so much of the longer document is common to both, at its head and its tail.
EDIT_SHARE = 0.9


class Priority(IntEnum):
    """Who goes first: somebody who waits while typing, anybody else, and what nobody waits for."""

    TYPING = 0
    PLAIN = 1
    BACKGROUND = 2


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request as far as the policy looks at it.

    Requests of equal `key` are the same and share a run ("" shares with nobody). `client` and `session` are "" where
    nothing is known; `document` is the text round the cursor, "" where an edit of it makes nothing pointless.
    """

    ticket: int
    priority: Priority = Priority.PLAIN
    client: str = ""
    session: str = ""
    key: str = ""
    document: str = ""


# ---- what is to be done


@dataclass(frozen=True, slots=True)
class Run:
    """This flight has the engine now."""

    flight: int


@dataclass(frozen=True, slots=True)
class Join:
    """`ticket` shares the run of a flight that waits or is in the air."""

    ticket: int
    flight: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """The queue is full."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Supersede:
    """`ticket` has become pointless."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Abort:
    """Nobody wants what this flight makes any more; it still has the engine until it is `over`."""

    flight: int


@dataclass(frozen=True, slots=True)
class Yield:
    """This flight is to make way now, and to be put back with `again` once it has."""

    flight: int


@dataclass(frozen=True, slots=True)
class Gone:
    """This flight, which had its turn or was to have one, never gets another."""

    flight: int


Effect = Run | Join | Refuse | Supersede | Abort | Yield | Gone


@dataclass(slots=True)
class _Flight:
    """The tickets aboard, the first one's being the flight's own number."""

    first: Arrival
    aboard: dict[int, Arrival] = field(default_factory=dict)
    aborted: bool = False
    yielding: bool = False

    @property
    def priority(self) -> Priority:
        """That of the most urgent aboard; whoever joins background work in a hurry hurries it."""
        return min((arrival.priority for arrival in self.aboard.values()), default=self.first.priority)


class Scheduler:
    """Keeps who flies and who waits. A ticket is any number that the caller does not use twice."""

    def __init__(self, max_queue: int) -> None:
        """At most `max_queue` flights wait beside the one in the air."""
        self.max_queue = max_queue
        self._air: _Flight | None = None
        self._waiting: list[_Flight] = []
        self._served: dict[str, int] = {}
        self._turns = 0

    @property
    def depth(self) -> int:
        """How many flights wait."""
        return len(self._waiting)

    def arrive(self, arrival: Arrival) -> list[Effect]:
        """A request wants to run. It has run, joined, been refused, or (if none of these is said of it) it waits."""
        effects = self._supersede(arrival)
        if arrival.key:
            for flight in self._flights():
                if flight.first.key == arrival.key and not flight.aborted:
                    flight.aboard[arrival.ticket] = arrival
                    return [*effects, Join(arrival.ticket, flight.first.ticket)]
        flight = _Flight(arrival, {arrival.ticket: arrival})
        if self._air is None:
            return [*effects, self._take_off(flight)]
        if len(self._waiting) >= self.max_queue:
            return [*effects, Refuse(arrival.ticket)]
        self._waiting.append(flight)
        air = self._air
        if air.priority is Priority.BACKGROUND > arrival.priority and not (air.yielding or air.aborted):
            air.yielding = True
            effects.append(Yield(air.first.ticket))
        return effects

    def leave(self, ticket: int) -> list[Effect]:
        """Whoever holds `ticket` is gone, or has all that was wanted."""
        for flight in self._flights():
            if flight.aboard.pop(ticket, None) is not None:
                return self._abandoned(flight)
        return []

    def over(self, flight: int) -> list[Effect]:
        """The engine is free of `flight`."""
        if self._air is None or self._air.first.ticket != flight:
            return []
        self._air = None
        return [Gone(flight), *self._next()]

    def again(self, flight: int) -> list[Effect]:
        """The engine is free of `flight`, which made way and wants to go on; if nobody is aboard, it is over."""
        air = self._air
        if air is None or air.first.ticket != flight:
            return []
        if not air.aboard:
            return self.over(flight)
        air.yielding = False
        self._waiting.insert(0, air)
        self._air = None
        return self._next()

    def _supersede(self, arrival: Arrival) -> list[Effect]:
        effects: list[Effect] = []
        for flight in self._flights():
            for other in list(flight.aboard.values()):
                if _supersedes(arrival, other):
                    del flight.aboard[other.ticket]
                    effects.append(Supersede(other.ticket))
                    effects += self._abandoned(flight)
        return effects

    def _abandoned(self, flight: _Flight) -> list[Effect]:
        """What follows if nobody is aboard any more."""
        if flight.aboard:
            return []
        if flight is not self._air:
            self._waiting.remove(flight)
            return [Gone(flight.first.ticket)]
        if flight.aborted:
            return []
        flight.aborted = True
        return [Abort(flight.first.ticket)]

    def _next(self) -> list[Effect]:
        if not self._waiting:
            return []
        first = min(self._waiting, key=lambda flight: (flight.priority, self._served.get(flight.first.client, 0)))
        self._waiting.remove(first)
        return [self._take_off(first)]

    def _take_off(self, flight: _Flight) -> Run:
        self._air = flight
        self._turns += 1
        if len(self._served) > 4096:  # clients come and go for years
            self._served.clear()
        self._served[flight.first.client] = self._turns
        return Run(flight.first.ticket)

    def _flights(self) -> list[_Flight]:
        return [*self._waiting] if self._air is None else [self._air, *self._waiting]


def _supersedes(newer: Arrival, older: Arrival) -> bool:
    if newer.session and newer.session == older.session:
        return newer.key != older.key or not newer.key
    edits = newer.document and older.document and newer.document != older.document
    if not edits or not newer.client or newer.client != older.client:
        return False
    return is_edit(older.document, newer.document)


def is_edit(older: str, newer: str) -> bool:
    """Whether `newer` is `older` after some typing: at least `EDIT_SHARE` of the longer is head or tail of both."""
    shorter, longer = sorted((len(older), len(newer)))
    head = _common(shorter, lambda length: older[:length] == newer[:length])
    tail = _common(shorter - head, lambda length: older[-length:] == newer[-length:])
    return head + tail >= EDIT_SHARE * longer


def _common(most: int, equal: Callable[[int], bool]) -> int:
    """The largest length up to `most` of which `equal` is true, by halving: slices compare fast, loops do not."""
    least = 0
    while least < most:
        middle = (least + most + 1) // 2
        if equal(middle):
            least = middle
        else:
            most = middle - 1
    return least
