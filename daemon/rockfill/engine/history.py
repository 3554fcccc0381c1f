"""What became of the engine, for those who look later: the last lifecycle events, kept across restarts."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from rockfill.decode import DecodeError, Range, decode
from rockfill.snapshots import Phase

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rockfill.snapshots import EngineSnapshot

# Together at most 800 kB, which are written anew at each change.
KEPT_EVENTS = 200
KEPT_LINES = 10
KEPT_LINE_CHARS = 400

# Not worth an event each: they come with every completion.
_ROUTINE = {(Phase.READY, Phase.BUSY), (Phase.BUSY, Phase.READY)}


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    """One change of the engine's state. `time_s` is Unix time; the rest is there where it explains the change."""

    time_s: Annotated[float, Range(0, 2**32)]
    state: str
    model: str | None = None
    code: str | None = None
    message: str | None = None
    exit_status: int | None = None
    last_lines: tuple[str, ...] = ()


class History:
    """The last `KEPT_EVENTS` events, oldest first."""

    def __init__(self, stored: Iterable[Any] = ()) -> None:
        """Begin with `stored` events as JSON values; what is none is left out."""
        self._events: deque[HistoryEvent] = deque(maxlen=KEPT_EVENTS)
        self._last: EngineSnapshot | None = None
        for value in stored:
            try:
                self._events.append(decode(HistoryEvent, value))
            except DecodeError:  # of a release that wrote them otherwise
                continue

    @property
    def events(self) -> tuple[HistoryEvent, ...]:
        return tuple(self._events)

    def record(self, snapshot: EngineSnapshot, lines: tuple[str, ...]) -> bool:
        """Note a change; False if it was routine.

        Where something goes wrong its last lines are kept, once: those that the problem brings, as the worker that
        printed them may have been replaced by now, else `lines`, the present worker's.
        """
        last, self._last = self._last, snapshot
        problem = snapshot.problem
        if last is not None:
            if (last.phase, snapshot.phase) in _ROUTINE and last.problem == problem:
                return False
            if last.phase is snapshot.phase and last.problem == problem and last.target == snapshot.target:
                return False
        detail = problem.detail or {} if problem else {}
        status = detail.get("exit_status")
        news = problem is not None and (last is None or last.problem != problem)
        telling = detail.get("last_lines", lines)[-KEPT_LINES:] if news else ()
        self._events.append(
            HistoryEvent(
                time_s=round(time.time(), 3),
                state=snapshot.phase.value,
                model=snapshot.target.name if snapshot.target else None,
                code=problem.code.value if problem else None,
                message=problem.message if problem else None,
                exit_status=status if isinstance(status, int) else None,
                last_lines=tuple(line[:KEPT_LINE_CHARS] for line in telling),
            )
        )
        return True
