"""Raises clocks while that helps and gives them back, and lowers them while it is too hot."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from rockfill.bus import Event, Topic
from rockfill.clocks.lease import attribute
from rockfill.clocks.policy import (
    STEP_PERCENT,
    WORKING,
    Guard,
    fixed_hz,
    guarded,
    raised_for_s,
    wanted,
)
from rockfill.config import ClockDevice, ClockPolicy, Clocks
from rockfill.errors import Code, Problem
from rockfill.hardware import sysfs
from rockfill.hardware.devices import ClockFiles, scaled_devices
from rockfill.hardware.own_thread import OwnThread
from rockfill.snapshots import Phase

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from rockfill.bus import Bus
    from rockfill.clocks.keeper import Keeper
    from rockfill.clocks.lease import Lease
    from rockfill.hardware.devices import ScaledDevice
    from rockfill.snapshots import EngineSnapshot

T = TypeVar("T")

log = logging.getLogger(__name__)

# Writing a dozen files takes milliseconds, and the record before them as long as the disk needs.
APPLY_TIMEOUT_S = 10.0

# How often heat is looked at while it can rise or falls; the guard's steps are not quicker.
GUARD_S = 5.0

# What the kernel or the disk did not take is tried again after so long.
RETRY_S = 60.0

# Whose members may set clocks where the package is installed (systemd/clock-files).
GROUP = "rockfill"


@dataclass(frozen=True, slots=True)
class DeviceClock:
    """A device, its clock as it stands in its files, and what of these we hold: attribute → what it was before.
    `not_writable` are those of its files that we may not write."""

    name: str
    kind: ClockDevice
    governor: str | None
    current_hz: int | None
    min_hz: int | None
    max_hz: int | None
    frequencies_hz: tuple[int, ...]
    governors: tuple[str, ...]
    not_writable: tuple[str, ...]
    held: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ClockProblem:
    """What keeps a clock from being set, or what it costs that there is none, and what to do."""

    device: str
    message: str
    advice: str


@dataclass(frozen=True, slots=True)
class ClockState:
    """All of it. `lowered_percent` is what heat takes off the highest frequencies."""

    policy: ClockPolicy
    fixed_mhz: Mapping[str, int]
    raised: bool
    hot: bool
    hot_celsius: float
    lowered_percent: int
    devices: tuple[DeviceClock, ...]
    problems: tuple[ClockProblem, ...]


class ClockService:
    """The lease on the clocks, driven by what the engine does. `run` must be running for anything to happen."""

    def __init__(
        self, keeper: Keeper, settings: Clocks, bus: Bus, hottest_celsius: Callable[[], Awaitable[float | None]]
    ) -> None:
        """`hottest_celsius` is asked only while a model works, or heat has lowered clocks."""
        self._keeper = keeper
        self.settings = settings
        self._bus = bus
        self._hottest_celsius = hottest_celsius
        self._thread = OwnThread("clocks")
        self._phase = Phase.STOPPED
        self._worked_s = self._heat_s = -math.inf
        self._guard = Guard()
        self.raised = self._suspended = False
        self._applied: tuple[Clocks, int | None] | None = None
        self._changed = asyncio.Event()
        self._applying = asyncio.Lock()
        self._stuck: Problem | None = None

    @property
    def lowered_percent(self) -> int:
        """What heat takes off the highest frequencies."""
        return self._guard.steps * STEP_PERCENT

    def engine_changed(self, snapshot: EngineSnapshot) -> None:
        """Take notice of the engine's state."""
        if snapshot.phase is self._phase:
            return
        if self._phase in WORKING:
            self._worked_s = asyncio.get_running_loop().time()
        self._phase = snapshot.phase
        self._suspended = False
        self._changed.set()

    async def configure(self, settings: Clocks) -> ClockState:
        """Do as `settings` say from now on. Raises `invalid_value` for a device or frequency that there is not."""
        check(settings, await self._aside(scaled_devices))
        self.settings, self._suspended = settings, False
        self._changed.set()
        await self._apply()
        return await self.clocks()

    async def give_back(self) -> ClockState:
        """Give all clocks back, until the engine changes its state the next time."""
        self._suspended = True
        await self._apply()
        return await self.clocks()

    async def clocks(self) -> ClockState:
        """How everything stands. Raises `clocks_stuck` if the kernel does not answer."""
        devices = await self._aside(partial(_look, self._keeper.lease))
        return ClockState(
            policy=self.settings.policy,
            fixed_mhz=self.settings.fixed_mhz,
            raised=self.raised,
            hot=self._guard.hot,
            hot_celsius=self.settings.hot_celsius,
            lowered_percent=self.lowered_percent,
            devices=devices,
            problems=tuple(problems(devices, self.settings, self._keeper.refused, self._stuck)),
        )

    async def run(self) -> None:
        """Raise and give back until cancelled; at last give back. What an earlier process left raised comes first."""
        try:
            with contextlib.suppress(Problem):
                await self._aside(self._keeper.take_over)
            while True:
                self._changed.clear()
                await self._watch_heat()
                wait_s = await self._apply()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._changed.wait()
        finally:
            self._suspended = True
            await self._apply()
            self._thread.close()

    async def _apply(self) -> float | None:
        """Bring the clocks where they are to be by now; for how many seconds that stays so, None for ever."""
        async with self._applying:
            since_work_s = asyncio.get_running_loop().time() - self._worked_s
            for_s = raised_for_s(self.settings.policy, self._phase, self.settings.idle_s, since_work_s)
            raised = for_s > 0 and not self._suspended
            if not raised:
                self._guard = Guard(hot=self._guard.hot)
            await self._carry_out(self._guard.steps if raised else None)
        if self._applied is None:
            for_s = RETRY_S
        elif self._heat_matters():
            for_s = min(for_s or math.inf, GUARD_S)
        return for_s if 0 < for_s < math.inf else None

    async def _carry_out(self, steps: int | None) -> None:
        """Raise the clocks, lowered by so many steps, or give them back (None)."""
        wish = (self.settings, steps)
        if wish == self._applied:
            return
        self._applied = None  # until it is known: what was begun goes on in the thread, also if we are cancelled
        try:
            self.raised = await self._aside(partial(_set, self._keeper, self.settings, steps))
        except Problem as problem:
            log.warning("clocks: %s", problem.message)
            self._stuck = problem
        else:
            self._applied, self._stuck = wish, None

    def _heat_matters(self) -> bool:
        return self._phase in WORKING or self._guard.steps > 0

    async def _watch_heat(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if not self._heat_matters() or now_s - self._heat_s < GUARD_S:
            return
        self._heat_s = now_s
        celsius = await self._hottest_celsius()
        before = self._guard
        self._guard = guard = guarded(before, celsius, now_s, self.settings.hot_celsius, raised=self.raised)
        value = {"celsius": celsius, "hot_celsius": self.settings.hot_celsius}
        if guard.hot and not before.hot:
            self._bus.publish(Event(Topic.EVENTS, "npu.hot", value))
        if guard.steps != before.steps:
            type_ = "clocks.lowered" if guard.steps > before.steps else "clocks.recovered"
            log.warning("%s: by %d %% at %s °C", type_, self.lowered_percent, celsius)
            self._bus.publish(Event(Topic.EVENTS, type_, {**value, "lowered_percent": self.lowered_percent}))

    async def _aside(self, function: Callable[[], T]) -> T:
        try:
            return await self._thread.call(function, APPLY_TIMEOUT_S)
        except TimeoutError:
            self._keeper.abandon()
            raise Problem(
                Code.CLOCKS_STUCK,
                "The kernel does not answer where clocks are set.",
                "If it stays so, restart the board.",
            ) from None


def restore(keeper: Keeper) -> int:
    """Give back what an earlier process of this boot left raised; how many files that were."""
    keeper.take_over()
    held = len(keeper.lease.holds)
    keeper.give_back()
    return held - len(keeper.lease.holds)


def check(settings: Clocks, devices: Sequence[ScaledDevice]) -> None:
    """Raise `invalid_value` if a frequency is asked for that there is not."""
    for name, mhz in settings.fixed_mhz.items():
        found = [device for device in devices if name in (device.name, device.kind.value)]
        if not found:
            raise Problem(
                Code.INVALID_VALUE,
                f'There is no device "{name[:50]}" whose clock could be set.',
                f"There are: {', '.join(device.name for device in devices) or 'none'}.",
            )
        for device in found:
            if fixed_hz(device, settings) is None:
                listed = ", ".join(f"{hz // 1_000_000}" for hz in device.frequencies_hz)
                raise Problem(Code.INVALID_VALUE, f"{device.name} does not run at {mhz} MHz.", f"It runs at {listed}.")


def problems(
    devices: Sequence[DeviceClock], settings: Clocks, refused: Mapping[str, str], stuck: Problem | None
) -> Iterator[ClockProblem]:
    """What is in the way, most important first."""
    if stuck is not None:
        yield ClockProblem("all", stuck.message, stuck.advice)
    kinds = {device.kind for device in devices}
    if ClockDevice.NPU not in kinds:
        yield ClockProblem("npu", "There is no NPU with a clock; all clocks are left as they are.", "")
        return
    if ClockDevice.DDR not in kinds:
        yield ClockProblem(
            "ddr",
            "This kernel does not scale the memory's clock; where it stands low, decoding is up to 40 % slower.",
            "It takes a boot loader and a device tree with DMC support, such as those of the board's vendor.",
        )
    for device in devices:
        if device.kind in settings.devices and device.not_writable:
            files = " ".join(device.not_writable)
            yield ClockProblem(
                device.name,
                f"The clock of {device.name} can't be set: no permission to write {device.not_writable[0]}.",
                f"`sudo chgrp {GROUP} {files} && sudo chmod g+w {files}` "
                "grants it until the next boot; the installed service does so at its start.",
            )
    for name, mhz in settings.fixed_mhz.items():
        fitting = [device for device in devices if name in (device.name, device.kind.value)]
        if not fitting or any(mhz * 1_000_000 not in device.frequencies_hz for device in fitting):
            says = (
                f"{name} can't be put at {mhz} MHz, as [clocks] fixed_mhz asks: there is no such device or frequency."
            )
            yield ClockProblem(name, says, "Name one that `rockfill clocks` lists.")
    for file, reason in refused.items():
        yield ClockProblem(attribute(file), f"{file} can't be set: {reason}.", "")


def _set(keeper: Keeper, settings: Clocks, steps: int | None) -> bool:
    """Raise or give back; whether clocks are raised now. In the thread."""
    devices = [device for device in scaled_devices() if not device.not_writable]
    if steps is None or all(device.kind is not ClockDevice.NPU for device in devices):
        keeper.give_back()
        return False
    files = [file for device in devices for file in device.files]
    keeper.set(lambda base: wanted(devices, base, settings, steps), files)
    return True


def _look(lease: Lease) -> tuple[DeviceClock, ...]:
    files = ClockFiles()
    found = []
    for device in scaled_devices():
        governor, low, high = map(files.read, device.files)
        found.append(
            DeviceClock(
                name=device.name,
                kind=device.kind,
                governor=governor,
                current_hz=device.hertz(sysfs.read_text(device.current_path)),
                min_hz=device.hertz(low),
                max_hz=device.hertz(high),
                frequencies_hz=device.frequencies_hz,
                governors=device.governors,
                not_writable=device.not_writable,
                held={attribute(file): lease.holds[file].before for file in device.files if file in lease.holds},
            )
        )
    return tuple(found)
