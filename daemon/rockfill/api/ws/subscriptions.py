"""From the bus to those who subscribed: an event is written down once, for everybody."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from rockfill.api.errors import dumps
from rockfill.bus import Event, Topic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rockfill.bus import Bus

# Publishers are not on the second; who wants an event each second must not miss every other one for a millisecond.
EARLY_SHARE = 0.25


class Receiver(Protocol):
    """The connection of a subscriber. Neither method ever waits."""

    def event(self, subscription: int, event: bytes) -> None:
        """Send it; it must not be lost."""
        ...

    def latest(self, subscription: int, event: bytes) -> None:
        """Send it, in place of an earlier one that is not sent yet."""
        ...


@dataclass(slots=True, eq=False)
class Subscription:
    receiver: Receiver
    id: int
    topics: frozenset[Topic]
    interval_s: float
    next_s: float = 0.0

    def deliver(self, topic: Topic, event: bytes, now_s: float) -> None:
        if topic is not Topic.STATS:
            self.receiver.event(self.id, event)
        elif now_s >= self.next_s - EARLY_SHARE * self.interval_s:
            on_time = now_s < self.next_s + self.interval_s
            self.next_s = (self.next_s if on_time else now_s) + self.interval_s
            self.receiver.latest(self.id, event)


class Subscriptions:
    """Every subscription of every connection."""

    def __init__(
        self,
        bus: Bus,
        snapshots: Mapping[Topic, Callable[[], Event | None]],
        watched: Callable[[Topic, float | None], None] = lambda topic, interval_s: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`snapshots` give the present state of their topics as an event, None while there is none.

        `watched` hears the shortest interval at which a topic is wanted, whenever somebody comes or goes, None if
        nobody is left: what nobody looks at need not be measured.
        """
        self._snapshots = snapshots
        self._watched = watched
        self._clock = clock
        self._by_topic: dict[Topic, dict[Subscription, None]] = {topic: {} for topic in Topic}
        bus.subscribe(self._publish)

    def open(self, receiver: Receiver, id_: int, topics: Sequence[Topic], interval_s: float) -> Subscription:
        """Deliver from now on, the present state first."""
        subscription = Subscription(receiver, id_, frozenset(topics), interval_s)
        now_s = self._clock()
        for topic in dict.fromkeys(topics):
            self._by_topic[topic][subscription] = None
            self._tell_interval(topic)
            snapshot = self._snapshots.get(topic)
            event = snapshot() if snapshot is not None else None
            if event is not None:
                subscription.deliver(topic, written(event), now_s)
        return subscription

    def close(self, subscription: Subscription) -> None:
        """Deliver no more."""
        for topic in subscription.topics:
            self._by_topic[topic].pop(subscription, None)
            self._tell_interval(topic)

    def _tell_interval(self, topic: Topic) -> None:
        self._watched(topic, min((subscriber.interval_s for subscriber in self._by_topic[topic]), default=None))

    def _publish(self, event: Event) -> None:
        subscribers = self._by_topic[event.topic]
        if not subscribers:
            return
        text, now_s = written(event), self._clock()
        for subscription in tuple(subscribers):
            subscription.deliver(event.topic, text, now_s)


def written(event: Event) -> bytes:
    """The event as JSON: its type and topic, then its values."""
    value: dict[str, Any] = {"type": event.type, "topic": event.topic.value, **event.value}
    return dumps(value)
