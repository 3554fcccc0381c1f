"""What ``/proc/meminfo`` says.

psutil is not asked: it opens the file at each call, reads a second one for the swap, and warns where a kernel, or a
tree that tests built, lacks a line that nobody here needs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE = re.compile(r"^(MemTotal|MemAvailable|SwapTotal|SwapFree):\s*([0-9]{1,15}) kB$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Memory:
    """In bytes. Used is what is not available, as the kernel reckons: caches that would be given up do not count."""

    ram_total: int | None
    ram_used: int | None
    swap_total: int | None
    swap_used: int | None


def parse(text: str) -> Memory:
    """The content of ``/proc/meminfo``."""
    sizes = {name: int(kib) * 1024 for name, kib in _LINE.findall(text)}

    def used(total: str, left: str) -> int | None:
        return sizes[total] - sizes[left] if total in sizes and left in sizes else None

    return Memory(
        sizes.get("MemTotal"),
        used("MemTotal", "MemAvailable"),
        sizes.get("SwapTotal"),
        used("SwapTotal", "SwapFree"),
    )
