"""The devices whose clocks the kernel scales: NPU, DDR and GPU by devfreq, the processor's clusters by cpufreq.

Everything here comes from the files themselves. A device is known by what the device tree calls it
(`OF_COMPATIBLE_0` in its uevent), else by its name, and never by the name of the SoC.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path

from rockfill.config import ClockDevice
from rockfill.hardware import sysfs
from rockfill.hardware.cpus import clusters


@dataclass(frozen=True, slots=True)
class ScaledDevice:
    """One device. `name` is unique ("npu", "ddr", "gpu", "little", "big0"); frequencies are in Hz.

    `unit_hz` is what one unit in its files means: devfreq counts in Hz, cpufreq in kHz.
    """

    name: str
    kind: ClockDevice
    governor_path: Path
    min_path: Path
    max_path: Path
    current_path: Path
    unit_hz: int
    governors: tuple[str, ...]
    frequencies_hz: tuple[int, ...]

    @property
    def files(self) -> tuple[str, str, str]:
        """Its governor, minimum and maximum, as paths below the root: what `ClockFiles` takes."""
        governor, low, high = (
            path.relative_to(sysfs.root()).as_posix() for path in (self.governor_path, self.min_path, self.max_path)
        )
        return governor, low, high

    def hertz(self, text: str | None) -> int | None:
        """What one of its files says, in Hz."""
        number = sysfs.number(text)
        return number * self.unit_hz if number is not None else None

    @property
    def not_writable(self) -> tuple[str, ...]:
        """Those of its governor and limits that this process may not set."""
        paths = (self.governor_path, self.min_path, self.max_path)
        return tuple(str(path) for path in paths if not os.access(path, os.W_OK))


_DEVFREQ_KINDS = (
    ("npu", ClockDevice.NPU),
    ("dmc", ClockDevice.DDR),
    ("gpu", ClockDevice.GPU),
    ("mali", ClockDevice.GPU),
)


def scaled_devices() -> tuple[ScaledDevice, ...]:
    """Those that are there: NPU, clusters, DDR, GPU."""
    found: list[ScaledDevice] = []
    for entry in sysfs.entries(sysfs.root() / "sys/class/devfreq"):
        kind = _devfreq_kind(entry)
        if kind is not None and all(device.kind is not kind for device in found):
            found.append(_devfreq(entry, kind))
    for cluster in clusters():
        if cluster.policy is not None:
            policy = sysfs.root() / f"sys/devices/system/cpu/cpufreq/policy{cluster.policy}"
            found.append(_cpufreq(policy, cluster.name))
    order = list(ClockDevice)
    return tuple(sorted(found, key=lambda device: order.index(device.kind)))


def _devfreq_kind(entry: Path) -> ClockDevice | None:
    uevent = sysfs.read_text(entry / "device/uevent") or ""
    compatible = next((line for line in uevent.splitlines() if line.startswith("OF_COMPATIBLE_0=")), "")
    for text in (compatible.lower(), entry.name.lower()):
        for word, kind in _DEVFREQ_KINDS:
            if word in text:
                return kind
    return None


def _devfreq(entry: Path, kind: ClockDevice) -> ScaledDevice:
    return ScaledDevice(
        name=kind.value,
        kind=kind,
        governor_path=entry / "governor",
        min_path=entry / "min_freq",
        max_path=entry / "max_freq",
        current_path=entry / "cur_freq",
        unit_hz=1,
        governors=_words(entry / "available_governors"),
        frequencies_hz=_numbers(entry / "available_frequencies", 1),
    )


def _cpufreq(policy: Path, name: str) -> ScaledDevice:
    frequencies = _numbers(policy / "scaling_available_frequencies", 1000)
    if not frequencies:  # drivers that take any frequency, such as intel_pstate, tell only the ends
        ends = (sysfs.read_int(policy / "cpuinfo_min_freq"), sysfs.read_int(policy / "cpuinfo_max_freq"))
        frequencies = tuple(end * 1000 for end in ends if end is not None)
    return ScaledDevice(
        name=name,
        kind=ClockDevice.CPU,
        governor_path=policy / "scaling_governor",
        min_path=policy / "scaling_min_freq",
        max_path=policy / "scaling_max_freq",
        current_path=policy / "scaling_cur_freq",
        unit_hz=1000,
        governors=_words(policy / "scaling_available_governors"),
        frequencies_hz=frequencies,
    )


def _words(path: Path) -> tuple[str, ...]:
    return tuple((sysfs.read_text(path) or "").split())


def _numbers(path: Path, unit_hz: int) -> tuple[int, ...]:
    numbers = map(sysfs.number, _words(path))
    return tuple(sorted({number * unit_hz for number in numbers if number is not None}))


# What a lease may name. It is read back from the disk, and must not become a way to write anything else.
_CLOCK_FILE = re.compile(
    r"sys/(class/devfreq/[^/.][^/]*/(governor|min_freq|max_freq)"
    r"|devices/system/cpu/cpufreq/policy[0-9]+/scaling_(governor|min_freq|max_freq))"
)


class ClockFiles:
    """Governors and limits, by their path below the root, and no other files.

    The unit makes them writable for the group `rockfill` at its start; without that only root may write them.
    """

    def read(self, file: str) -> str | None:
        return sysfs.read_text(sysfs.root() / file) if _CLOCK_FILE.fullmatch(file) else None

    def write(self, file: str, value: str) -> None:
        """Raises OSError: PermissionError, or what the driver says to the value."""
        if not _CLOCK_FILE.fullmatch(file):
            raise PermissionError(errno.EPERM, "it is no file of a clock")
        fd = os.open(sysfs.root() / file, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
