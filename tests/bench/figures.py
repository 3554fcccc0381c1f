"""What watching the machine costs: a sample, descriptors, and an answer to whoever asks."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rockfill.hardware.sampler import Sampler
from tests.bench.lab import Row
from tests.fakes.boards import armbian_vendor

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLES = 1000
BATCHES = 10


def figures() -> Iterator[Row]:
    """CPU of a sample in the thread that takes it, on the files of an RK3588 board (a tree on a disk's cache)."""
    before = os.environ.get("ROCKFILL_SYSFS_ROOT")
    with tempfile.TemporaryDirectory(prefix="rockfill-bench-") as folder:
        root = Path(folder)
        tree = armbian_vendor(root)
        pid = os.getpid()
        tree.put(f"proc/{pid}/statm", "5000 1000 500 1 0 300 0\n")
        os.environ["ROCKFILL_SYSFS_ROOT"] = folder
        try:
            yield from _samples("a sample of an RK3588 board", Sampler(root), pid, 0.3)
        finally:
            del os.environ["ROCKFILL_SYSFS_ROOT"]
        yield from _samples("  of this machine", Sampler(root), pid, 0.3)
    if before is not None:
        os.environ["ROCKFILL_SYSFS_ROOT"] = before


def _samples(name: str, sampler: Sampler, pid: int, floor_ms: float) -> Iterator[Row]:
    sampler.sample(pid, pid)
    files, spent = _open_files(), []
    for _ in range(BATCHES):
        started_s = time.process_time()
        for _ in range(SAMPLES):
            sampler.sample(pid, pid)
        spent.append((time.process_time() - started_s) * 1e3 / SAMPLES)
    leaked = _open_files() - files
    sampler.close()
    yield Row(f"{name}, CPU", "ms", tuple(spent), floor_ms, f"{files} files open, {SAMPLES} samples a value")
    yield Row("  descriptors leaked by all of them", "", (float(leaked),), 0)


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count of names
