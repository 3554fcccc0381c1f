"""The bus: order, independence of subscribers, and leaving."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rockfill.bus import Bus, Event, Topic

if TYPE_CHECKING:
    import pytest

LOADED = Event(Topic.EVENTS, "model.loaded", {"model": "m"})
FAILED = Event(Topic.EVENTS, "model.load_failed")


def test_every_subscriber_gets_every_event_in_order() -> None:
    bus = Bus()
    first: list[Event] = []
    second: list[Event] = []
    bus.subscribe(first.append)
    bus.subscribe(second.append)
    bus.publish(LOADED)
    bus.publish(FAILED)
    assert first == second == [LOADED, FAILED]


def test_who_leaves_gets_no_more_and_may_leave_twice() -> None:
    bus = Bus()
    got: list[Event] = []
    leave = bus.subscribe(got.append)
    bus.publish(LOADED)
    leave()
    leave()
    bus.publish(FAILED)
    assert got == [LOADED]


def test_the_same_function_may_subscribe_twice() -> None:
    bus = Bus()
    got: list[Event] = []
    leave = bus.subscribe(got.append)
    bus.subscribe(got.append)
    leave()
    bus.publish(LOADED)
    assert got == [LOADED]


def test_a_subscriber_that_fails_does_not_keep_the_event_from_others(caplog: pytest.LogCaptureFixture) -> None:
    bus = Bus()
    got: list[Event] = []

    def fail(_: Event) -> None:
        raise RuntimeError("out of order")

    bus.subscribe(fail)
    bus.subscribe(got.append)
    bus.publish(LOADED)
    assert got == [LOADED]
    assert "out of order" in caplog.text


def test_leaving_while_being_told_is_allowed() -> None:
    bus = Bus()
    got: list[Event] = []

    def once(event: Event) -> None:
        got.append(event)
        leave()

    leave = bus.subscribe(once)
    bus.publish(LOADED)
    bus.publish(LOADED)
    assert got == [LOADED]
