"""What a benchmark works with: figures, daemons that run as they ship, and how quiet the machine is."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tests.appliance import Appliance, ScriptedAppliance, environment
from tests.bench.client import Connection
from tests.bench.scripted import ENDED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
    """One line of the table. `floor` is the most that the project allows itself for the median."""

    name: str
    unit: str
    values: tuple[float, ...]
    floor: float | None = None
    note: str = ""

    @property
    def over(self) -> bool:
        return self.floor is not None and statistics.median(self.values) > self.floor

    def figures(self) -> dict[str, float | None]:
        """`least` is what noise added least to; `p90` (nearest rank) is None below ten values."""
        ordered = sorted(self.values)
        p90 = ordered[-(-9 * len(ordered) // 10) - 1] if len(ordered) >= 10 else None
        return {"least": ordered[0], "median": statistics.median(ordered), "p90": p90, "max": ordered[-1]}


class BenchAppliance(ScriptedAppliance):
    """A daemon with an engine that costs nothing and does as its script says."""

    def __init__(self, state_dir: Path, arguments: Sequence[str] = ()) -> None:
        super().__init__(state_dir, arguments)
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


def worker_of(client: Connection) -> int:
    """The worker's process id."""
    engine = client.command("engine.get")
    assert engine["state"] == "ready", engine
    pid: int = engine["worker_pid"]
    return pid


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


class Machine:
    """How quiet the machine is: made before the benchmarks, asked after them."""

    def __init__(self) -> None:
        self._loops_s = [_fixed_loop_s() for _ in range(200)]
        self._before = _clocks()

    def report(self) -> dict[str, float | int | str]:
        """For all that has ended by now. Percentages are of one core."""
        wall_s, busy_s, ours_s, steal_s = (b - a for a, b in zip(self._before, _clocks(), strict=True))
        loops_s = sorted([*self._loops_s, *(_fixed_loop_s() for _ in range(200))])
        return {
            "cores": os.cpu_count() or 0,
            "python": sys.version.split()[0],
            "wall_s": round(wall_s, 1),
            "others_percent": round(100 * max(0.0, busy_s - ours_s) / wall_s),
            "steal_percent": round(100 * steal_s / wall_s, 1),
            "loop_median_ratio": round(statistics.median(loops_s) / loops_s[0], 2),
            "loop_p90_ratio": round(loops_s[360] / loops_s[0], 2),
        }


def _fixed_loop_s() -> float:
    started_s = time.perf_counter()
    for _ in range(20_000):
        pass
    return time.perf_counter() - started_s


def _clocks() -> tuple[float, float, float, float]:
    """Seconds: wall, CPU of all, CPU of us and of all children that have ended, stolen."""
    cpu, ours = psutil.cpu_times(), os.times()
    busy_s = cpu.user + cpu.nice + cpu.system + cpu.irq + cpu.softirq
    return time.monotonic(), busy_s, sum(ours[:4]), cpu.steal
