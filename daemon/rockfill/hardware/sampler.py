"""The machine's live figures, read again and again from files that stay open.

A figure's key has a unit in its name. What the machine does not have or does not say is None, never a guess. Not read
are devfreq's `load` of the NPU, which is always 100 (rknpu_devfreq.c), and debugfs's `freq`, which powers it up.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rockfill.config import ClockDevice
from rockfill.hardware import memory, sysfs
from rockfill.hardware.cpus import Cluster, clusters
from rockfill.hardware.devices import scaled_devices
from rockfill.hardware.sysfs import KernelFile

if TYPE_CHECKING:
    from pathlib import Path

Number = int | float
Value = Number | None | list[Number | None] | dict[str, Number | None]
Sample = dict[str, Value]

# Where a figure stands: its key, and its place where that holds a list or an object.
_Place = tuple[str, int | str | None]
_Figures = Mapping[_Place, Number | None]
_Parser = Callable[[str, tuple[_Place, ...]], _Figures]

KEYS = (
    *("npu.load_percent", "npu.freq_hz", "npu.temp_celsius"),
    *("cpu.load_percent", "cpu.cluster_load_percent", "cpu.cluster_freq_hz", "cpu.temp_celsius"),
    *("ddr.freq_hz", "gpu.freq_hz", "gpu.temp_celsius"),
    *("soc.hottest_celsius", "thermal.temp_celsius"),
    *("ram.total_bytes", "ram.used_bytes", "swap.total_bytes", "swap.used_bytes"),
    *("disk.total_bytes", "disk.free_bytes"),
    *("daemon.rss_bytes", "worker.rss_bytes"),
)

# A sensor that reads colder or hotter is switched off, not there, or broken.
_PLAUSIBLE_CELSIUS = (-40.0, 150.0)
_PLAUSIBLE_HZ = 10**11

# The zones that lie in the SoC, and the processor's among them; boards add those of their wireless chips and batteries.
_IN_SOC = re.compile(r"soc|core|cpu|gpu|npu|center|ddr|pkg|package", re.IGNORECASE)
_CPU_ZONE = re.compile(r"core|cpu|pkg|package", re.IGNORECASE)


@dataclass(slots=True)
class _Source:
    """One thing that is read at once, and fails alone. `figures` are those that are None while it does."""

    name: str
    read: Callable[[], _Figures]
    close: Callable[[], None]
    figures: tuple[_Place, ...] = ()
    failure: str | None = None
    hangs: bool = False


@dataclass(slots=True)
class Taken:
    """A sample, and what could not be read for it: source → reason."""

    figures: Sample
    failures: dict[str, str] = field(default_factory=dict)


class Sampler:
    """Takes samples. Every call but `abandon` belongs into one thread, since a read may never return."""

    def __init__(self, disk: Path) -> None:
        """`disk` is a directory on the file system whose space is told."""
        self._disk = disk
        self._sources: list[_Source] | None = None
        self._processes = {"daemon": _Process("daemon"), "worker": _Process("worker")}
        self.cluster_names: tuple[str, ...] = ()  # in the order of their figures; known after the first sample
        self._turn = threading.Lock()
        self._run = 0
        self._reading: _Source | None = None

    def sample(self, daemon_pid: int | None, worker_pid: int | None) -> Taken:
        """The figures under all of `KEYS`, as they are now. Loads are of the time since the last sample."""
        self._run = run = self._run + 1
        if self._sources is None:
            groups = clusters()
            self.cluster_names = tuple(group.name for group in groups)
            self._sources = list(_sources(self._disk, groups))
            self._sources += [process.source for process in self._processes.values()]
        self._processes["daemon"].pid, self._processes["worker"].pid = daemon_pid, worker_pid
        figures: dict[_Place, Number | None] = {}
        for source in self._sources:
            figures.update(dict.fromkeys(source.figures))
            if source.hangs:
                continue
            self._reading = source
            try:
                read = source.read()
                source.failure = None
            except OSError as error:
                read, source.failure = {}, error.strerror or str(error)
            except (ValueError, IndexError):
                read, source.failure = {}, "not what was expected there"
            with self._turn:
                if self._run != run:  # abandoned meanwhile, and another thread samples: what hung is back
                    source.hangs = False
                    return Taken({})
                self._reading = None
            figures.update(read)
        return Taken(_assembled(figures), self._failures())

    def abandon(self) -> None:
        """The last `sample` has not returned in time: what it reads is left out until that read does return."""
        with self._turn:
            self._run += 1
            source, self._reading = self._reading, None
            if source is not None:
                source.hangs, source.failure = True, "the read does not return"

    def close(self) -> None:
        """Close its files, but for one that a read hangs in."""
        for source in self._sources or ():
            if not source.hangs:
                source.close()

    def _failures(self) -> dict[str, str]:
        return {source.name: source.failure for source in self._sources or () if source.failure is not None}


def _assembled(figures: _Figures) -> Sample:
    sample: Sample = dict.fromkeys(KEYS)
    for (key, place), number in figures.items():
        if place is None:
            sample[key] = number
        elif isinstance(place, int):
            numbers = sample[key]
            if not isinstance(numbers, list):
                numbers = sample[key] = []
            numbers += [None] * (place + 1 - len(numbers))
            numbers[place] = number
        else:
            named = sample[key]
            if not isinstance(named, dict):
                named = sample[key] = {}
            named[place] = number
    zones = sample["thermal.temp_celsius"]
    if isinstance(zones, dict):
        sample["soc.hottest_celsius"] = _hottest(zones, _IN_SOC)
        sample["cpu.temp_celsius"] = _hottest(zones, _CPU_ZONE)
    return sample


def _hottest(zones: Mapping[str, Number | None], wanted: re.Pattern[str]) -> Number | None:
    return max((number for name, number in zones.items() if number is not None and wanted.search(name)), default=None)


# ---- the sources


def _sources(disk: Path, groups: tuple[Cluster, ...]) -> Iterator[_Source]:
    root = sysfs.root()
    load = npu_load_file()
    if load is not None:
        yield _text("NPU load", load, _npu_load)
    positions = {cluster.name: number for number, cluster in enumerate(groups)}
    for device in scaled_devices():
        at = positions[device.name] if device.kind is ClockDevice.CPU else None
        key = "cpu.cluster_freq_hz" if device.kind is ClockDevice.CPU else f"{device.kind.value}.freq_hz"
        yield _text(f"{device.name} frequency", device.current_path, _hertz(device.unit_hz), (key, at))
    names: set[str] = set()
    for zone in sysfs.entries(root / "sys/class/thermal", "thermal_zone[0-9]*"):
        kind = sysfs.read_text(zone / "type") or zone.name
        name = kind if kind not in names else f"{kind}-{zone.name.removeprefix('thermal_zone')}"
        names.add(name)
        places: list[_Place] = [("thermal.temp_celsius", name)]
        places += [(f"{unit}.temp_celsius", None) for unit in ("npu", "gpu") if unit in kind.lower()]
        yield _text(f"thermal zone {name}", zone / "temp", _celsius, *places)
    if sysfs.exists(root / "proc/stat"):
        yield _CpuLoad(root / "proc/stat", groups).source
    if sysfs.exists(root / "proc/meminfo"):
        sizes: list[_Place] = [(f"{kind}.{what}_bytes", None) for kind in ("ram", "swap") for what in ("total", "used")]
        yield _text("memory", root / "proc/meminfo", _memory, *sizes)
    space: list[_Place] = [("disk.total_bytes", None), ("disk.free_bytes", None)]
    yield _Source("disk", lambda: _disk(disk), lambda: None, tuple(space))


def npu_load_file() -> Path | None:
    """Where the NPU's load can be read by this process, None if nowhere.

    `/run/rockfill/rknpu` is debugfs's directory, to which the unit binds it (BindReadOnlyPaths=), since debugfs itself
    can be entered by root only.
    """
    root = sysfs.root()
    for directory in ("proc/rknpu", "run/rockfill/rknpu", "sys/kernel/debug/rknpu"):
        path = root / directory / "load"
        if os.access(path, os.R_OK):
            return path
    return None


def _text(name: str, path: Path, parse: _Parser, *figures: _Place) -> _Source:
    file = KernelFile(path)
    return _Source(name, lambda: parse(file.read(), figures), file.close, figures)


def _hertz(unit_hz: int) -> _Parser:
    def parse(text: str, figures: tuple[_Place, ...]) -> _Figures:
        hertz = int(text) * unit_hz
        if not 0 <= hertz <= _PLAUSIBLE_HZ:
            raise ValueError
        return dict.fromkeys(figures, hertz)

    return parse


def _celsius(text: str, figures: tuple[_Place, ...]) -> _Figures:
    least, most = _PLAUSIBLE_CELSIUS
    celsius = int(text) / 1000
    if not least <= celsius <= most:
        raise ValueError
    return dict.fromkeys(figures, celsius)


_CORE = re.compile(r"Core(\d):\s*(\d+)%")
_WHOLE = re.compile(r"NPU load:\s*(\d+)%")


def _npu_load(text: str, _: tuple[_Place, ...]) -> _Figures:
    """``NPU load:  Core0:  0%, Core1: …``, of a single core ``NPU load:  0%`` (rknpu_debugger.c)."""
    cores = [(int(core), int(percent)) for core, percent in _CORE.findall(text)]
    if not cores and (whole := _WHOLE.search(text)) is not None:
        cores = [(0, int(whole[1]))]
    if not cores or any(percent > 100 for _, percent in cores):
        raise ValueError
    return {("npu.load_percent", core): percent for core, percent in cores}


def _memory(text: str, figures: tuple[_Place, ...]) -> _Figures:
    parsed = memory.parse(text)
    if parsed.ram_total is None:
        raise ValueError
    values = (parsed.ram_total, parsed.ram_used, parsed.swap_total, parsed.swap_used)
    return dict(zip(figures, values, strict=True))


def _disk(path: Path) -> _Figures:
    """Free is what we may use of it: some is kept for root."""
    space = os.statvfs(path)
    return {
        ("disk.total_bytes", None): space.f_blocks * space.f_frsize,
        ("disk.free_bytes", None): space.f_bavail * space.f_frsize,
    }


class _CpuLoad:
    """Load by cluster, from the jiffies of ``/proc/stat`` since the last look; none at the first."""

    _LINE = re.compile(r"^cpu(\d*) +(.*)$", re.MULTILINE)

    def __init__(self, path: Path, groups: tuple[Cluster, ...]) -> None:
        self._file = KernelFile(path)
        self._groups = groups
        self._last: dict[str, tuple[int, int]] = {}
        places: list[_Place] = [("cpu.load_percent", None)]
        places += [("cpu.cluster_load_percent", number) for number in range(len(groups))]
        self.source = _Source("CPU load", self._read, self._file.close, tuple(places))

    def _read(self) -> _Figures:
        now: dict[str, tuple[int, int]] = {}
        for name, counters in self._LINE.findall(self._file.read()):
            # user nice system idle iowait irq softirq steal; guest times are contained in user and nice
            jiffies = [int(counter) for counter in counters.split()[:8]]
            idle = jiffies[3] + jiffies[4]
            now[name] = (sum(jiffies) - idle, sum(jiffies))
        if "" not in now:
            raise ValueError
        last, self._last = self._last, now
        loads = [_percent(last, now, [""])]
        loads += [_percent(last, now, [str(core) for core in group.cores]) for group in self._groups]
        return dict(zip(self.source.figures, loads, strict=True))


def _percent(last: Mapping[str, tuple[int, int]], now: Mapping[str, tuple[int, int]], names: list[str]) -> float | None:
    both = [name for name in names if name in last and name in now]
    busy = sum(now[name][0] - last[name][0] for name in both)
    whole = sum(now[name][1] - last[name][1] for name in both)
    return round(100 * min(1.0, max(0.0, busy / whole)), 1) if whole > 0 else None


class _Process:
    """Resident memory of a process that may be another one the next time."""

    def __init__(self, name: str) -> None:
        self.pid: int | None = None
        self._open: tuple[int, KernelFile] | None = None
        place: _Place = (f"{name}.rss_bytes", None)
        self._place = place
        self.source = _Source(f"memory of the {name}", self._read, self._close, (place,))

    def _read(self) -> _Figures:
        if self._open is not None and self._open[0] != self.pid:
            self._close()
        if self.pid is None:
            return {}
        if self._open is None:
            self._open = (self.pid, KernelFile(sysfs.root() / "proc" / str(self.pid) / "statm"))
        try:
            text = self._open[1].read()
        except (FileNotFoundError, ProcessLookupError):  # it has ended, which is no fault of the source
            return {}
        return {self._place: int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")}

    def _close(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None
