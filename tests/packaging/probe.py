"""Run inside the unit's sandbox, in the place of the daemon: says what can be done there, as JSON."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable


def can(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError:
        return False
    return True


def writable(path: str) -> bool:
    """An existing file as it is, in a directory a new one."""
    place = Path(path)
    if os.path.isdir(path):  # noqa: PTH112 - False, not an error, for what is out of sight
        return can(lambda: (place / "probe").write_text("x"))
    return can(lambda: place.write_text(place.read_text()))


def readable(path: str) -> bool:
    return can(lambda: Path(path).read_text())


def calls_back() -> None:
    """ctypes makes executable memory for that, as the binding of Rockchip's library does."""
    function = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 1)
    assert ctypes.cast(function, ctypes.CFUNCTYPE(ctypes.c_int))() == 1


asked = json.loads(sys.stdin.read())
libc = ctypes.CDLL(None, use_errno=True)
told = {
    "writable": [path for path in asked["write"] if writable(path)],
    "readable": [path for path in asked["read"] if readable(path)],
    "groups": sorted(os.getgrouplist("rockfill", os.getgid())),
    "member_of": sorted(os.getgroups()),
    "uid": os.getuid(),
    "can": {
        "choose its cores": can(lambda: os.sched_setaffinity(0, os.sched_getaffinity(0))),
        "see the machine's addresses": bool(psutil.net_if_addrs()),
        "see the machine's memory": psutil.virtual_memory().total > 0,
        "call back": can(calls_back),
        "listen": can(lambda: socket.create_server(("0.0.0.0", 0)).close()),
        "sniff": can(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()),
        "become root": can(lambda: os.setuid(0)),
        "make a namespace": libc.unshare(0x10000000) == 0,
        "see other people's processes": Path("/proc/1/status").exists(),
    },
}
Path("/var/lib/rockfill/probe.json").write_text(json.dumps(told))
