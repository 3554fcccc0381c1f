"""What becomes of the engine, as events for whoever listens on the bus: pure, from one snapshot to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rockfill.bus import Event, Topic
from rockfill.snapshots import EngineSnapshot, Phase

if TYPE_CHECKING:
    from rockfill.snapshots import Target

_LOADED = (Phase.READY, Phase.BUSY)


class Herald:
    """Tells what automations want to hear of, once each.

    ``model.loaded {model, engine, runtime}``: a model is ready for requests. ``model.load_failed {model, problem,
    retries}``: no model runs, because of `problem`; `retries` says whether another try comes by itself.
    ``engine.restarted {model, problem}``: a new worker begins with a model that was loaded before; `problem` ended the
    last one, None if somebody asked for it.
    """

    def __init__(self) -> None:
        self._phase = Phase.STOPPED
        self._had: Target | None = None  # what was loaded before, until it is told that a new worker begins with it

    def events(self, snapshot: EngineSnapshot) -> list[Event]:
        """What `snapshot`, the next one, has to tell."""
        before, self._phase = self._phase, snapshot.phase
        if snapshot.phase is before:
            return []
        target, problem = snapshot.target, snapshot.problem
        told = []
        match snapshot.phase:
            case Phase.READY | Phase.BUSY if before not in _LOADED:
                assert target is not None
                self._had = target
                runtime = snapshot.facts.runtime if snapshot.facts else None
                loaded = {"model": target.name, "engine": target.engine, "runtime": runtime}
                told.append(Event(Topic.EVENTS, "model.loaded", loaded))
            case Phase.STARTING if self._had is not None:
                had, self._had = self._had, None
                if had == target:
                    reason = problem.value() if problem else None
                    told.append(Event(Topic.EVENTS, "engine.restarted", {"model": had.name, "problem": reason}))
            case Phase.FAILED if problem is not None:
                retries = snapshot.next_retry_at_s is not None
                # A run that crashed, and a pause before the next worker: that one's start is told.
                if self._had is None or not retries:
                    failed = {"model": target.name if target else None, "problem": problem.value(), "retries": retries}
                    told.append(Event(Topic.EVENTS, "model.load_failed", failed))
            case Phase.STOPPED:
                self._had = None
            case _:
                pass
        return told
