"""What the checks look at, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from rockfill.config import ClockDevice, ClockPolicy
from rockfill.hardware.board import Board

if TYPE_CHECKING:
    from collections.abc import Iterable


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's result: one sentence on how things are, and the command that mends it, "" where there is nothing to
    mend or no command does."""

    check: str
    level: Level
    message: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class ClockFacts:
    """One device's clock; frequencies in Hz, None where a file does not tell."""

    name: str
    kind: ClockDevice
    governor: str | None
    current_hz: int | None
    max_hz: int | None
    highest_hz: int | None
    writable: bool


@dataclass(frozen=True, slots=True)
class RuntimeFacts:
    """One `librkllmrt.so`. `problem` is why it can't be used, None if it can."""

    path: str
    version: str | None
    architecture: str | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The chosen model. `misfits` are what is known to stand between it and this board: whether that refuses it, what,
    and what to do. `tested` is whether a selftest of it is stored."""

    name: str
    engine: str
    size_bytes: int
    misfits: tuple[tuple[bool, str, str], ...]
    tested: bool


@dataclass(frozen=True, slots=True)
class HubFacts:
    """How the Hub answered: `problem` None if it did. `ahead_s` is by how much this machine's clock is ahead of it."""

    endpoint: str
    problem: str | None
    ahead_s: float | None


@dataclass(frozen=True, slots=True)
class Facts:
    """The machine and the appliance on it. `account` is the user that the daemon runs as, or would. None is what could
    not be found out, or was not asked.

    `port_taken` is the address where another program listens. `weakened` are lines of drop-ins that take the unit's
    sandbox away, each with its file. `released_s` is when these files were made, before which no clock can be.
    """

    board: Board
    account: str
    npu_load_readable: bool
    clocks: tuple[ClockFacts, ...]
    clock_policy: ClockPolicy
    runtimes: tuple[RuntimeFacts, ...]
    libgomp: bool
    model: ModelFacts | None
    ram_available_bytes: int | None
    disk_free_bytes: int | None
    state_dir: str
    state_problem: str | None
    files_limit: int
    now_s: float
    released_s: float
    hub: HubFacts | None
    port_taken: str | None
    weakened: tuple[tuple[str, str], ...]


def worst(findings: Iterable[Finding]) -> Level:
    """The worst level of all."""
    levels = [finding.level for finding in findings]
    return Level.PROBLEM if Level.PROBLEM in levels else Level.WARNING if Level.WARNING in levels else Level.OK
