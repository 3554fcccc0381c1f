"""Whose turn it is: pure policy, no tasks and no clocks.

One generation runs at a time; the others wait in the order of their coming, in a bounded queue.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, IntEnum, auto


class Priority(IntEnum):
    """Who goes first: somebody who waits while typing, anybody else, and what nobody waits for."""

    TYPING = 0
    PLAIN = 1
    BACKGROUND = 2


class Admission(Enum):
    """What becomes of a request that arrives."""

    RUN = auto()
    WAIT = auto()
    REFUSE = auto()


class Scheduler:
    """Keeps who runs and who waits. A ticket is any number that the caller does not use twice."""

    def __init__(self, max_queue: int) -> None:
        """At most `max_queue` requests wait beside the one that runs."""
        self._max_queue = max_queue
        self._running: int | None = None
        self._waiting: deque[int] = deque()

    @property
    def depth(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def arrive(self, ticket: int) -> Admission:
        """A request wants to run."""
        if self._running is None:
            self._running = ticket
            return Admission.RUN
        if len(self._waiting) >= self._max_queue:
            return Admission.REFUSE
        self._waiting.append(ticket)
        return Admission.WAIT

    def leave(self, ticket: int) -> int | None:
        """`ticket` is over, or has given up waiting. Returns who runs now because of it."""
        if ticket != self._running:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
            return None
        self._running = self._waiting.popleft() if self._waiting else None
        return self._running
