"""Carries a lease out on the kernel's files, and keeps it written down so that it outlives a crash.

The record names the boot: after another one everything is as the kernel sets it, and an old record means nothing.
Everything here may hang in the kernel, and runs in a thread of its own.
"""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from rockfill.clocks.lease import Hold, Lease, Readings, base, is_minimum, maximum_of, plan, settled
from rockfill.decode import DecodeError, decode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Files(Protocol):
    """The kernel's files, by their path below the root."""

    def read(self, file: str) -> str | None: ...

    def write(self, file: str, value: str) -> None:
        """Raises OSError."""
        ...


class Record(Protocol):
    """Where the lease is written down."""

    def clocks(self) -> Any:
        """What was written last, None if nothing is."""
        ...

    def keep_clocks(self, value: Mapping[str, Any] | None) -> None:
        """Write it down for good before returning; None takes it away. Raises `Problem`."""
        ...


@dataclass(frozen=True, slots=True)
class _Stored:
    boot_id: str
    holds: dict[str, Hold] = field(default_factory=dict)


class Keeper:
    """The one holder of the lease."""

    def __init__(self, files: Files, record: Record, boot_id: Callable[[], str | None]) -> None:
        self._files = files
        self._record = record
        self._boot_id = boot_id
        self._abandoned = threading.Event()
        self.lease = Lease()
        self._written: Mapping[str, Hold] = {}
        self.refused: dict[str, str] = {}  # files that could not be written, and why

    def take_over(self) -> None:
        """Take up the lease of an earlier process of this boot, so that `give_back` gives it back."""
        try:
            stored = decode(_Stored, self._record.clocks())
        except DecodeError:
            return  # none, or of a release that wrote it otherwise
        if stored.boot_id == self._boot_id():
            self.lease, self._written = Lease(stored.holds), stored.holds
        else:
            self._record.keep_clocks(None)

    def give_back(self) -> None:
        """All files hold what they held before, or what somebody else has set."""
        self.set(lambda _: {}, [])

    def set(self, wanted: Callable[[Readings], Mapping[str, str]], files: list[str]) -> None:
        """Have `files` hold what `wanted` says, given what they would hold without us, and give back all others.

        A file that can't be written is in `refused` afterwards, with the reason.
        """
        self._abandoned = abandoned = threading.Event()
        looked_at = [*files, *self.lease.holds, *map(maximum_of, filter(is_minimum, self.lease.holds))]
        readings = {file: self._files.read(file) for file in dict.fromkeys(looked_at)}
        target = wanted(base(self.lease, readings))
        boot_id = self._boot_id()
        if target and boot_id is None:
            self.refused = dict.fromkeys(target, "the kernel's boot_id can't be read")
            return
        lease, writes = plan(self.lease, readings, target)
        if not all(write.back for write in writes):  # to give back needs no new record, and works on a full disk
            self._keep(lease, boot_id)
        refused: dict[str, str] = {}
        for write in writes:
            if abandoned.is_set():  # it hung, and somebody else has taken over meanwhile
                return
            try:
                self._files.write(write.file, write.value)
            except OSError as error:
                refused[write.file] = error.strerror or str(error)
            if abandoned.is_set():
                return
            lease = settled(lease, write, self._files.read(write.file))
        self._keep(lease, boot_id)
        self.refused = refused

    def abandon(self) -> None:
        """The last call has not returned in time; when it does, it is to touch nothing more."""
        self._abandoned.set()

    def _keep(self, lease: Lease, boot_id: str | None) -> None:
        """Write it down if that changes anything, the memory of it last: what fails to be written is not begun."""
        if lease.holds != self._written:
            holds = {file: asdict(hold) for file, hold in lease.holds.items()}
            self._record.keep_clocks({"boot_id": boot_id, "holds": holds} if holds else None)
            self._written = lease.holds
        self.lease = lease
