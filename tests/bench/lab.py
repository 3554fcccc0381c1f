"""What a benchmark works with: figures, daemons that run as they ship, and how quiet the machine is."""

from __future__ import annotations

import contextlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tests.appliance import Appliance, ScriptedAppliance, environment
from tests.bench.client import Connection
from tests.bench.scripted import ENDED

if TYPE_CHECKING:
    from collections.abc import Iterator

# The Debian package ships the pure Python builds of these, so that is what is measured. A caller who sets one of the
# variables to nothing measures with its compiled half; the table says which were in force.
ACCELERATED = ("aiohttp", "multidict", "yarl", "frozenlist", "propcache")
LEFT_COMPILED = """
import sys
import rockfill.app, frozenlist, multidict, propcache.api, yarl._quoting
from aiohttp import http_parser, http_websocket, http_writer
for part in (
    http_parser.HttpRequestParser, http_writer._serialize_headers, http_websocket.WebSocketReader,
    frozenlist.FrozenList, multidict.CIMultiDict, propcache.api.under_cached_property, yarl._quoting._Quoter,
):
    if sys.modules[part.__module__].__file__.endswith(".so"):
        print(part.__module__)
"""  # what is in force, not what is loaded: aiohttp loads its compiled writer in any case


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `floor` is the most that the project allows itself for the median, None where it set none."""

    name: str
    unit: str
    values: tuple[float, ...]
    floor: float | None = None
    note: str = ""

    @property
    def least(self) -> float:
        """What noise added least to."""
        return min(self.values)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def p90(self) -> float | None:
        """Nearest rank; None for fewer than ten values, where it would be no more than the largest."""
        return sorted(self.values)[-(-9 * len(self.values) // 10) - 1] if len(self.values) >= 10 else None

    @property
    def over(self) -> bool:
        return self.floor is not None and self.median > self.floor


class BenchAppliance(ScriptedAppliance):
    """A daemon with an engine that costs nothing and does as its script says."""

    def __init__(self, state_dir: Path) -> None:
        super().__init__(state_dir)
        self._launcher = [sys.executable, "-m", "tests.bench.scripted"]

    @property
    def engine_idle_at_s(self) -> float:
        """When the engine last ended a run, by its own account (``time.monotonic``)."""
        return float((self._model / ENDED).read_text())


@contextlib.contextmanager
def scripted(**script: object) -> Iterator[BenchAppliance]:
    """A running daemon whose engine follows `script` (see `fakes/worker.py`)."""
    with tempfile.TemporaryDirectory(prefix="rockfill-bench-") as folder:
        appliance = BenchAppliance(Path(folder, "state"))
        appliance.script(**script)
        with _running(appliance):
            yield appliance


@contextlib.contextmanager
def bundled() -> Iterator[Appliance]:
    """``rockfill serve``, running, with the CPU engine and the bundled model."""
    with (
        tempfile.TemporaryDirectory(prefix="rockfill-bench-") as folder,
        _running(Appliance(Path(folder))) as appliance,
    ):
        yield appliance


@contextlib.contextmanager
def _running(appliance: Appliance) -> Iterator[Appliance]:
    try:
        appliance.start()
        yield appliance
    finally:
        appliance.stop()


def connect(appliance: Appliance) -> Connection:
    return Connection(appliance.port, appliance.token)


def cpu_s(pid: int) -> float:
    """CPU time of another process, all its threads, to the nanosecond."""
    # MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED) of linux/posix-timers_types.h, which is what clock_getcpuclockid(3)
    # computes; /proc/PID/stat counts in steps of 10 ms.
    return time.clock_gettime((~pid << 3) | 2)


def rss_mb(pid: int) -> float:
    return psutil.Process(pid).memory_info().rss / 1e6


def run_python(code: str) -> str:
    """What `code` prints in a process set up as the daemon is."""
    return subprocess.run(
        [sys.executable, "-c", code], env=environment(), check=True, capture_output=True, text=True
    ).stdout


@dataclass(slots=True)
class Machine:
    """How quiet the machine is: made before the benchmarks, asked after them."""

    _spins_ms: list[float] = field(default_factory=list)
    _at: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        self._spin()
        self._at = self._clocks()

    def _spin(self) -> None:
        for _ in range(200):
            started = time.perf_counter()
            for _ in range(20_000):
                pass
            self._spins_ms.append((time.perf_counter() - started) * 1000)

    @staticmethod
    def _clocks() -> tuple[float, ...]:
        cpu = psutil.cpu_times()
        ours = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return (
            time.monotonic(),
            cpu.user + cpu.nice + cpu.system + cpu.irq + cpu.softirq,
            sum(usage.ru_utime + usage.ru_stime for usage in ours),
            cpu.steal,
        )

    def report(self) -> dict[str, float | int | str]:
        """For all that has ended by now. Percentages are of one core."""
        wall_s, busy_s, ours_s, steal_s = (b - a for a, b in zip(self._at, self._clocks(), strict=True))
        self._spin()
        fixed = Row("", "ms", tuple(self._spins_ms))
        best = fixed.least
        return {
            "cores": os.cpu_count() or 0,
            "python": sys.version.split()[0],
            "load_average": round(os.getloadavg()[0], 2),
            "wall_s": round(wall_s, 1),
            "others_percent": round(100 * max(0.0, busy_s - ours_s) / wall_s, 1),
            "steal_percent": round(100 * steal_s / wall_s, 1),
            "loop_median_ratio": round(fixed.median / best, 2),
            "loop_p90_ratio": round((fixed.p90 or best) / best, 2),
            "loop_max_ratio": round(max(fixed.values) / best, 2),
        }
