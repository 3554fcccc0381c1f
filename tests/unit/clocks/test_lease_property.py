"""Whatever happens, in whatever order: once all is given back, every file holds what it held before, or what somebody
set. Among what happens is a process that is killed between any two steps of setting clocks."""

from __future__ import annotations

import itertools
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rockfill.clocks.keeper import Keeper
from rockfill.clocks.lease import attribute
from rockfill.clocks.policy import MOST_STEPS, wanted
from rockfill.clocks.service import restore
from rockfill.config import ClockDevice, Clocks
from rockfill.hardware.devices import ScaledDevice
from rockfill.hardware.sysfs import root

if TYPE_CHECKING:
    from collections.abc import Mapping

# 400 lives, of which each takes some 10 ms of an idle processor.
pytestmark = pytest.mark.timeout(300)

MHZ = {"npu": range(300, 1001, 100), "ddr": (528, 1068, 1560, 2112), "big0": (408, 1200, 1800, 2256, 2400)}
ALL = (ClockDevice.NPU, ClockDevice.CPU, ClockDevice.DDR)
KINDS = {"npu": ClockDevice.NPU, "ddr": ClockDevice.DDR, "big0": ClockDevice.CPU}
GOVERNORS = ("ondemand", "userspace", "powersave", "performance")


def device(name: str) -> ScaledDevice:
    base, prefix = root() / name, "scaling_" if name == "big0" else ""
    unit = 1000 if name == "big0" else 1
    return ScaledDevice(
        name,
        KINDS[name],
        base / f"{prefix}governor",
        base / f"{prefix}min_freq",
        base / f"{prefix}max_freq",
        base / "cur_freq",
        unit,
        # one whose governors lack `performance` is raised by its minimum
        tuple(governor for governor in GOVERNORS if name != "ddr" or governor != "performance"),
        tuple(mhz * 1_000_000 for mhz in MHZ[name]),
    )


DEVICES = [device(name) for name in MHZ]
FILES = [file for each in DEVICES for file in each.files]


class Killed(BaseException):
    """The process is gone in the middle of something."""


class World:
    """The kernel's files and the disk. Every access counts down to the moment in which the process is killed."""

    def __init__(self) -> None:
        self.boots = 0
        self.disk: str | None = None
        self.left: int | None = None
        self.boot()

    def boot(self, default: str = "ondemand") -> None:
        self.boots += 1
        self.set = {}
        for each in DEVICES:
            governor, low, high = each.files
            self.set[governor] = default
            self.set[low] = str(min(each.frequencies_hz) // each.unit_hz)
            self.set[high] = str(max(each.frequencies_hz) // each.unit_hz)

    def shown(self, file: str) -> str:
        """A minimum above the maximum reads as the maximum."""
        if attribute(file) == "min":
            return str(min(int(self.set[file]), int(self.set[file.replace("min_freq", "max_freq")])))
        return self.set[file]

    def _step(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed

    def read(self, file: str) -> str | None:
        self._step()
        return self.shown(file)

    def write(self, file: str, value: str) -> None:
        self._step()
        assert value in GOVERNORS or int(value) > 0
        self.set[file] = value
        self._step()

    def clocks(self) -> Any:
        self._step()
        return json.loads(self.disk) if self.disk is not None else None

    def keep_clocks(self, value: Mapping[str, Any] | None) -> None:
        self._step()
        self.disk = json.dumps(value) if value is not None else None
        self._step()

    def boot_id(self) -> str | None:
        return f"boot {self.boots}"


class ClocksAndPeople(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.expected = dict(self.world.set)
        self.settings = Clocks(devices=ALL)
        self.keeper: Keeper | None = None
        self.restart()

    def process(self) -> Keeper:
        return Keeper(self.world, self.world, self.world.boot_id)

    def run(self, step: Any) -> None:
        """A step of the process, which a kill may end."""
        try:
            step()
        except Killed:
            self.keeper = None
        self.world.left = None

    def alive(self) -> bool:
        return self.keeper is not None

    @precondition(alive)
    @rule(steps=st.integers(0, MOST_STEPS), killed_after=st.none() | st.integers(0, 40))
    def works(self, steps: int, killed_after: int | None) -> None:
        keeper = self.keeper
        assert keeper is not None
        self.world.left = killed_after
        self.run(lambda: keeper.set(lambda base: wanted(DEVICES, base, self.settings, steps), FILES))

    @precondition(alive)
    @rule(killed_after=st.none() | st.integers(0, 40))
    def gives_back(self, killed_after: int | None) -> None:
        keeper = self.keeper
        assert keeper is not None
        self.world.left = killed_after
        self.run(keeper.give_back)

    @rule(
        fixed=st.sampled_from(({}, {"npu": 500}, {"npu": 900, "ddr": 1068}, {"cpu": 1800})),
        devices=st.sampled_from((ALL, ALL[:1], ())),
    )
    def is_configured(self, fixed: dict[str, int], devices: tuple[ClockDevice, ...]) -> None:
        self.settings = Clocks(devices=devices, fixed_mhz=fixed)

    @rule()
    def crashes(self) -> None:
        self.keeper = None

    @precondition(lambda self: not self.alive())
    @rule()
    def restart(self) -> None:
        self.keeper = keeper = self.process()
        self.run(keeper.take_over)

    @precondition(lambda self: not self.alive())
    @rule()
    def the_service_manager_restores(self) -> None:
        self.run(lambda: restore(self.process()))

    @rule(default=st.sampled_from(("ondemand", "performance")))
    def the_board_is_restarted(self, default: str) -> None:
        """Into a kernel that may come up with just what we had set in the last one."""
        self.keeper = None
        self.world.left = None
        self.world.boot(default)
        self.expected = dict(self.world.set)

    @rule(file=st.sampled_from([file for file in FILES if attribute(file) == "governor"]), number=st.integers(0, 2))
    def somebody_sets_a_governor(self, file: str, number: int) -> None:
        """Never `performance`: who sets what we set can't be told from us."""
        self._somebody(file, GOVERNORS[number])

    @rule(each=st.sampled_from(DEVICES), limits=st.sampled_from(((2, None), (None, 7), (None, 6), (2, 7))))
    def somebody_sets_limits(self, each: ScaledDevice, limits: tuple[int | None, int | None]) -> None:
        """Frequencies that are in no list, and so are never ours; what a minimum is raised to is a maximum, though."""
        low, high = limits
        top = max(each.frequencies_hz) // each.unit_hz
        if high is not None:
            self._somebody(each.files[2], str(top * high // 10 + 7))
        if low is not None:
            self._somebody(each.files[1], str(top * low // 10 + 3))

    def _somebody(self, file: str, value: str) -> None:
        self.world.set[file] = value
        self.expected[file] = value

    @precondition(lambda self: self.alive() and self.world.disk is None)
    @invariant()
    def nothing_is_held_unless_it_is_written_down(self) -> None:
        assert self.keeper is not None
        assert not self.keeper.lease.holds

    def teardown(self) -> None:
        self.world.left = None
        if self.keeper is None:
            restore(self.process())
        else:
            self.keeper.give_back()
        assert self.world.set == self.expected
        assert self.world.disk is None


TestClocksAndPeople = ClocksAndPeople.TestCase
TestClocksAndPeople.settings = hypothesis_settings(deadline=None, max_examples=400, stateful_step_count=25)


SETTINGS = Clocks(devices=ALL)
FIXED = Clocks(devices=ALL, fixed_mhz={"npu": 500, "ddr": 1068})


@pytest.mark.parametrize("settings", [SETTINGS, FIXED], ids=["raised", "fixed"])
def test_a_kill_between_any_two_steps_leaves_nothing_changed_after_a_restore(settings: Clocks) -> None:
    def steps(world: World) -> None:
        keeper = Keeper(world, world, world.boot_id)
        keeper.take_over()
        for lowered in (0, 3, 1):
            keeper.set(partial(lambda lowered, base: wanted(DEVICES, base, settings, lowered), lowered), FILES)
        keeper.give_back()

    kills = 0
    for after in itertools.count():
        world = World()
        expected = dict(world.set)
        world.left = after
        try:
            steps(world)
        except Killed:
            kills += 1
        else:
            break
        world.left = None
        restore(Keeper(world, world, world.boot_id))
        assert world.set == expected, f"killed after {after} steps"
        assert world.disk is None
    assert kills > 60


def test_a_minimum_is_given_back_though_somebody_lowered_the_maximum_below_it() -> None:
    """Then it reads as the maximum, which nobody has set it to."""
    world = World()
    before = dict(world.set)
    keeper = Keeper(world, world, world.boot_id)
    keeper.set(lambda base: wanted(DEVICES, base, SETTINGS, 0), FILES)
    [ddr] = [each for each in DEVICES if each.name == "ddr"]
    _, low, high = ddr.files
    assert world.set[low] == "2112000000"  # it has no governor `performance`
    world.set[high] = "1500000007"
    keeper.give_back()
    assert world.set == {**before, high: "1500000007"}
