"""Trees that look like the /sys, /proc, /dev and /etc of machines: one function per variation that is known.

What stands in them is taken from the drivers' sources and from reports; where a file was never seen, it is not there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

NPU_HZ = tuple(range(300_000_000, 1_000_000_001, 100_000_000))
DDR_HZ = (528_000_000, 1_068_000_000, 1_560_000_000, 2_112_000_000)
GPU_HZ = (300_000_000, 400_000_000, 500_000_000, 600_000_000, 700_000_000, 800_000_000, 900_000_000, 1_000_000_000)
LITTLE_KHZ = (408_000, 816_000, 1_008_000, 1_416_000, 1_800_000)
BIG_KHZ = (408_000, 816_000, 1_200_000, 1_800_000, 2_256_000, 2_400_000)
DEVFREQ_GOVERNORS = "rknpu_ondemand dmc_ondemand userspace powersave performance simple_ondemand"
CPUFREQ_GOVERNORS = "conservative ondemand userspace powersave performance schedutil"
ZONES = {
    "soc-thermal": 47_100,
    "bigcore0-thermal": 48_000,
    "bigcore1-thermal": 48_900,
    "littlecore-thermal": 47_200,
    "center-thermal": 46_200,
    "gpu-thermal": 45_300,
    "npu-thermal": 46_300,
}
BOOT_ID = "3f2c1d6e-0b53-4b0e-9c77-5f6f4e0c8a11"


class Tree:
    """Writes the files of one machine below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, path: str, text: str, mode: int = 0o644) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
        return file

    def read(self, path: str) -> str:
        return (self.root / path).read_text().strip()

    # ---- parts

    def kernel(self, release: str, memory_mib: int, cpus: int, swap_mib: int = 0) -> None:
        self.put("proc/sys/kernel/arch", "x86_64\n" if release.endswith("amd64") else "aarch64\n")
        self.put("proc/sys/kernel/osrelease", f"{release}\n")
        self.put("proc/sys/kernel/random/boot_id", f"{BOOT_ID}\n")
        total, left, swap = memory_mib * 1024, memory_mib * 768, swap_mib * 1024
        self.put(
            "proc/meminfo",
            f"MemTotal: {total:14} kB\nMemFree: {left // 2:15} kB\nMemAvailable: {left:10} kB\nSwapCached: 0 kB\n"
            f"SwapTotal: {swap:13} kB\nSwapFree: {swap:14} kB\n",
        )
        self.jiffies([(1000, 9000)] * cpus)

    def jiffies(self, cores: Sequence[tuple[int, int]]) -> None:
        """`/proc/stat` with so many busy and idle jiffies of each core."""
        busy, idle = (sum(counters) for counters in zip(*cores, strict=True))
        lines = [f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0"]
        lines += [f"cpu{number} {busy} 0 0 {idle} 0 0 0 0 0 0" for number, (busy, idle) in enumerate(cores)]
        self.put("proc/stat", "\n".join([*lines, "intr 12345 0 0", "ctxt 999", "btime 1795700000"]) + "\n")

    def system(self, id_: str, version: str, name: str, armbian: str | None = None) -> None:
        self.put("etc/os-release", f'PRETTY_NAME="{name}"\nVERSION_ID="{version}"\nID={id_}\n')
        if armbian:
            self.put("etc/armbian-release", f"BOARD=orangepi5-plus\nVERSION={armbian}\nBRANCH=vendor\n")

    def device_tree(self, model: str, compatible: Sequence[str], npus: Sequence[str] = ()) -> None:
        self.put("proc/device-tree/model", f"{model}\0")
        self.put("proc/device-tree/compatible", "".join(f"{name}\0" for name in compatible))
        for npu in npus:
            self.put(f"proc/device-tree/npu@{npu}/status", "okay\0")

    def devfreq(
        self,
        name: str,
        compatible: str,
        frequencies: Sequence[int],
        governor: str,
        current: int,
        governors: str = DEVFREQ_GOVERNORS,
    ) -> None:
        base = f"sys/class/devfreq/{name}"
        self.put(f"{base}/device/uevent", f"DRIVER=x\nOF_NAME=x\nOF_COMPATIBLE_0={compatible}\n")
        self.put(f"{base}/available_frequencies", " ".join(map(str, frequencies)) + "\n")
        self.put(f"{base}/available_governors", governors + "\n")
        self.put(f"{base}/governor", governor + "\n")
        self.put(f"{base}/cur_freq", f"{current}\n")
        self.put(f"{base}/min_freq", f"{min(frequencies)}\n")
        self.put(f"{base}/max_freq", f"{max(frequencies)}\n")
        self.put(f"{base}/load", f"100@{current}Hz\n")

    def cpus(self, capacities: Sequence[int | None]) -> None:
        for number, capacity in enumerate(capacities):
            self.put(f"sys/devices/system/cpu/cpu{number}/topology/core_id", f"{number}\n")
            if number:  # cpu0 can't be switched off
                self.put(f"sys/devices/system/cpu/cpu{number}/online", "1\n")
            if capacity is not None:
                self.put(f"sys/devices/system/cpu/cpu{number}/cpu_capacity", f"{capacity}\n")

    def cpufreq(
        self, first: int, last: int, frequencies: Sequence[int], governor: str, current: int, *, listed: bool = True
    ) -> None:
        base = f"sys/devices/system/cpu/cpufreq/policy{first}"
        self.put(f"{base}/related_cpus", " ".join(map(str, range(first, last + 1))) + "\n")
        if listed:
            self.put(f"{base}/scaling_available_frequencies", " ".join(map(str, frequencies)) + " \n")
        self.put(
            f"{base}/scaling_available_governors", (CPUFREQ_GOVERNORS if listed else "performance powersave") + "\n"
        )
        self.put(f"{base}/scaling_governor", governor + "\n")
        self.put(f"{base}/scaling_cur_freq", f"{current}\n")
        for prefix in ("scaling", "cpuinfo"):
            self.put(f"{base}/{prefix}_min_freq", f"{min(frequencies)}\n")
            self.put(f"{base}/{prefix}_max_freq", f"{max(frequencies)}\n")

    def zones(self, temperatures: dict[str, int]) -> None:
        for number, (kind, millidegrees) in enumerate(temperatures.items()):
            self.put(f"sys/class/thermal/thermal_zone{number}/type", f"{kind}\n")
            self.put(f"sys/class/thermal/thermal_zone{number}/temp", f"{millidegrees}\n")

    def drm(self, node: str, driver: str, compatible: str, mode: int = 0o660) -> None:
        self.put(f"sys/class/drm/{node}/device/uevent", f"DRIVER={driver}\nOF_COMPATIBLE_0={compatible}\n")
        self.put(f"dev/dri/{node}", "", mode)

    def rknpu(self, version: str, load: str, *, proc: bool, debug: bool, bound: bool) -> None:
        """Rockchip's driver: its version for everybody, and its nodes in procfs, debugfs, or bound by the unit."""
        self.put("sys/module/rknpu/version", f"{version}\n", 0o444)
        places = [("proc/rknpu", proc), ("sys/kernel/debug/rknpu", debug), ("run/rockfill/rknpu", bound)]
        for directory in (place for place, there in places if there):
            self.put(f"{directory}/version", f"RKNPU driver: v{version}\n", 0o444)
            self.put(f"{directory}/load", load, 0o444)
            self.put(f"{directory}/power", "on\n", 0o444)

    def disk(self, name: str, size_bytes: int, kind: str | None = None) -> None:
        self.put(f"sys/block/{name}/size", f"{size_bytes // 512}\n")
        if kind is not None:
            self.put(f"sys/block/{name}/device/type", f"{kind}\n")

    def zram(self, size_bytes: int) -> None:
        self.put("sys/block/zram0/disksize", f"{size_bytes}\n")
        self.put("sys/block/zram0/size", f"{size_bytes // 512}\n")

    # ---- whole boards

    def rk3588(self, *, soc: str = "rk3588", dmc: bool, model: str, npu: int = 1_000_000_000) -> None:
        """What all kernels of Rockchip's line have in common on an RK3588."""
        self.device_tree(model, ["xunlong,board", f"rockchip,{soc}"], ["fdab0000"])
        self.cpus([530] * 4 + [1024] * 4)
        self.cpufreq(0, 3, LITTLE_KHZ, "ondemand", 1_800_000)
        self.cpufreq(4, 5, BIG_KHZ, "ondemand", 408_000)
        self.cpufreq(6, 7, BIG_KHZ, "ondemand", 408_000)
        self.devfreq("fdab0000.npu", "rockchip,rk3588-rknpu", NPU_HZ, "rknpu_ondemand", npu)
        self.devfreq("fb000000.gpu", "arm,mali-bifrost", GPU_HZ, "simple_ondemand", 300_000_000)
        if dmc:
            self.devfreq("dmc", "rockchip,rk3588-dmc", DDR_HZ, "dmc_ondemand", 528_000_000)
        self.zones(ZONES)
        self.disk("mmcblk0", 62 * 10**9, "MMC")
        self.put("sys/block/mmcblk0boot0/size", "8192\n")


LOAD_3 = "NPU load:  Core0: 42%, Core1:  7%, Core2:  0%,\n"


def armbian_vendor(root: Path) -> Tree:
    """Armbian's vendor kernel 6.1 with DDR scaling, and procfs nodes."""
    tree = Tree(root)
    tree.rk3588(dmc=True, model="Orange Pi 5 Plus")
    tree.kernel("6.1.115-vendor-rk35xx", 15_960, 8, swap_mib=7_980)
    tree.zram(7_980 * 2**20)
    tree.system("debian", "12", "Armbian 25.5.1 bookworm", "25.5.1")
    tree.rknpu("0.9.8", LOAD_3, proc=True, debug=True, bound=False)
    tree.drm("card1", "RKNPU", "rockchip,rk3588-rknpu")
    tree.drm("renderD129", "RKNPU", "rockchip,rk3588-rknpu")
    tree.drm("card0", "rockchip-drm", "rockchip,display-subsystem")
    return tree


def armbian_vendor_without_dmc(root: Path) -> Tree:
    """The same on a board whose boot loader has no DDR scaling, and without procfs nodes: the unit's bind is all."""
    tree = Tree(root)
    tree.rk3588(soc="rk3588s", dmc=False, model="Orange Pi 5")
    tree.kernel("6.1.84-vendor-rk35xx", 7_800, 8)
    tree.system("ubuntu", "24.04", "Armbian 25.2.1 noble", "25.2.1")
    tree.rknpu("0.9.8", LOAD_3, proc=False, debug=False, bound=True)
    tree.drm("card1", "RKNPU", "rockchip,rk3588-rknpu")
    tree.drm("renderD129", "RKNPU", "rockchip,rk3588-rknpu")
    return tree


def bsp_5_10(root: Path) -> Tree:
    """A vendor's image with kernel 5.10, an old driver built with DMA_HEAP, and only its version readable."""
    tree = Tree(root)
    tree.rk3588(dmc=True, model="Radxa ROCK 5B")
    tree.kernel("5.10.110-37-rockchip", 7_800, 8)
    tree.system("debian", "11", "Debian GNU/Linux 11 (bullseye)")
    tree.rknpu("0.8.2", LOAD_3, proc=False, debug=False, bound=False)
    tree.put("dev/rknpu", "", 0o600)
    return tree


def debugfs_only(root: Path) -> Tree:
    """A kernel with RKNPU_DEBUG_FS and no RKNPU_PROC_FS, looked at as root."""
    tree = Tree(root)
    tree.rk3588(dmc=True, model="Firefly ROC-RK3588S-PC", soc="rk3588s")
    tree.kernel("6.1.43-rk3588", 15_960, 8)
    tree.system("ubuntu", "22.04", "Ubuntu 22.04.5 LTS")
    tree.rknpu("0.9.7", LOAD_3, proc=False, debug=True, bound=False)
    tree.drm("renderD128", "RKNPU", "rockchip,rk3588-rknpu")
    return tree


def rk3576(root: Path) -> Tree:
    """An RK3576: two NPU cores, other addresses, two clusters."""
    tree = Tree(root)
    tree.device_tree("Radxa ROCK 4D", ["radxa,rock-4d", "rockchip,rk3576"], ["27700000"])
    tree.cpus([480] * 4 + [1024] * 4)
    tree.cpufreq(0, 3, (408_000, 1_200_000, 2_208_000), "interactive", 1_200_000)
    tree.cpufreq(4, 7, (408_000, 1_416_000, 2_304_000), "interactive", 408_000)
    tree.devfreq(
        "27700000.npu", "rockchip,rk3576-rknpu", (300_000_000, 600_000_000, 950_000_000), "rknpu_ondemand", 300_000_000
    )
    tree.devfreq("27800000.gpu", "arm,mali-bifrost", (300_000_000, 950_000_000), "simple_ondemand", 300_000_000)
    tree.zones({"soc-thermal": 41_000, "npu-thermal": 42_500})
    tree.kernel("6.1.84-rk2410", 7_900, 8)
    tree.system("debian", "12", "Debian GNU/Linux 12 (bookworm)")
    tree.rknpu("0.9.8", "NPU load:  Core0: 13%, Core1:  0%,\n", proc=True, debug=False, bound=False)
    tree.drm("card1", "RKNPU", "rockchip,rk3576-rknpu")
    tree.drm("renderD129", "RKNPU", "rockchip,rk3576-rknpu")
    tree.disk("nvme0n1", 256 * 10**9)
    return tree


def mainline_rocket(root: Path) -> Tree:
    """A mainline kernel: three NPU cores that only `rocket` drives, no devfreq, nothing that RKLLM can use."""
    tree = Tree(root)
    tree.device_tree("Radxa ROCK 5B", ["radxa,rock-5b", "rockchip,rk3588"], ["fdab0000", "fdac0000", "fdad0000"])
    tree.cpus([530] * 4 + [1024] * 4)
    tree.cpufreq(0, 3, LITTLE_KHZ, "schedutil", 1_800_000)
    tree.cpufreq(4, 5, BIG_KHZ, "schedutil", 408_000)
    tree.cpufreq(6, 7, BIG_KHZ, "schedutil", 408_000)
    tree.zones({"package-thermal": 38_800, "npu-thermal": 37_900})
    tree.kernel("6.18.2-current-rockchip64", 15_960, 8)
    tree.system("debian", "13", "Armbian 26.2 trixie", "26.2")
    tree.put("sys/module/rocket/refcnt", "0\n")
    tree.put("dev/accel/accel0", "", 0o660)
    tree.put("sys/class/accel/accel0/device/uevent", "DRIVER=rocket\n")
    return tree


def x86_laptop(root: Path) -> Tree:
    """No board at all: cores alike, clocks without a list, zones of other makers."""
    tree = Tree(root)
    tree.cpus([None] * 4)
    for number in range(4):
        tree.cpufreq(number, number, (400_000, 4_200_000), "powersave", 1_700_000 + number, listed=False)
    tree.zones({"acpitz": 45_000, "x86_pkg_temp": 52_000, "iwlwifi_1": 39_000, "SEN1": -274_000})
    tree.kernel("6.12.9-amd64", 31_800, 4, swap_mib=2_048)
    tree.system("debian", "13", "Debian GNU/Linux 13 (trixie)")
    tree.disk("nvme0n1", 512 * 10**9)
    return tree


BOARDS: dict[str, Callable[[Path], Tree]] = {
    build.__name__: build
    for build in (
        armbian_vendor,
        armbian_vendor_without_dmc,
        bsp_5_10,
        debugfs_only,
        rk3576,
        mainline_rocket,
        x86_laptop,
    )
}
