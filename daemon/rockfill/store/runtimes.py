"""The `librkllmrt.so` files of this machine: those that Rockfill installed, and those that people put somewhere."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rockfill.compat.runtime import RuntimeIdentity, identify
from rockfill.errors import Code, Problem, ProblemInfo

if TYPE_CHECKING:
    from collections.abc import Iterable


log = logging.getLogger(__name__)

NAME = "librkllmrt.so"

# Where people put it by hand, as the instructions of the known projects say.
SYSTEM_DIRECTORIES = (Path("/usr/lib"), Path("/usr/lib/aarch64-linux-gnu"), Path("/usr/local/lib"))


@dataclass(frozen=True, slots=True)
class FoundRuntime:
    """A library at a place. `version` is None where its bytes do not tell; `problem` says why it can't be used."""

    path: Path
    origin: Literal["configured", "installed", "system"]
    version: str | None
    identity: RuntimeIdentity | None
    problem: ProblemInfo | None = None


def find_runtimes(
    configured: str, installed: Path, system: Iterable[Path] = SYSTEM_DIRECTORIES
) -> tuple[FoundRuntime, ...]:
    """Every library that could be loaded: the `configured` path ("" for none), those below `installed`, the system's.

    Reads each of them; blocks.
    """
    found: dict[Path, FoundRuntime] = {}
    places: list[tuple[Path, Literal["configured", "installed", "system"]]] = []
    if configured:
        places.append((Path(configured), "configured"))
    if installed.is_dir():
        places += [(path, "installed") for path in sorted(installed.glob(f"[!.]*/{NAME}"))]
    places += [(directory / NAME, "system") for directory in system]
    for path, origin in places:
        if origin != "configured" and not path.is_file():
            continue
        real = path.resolve()
        if real not in found:  # /usr/lib may be reached by several names
            found[real] = _look_at(path, origin)
    return tuple(found.values())


def inspect(path: Path) -> RuntimeIdentity:
    """What the library at `path` is, from its bytes alone. Raises `file_unreadable` or `runtime_unsupported`."""
    try:
        return identify(path.read_bytes())
    except OSError as error:
        raise Problem(Code.FILE_UNREADABLE, f"{path} can't be read: {error.strerror}.") from None


def _look_at(path: Path, origin: Literal["configured", "installed", "system"]) -> FoundRuntime:
    try:
        identity = inspect(path)
    except Problem as problem:
        log.warning("%s can't be used: %s", path, problem.message)
        return FoundRuntime(path, origin, None, None, problem.info)
    return FoundRuntime(path, origin, identity.version, identity)
