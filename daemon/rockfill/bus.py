"""What happens in the daemon, told to whoever wants to know: the websocket, the clocks, automations.

Services publish; they never know who listens. Everything runs in the event loop, in the order of publication.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)


class Topic(StrEnum):
    """What can be subscribed to."""

    STATS = "stats"
    ENGINE = "engine"
    DOWNLOADS = "downloads"
    EVENTS = "events"
    LOGS = "logs"


@dataclass(frozen=True, slots=True)
class Event:
    """`type` says what happened, in the past tense (``model.loaded``); `value` is made of JSON values only.

    Under the topics `stats`, `engine` and `downloads` an event holds the whole present state, so that a later one
    makes an earlier one of the same type superfluous. Under `events` and `logs` each counts.
    """

    topic: Topic
    type: str
    value: Mapping[str, Any] = field(default_factory=dict)


class Bus:
    """Delivers events to its subscribers."""

    def __init__(self) -> None:
        self._subscribers: dict[object, Callable[[Event], None]] = {}

    def publish(self, event: Event) -> None:
        """Hand `event` to every subscriber. What one of them raises is logged, and the others get it all the same."""
        for deliver in tuple(self._subscribers.values()):
            try:
                deliver(event)
            except Exception:  # a listener's defect must not become the publisher's
                log.exception("a subscriber failed at %s", event.type)

    def subscribe(self, deliver: Callable[[Event], None]) -> Callable[[], None]:
        """Have `deliver` called for every event from now on; it must not block. Call the result to end that."""
        key = object()
        self._subscribers[key] = deliver

        def unsubscribe() -> None:
            self._subscribers.pop(key, None)

        return unsubscribe
