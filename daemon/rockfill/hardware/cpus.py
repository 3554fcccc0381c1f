"""The processor's cores by class."""

from __future__ import annotations

import re

from rockfill.hardware import sysfs

_CPU = re.compile(r"cpu(\d+)")


def big_cores() -> tuple[int, ...]:
    """The numbers of the fast cores that are online; empty where all are alike or nothing is known.

    By `cpu_capacity`, which the kernel scales so that the fastest core has 1024 (Documentation/devicetree/bindings/
    cpu/cpu-capacity.txt). On RK3588 the A55 have about half of that.
    """
    capacities: dict[int, int] = {}
    directory = sysfs.root() / "sys/devices/system/cpu"
    for entry in directory.glob("cpu[0-9]*"):
        match = _CPU.fullmatch(entry.name)
        capacity = sysfs.read_int(entry / "cpu_capacity")
        online = sysfs.read_int(entry / "online")  # not there for a core that can't be switched off
        if match is not None and capacity is not None and online != 0:
            capacities[int(match[1])] = capacity
    fast = [number for number, capacity in capacities.items() if capacity * 4 >= max(capacities.values()) * 3]
    return tuple(sorted(fast)) if len(fast) < len(capacities) else ()
