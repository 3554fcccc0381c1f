"""When clocks are raised, how far, and what heat takes away from that: pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rockfill.config import ClockDevice, ClockPolicy, Clocks
from rockfill.hardware.sysfs import number
from rockfill.snapshots import Phase

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rockfill.hardware.devices import ScaledDevice


WORKING = (Phase.LOADING, Phase.BUSY)
LOADED = (Phase.LOADING, Phase.READY, Phase.BUSY)


def raised_for_s(policy: ClockPolicy, phase: Phase, idle_s: float, since_work_s: float) -> float:
    """For how long yet clocks are to be raised: infinity until something happens, 0 not at all."""
    match policy:
        case ClockPolicy.OFF:
            return 0.0
        case ClockPolicy.ALWAYS:
            return float("inf")
        case ClockPolicy.LOADED:
            return float("inf") if phase in LOADED else 0.0
        case ClockPolicy.AUTO:
            if phase in WORKING:
                return float("inf")
            return max(0.0, idle_s - since_work_s) if phase in LOADED else 0.0


def wanted(
    devices: Sequence[ScaledDevice], base: Mapping[str, str | None], settings: Clocks, lowered_steps: int
) -> dict[str, str]:
    """What the files of the chosen devices should hold while clocks are raised, by file.

    `base` is what they would hold without us. A device goes to its highest frequency by its `performance` governor.
    Where there is none, or somebody has set the governor `userspace` (whose frequency would be lost with a change of
    it), its minimum is raised to its maximum instead, which binds under every governor. An upper limit that
    somebody has set is kept.
    """
    files: dict[str, str] = {}
    for device in devices:
        if device.kind not in settings.devices:
            continue
        governor, low, high = device.files
        highest = number(base.get(high))
        limit = _limit(device, lowered_steps)
        fixed = fixed_hz(device, settings)
        if fixed is not None:
            frequency = fixed if limit is None else min(fixed, limit)
            files[high] = files[low] = str(frequency // device.unit_hz)
            continue
        if base.get(governor) != "userspace" and "performance" in device.governors:
            files[governor] = "performance"
        elif highest is not None:
            files[low] = str(highest)
        if limit is not None and highest is not None and limit // device.unit_hz < highest:
            files[high] = str(limit // device.unit_hz)
            lowest = number(base.get(low))
            if low in files or (lowest is not None and lowest > limit // device.unit_hz):
                files[low] = files[high]
    return files


def fixed_hz(device: ScaledDevice, settings: Clocks) -> int | None:
    """The frequency that is asked for it, if it has that."""
    mhz = settings.fixed_mhz.get(device.name, settings.fixed_mhz.get(device.kind.value))
    return mhz * 1_000_000 if mhz is not None and mhz * 1_000_000 in device.frequencies_hz else None


# ---- heat

STEP_PERCENT = 10
MOST_STEPS = 6  # 40 % of the highest frequency
COOLER_CELSIUS = 7.0
DOWN_S = 5.0
UP_S = 20.0

# Memory gives off little of the heat, and its clock decides the speed: it is not lowered.
_HEATING = (ClockDevice.NPU, ClockDevice.CPU, ClockDevice.GPU)


@dataclass(frozen=True, slots=True)
class Guard:
    """Whether it is too hot, and by how many steps clocks are lowered. `changed_s` is when the last step was taken."""

    hot: bool = False
    steps: int = 0
    changed_s: float = float("-inf")


def guarded(guard: Guard, celsius: float | None, now_s: float, hot_celsius: float, *, raised: bool) -> Guard:
    """The guard after a look at the temperature.

    Down by a step at most each `DOWN_S` as long as it is hot; up by one at most each `UP_S` once it has cooled by
    `COOLER_CELSIUS`. Between, and without a temperature, all stays as it is. Steps are taken down only while `raised`.
    """
    if celsius is None:
        return guard
    if celsius >= hot_celsius:
        guard = replace(guard, hot=True)
        if raised and guard.steps < MOST_STEPS and now_s - guard.changed_s >= DOWN_S:
            guard = replace(guard, steps=guard.steps + 1, changed_s=now_s)
    elif celsius <= hot_celsius - COOLER_CELSIUS:
        guard = replace(guard, hot=False)
        if guard.steps > 0 and now_s - guard.changed_s >= UP_S:
            guard = replace(guard, steps=guard.steps - 1, changed_s=now_s)
    return guard


def _limit(device: ScaledDevice, steps: int) -> int | None:
    """The highest frequency that it may have, None for any."""
    if steps == 0 or device.kind not in _HEATING or not device.frequencies_hz:
        return None
    ceiling = max(device.frequencies_hz) * (100 - STEP_PERCENT * steps) / 100
    return max((hz for hz in device.frequencies_hz if hz <= ceiling), default=min(device.frequencies_hz))
