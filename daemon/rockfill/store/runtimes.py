"""Which `librkllmrt.so` to use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rockfill.compat.runtime import identify
from rockfill.errors import Code, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rockfill.compat.runtime import RuntimeIdentity

NAME = "librkllmrt.so"

# Where people put it by hand, as the instructions of the known projects say.
SYSTEM_DIRECTORIES = (Path("/usr/lib"), Path("/usr/lib/aarch64-linux-gnu"), Path("/usr/local/lib"))


def find_runtime(chosen: str, state_dir: Path, system: Iterable[Path] = SYSTEM_DIRECTORIES) -> Path:
    """The runtime to load: `chosen` if that is not "", else the newest that Rockfill installed, else the system's.

    Raises `runtime_missing`.
    """
    if chosen:
        return Path(chosen)
    installed = [path for path in (state_dir / "runtimes").glob(f"*/{NAME}") if path.is_file()]
    if installed:
        return max(installed, key=lambda path: _release(path.parent.name))
    for directory in system:
        if (directory / NAME).is_file():
            return directory / NAME
    raise Problem(
        Code.RUNTIME_MISSING,
        "Rockchip's RKLLM runtime is not installed.",
        f"Put the {NAME} of release 1.2.3 of airockchip/rknn-llm into /usr/lib, or name it in [rkllm] library.",
    )


def inspect(path: Path) -> RuntimeIdentity:
    """What the library at `path` is, from its bytes alone. Raises `file_unreadable` or `runtime_unsupported`."""
    try:
        return identify(path.read_bytes())
    except OSError as error:
        raise Problem(Code.FILE_UNREADABLE, f"{path} can't be read: {error.strerror}.") from None


def _release(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.split(".") if part.isdigit())
