"""Clocks as a lease, pure: what to write so that files hold what is wanted, and later what they held before.

A file is ours as long as it holds a value that we wrote or read back after writing. As soon as it holds another one,
somebody else has set it, and it is theirs: it is neither written nor given back any more. A value that somebody sets
to just what we had written can't be told apart from ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import NamedTuple

from rockfill.hardware.sysfs import number

# A file is named by its path below the root, such as ``sys/class/devfreq/dmc/governor``.
Readings = Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Hold:
    """A file that we changed: what it held `before`, and which values are `ours`. There is more than one of these
    only between a write and what is read back after it, since a crash can come between."""

    before: str
    ours: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lease:
    """What is held. `theirs` are files that somebody else set meanwhile: left alone until all is given back."""

    holds: Mapping[str, Hold] = field(default_factory=dict)
    theirs: frozenset[str] = frozenset()


class Write(NamedTuple):
    """One file to write. `back` says that it is given back by that."""

    file: str
    value: str
    back: bool


def base(lease: Lease, readings: Readings) -> dict[str, str | None]:
    """What the files would hold without us."""
    return {
        file: hold.before if (hold := lease.holds.get(file)) is not None and _is_ours(file, hold, readings) else value
        for file, value in readings.items()
    }


def plan(lease: Lease, readings: Readings, wanted: Mapping[str, str]) -> tuple[Lease, list[Write]]:
    """The lease to write down, and then the writes, in order, that lead from `readings` to `wanted`.

    Files that are not wanted are given back. A file that can't be read (None) is left as it is, and stays held. The
    lease returned is true at every moment of carrying the writes out; `settled` follows each of them.
    """
    holds = dict(lease.holds)
    theirs = set(lease.theirs) if wanted else set()
    for file, hold in lease.holds.items():
        if readings.get(file) is not None and not _is_ours(file, hold, readings):
            del holds[file]
            if wanted:
                theirs.add(file)
    writes = []
    for file in [*wanted, *(file for file in holds if file not in wanted)]:
        value, held = readings.get(file), holds.get(file)
        if value is None or file in theirs:
            continue
        target = wanted.get(file, held.before if held is not None else value)
        if value == target:
            continue
        if held is not None:
            holds[file] = Hold(held.before, (value, target) if target != held.before else held.ours)
            writes.append(Write(file, target, back=target == held.before))
        else:
            holds[file] = Hold(value, (target,))
            writes.append(Write(file, target, back=False))
    return Lease(holds, frozenset(theirs)), in_order(writes, readings)


def _is_ours(file: str, hold: Hold, readings: Readings) -> bool:
    """Whether the file holds a value of ours.

    A minimum above the maximum reads as the maximum (get_freq_range in drivers/devfreq/devfreq.c,
    cpufreq_verify_within_limits in include/linux/cpufreq.h): somebody who lowers the maximum has not set the minimum.
    """
    value = readings.get(file)
    if value in hold.ours:
        return True
    ceiling = readings.get(maximum_of(file)) if is_minimum(file) else None
    return (
        ceiling is not None
        and value == ceiling
        and all((number(ours) or 0) > (number(value) or 0) for ours in hold.ours)
    )


def is_minimum(file: str) -> bool:
    return attribute(file) == "min"


def maximum_of(file: str) -> str:
    """The file of the maximum that goes with the minimum in `file`."""
    return file.removesuffix("min_freq") + "max_freq"


def settled(lease: Lease, write: Write, reading: str | None) -> Lease:
    """The lease after `write`, when the file holds `reading`: of a write that failed, what it held before."""
    holds = dict(lease.holds)
    hold = holds.get(write.file)
    if hold is None or reading is None:
        return lease
    if reading == hold.before:
        del holds[write.file]  # it is back, or was never changed
    elif not write.back:
        holds[write.file] = Hold(hold.before, (reading,))  # the kernel may have chosen another value than we asked for
    return Lease(holds, lease.theirs)


def in_order(writes: Iterable[Write], readings: Readings) -> list[Write]:
    """Each device's governor, then its limits so that its minimum never exceeds its maximum, which kernels refuse."""
    by_device: dict[str, dict[str, Write]] = {}
    for write in writes:
        path = PurePosixPath(write.file)
        by_device.setdefault(str(path.parent), {})[attribute(write.file)] = write
    ordered = []
    for device, found in by_device.items():
        minimum = number(next((readings[file] for file in readings if _is(file, device, "min")), None))
        limits = ["max", "min"]
        if "max" in found and minimum is not None and (number(found["max"].value) or 0) < minimum:
            limits = ["min", "max"]
        ordered += [found[name] for name in ["governor", *limits] if name in found]
    return ordered


def attribute(file: str) -> str:
    """What a file sets: "governor", "min" or "max"."""
    name = PurePosixPath(file).name.removeprefix("scaling_")
    return name.removesuffix("_freq")


def _is(file: str, device: str, name: str) -> bool:
    return str(PurePosixPath(file).parent) == device and attribute(file) == name
