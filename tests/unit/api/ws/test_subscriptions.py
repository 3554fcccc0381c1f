from __future__ import annotations

import json
from typing import Any

import pytest

from rockfill.api.ws import subscriptions
from rockfill.api.ws.subscriptions import Subscriptions
from rockfill.bus import Bus, Event, Topic


class Client:
    """Keeps what it is sent: which subscription, whether only the latest counts, and the event."""

    def __init__(self) -> None:
        self.got: list[tuple[int, bool, Any]] = []

    def event(self, subscription: int, event: bytes) -> None:
        self.got.append((subscription, False, json.loads(event)))

    def latest(self, subscription: int, event: bytes) -> None:
        self.got.append((subscription, True, json.loads(event)))

    @property
    def types(self) -> list[str]:
        return [event["type"] for _, _, event in self.got]


LOADED = Event(Topic.EVENTS, "model.loaded", {"model": "m"})
STATS = Event(Topic.STATS, "stats.sampled", {"npu": 1})
ENGINE = Event(Topic.ENGINE, "engine.changed", {"state": "ready"})


def test_the_present_state_comes_first_and_then_what_happens() -> None:
    bus, client = Bus(), Client()
    opened = Subscriptions(bus, {Topic.ENGINE: lambda: ENGINE, Topic.STATS: lambda: None})
    opened.open(client, 7, [Topic.ENGINE, Topic.STATS, Topic.EVENTS, Topic.ENGINE], 1.0)
    bus.publish(LOADED)
    bus.publish(STATS)
    assert client.got == [
        (7, False, {"type": "engine.changed", "topic": "engine", "state": "ready"}),
        (7, False, {"type": "model.loaded", "topic": "events", "model": "m"}),
        (7, True, {"type": "stats.sampled", "topic": "stats", "npu": 1}),
    ]


def test_everybody_gets_only_the_topics_that_they_asked_for_until_they_end_it() -> None:
    bus, first, second = Bus(), Client(), Client()
    opened = Subscriptions(bus, {})
    subscription = opened.open(first, 1, [Topic.EVENTS], 1.0)
    opened.open(second, 2, [Topic.ENGINE], 1.0)
    bus.publish(LOADED)
    opened.close(subscription)
    bus.publish(LOADED)
    assert (first.types, second.types) == (["model.loaded"], [])


def test_an_event_is_written_down_once_for_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Event] = []
    real = subscriptions.written

    def writes(event: Event) -> bytes:
        written.append(event)
        return real(event)

    monkeypatch.setattr(subscriptions, "written", writes)
    bus = Bus()
    opened = Subscriptions(bus, {})
    bus.publish(LOADED)
    assert written == []
    for number in range(3):
        opened.open(Client(), number, [Topic.EVENTS], 1.0)
    bus.publish(LOADED)
    assert written == [LOADED]


@pytest.mark.parametrize(
    ("interval_s", "got"),
    [(0.5, [0, 1, 2, 3, 4, 5, 6]), (1.0, [0, 1, 2, 3, 4, 5, 6]), (3.0, [0, 3, 6]), (2.0, [0, 2, 4, 6])],
)
def test_figures_come_so_often_at_most(interval_s: float, got: list[int]) -> None:
    """The publisher's seconds are not ours: it is up to 50 ms early or late."""
    now_s = 1000.0
    bus, client = Bus(), Client()
    opened = Subscriptions(bus, {}, clock=lambda: now_s)
    opened.open(client, 1, [Topic.STATS], interval_s)
    for second in range(7):
        now_s = 1000 + second + (0.05 if second % 2 else -0.05)
        bus.publish(Event(Topic.STATS, "stats.sampled", {"second": second}))
    assert [event["second"] for _, _, event in client.got] == got


def test_whoever_measures_hears_how_often_it_is_wanted() -> None:
    heard: list[tuple[Topic, float | None]] = []
    opened = Subscriptions(Bus(), {}, lambda topic, interval_s: heard.append((topic, interval_s)))
    first = opened.open(Client(), 1, [Topic.STATS], 5.0)
    second = opened.open(Client(), 1, [Topic.STATS], 1.0)
    third = opened.open(Client(), 2, [Topic.STATS], 60.0)
    opened.close(second)
    opened.close(first)
    opened.close(third)
    assert heard == [(Topic.STATS, interval_s) for interval_s in (5.0, 1.0, 1.0, 5.0, 60.0, None)]
