"""Finds out what the checks look at. Blocks: for a few seconds where the Hub does not answer."""

from __future__ import annotations

import email.utils
import errno
import http.client
import os
import queue
import socket
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import rockfill
from rockfill.compat.variants import parse_name
from rockfill.compat.verdict import BoardFacts, judge
from rockfill.config import ClockPolicy, Config, parse_address
from rockfill.doctor.facts import ClockFacts, Facts, HubFacts, ModelFacts, RuntimeFacts
from rockfill.hardware import memory, sysfs
from rockfill.hardware.board import Account, read_board
from rockfill.hardware.devices import ClockFiles, scaled_devices
from rockfill.hardware.process import most_files_possible
from rockfill.hardware.sampler import npu_load_file
from rockfill.snapshots import Target
from rockfill.store.runtimes import SYSTEM_DIRECTORIES, find_runtimes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rockfill.hardware.board import Board
    from rockfill.hardware.devices import ScaledDevice

HUB_TIMEOUT_S = 6.0
HUB_LIMIT_S = 15.0  # for the whole of it, below what `doctor.service` waits for everything

# Where systemd looks for drop-ins of the unit, below the root (systemd.unit(5)).
DROP_INS = ("etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system")

# Directives that take something of the sandbox away where they are set to one of these; None is any value.
WEAKENING: dict[str, tuple[str, ...] | None] = {
    "user": ("root", "0"),
    "dynamicuser": None,
    "nonewprivileges": ("no", "false", "0", "off"),
    "protectsystem": ("no", "false", "0", "off"),
    "protecthome": ("no", "false", "0", "off", "read-only"),
    "protectkerneltunables": ("no", "false", "0", "off"),
    "protectkernelmodules": ("no", "false", "0", "off"),
    "protectcontrolgroups": ("no", "false", "0", "off"),
    "privatetmp": ("no", "false", "0", "off"),
    "restrictsuidsgid": ("no", "false", "0", "off"),
    "devicepolicy": ("auto",),
    "capabilityboundingset": None,
    "ambientcapabilities": None,
    "systemcallfilter": ("",),
    "restrictaddressfamilies": ("",),
    "readwritepaths": ("/",),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """About which appliance. `account` is who runs it; `port_is_ours` where it is the one that asks, and listens."""

    config: Config
    policy: ClockPolicy
    state_dir: Path
    state_problem: str | None
    model: Target | None
    tested: bool
    account: Account
    port_is_ours: bool


def gather(
    asked: Asked,
    *,
    ask_hub: Callable[[str], HubFacts] | None = None,
    libraries: Sequence[Path] = SYSTEM_DIRECTORIES,
) -> Facts:
    """The facts. `ask_hub` is `hub_facts`, or None to leave the Hub alone."""
    config = asked.config
    board = read_board(asked.account)
    sizes = memory.parse(sysfs.read_text(sysfs.root() / "proc/meminfo") or "")
    free = None if sizes.ram_total is None or sizes.ram_used is None else sizes.ram_total - sizes.ram_used
    configured = config.rkllm.library_in_use
    runtimes = tuple(
        RuntimeFacts(
            str(found.path),
            found.version,
            found.identity.architecture if found.identity else None,
            found.problem.message if found.problem else None,
        )
        for found in find_runtimes(configured, asked.state_dir / "runtimes", libraries)
    )
    return Facts(
        board=board,
        account=asked.account.name,
        npu_load_readable=npu_load_file() is not None,
        clocks=tuple(_clock(device, asked.account) for device in scaled_devices()),
        clock_policy=asked.policy,
        runtimes=runtimes,
        libgomp=any(True for directory in libraries for _ in directory.glob("libgomp.so.1")),
        model=_model(asked, board, runtimes) if asked.model is not None else None,
        ram_available_bytes=free,
        disk_free_bytes=_free_bytes(asked.state_dir),
        state_dir=str(asked.state_dir),
        state_problem=asked.state_problem,
        files_limit=most_files_possible(),  # which the daemon sees to at its start
        now_s=time.time(),
        released_s=Path(rockfill.__file__).stat().st_mtime,
        hub=ask_hub(config.hub.endpoint_in_use) if ask_hub is not None else None,
        port_taken=None if asked.port_is_ours else _taken(config.server.listen),
        weakened=tuple(weakened(sysfs.root())),
    )


def hub_facts(endpoint: str) -> HubFacts:
    """Ask the Hub for nothing, to see whether it answers and what time it has there.

    The socket's timeout is for each address, and a name server's for each try, so the whole has a limit of its own.
    """
    answers: queue.SimpleQueue[HubFacts] = queue.SimpleQueue()
    threading.Thread(target=lambda: answers.put(_ask_hub(endpoint)), name="doctor hub", daemon=True).start()
    try:
        return answers.get(timeout=HUB_LIMIT_S)
    except queue.Empty:
        return HubFacts(endpoint, f"it did not answer within {HUB_LIMIT_S:.0f} s", None)


def _ask_hub(endpoint: str) -> HubFacts:
    host = urllib.parse.urlsplit(endpoint).netloc
    if not endpoint.startswith(("http://", "https://")) or not host:
        return HubFacts(endpoint, "it is no address", None)
    agent = {"User-Agent": f"rockfill/{rockfill.__version__}"}
    request = urllib.request.Request(endpoint, method="HEAD", headers=agent)  # noqa: S310 - checked above
    try:
        with urllib.request.urlopen(request, timeout=HUB_TIMEOUT_S) as response:  # noqa: S310 - likewise
            return HubFacts(endpoint, None, _ahead_s(response.headers.get("Date")))
    except urllib.error.HTTPError as error:  # it answers, and that is all that is asked
        with error:
            return HubFacts(endpoint, None, _ahead_s(error.headers.get("Date")))
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        # A clock that is far off makes certificates look expired. Without encryption the time can still be had.
        ahead_s = _ahead_s(_date_without_tls(host)) if isinstance(reason, ssl.SSLError) else None
        return HubFacts(endpoint, str(reason), ahead_s)


def _date_without_tls(host: str) -> str | None:
    connection = http.client.HTTPConnection(host, timeout=HUB_TIMEOUT_S)
    try:
        connection.request("HEAD", "/")
        return connection.getresponse().headers.get("Date")
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _ahead_s(date: str | None) -> float | None:
    """By how much our clock is ahead of an HTTP date."""
    try:
        return time.time() - email.utils.parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return None


def weakened(root: Path) -> Iterator[tuple[str, str]]:
    """Lines of drop-ins of the service that take from its sandbox: the file as the system knows it, and the line."""
    for directory in DROP_INS:
        for path in sysfs.entries(root / directory / "rockfill.service.d", "*.conf"):
            for line in (sysfs.read_text(path) or "").splitlines():
                name, separator, value = line.strip().partition("=")
                values = WEAKENING.get(name.strip().lower(), ())
                if separator and (values is None or value.strip().lower() in values):
                    yield f"/{path.relative_to(root)}", line.strip()


def _clock(device: ScaledDevice, account: Account) -> ClockFacts:
    files = ClockFiles()
    return ClockFacts(
        name=device.name,
        kind=device.kind,
        governor=files.read(device.files[0]),
        current_hz=device.hertz(sysfs.read_text(device.current_path)),
        max_hz=device.hertz(files.read(device.files[2])),
        highest_hz=max(device.frequencies_hz, default=None),
        writable=all(account.may_use(path) for path in (device.governor_path, device.min_path, device.max_path)),
    )


def _model(asked: Asked, board: Board, runtimes: Sequence[RuntimeFacts]) -> ModelFacts:
    target = asked.model
    assert target is not None
    path = Path(target.path)
    misfits: tuple[tuple[bool, str, str], ...] = ()
    if target.engine == "rkllm":
        installed = [found.version for found in runtimes if found.version is not None and found.problem is None]
        variant = parse_name(path.parent.name, path.name, target.size_bytes)
        facts = BoardFacts(board.platform or "", board.ram_bytes, board.npu.version)
        [verdict] = judge([variant], facts, installed)
        misfits = tuple((found.severity == "refuse", found.message, found.advice) for found in verdict.problems)
    return ModelFacts(target.name, target.engine, target.size_bytes, misfits, asked.tested)


def is_tested(selftests: Mapping[str, object], target: Target) -> bool:
    """Whether a selftest of it is among those stored."""
    return any(key.split("|")[:2] == [target.engine, target.path] for key in selftests)


def _free_bytes(path: Path) -> int | None:
    try:
        space = os.statvfs(next(each for each in (path, *path.parents) if each.exists()))
    except (OSError, StopIteration):
        return None
    return space.f_bavail * space.f_frsize


def _taken(listen: str) -> str | None:
    """The address, if another program listens there."""
    address = parse_address(listen)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.create_server((address.host, address.port), family=family):
            return None
    except OSError as error:
        return str(address) if error.errno == errno.EADDRINUSE else None
