"""Where models and runtimes are put: the one place that writes to and removes from their directories.

Whatever is fetched or copied gathers under ``.partial/NAME`` and gets its place by one rename, manifest included: a
directory that can be seen is complete. All of this blocks.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import stat
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rockfill.decode import DecodeError, decode
from rockfill.disk import refusals_told, sync_directory, write_atomically
from rockfill.errors import Code, Problem
from rockfill.store.models import MANIFEST, InstalledFile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from rockfill.store.models import Manifest

    Over = Callable[[Mapping[str, Any]], bool]

PARTIAL = ".partial"
PLAN = "plan.json"
CHUNK_BYTES = 1 << 20

# What else is on the disk needs some room as well: the journal, the state file, an upgrade.
RESERVE_BYTES = 512 << 20

# Short enough for every suffix that a file has while it comes, on every file system.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+=@-]{0,199}")


def check_file_name(name: str) -> str:
    """`name`, if it can be a file's in one of our directories; it comes from elsewhere."""
    if not _NAME.fullmatch(name) or name in (MANIFEST, PLAN):
        raise Problem(
            Code.INVALID_VALUE,
            f"{name[:200]!r} can't be the name of a file here.",
            "Choose a variant whose name has only letters, digits and . _ + = @ -.",
        )
    return name


@dataclass(frozen=True, slots=True)
class _Installed:
    """What a manifest of whatever kind says of its files."""

    files: tuple[InstalledFile, ...] = ()


@dataclass(frozen=True, slots=True)
class _PlannedFile:
    name: str
    sha256: str | None = None
    blob_id: str | None = None


@dataclass(frozen=True, slots=True)
class _PlannedFiles:
    files: tuple[_PlannedFile, ...] = ()


@dataclass(frozen=True, slots=True)
class _Planned:
    """What a plan that was kept says of its files."""

    plan: _PlannedFiles


def always(_there: Mapping[str, Any]) -> bool:
    return True


def never(_there: Mapping[str, Any]) -> bool:
    return False


class Shelf:
    """A directory with one directory per thing; their names are made by `slug`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def staging(self, slug: str) -> Path:
        """The directory in which `slug` gathers; made if it is not there."""
        with refusals_told(self.root):
            for directory in (self.root, self.root / PARTIAL, self.root / PARTIAL / slug):
                directory.mkdir(mode=0o755, parents=True, exist_ok=True)
                if directory != self.root:  # which may well be a link to another disk
                    _refuse_link(directory)
        return self.root / PARTIAL / slug

    def keep_plan(self, slug: str, plan: dict[str, Any]) -> None:
        """Write down what is to become of what gathers under `slug`."""
        with refusals_told(self.root):
            _write(self.staging(slug) / PLAN, plan)

    def plans(self) -> dict[str, Any]:
        """What was kept with `keep_plan` and not published or discarded, by slug."""
        found: dict[str, Any] = {}
        partial = self.root / PARTIAL
        if not partial.is_dir() or partial.is_symlink():
            return found
        for directory in sorted(partial.iterdir()):
            with contextlib.suppress(OSError, ValueError, RecursionError):
                found[directory.name] = json.loads((directory / PLAN).read_bytes())
        return found

    def keep_only(self, slug: str, digests: Mapping[str, tuple[str | None, str | None]]) -> None:
        """Throw away whole files that have gathered under `slug` unless they are what is wanted now.

        `digests` are those of the wanted files (sha256, git's blob id) by name; the plan that was kept says what those
        that are here were meant to be. Parts know for themselves what they are of.
        """
        directory = self.staging(slug)
        try:
            planned = decode(_Planned, json.loads((directory / PLAN).read_bytes())).plan.files
        except (OSError, ValueError, RecursionError, DecodeError):
            planned = ()
        same = {file.name for file in planned if digests.get(file.name) == (file.sha256, file.blob_id)}
        with refusals_told(self.root):
            for entry in directory.iterdir():
                if not entry.name.endswith((".part", ".part.json")) and entry.name not in (*same, PLAN):
                    entry.unlink()

    def discard(self, slug: str) -> None:
        """Throw away what has gathered under `slug`."""
        directory = self.root / PARTIAL / slug
        if directory.is_dir() and not directory.is_symlink():
            with refusals_told(self.root):
                shutil.rmtree(directory)

    def publish(self, slug: str, manifest: dict[str, Any], *, gathered: str = "", over: Over = always) -> Path:
        """Give what has gathered under `slug`, or as `gathered`, its place, with `manifest` beside it.

        Replaces what Rockfill put there before if it may be put `over` one with such a manifest; raises
        `not_removable` if not.
        """
        staging, place = self.staging(gathered or slug), self.root / slug
        with refusals_told(self.root):
            _write(staging / MANIFEST, manifest)
            sync_directory(staging)
            if place.exists() or place.is_symlink():
                self._make_way(place, over)
            (staging / PLAN).unlink(missing_ok=True)  # last: until then the next start can go on
            sync_directory(staging)
            staging.rename(place)
            sync_directory(self.root)
        return place

    def remove(self, directory: Path) -> list[str]:
        """Remove what Rockfill installed in `directory`, and the directory unless it holds something else.

        Returns the names of what was left. Raises `not_removable` for whatever Rockfill did not install.
        """
        files = self._installed_in(directory)
        with refusals_told(self.root):
            (directory / MANIFEST).unlink()  # first: from here on it is no model any more
            for file in files:
                (directory / file.name).unlink(missing_ok=True)
            left = sorted(entry.name for entry in directory.iterdir())
            if not left:
                directory.rmdir()
            sync_directory(self.root)
        return left

    def is_removable(self, directory: Path) -> bool:
        """Whether `remove` would do it."""
        try:
            self._installed_in(directory)
        except Problem:
            return False
        return True

    def room_bytes(self) -> int:
        """How much more may be put here; a reserve is left for everything else on the disk."""
        place = self.root
        while not place.exists():
            place = place.parent
        return max(0, shutil.disk_usage(place).free - RESERVE_BYTES)

    def check_room(self, what: str, size_bytes: int) -> None:
        """`disk_full` unless there is room for so much more."""
        room_bytes = self.room_bytes()
        if size_bytes > room_bytes:
            raise Problem(
                Code.DISK_FULL,
                f"{what} needs {size_bytes / 1e9:.2f} GB more on the disk, and there are {room_bytes / 1e9:.2f} GB.",
                f"Make room under {self.root} (`rockfill models rm` removes a model), or choose a smaller variant.",
                needed_bytes=size_bytes,
                room_bytes=room_bytes,
            )

    def part_bytes(self, slug: str) -> int:
        """How much of `slug` has gathered already."""
        directory = self.root / PARTIAL / slug
        return sum(_allocated_bytes(file) for file in directory.iterdir()) if directory.is_dir() else 0

    def _installed_in(self, directory: Path) -> tuple[InstalledFile, ...]:
        return self._manifest_in(directory)[1]

    def _manifest_in(self, directory: Path) -> tuple[dict[str, Any], tuple[InstalledFile, ...]]:
        if directory.parent != self.root or directory.is_symlink() or not directory.is_dir():
            raise _not_ours(directory)
        try:
            manifest = json.loads((directory / MANIFEST).read_bytes())
            files = decode(_Installed, manifest).files
            for file in files:
                check_file_name(file.name)
        except (OSError, ValueError, RecursionError, DecodeError, Problem):
            raise _not_ours(directory) from None
        if not files:
            raise _not_ours(directory)
        return manifest, files

    def _make_way(self, place: Path, over: Over) -> None:
        """For a later version of the same thing. What is not ours is in the way and stays there."""
        manifest, files = self._manifest_in(place)
        if not over(manifest):
            raise _there_already(place)
        ours = {MANIFEST, *(file.name for file in files)}
        if any(entry.name not in ours for entry in place.iterdir()):
            raise _not_ours(place)
        self.remove(place)


def wrong_files(directory: Path, files: tuple[InstalledFile, ...]) -> dict[str, str]:
    """Which of `files` are not what was installed, and why; reads them to the end."""
    found: dict[str, str] = {}
    for file in files:
        path = directory / check_file_name(file.name)
        try:
            size_bytes = path.stat().st_size
            if size_bytes != file.size_bytes:
                found[file.name] = f"has {size_bytes} bytes instead of {file.size_bytes}"
            elif digest_of(path, file) not in (file.sha256, file.blob_id):
                found[file.name] = "has other content"
        except FileNotFoundError:
            found[file.name] = "is missing"
        except OSError as error:
            found[file.name] = f"can't be read: {error.strerror}"
    return found


def digest_of(path: Path, file: InstalledFile) -> str:
    """The digest of what is at `path`, of the kind that `file` has."""
    digest = hashlib.sha256()
    if file.sha256 is None:
        digest = hashlib.sha1(b"blob %d\0" % file.size_bytes, usedforsecurity=False)
    with path.open("rb") as opened:
        while chunk := opened.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def slug_of(name: str) -> str:
    """A directory's name for a model's or a runtime's."""
    return re.sub(r"[^a-z0-9._]+", "-", name.lower()).strip("-._")[:120] or "model"


def as_value(manifest: Manifest) -> dict[str, Any]:
    """The manifest as it is written."""
    return asdict(manifest)


def _write(path: Path, value: object) -> None:
    write_atomically(path, json.dumps(value, indent=1).encode() + b"\n")


def _allocated_bytes(path: Path) -> int:
    status = path.lstat()
    return status.st_blocks * 512 if stat.S_ISREG(status.st_mode) else 0


def _refuse_link(directory: Path) -> None:
    if directory.is_symlink():
        raise Problem(
            Code.STATE_DIR_UNUSABLE, f"{directory} is a link, and not a directory of Rockfill's.", "Remove the link."
        )


def _there_already(directory: Path) -> Problem:
    return Problem(
        Code.NOT_REMOVABLE,
        f"There is something at {directory} already.",
        f"Choose another name, or move {directory} away if you do not need it.",
    )


def _not_ours(directory: Path) -> Problem:
    return Problem(
        Code.NOT_REMOVABLE,
        f"{directory.name} was not installed by Rockfill, or something else was put beside it.",
        f"Move {directory} away yourself if you do not need it.",
    )
