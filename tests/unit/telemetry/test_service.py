"""When samples are taken, who is told, and what a source that fails costs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from rockfill.bus import Bus, Event, Topic
from rockfill.hardware.sampler import Sampler
from rockfill.telemetry.service import EngineFigures, Telemetry
from tests.fakes.boards import Tree, armbian_vendor
from tests.jumping import JumpingLoop, hangs_in

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

IDLE = EngineFigures(working=False, worker_pid=None, tokens_per_second=None, first_token_s=None, queue_depth=0)
NPU_TEMP = "sys/class/thermal/thermal_zone6/temp"
DDR_FREQ = "sys/class/devfreq/dmc/cur_freq"


class Fixture:
    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.engine = IDLE
        self.events: list[Event] = []
        bus = Bus()
        bus.subscribe(self.events.append)
        self.sampler = Sampler(tree.root)
        self.telemetry = Telemetry(self.sampler, lambda: self.engine, bus)

    def of(self, topic: Topic) -> list[Event]:
        return [event for event in self.events if event.topic is topic]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    monkeypatch.setenv("ROCKFILL_SYSFS_ROOT", str(tmp_path))
    return armbian_vendor(tmp_path)


def in_jumps(tree: Tree, scenario: Callable[[JumpingLoop, Fixture], Coroutine[Any, Any, None]]) -> None:
    loop = JumpingLoop()

    async def run() -> None:
        fixture = Fixture(tree)
        sources = {"thermal zone npu-thermal": tree.root / NPU_TEMP, "ddr frequency": tree.root / DDR_FREQ}
        loop.busy = lambda: fixture.telemetry._taking.locked() and not hangs_in(fixture.sampler, sources)
        task = asyncio.create_task(fixture.telemetry.run())
        try:
            await scenario(loop, fixture)
        finally:
            task.cancel()
            loop.busy = lambda: not task.done()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    try:
        loop.run_until_complete(run())
    finally:
        loop.close()


def samples(fixture: Fixture) -> int:
    return len(fixture.telemetry.history.seconds.rows(0, [])["time_s"])


def test_with_nobody_looking_and_nothing_running_there_is_one_wake_up_a_minute(tree: Tree) -> None:
    async def scenario(loop: JumpingLoop, fixture: Fixture) -> None:
        await asyncio.sleep(30)  # one wake-up of the test's own
        before = loop.wake_ups
        await asyncio.sleep(3600)  # and another
        assert loop.wake_ups - before == 60 + 1
        assert samples(fixture) == 1 + 60
        assert fixture.events == []

    in_jumps(tree, scenario)


def test_while_somebody_watches_there_is_a_sample_a_second_and_each_is_published(tree: Tree) -> None:
    async def scenario(loop: JumpingLoop, fixture: Fixture) -> None:
        await asyncio.sleep(30)
        assert fixture.telemetry.event is not None
        fixture.telemetry.watched(0.5)  # more often than it measures
        await asyncio.sleep(10.5)
        fixture.telemetry.watched(None)
        assert samples(fixture) == 1 + 11
        published = fixture.of(Topic.STATS)
        assert len(published) == 11
        assert {event.type for event in published} == {"stats.sampled"}
        assert published[0].value["figures"]["npu.load_percent"] == [42, 7, 0]
        await asyncio.sleep(600)
        assert samples(fixture) == 1 + 11 + 10
        assert len(fixture.of(Topic.STATS)) == 11

    in_jumps(tree, scenario)


def test_who_wants_figures_seldom_has_them_measured_seldom_and_still_gets_each(tree: Tree) -> None:
    async def scenario(loop: JumpingLoop, fixture: Fixture) -> None:
        await asyncio.sleep(30)
        fixture.telemetry.watched(5.0)
        await asyncio.sleep(21)
        assert samples(fixture) == 1 + 5
        fixture.telemetry.watched(3600.0)
        await asyncio.sleep(600)
        assert samples(fixture) == 1 + 5 + 10
        assert len(fixture.of(Topic.STATS)) == 5 + 10

    in_jumps(tree, scenario)


def test_while_a_model_works_there_is_a_sample_a_second(tree: Tree) -> None:
    async def scenario(loop: JumpingLoop, fixture: Fixture) -> None:
        await asyncio.sleep(30)
        fixture.engine = replace(IDLE, working=True, tokens_per_second=10.5, queue_depth=3)
        fixture.telemetry.engine_changed()
        await asyncio.sleep(4.5)
        assert samples(fixture) == 1 + 5
        last = fixture.of(Topic.STATS)[-1].value["figures"]
        assert (last["engine.tokens_per_second"], last["engine.first_token_s"], last["queue.depth"]) == (10.5, None, 3)
        fixture.engine = IDLE
        fixture.telemetry.engine_changed()
        await asyncio.sleep(59)
        assert samples(fixture) == 1 + 5

    in_jumps(tree, scenario)


def test_who_asks_is_answered_at_once_and_looks_for_ten_seconds(tree: Tree) -> None:
    async def scenario(loop: JumpingLoop, fixture: Fixture) -> None:
        await asyncio.sleep(30)
        first = await fixture.telemetry.look()
        assert samples(fixture) == 2
        assert await fixture.telemetry.look() is first
        await asyncio.sleep(59.5)
        assert samples(fixture) == 2 + 9

    in_jumps(tree, scenario)


def test_who_asks_seldom_causes_one_sample_each_time(tree: Tree) -> None:
    async def scenario(loop: JumpingLoop, fixture: Fixture) -> None:
        await asyncio.sleep(15)
        for _ in range(10):
            await fixture.telemetry.stats()
            await asyncio.sleep(15)
        assert samples(fixture) == 1 + 10

    in_jumps(tree, scenario)


def test_who_goes_away_leaves_no_old_figures_for_new_ones(tree: Tree) -> None:
    async def scenario(loop: JumpingLoop, fixture: Fixture) -> None:
        await asyncio.sleep(30)
        gone = asyncio.create_task(fixture.telemetry.stats())
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        tree.put(NPU_TEMP, "61000\n")
        assert (await fixture.telemetry.stats()).figures["npu.temp_celsius"] == 61.0

    in_jumps(tree, scenario)


def test_a_source_that_fails_again_and_again_is_told_once_an_hour(tree: Tree, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(loop: JumpingLoop, fixture: Fixture) -> None:
        def told() -> int:
            assert len(fixture.of(Topic.EVENTS)) == len(caplog.records)
            return len(caplog.records)

        for turn in range(160):
            await asyncio.sleep(53)  # before the next sample would come by itself
            tree.put(NPU_TEMP, "garbage" if turn % 2 else "46300\n")
            figures = (await fixture.telemetry.stats()).figures
            assert figures["npu.temp_celsius"] in (46.3, None)
        assert told() == 3
        assert fixture.of(Topic.EVENTS)[0] == Event(
            Topic.EVENTS,
            "sensor.failed",
            {"source": "thermal zone npu-thermal", "reason": "not what was expected there"},
        )

    with caplog.at_level(logging.WARNING):
        in_jumps(tree, scenario)


def test_a_read_that_never_returns_costs_one_figure_and_the_appliance_goes_on(tree: Tree) -> None:
    for path in (NPU_TEMP, DDR_FREQ):
        (tree.root / path).unlink()
        os.mkfifo(tree.root / path)

    async def scenario(loop: JumpingLoop, fixture: Fixture) -> None:
        stats = await fixture.telemetry.look()
        figures = stats.figures
        assert (figures["npu.temp_celsius"], figures["ddr.freq_hz"], figures["npu.freq_hz"]) == (None, None, 10**9)
        hanging = ("ddr frequency", "thermal zone npu-thermal")
        assert stats.failures == dict.fromkeys(hanging, "the read does not return")
        assert len(fixture.of(Topic.EVENTS)) == 2
        await asyncio.sleep(1.2)
        assert (await fixture.telemetry.look()).figures["npu.load_percent"] == [42, 7, 0]
        assert len(fixture.of(Topic.EVENTS)) == 2

    in_jumps(tree, scenario)
    for path in (NPU_TEMP, DDR_FREQ):  # let the threads go
        os.close(os.open(tree.root / path, os.O_WRONLY))
    for thread in threading.enumerate():
        if thread.name == "sampler":
            thread.join()
