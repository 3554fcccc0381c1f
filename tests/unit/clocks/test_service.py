"""The lease as the engine drives it, on a tree of files, in a loop whose time jumps."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from rockfill.bus import Bus, Event
from rockfill.clocks import service
from rockfill.clocks.keeper import Keeper
from rockfill.clocks.service import ClockService, ClockState
from rockfill.config import ClockPolicy, Clocks
from rockfill.errors import Code, Problem
from rockfill.hardware.board import boot_id
from rockfill.hardware.devices import ClockFiles
from rockfill.snapshots import EngineSnapshot, Phase
from rockfill.state import StateDir
from tests.fakes.boards import Tree, armbian_vendor, armbian_vendor_without_dmc, x86_laptop
from tests.jumping import JumpingLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

NPU = "sys/class/devfreq/fdab0000.npu"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROCKFILL_SYSFS_ROOT", str(tmp_path / "root"))
    return tmp_path / "root"


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDir]:
    with StateDir.acquire(tmp_path / "state") as state:
        yield state


class Board:
    """A tree, and the clocks as the engine's states drive them."""

    def __init__(self, tree: Tree, state: StateDir, settings: Clocks) -> None:
        self.tree = tree
        self.celsius: float | None = 50.0
        self.looks = 0
        self.events: list[Event] = []
        bus = Bus()
        bus.subscribe(self.events.append)
        self.clocks = ClockService(Keeper(ClockFiles(), state, boot_id), settings, bus, self._temperature)

    async def _temperature(self) -> float | None:
        self.looks += 1
        return self.celsius

    async def engine(self, *phases: Phase) -> None:
        for phase in phases:
            self.clocks.engine_changed(EngineSnapshot(phase))
            await asyncio.sleep(0.01)

    @property
    def governor(self) -> str:
        return self.tree.read(f"{NPU}/governor")

    @property
    def highest_mhz(self) -> int:
        return int(self.tree.read(f"{NPU}/max_freq")) // 1_000_000


def in_jumps(
    tree: Tree,
    state: StateDir,
    scenario: Callable[[JumpingLoop, Board], Coroutine[Any, Any, None]],
    settings: Clocks | None = None,
    before: dict[str, str] | None = None,
) -> None:
    """Run `scenario` beside the service; afterwards everything has to be as it was before."""
    loop = JumpingLoop()
    before = before or set_in(tree)

    async def run() -> None:
        board = Board(tree, state, settings or Clocks())
        loop.busy = board.clocks._thread._turn.locked
        task = asyncio.create_task(board.clocks.run())
        try:
            await scenario(loop, board)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    try:
        loop.run_until_complete(run())
    finally:
        loop.close()
    assert set_in(tree) == before
    assert state.clocks() is None


def set_in(tree: Tree) -> dict[str, str]:
    """What stands in all governors and limits."""
    names = ("governor", "min_freq", "max_freq")
    paths = [*tree.root.glob("sys/class/devfreq/*/*"), *tree.root.glob("sys/devices/system/cpu/cpufreq/*/*")]
    return {str(path): path.read_text().strip() for path in paths if path.name.removeprefix("scaling_") in names}


def test_auto_raises_while_a_model_works_and_for_a_while_after(root: Path, state: StateDir) -> None:
    async def scenario(loop: JumpingLoop, board: Board) -> None:
        await board.engine(Phase.STARTING)
        assert board.governor == "rknpu_ondemand"
        await board.engine(Phase.LOADING)
        assert board.governor == "performance"
        await board.engine(Phase.READY)
        await asyncio.sleep(29)
        assert board.governor == "performance"
        await board.engine(Phase.BUSY, Phase.READY)
        await asyncio.sleep(29)
        assert board.governor == "performance"
        await asyncio.sleep(2)
        assert board.governor == "rknpu_ondemand"
        assert state.clocks() is None
        await board.engine(Phase.BUSY)
        assert board.governor == "performance"
        await board.engine(Phase.STOPPING)  # unloaded, crashed or hung
        assert board.governor == "rknpu_ondemand"

    in_jumps(armbian_vendor(root), state, scenario)


def test_clocks_that_are_being_raised_at_the_end_are_given_back(
    root: Path, state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    raising, go_on = threading.Event(), threading.Event()

    async def scenario(loop: JumpingLoop, board: Board) -> None:
        really = board.clocks._keeper.set

        def slowly(*arguments: Any) -> None:
            raising.set()
            go_on.wait(30)
            really(*arguments)

        await asyncio.sleep(1)
        monkeypatch.setattr(board.clocks._keeper, "set", slowly)
        board.clocks.engine_changed(EngineSnapshot(Phase.LOADING))
        await asyncio.to_thread(raising.wait)
        loop.call_soon(go_on.set)

    in_jumps(armbian_vendor(root), state, scenario)
    assert go_on.is_set()


@pytest.mark.parametrize(
    ("policy", "raised_in"),
    [
        (ClockPolicy.OFF, ()),
        (ClockPolicy.LOADED, (Phase.LOADING, Phase.READY, Phase.BUSY)),
        (ClockPolicy.ALWAYS, tuple(Phase)),
    ],
)
def test_the_other_policies(root: Path, state: StateDir, policy: ClockPolicy, raised_in: tuple[Phase, ...]) -> None:
    async def scenario(loop: JumpingLoop, board: Board) -> None:
        for phase in (Phase.STARTING, Phase.LOADING, Phase.READY, Phase.BUSY, Phase.READY, Phase.FAILED):
            await board.engine(phase)
            await asyncio.sleep(100)
            assert board.governor == ("performance" if phase in raised_in else "rknpu_ondemand")

    in_jumps(armbian_vendor(root), state, scenario, Clocks(policy=policy))


def test_an_idle_engine_wakes_nobody(root: Path, state: StateDir) -> None:
    async def scenario(loop: JumpingLoop, board: Board) -> None:
        await board.engine(Phase.BUSY, Phase.READY)
        await asyncio.sleep(60)
        wake_ups, looks = loop.wake_ups, board.looks
        await asyncio.sleep(3600)
        assert (loop.wake_ups - wake_ups, board.looks - looks) == (1, 0)  # the test's own sleep

    in_jumps(armbian_vendor(root), state, scenario)


def test_what_somebody_sets_meanwhile_is_left_alone(root: Path, state: StateDir) -> None:
    tree = armbian_vendor(root)

    async def scenario(loop: JumpingLoop, board: Board) -> None:
        await board.engine(Phase.BUSY)
        tree.put(f"{NPU}/governor", "powersave\n")
        await asyncio.sleep(20)
        await board.engine(Phase.READY)
        await asyncio.sleep(60)
        assert board.governor == "powersave"
        await board.engine(Phase.BUSY)
        assert board.governor == "performance"
        assert (await board.clocks.clocks()).devices[0].held == {"governor": "powersave"}
        await board.engine(Phase.STOPPED)
        assert board.governor == "powersave"
        tree.put(f"{NPU}/governor", "rknpu_ondemand\n")

    in_jumps(tree, state, scenario)


def test_a_process_that_was_killed_is_followed_by_one_that_gives_back(root: Path, state: StateDir) -> None:
    tree = armbian_vendor(root)
    before = set_in(tree)
    killed = Keeper(ClockFiles(), state, boot_id)
    killed.set(lambda base: {f"{NPU}/governor": "performance"}, [f"{NPU}/governor"])
    assert tree.read(f"{NPU}/governor") == "performance"

    async def scenario(loop: JumpingLoop, board: Board) -> None:
        await asyncio.sleep(1)
        assert board.governor == "rknpu_ondemand"
        assert state.clocks() is None

    in_jumps(tree, state, scenario, before=before)


def test_heat_lowers_clocks_step_by_step_and_cold_raises_them_again(root: Path, state: StateDir) -> None:
    async def scenario(loop: JumpingLoop, board: Board) -> None:
        await board.engine(Phase.BUSY)
        await asyncio.sleep(9)
        assert board.highest_mhz == 1000
        board.celsius = 91.5
        await asyncio.sleep(4)
        assert board.highest_mhz == 900
        await asyncio.sleep(60)
        assert board.highest_mhz == 400
        kinds = [event.type for event in board.events]
        assert kinds == ["npu.hot", *["clocks.lowered"] * 6]
        assert board.events[1].value == {"celsius": 91.5, "hot_celsius": 85, "lowered_percent": 10}
        now: ClockState = await board.clocks.clocks()
        assert (now.hot, now.lowered_percent, now.raised) == (True, 60, True)
        board.celsius = 80  # between the two thresholds
        await asyncio.sleep(60)
        assert board.highest_mhz == 400
        board.celsius = None  # the sensor is gone
        await asyncio.sleep(60)
        assert board.highest_mhz == 400
        board.celsius = 70
        await asyncio.sleep(130)
        assert board.highest_mhz == 1000
        assert [event.type for event in board.events][7:] == ["clocks.recovered"] * 6
        assert board.governor == "performance"

    in_jumps(armbian_vendor(root), state, scenario)


def test_heat_is_told_but_lowers_nothing_where_clocks_are_off(root: Path, state: StateDir) -> None:
    async def scenario(loop: JumpingLoop, board: Board) -> None:
        board.celsius = 95
        await board.engine(Phase.BUSY)
        await asyncio.sleep(60)
        assert [event.type for event in board.events] == ["npu.hot"]
        assert board.highest_mhz == 1000

    in_jumps(armbian_vendor(root), state, scenario, Clocks(policy=ClockPolicy.OFF))


def test_what_is_set_is_checked_and_takes_effect_at_once(root: Path, state: StateDir) -> None:
    async def scenario(loop: JumpingLoop, board: Board) -> None:
        settings = board.clocks.settings
        for wrong in ({"npu": 950}, {"nonsense": 900}, {"cpu": 2400}):  # the small cores do not run at 2400
            with pytest.raises(Problem) as raised:
                await board.clocks.configure(replace(settings, fixed_mhz=wrong))
            assert raised.value.code is Code.INVALID_VALUE
        assert board.clocks.settings == settings
        after = await board.clocks.configure(replace(settings, policy=ClockPolicy.ALWAYS, fixed_mhz={"npu": 600}))
        assert after.raised
        assert board.highest_mhz == 600
        after = await board.clocks.configure(replace(settings, policy=ClockPolicy.OFF))
        assert not after.raised
        assert board.highest_mhz == 1000

    in_jumps(armbian_vendor(root), state, scenario)


def test_given_back_by_hand_they_stay_so_until_the_engine_changes(root: Path, state: StateDir) -> None:
    async def scenario(loop: JumpingLoop, board: Board) -> None:
        await board.engine(Phase.BUSY)
        assert not (await board.clocks.give_back()).raised
        await asyncio.sleep(60)
        assert board.governor == "rknpu_ondemand"
        await board.engine(Phase.READY, Phase.BUSY)
        assert board.governor == "performance"

    in_jumps(armbian_vendor(root), state, scenario)


def test_without_an_npu_clocks_are_left_alone(root: Path, state: StateDir) -> None:
    async def scenario(loop: JumpingLoop, board: Board) -> None:
        before = set_in(board.tree)
        await board.engine(Phase.BUSY)
        now = await board.clocks.clocks()
        assert not now.raised
        assert set_in(board.tree) == before
        assert [problem.device for problem in now.problems] == ["npu"]

    in_jumps(x86_laptop(root), state, scenario, Clocks(policy=ClockPolicy.ALWAYS))


def test_a_missing_clock_is_told_with_what_it_costs(root: Path, state: StateDir) -> None:
    async def scenario(loop: JumpingLoop, board: Board) -> None:
        await board.engine(Phase.BUSY)
        now = await board.clocks.clocks()
        assert now.raised
        [problem] = now.problems
        assert problem.device == "ddr"
        assert "40 %" in problem.message

    in_jumps(armbian_vendor_without_dmc(root), state, scenario)


def test_a_missing_permission_is_told_with_what_grants_it(
    root: Path, state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may write everything, so that the answer of access(2) is made up for the NPU's files."""
    tree = armbian_vendor(root)
    really = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: ".npu/" not in str(path) and really(path, mode))

    async def scenario(loop: JumpingLoop, board: Board) -> None:
        await board.engine(Phase.BUSY)
        now = await board.clocks.clocks()
        [problem] = now.problems
        assert problem.device == "npu"
        assert f"{root / NPU}/governor" in problem.message
        assert "chgrp rockfill" in problem.advice

    in_jumps(tree, state, scenario)


DDR_GOVERNOR = "sys/class/devfreq/dmc/governor"


class Watched(ClockFiles):
    """Notes where each thread is."""

    at: ClassVar[dict[threading.Thread | None, str]] = {}

    def read(self, file: str) -> str | None:
        self.at[threading.current_thread()] = file
        return super().read(file)

    def write(self, file: str, value: str) -> None:
        self.at[threading.current_thread()] = file
        super().write(file, value)


def test_a_write_that_hangs_is_a_problem_and_neither_loop_nor_end_wait_for_it(
    root: Path, state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A FIFO that nobody reads keeps whoever opens it for writing."""
    for module in (service, sys.modules[__name__]):
        monkeypatch.setattr(module, "ClockFiles", Watched)
    tree = armbian_vendor(root)
    fifo = root / DDR_GOVERNOR

    async def run(loop: JumpingLoop) -> None:
        board = Board(tree, state, Clocks())
        clocks = board.clocks._thread
        loop.busy = lambda: (
            clocks._turn.locked() and not (fifo.is_fifo() and Watched.at.get(clocks._thread) == DDR_GOVERNOR)
        )
        task = asyncio.create_task(board.clocks.run())
        await asyncio.sleep(1)
        fifo.unlink()
        os.mkfifo(fifo)
        await board.engine(Phase.BUSY)
        with pytest.raises(Problem) as raised:
            await board.clocks.clocks()
        assert raised.value.code is Code.CLOCKS_STUCK
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    with contextlib.closing(JumpingLoop()) as loop:
        loop.run_until_complete(run(loop))
    hanging = [thread for thread in threading.enumerate() if thread.name == "clocks"]
    assert hanging
    for _ in hanging:  # let them go
        os.close(os.open(fifo, os.O_RDWR | os.O_NONBLOCK))
    for thread in hanging:
        while thread.is_alive():
            os.close(os.open(fifo, os.O_RDWR | os.O_NONBLOCK))
            thread.join(0.05)
