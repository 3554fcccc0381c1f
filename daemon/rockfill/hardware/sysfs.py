"""Where the kernel's files are, and how they are read: never an exception, None for what is not there."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# More than any file here is, /proc/stat of a large server aside, whose first lines are all that is wanted.
_LARGEST_BYTES = 16 * 1024


def root() -> Path:
    """What stands before ``/sys``, ``/proc`` and ``/dev``: that of ``ROCKFILL_SYSFS_ROOT``, or the machine's own."""
    return Path(os.environ.get("ROCKFILL_SYSFS_ROOT") or "/")


def read_text(path: Path) -> str | None:
    """The stripped content of a small file, None if it can't be read."""
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return None


def read_int(path: Path) -> int | None:
    """The decimal number in a file, None if there is none."""
    text = read_text(path)
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None


def number(text: str | None) -> int | None:
    """The number that `text` is in decimal digits; None for anything else, and for more than 64 bits may have."""
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 20 else None


def entries(directory: Path, pattern: str = "*") -> list[Path]:
    """What is in a directory, sorted by name; nothing if it can't be read."""
    try:
        return sorted(directory.glob(pattern))
    except OSError:
        return []


def exists(path: Path, test: Callable[[Path], bool] = Path.exists) -> bool:
    """Whether it is there; False where that can't be found out, as below debugfs without root."""
    try:
        return test(path)
    except OSError:
        return False


class KernelFile:
    """A small file of the kernel, opened at the first read and kept open: each read gets what it holds by then.

    Reading from offset 0 has the kernel make the text anew, in sysfs, procfs and debugfs alike.
    """

    __slots__ = ("_fd", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def read(self) -> str:
        """Its text. After an OSError the next read opens it again: a device that was unplugged may come back."""
        if self._fd is None:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(self._fd, _LARGEST_BYTES, 0).decode("utf-8", "replace")
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            with contextlib.suppress(OSError):
                os.close(fd)
