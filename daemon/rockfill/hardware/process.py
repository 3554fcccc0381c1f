"""What a process tells the kernel about itself."""

from __future__ import annotations

import contextlib
import os
import re
import resource
from pathlib import Path

from rockfill.hardware import sysfs


def prefer_as_oom_victim() -> None:
    """Ask the kernel to end this process first when memory runs out: the daemon can restart it, but not itself."""
    with contextlib.suppress(OSError):  # not writable in some sandboxes; then the kernel's own choice stands
        Path("/proc/self/oom_score_adj").write_text("500", "ascii")


def resident_bytes(pid: int | None) -> int | None:
    """The resident memory of process `pid`, None if there is no such process."""
    if pid is None:
        return None
    text = sysfs.read_text(sysfs.root() / "proc" / str(pid) / "status") or ""
    match = re.search(r"^VmRSS:\s*(\d+) kB$", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def started_ticks(pid: int) -> int | None:
    """When process `pid` began, in ticks since boot; None if it is not there, or only its entry is left."""
    fields = _stat(sysfs.root() / "proc" / str(pid))
    return int(fields[19]) if len(fields) > 19 and fields[0] not in "ZX" else None


def is_at_work(pid: int) -> bool:
    """Whether a thread of process `pid` computes now, waits for its turn on a processor, or for the disk or a driver:
    whether it is at something, and does not just sleep."""
    tasks = Path(f"/proc/{pid}/task")  # of a child, so never of a board that is made up
    try:
        threads = os.listdir(tasks)  # noqa: PTH208 - nothing but names, from the kernel's memory
    except OSError:
        return False
    return any(_stat(tasks / thread)[:1] in (["R"], ["D"]) for thread in threads)


def _stat(directory: Path) -> list[str]:
    """What the kernel tells of a process or a thread, from its state on; see proc_pid_stat(5). Empty if it is gone."""
    text = sysfs.read_text(directory / "stat") or ""
    return text.rpartition(")")[2].split()  # the name before may hold anything


def allow_many_files() -> None:
    """Raise the limit of open files as far as it goes: each buffer on the NPU is one, and Rockchip's own server asks
    for 102,400."""
    wanted, hard = most_files_possible(), resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if wanted > most_files():
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def most_files_possible() -> int:
    """How many files `allow_many_files` lets this process have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(soft, 102_400 if hard == resource.RLIM_INFINITY else min(102_400, hard))


def most_files() -> int:
    """How many files this process may have open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def forbid_core_dumps() -> None:
    """No core file: it would hold gigabytes of weights, and the user's code."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
