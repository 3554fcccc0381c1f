"""Writing to a disk so that a power cut leaves the old or the new, and saying what it refused."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from rockfill.errors import Code, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def write_atomically(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Have `content` in `path`, and on the disk. Raises OSError, and then leaves what was there."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(temporary, flags, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def sync_directory(path: Path) -> None:
    """Have the directory's entries on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def refusals_told(directory: Path) -> Iterator[None]:
    """What the disk under `directory` refuses in the block, as `disk_full` or `state_dir_unusable`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Problem(
                Code.DISK_FULL,
                f"The disk under {directory} is full.",
                "Make room and try again: what has come already is kept.",
            ) from None
        raise Problem(
            Code.STATE_DIR_UNUSABLE,
            f"{directory} can't be written to: {error.strerror or error}.",
            "Give the user that runs Rockfill write access to it, then try again: what has come already is kept.",
        ) from None
