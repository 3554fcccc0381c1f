"""What machine this is: the SoC, its NPU and who may use it, cores, memory, storage, and the system on it.

All of it is read from the device tree, sysfs, procfs and uevents; what can't be read is None, and nothing follows from
the SoC's name that a file tells.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rockfill.hardware import memory, sysfs
from rockfill.hardware.cpus import Cluster, clusters

if TYPE_CHECKING:
    from collections.abc import Sequence

# A 64-bit BSP names the SoC last: "radxa,rock-5a", "rockchip,rk3588s".
_ROCKCHIP = re.compile(r"rockchip,(rk\d+[a-z]?)")
_VERSION = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})+")

RKNPU, ROCKET = "rknpu", "rocket"


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """A device file of the NPU. `group` owns it; `usable` says whether the user in question may read and write it."""

    path: str
    group: str | None
    usable: bool


@dataclass(frozen=True, slots=True)
class Npu:
    """The NPU as the kernel offers it. `driver` is "rknpu" (what RKLLM needs), "rocket" (mainline's), or None.

    `in_device_tree` says whether the board has one at all, driver or not; None where there is no device tree."""

    driver: str | None
    version: str | None
    nodes: tuple[DeviceNode, ...]
    in_device_tree: bool | None


@dataclass(frozen=True, slots=True)
class Disk:
    """A block device with a medium. `kind` is "emmc", "sd", "nvme", "usb", "sata" or "other"."""

    name: str
    kind: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Release:
    """What is installed. `armbian` is Armbian's version, None where it is something else."""

    id: str | None
    version: str | None
    name: str | None
    armbian: str | None


@dataclass(frozen=True, slots=True)
class Board:
    """The machine.

    `soc` is exact ("rk3588s"), `platform` what models are converted for ("rk3588"); both None off Rockchip. Sizes are
    in bytes; `zram_bytes` is that part of the swap that is compressed memory.
    """

    model: str | None
    soc: str | None
    platform: str | None
    kernel: str | None
    architecture: str
    release: Release
    npu: Npu
    clusters: tuple[Cluster, ...]
    ram_bytes: int | None
    swap_bytes: int | None
    zram_bytes: int
    disks: tuple[Disk, ...]


@dataclass(frozen=True, slots=True)
class Account:
    """A user as the kernel sees it when files are opened."""

    name: str
    uid: int
    gids: frozenset[int]

    @classmethod
    def mine(cls) -> Account:
        """Of this process, supplementary groups included."""
        uid = os.geteuid()
        return cls(_user_name(uid), uid, frozenset({os.getegid(), *os.getgroups()}))

    @classmethod
    def named(cls, name: str, also: Sequence[str] = ()) -> Account | None:
        """Of the user `name` with the groups that the system lists for it, and those of `also` that there are; None if
        there is no such user."""
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            return None
        more = {group.gr_gid for group in grp.getgrall() if group.gr_name in also} if also else set()
        return cls(name, entry.pw_uid, frozenset({*os.getgrouplist(name, entry.pw_gid), *more}))

    def may_use(self, path: Path) -> bool:
        """Whether it may read and write the file at `path`, by its mode; ACLs are not looked at."""
        try:
            status = path.stat()
        except OSError:
            return False
        if self.uid == 0:
            return True
        shift = 6 if status.st_uid == self.uid else 3 if status.st_gid in self.gids else 0
        return (stat.S_IMODE(status.st_mode) >> shift) & 0o6 == 0o6


def read_board(account: Account | None = None) -> Board:
    """The machine as it is now; `usable` of its device nodes is told for `account`, by default this process's user."""
    tree = _device_tree()
    compatible = _compatible(tree)
    soc = max((match[1] for name in compatible if (match := _ROCKCHIP.fullmatch(name))), key=len, default=None)
    sizes = memory.parse(sysfs.read_text(sysfs.root() / "proc/meminfo") or "")
    return Board(
        model=_device_tree_text(tree / "model") if tree else None,
        soc=soc,
        platform=soc.rstrip("abcdefghijklmnopqrstuvwxyz") if soc else None,
        kernel=sysfs.read_text(sysfs.root() / "proc/sys/kernel/osrelease") or None,
        architecture=sysfs.read_text(sysfs.root() / "proc/sys/kernel/arch") or os.uname().machine,  # a file since 6.1
        release=_release(),
        npu=_npu(tree, account or Account.mine()),
        clusters=clusters(),
        ram_bytes=sizes.ram_total,
        swap_bytes=sizes.swap_total,
        zram_bytes=sum(
            sysfs.read_int(entry / "disksize") or 0 for entry in sysfs.entries(sysfs.root() / "sys/block", "zram*")
        ),
        disks=_disks(),
    )


def boot_id() -> str | None:
    """What tells one boot of the kernel from another."""
    return sysfs.read_text(sysfs.root() / "proc/sys/kernel/random/boot_id") or None


# ---- device tree


def _device_tree() -> Path | None:
    for directory in ("sys/firmware/devicetree/base", "proc/device-tree"):
        path = sysfs.root() / directory
        if sysfs.exists(path, Path.is_dir):
            return path
    return None


def _device_tree_text(path: Path) -> str | None:
    return (sysfs.read_text(path) or "").strip("\0 \n") or None


def _compatible(tree: Path | None) -> list[str]:
    return [name for name in (sysfs.read_text(tree / "compatible") or "").split("\0") if name] if tree else []


# ---- NPU


def _npu(tree: Path | None, account: Account) -> Npu:
    root = sysfs.root()
    nodes = [node for node in _drm_nodes() if sysfs.exists(root / node)]
    if sysfs.exists(root / "dev/rknpu"):  # built with DMA_HEAP instead of DRM_GEM
        nodes.append("dev/rknpu")
    version = _rknpu_version()
    driver = None
    if nodes or version or sysfs.exists(root / "sys/module/rknpu"):
        driver = RKNPU
    elif rocket := [f"dev/accel/{entry.name}" for entry in sysfs.entries(root / "dev/accel", "accel*")]:
        driver, nodes = ROCKET, rocket
    elif sysfs.exists(root / "sys/module/rocket"):
        driver = ROCKET
    in_tree = any(sysfs.entries(tree, "npu@*")) if tree else None
    return Npu(driver, version, tuple(_node(node, account) for node in nodes), in_tree)


def _drm_nodes() -> list[str]:
    """The DRM devices of the NPU, below the root; their numbers differ from machine to machine."""
    found = []
    for entry in sysfs.entries(sysfs.root() / "sys/class/drm"):
        if re.fullmatch(r"(card|renderD)\d+", entry.name):
            uevent = sysfs.read_text(entry / "device/uevent") or ""
            if "DRIVER=RKNPU" in uevent.upper():
                found.append(f"dev/dri/{entry.name}")
    return found


def _rknpu_version() -> str | None:
    """``0.9.8``: from the module, readable by everybody, else from the text of the driver's own nodes."""
    for file in ("sys/module/rknpu/version", "proc/rknpu/version", "run/rockfill/rknpu/version"):
        match = _VERSION.search(sysfs.read_text(sysfs.root() / file) or "")
        if match is not None:
            return match[0]
    return None


def _node(node: str, account: Account) -> DeviceNode:
    path = sysfs.root() / node
    group = None
    try:
        gid = path.stat().st_gid
        group = str(gid)
        group = grp.getgrgid(gid).gr_name
    except (OSError, KeyError):
        pass
    return DeviceNode(f"/{node}", group, account.may_use(path))


# ---- the rest


def _disks() -> tuple[Disk, ...]:
    found = []
    for entry in sysfs.entries(sysfs.root() / "sys/block"):
        size = sysfs.read_int(entry / "size")
        kind = _disk_kind(entry)
        if size and kind is not None:
            found.append(Disk(entry.name, kind, size * 512))  # always counted in 512 bytes
    return tuple(found)


_NO_MEDIUM = ("zram", "loop", "ram", "dm-", "md", "sr", "nbd")


def _disk_kind(entry: Path) -> str | None:
    if entry.name.startswith(_NO_MEDIUM) or re.fullmatch(r"mmcblk\d+(boot\d|rpmb)", entry.name):
        return None
    if entry.name.startswith("mmcblk"):
        return {"MMC": "emmc", "SD": "sd"}.get(sysfs.read_text(entry / "device/type") or "", "other")
    if entry.name.startswith("nvme"):
        return "nvme"
    try:
        real = str(entry.resolve())
    except OSError:
        return "other"
    return "usb" if "/usb" in real else "sata" if "/ata" in real else "other"


def _release() -> Release:
    root = sysfs.root()
    text = sysfs.read_text(root / "etc/os-release") or sysfs.read_text(root / "usr/lib/os-release") or ""
    system = _assignments(text)
    armbian = _assignments(sysfs.read_text(root / "etc/armbian-release") or "")
    return Release(system.get("ID"), system.get("VERSION_ID"), system.get("PRETTY_NAME"), armbian.get("VERSION"))


def _assignments(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip().strip("\"'") for name, _, value in pairs}


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
