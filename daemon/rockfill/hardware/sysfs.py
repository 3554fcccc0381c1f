"""Where the kernel's files are, and how they are read: never an exception, None for what is not there."""

from __future__ import annotations

import os
from pathlib import Path


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
