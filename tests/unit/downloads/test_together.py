"""What several people ask for at the same time, and what is left of what somebody asked for who has gone."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from rockfill.compat.verdict import BoardFacts
from rockfill.downloads import jobs, runtimes
from rockfill.downloads.models import Request
from rockfill.errors import Code, Problem
from rockfill.snapshots import Target
from tests.fakes.hub import FileSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from rockfill.downloads.jobs import Job
    from rockfill.downloads.plan import Plan
    from rockfill.store.runtimes import FoundRuntime
    from tests.fakes.hub import HubServer
    from tests.unit.downloads.conftest import Place

CPU = BoardFacts("", 8 * 10**9, None)
TWO = "u/two-GGUF"
ONE = "ggml-org/Qwen2.5-Coder-1.5B-Q8_0-GGUF"
NAME, ID = "qwen2.5-coder:1.5b", "qwen2.5-coder-1.5b"
OTHER = Target("other", "llama", "/other.gguf", None)


@pytest.fixture(autouse=True)
def offered(place: Place, hub: HubServer) -> None:
    place.board = CPU
    hub.add(ONE, {"qwen2.5-coder-1.5b-q8_0.gguf": FileSpec(size_bytes=3000)})
    hub.add(TWO, {"two-q8_0.gguf": FileSpec(size_bytes=3000), "two-q4_0.gguf": FileSpec(size_bytes=2000)})


class Halt:
    """A function that stops before it does its work, in a thread, until it may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
        self.reached, self._go_on = threading.Event(), threading.Event()
        self._really: Callable[..., Any] = getattr(owner, name)
        monkeypatch.setattr(owner, name, self)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.reached.set()
        self._go_on.wait(30)  # no longer, or a test that fails keeps its thread for ever
        return self._really(*arguments, **named)

    async def is_reached(self) -> None:
        await asyncio.to_thread(self.reached.wait)

    def go_on(self) -> None:
        self._go_on.set()


async def gone(task: asyncio.Task[Any]) -> None:
    """Whoever asked for it has gone, and it has ended."""
    task.cancel()
    await asyncio.wait([task])


async def ran_to_its_end(task: asyncio.Task[Any], halt: Halt) -> None:
    """Whoever asked for it goes while it is at `halt`."""
    await halt.is_reached()
    task.cancel()
    await asyncio.sleep(0)
    halt.go_on()
    await asyncio.wait([task])


async def test_two_variants_of_one_model_asked_for_at_once_are_two(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = place.downloads.add

    async def slowly(plan: Plan) -> Job:
        await asyncio.sleep(0.1)  # in which the other one would look which names are free
        return await add(plan)

    monkeypatch.setattr(place.downloads, "add", slowly)
    wishes = [Request(TWO, "q8_0"), Request(TWO, "q4_0")]
    pulled = await asyncio.gather(*map(place.library.pull, wishes))
    assert len({one.name for one in pulled}) == 2
    assert {job.state for job in (await place.work()).values()} == {"done"}
    assert sorted(target.size_bytes for target in place.models.targets) == [2000, 3000]


async def test_a_wish_is_carried_out_whoever_goes_away(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    halt = Halt(monkeypatch, place.state, "change")
    await ran_to_its_end(asyncio.create_task(place.library.pull(Request(ONE, use=True))), halt)
    assert place.library.wanted is not None
    assert [job.id for job in place.downloads.jobs] == [ID]


async def test_whoever_ends_a_download_and_goes_ends_the_wish_too(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.library.pull(Request(ONE, use=True))
    halt = Halt(monkeypatch, place.downloads._shelves["model"], "keep_plan")
    await ran_to_its_end(asyncio.create_task(place.library.cancel(ID)), halt)
    assert place.downloads.find(ID).state == "cancelled"
    assert place.library.wanted is None
    assert (await asyncio.to_thread(place.state.choices)).wanted is None


async def test_a_wish_made_anew_while_the_old_one_is_ended_stands(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.library.pull(Request(ONE, use=True))
    first = place.library.wanted
    halt = Halt(monkeypatch, place.downloads._shelves["model"], "keep_plan")
    cancelling = asyncio.create_task(place.library.cancel(ID))
    await halt.is_reached()
    again = asyncio.create_task(place.library.pull(Request(ONE, use=True)))
    while place.library.wanted is first:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)
    halt.go_on()
    await asyncio.gather(cancelling, again)
    assert place.library.wanted is not None
    await place.work()
    assert [target.name for target in place.arrived] == [NAME]


async def test_a_choice_is_made_in_full_or_not_at_all(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    halt, then = Halt(monkeypatch, place.state, "change"), []
    await ran_to_its_end(asyncio.create_task(place.library.choose(OTHER, lambda: then.append(1))), halt)
    assert (await asyncio.to_thread(place.state.choices)).model == "other"
    assert then == [1]


async def test_what_arrives_while_somebody_chooses_otherwise_is_not_run(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.library.pull(Request(ONE, use=True))
    halt = Halt(monkeypatch, place.state, "change")
    choosing = asyncio.create_task(place.library.choose(OTHER, lambda: None))
    await halt.is_reached()
    working = asyncio.create_task(place.work())
    while not place.models.targets:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)  # in which it would be chosen
    halt.go_on()
    await asyncio.gather(choosing, working)
    assert place.arrived == []
    assert (await asyncio.to_thread(place.state.choices)).model == "other"


async def test_what_is_asked_for_before_the_unfinished_is_taken_up_is_fetched_once(
    place: Place, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.library.pull(Request(ONE))
    await place.reopen()
    halt = Halt(monkeypatch, place.downloads._shelves["model"], "plans")
    taking_up = asyncio.create_task(place.downloads.take_up())
    await halt.is_reached()
    asked = asyncio.create_task(place.library.pull(Request(ONE)))
    await asyncio.wait([asked], timeout=0.2)
    halt.go_on()
    await asyncio.gather(taking_up, asked)
    hub.forget()
    await place.work()
    assert hub.sent_bytes() == 3000
    assert place.happened() == [("download.finished", ID)]


async def test_whoever_looked_before_the_unfinished_was_known_is_told_of_it(place: Place) -> None:
    await place.library.pull(Request(ONE))
    await place.library.cancel(ID)
    await place.reopen()
    place.events.clear()
    await place.downloads.take_up()
    assert [[job["state"] for job in event.value["downloads"]] for event in place.events] == [["cancelled"]]


async def test_what_is_tried_again_by_itself_is_not_while_it_is_asked_for_anew(
    place: Place, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the old plan's time could come while the new one is being written down."""
    await place.library.pull(Request(ONE))
    hub.fail("status", status=500, times=0)
    working = asyncio.create_task(place.downloads.run())
    await place.downloads.idle()
    assert place.downloads.find(ID).retry_in_s is not None
    hub.heal()
    plan = replace(place.downloads.plan_of(ID), repository="another")
    halt = Halt(monkeypatch, jobs, "_keep")
    adding = asyncio.create_task(place.downloads.add(plan))
    await halt.is_reached()
    assert place.downloads._retries == {}
    assert place.downloads.find(ID).retry_in_s is None
    halt.go_on()
    assert (await adding).repository == "another"
    await place.downloads.idle()
    await gone(working)
    assert place.downloads.find(ID).state == "done"


async def test_what_is_cancelled_on_a_full_disk_is_not_said_to_go_on(
    place: Place, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.fail("stall", after_bytes=0)
    await place.library.pull(Request(ONE))
    working = asyncio.create_task(place.downloads.run())
    while place.downloads.find(ID).state != "fetching":  # noqa: ASYNC110 - it has no event for that
        await asyncio.sleep(0.01)

    def full(*_: object) -> None:
        raise Problem(Code.DISK_FULL, "The disk is full.")

    with monkeypatch.context() as disk:
        disk.setattr(place.downloads._shelves["model"], "keep_plan", full)
        with pytest.raises(Problem) as caught:
            await place.downloads.cancel(ID)
    assert caught.value.code is Code.DISK_FULL
    assert place.downloads.find(ID).state == "cancelled"
    await place.library.pull(Request(ONE))
    await place.downloads.idle()
    await gone(working)
    assert place.downloads.find(ID).state == "done"


async def test_who_looks_for_runtimes_later_knows_better(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    began, go_on = threading.Event(), threading.Event()
    looked: list[int] = []

    def look(*_: object) -> tuple[FoundRuntime, ...]:
        looked.append(1)
        if len(looked) > 1:
            return found
        began.set()
        go_on.wait()
        return ()

    found: tuple[Any, ...] = ("came",)
    monkeypatch.setattr(runtimes, "find_runtimes", look)
    earlier = asyncio.create_task(place.runtimes.refresh())
    await asyncio.to_thread(began.wait)
    later = asyncio.create_task(place.runtimes.refresh())
    await asyncio.wait([later], timeout=0.1)
    go_on.set()
    await asyncio.gather(earlier, later)
    assert place.runtimes.found == found


async def test_a_runtime_is_pinned_in_full_or_not_at_all(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await place.runtimes.use("auto")
    monkeypatch.setattr(type(place.runtimes), "usable_versions", ("1.2.3",))
    halt = Halt(monkeypatch, place.state, "change")
    await ran_to_its_end(asyncio.create_task(place.runtimes.use("1.2.3")), halt)
    assert place.runtimes.pinned == "1.2.3" == (await asyncio.to_thread(place.state.choices)).runtime
