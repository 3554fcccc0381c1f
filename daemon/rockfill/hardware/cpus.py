"""The processor's cores by class and by cluster."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rockfill.hardware import sysfs

_CPU = re.compile(r"cpu(\d+)")


@dataclass(frozen=True, slots=True)
class Cluster:
    """Cores that share one clock. `name` is "little", "big" or "cpu", numbered where there are several of the class.

    `policy` is the number of its cpufreq policy, None where the kernel scales no clock.
    """

    name: str
    cores: tuple[int, ...]
    policy: int | None


def big_cores() -> tuple[int, ...]:
    """The numbers of the fast cores that are online; empty where all are alike or nothing is known.

    By `cpu_capacity`, which the kernel scales so that the fastest core has 1024 (Documentation/devicetree/bindings/
    cpu/cpu-capacity.txt). On RK3588 the A55 have about half of that.
    """
    capacities = {number: capacity for number, capacity in _online().items() if capacity is not None}
    fast = [number for number, capacity in capacities.items() if capacity * 4 >= max(capacities.values()) * 3]
    return tuple(sorted(fast)) if len(fast) < len(capacities) else ()


def clusters() -> tuple[Cluster, ...]:
    """The clusters, by the number of their first core; those of cpufreq, else all online cores as one."""
    online, big = _online(), set(big_cores())
    found: list[tuple[str, tuple[int, ...], int | None]] = []
    for entry in sysfs.entries(sysfs.root() / "sys/devices/system/cpu/cpufreq", "policy[0-9]*"):
        number = sysfs.number(entry.name.removeprefix("policy"))
        named = map(sysfs.number, (sysfs.read_text(entry / "related_cpus") or "").split())
        cores = tuple(sorted({core for core in named if core is not None and core in online}))
        if cores and number is not None:
            kind = "cpu" if not big else "big" if set(cores) <= big else "little"
            found.append((kind, cores, number))
    if not found and online:
        found = [("cpu", tuple(sorted(online)), None)]
    found.sort(key=lambda cluster: cluster[1])
    kinds = [kind for kind, _, _ in found]
    return tuple(
        Cluster(kind if kinds.count(kind) == 1 else f"{kind}{kinds[:position].count(kind)}", cores, policy)
        for position, (kind, cores, policy) in enumerate(found)
    )


def _online() -> dict[int, int | None]:
    """The cores that are online, each with its capacity where the kernel tells."""
    cores: dict[int, int | None] = {}
    for entry in sysfs.entries(sysfs.root() / "sys/devices/system/cpu", "cpu[0-9]*"):
        match = _CPU.fullmatch(entry.name)
        # "online" is not there for a core that can't be switched off
        if match is not None and sysfs.read_int(entry / "online") != 0:
            cores[int(match[1])] = sysfs.read_int(entry / "cpu_capacity")
    return cores
