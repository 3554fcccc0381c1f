"""The state directory: the only place that Rockfill writes to, and this module its only writer of settings.

``lock`` is held by the one process that owns the directory, ``token`` is the primary token, ``state.json`` holds
what people chose. Every write is atomic: a power cut leaves the old file or the new one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import threading
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rockfill.decode import DecodeError, decode
from rockfill.disk import write_atomically
from rockfill.errors import Code, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import Self

STATE_VERSION = 1


@dataclass(frozen=True, slots=True)
class Wanted:
    """A variant that was chosen and may still have to be fetched: a file of a repository at a revision.

    `reference` is how it was asked for; `forced` that it was wanted against advice. `tokenizer` names the repository
    whose tokenizer goes with it, None for whichever is found.
    """

    reference: str
    repository: str
    file: str
    revision: str | None = None
    forced: bool = False
    tokenizer: str | None = None


@dataclass(frozen=True, slots=True)
class Choices:
    """What people chose; None where nobody chose yet.

    `model` is the name of the model to run, `wanted` the variant to fetch and then run in its place, `runtime` the
    version of Rockchip's runtime to run models with, whatever they were made for. `clock_policy` and `fixed_mhz` are
    those of `clocks.set`.
    """

    version: int = STATE_VERSION
    model: str | None = None
    wanted: Wanted | None = None
    runtime: str | None = None
    clock_policy: str | None = None
    fixed_mhz: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Somebody accepted a licence: `licence` as the Hub names it, for `repository` or its like, at `when_s`."""

    key: str
    licence: str
    repository: str
    when_s: int


@dataclass(frozen=True, slots=True)
class _Acceptances:
    accepted: tuple[Acceptance, ...] = ()


@dataclass(frozen=True, slots=True)
class _Version:
    """What is read first: a newer version may have given any other field another shape."""

    version: int = STATE_VERSION


class StateDir:
    """A state directory that this process has locked. Use it as a context manager."""

    def __init__(self, path: Path, lock_fd: int) -> None:
        self.path = path
        self._lock_fd = lock_fd
        self._selftests: dict[str, Any] | None = None
        self._changing = threading.RLock()
        self._hub_token: str | None = None  # "" for none

    @classmethod
    def acquire(cls, path: Path) -> Self:
        """Make the directory if need be, check that it can be written, and lock it.

        Raises `state_dir_unusable`, or `already_running` where another process holds it.
        """
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock_fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(path, error) from None
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(lock_fd, 64, 0).decode("ascii", "replace").partition("\n")[0]
            os.close(lock_fd)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise _unusable(path, error) from None
            who = f" (process {holder})" if holder else ""
            raise Problem(
                Code.ALREADY_RUNNING,
                f"Another Rockfill{who} is using the state directory {path}.",
                "Stop it, or give this one a directory of its own with --state-dir.",
            ) from None
        try:
            os.ftruncate(lock_fd, 0)
            os.pwrite(lock_fd, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            os.close(lock_fd)
            raise _unusable(path, error) from None
        return cls(path, lock_fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._lock_fd)  # which unlocks it

    def announce(self, url: str) -> None:
        """Say beside the lock at which address this process answers; `read_address` finds it."""
        # Not emptied first: whoever reads meanwhile is to find who holds it.
        content = f"{os.getpid()}\n{url}\n".encode()
        os.pwrite(self._lock_fd, content, 0)
        os.ftruncate(self._lock_fd, len(content))

    def token(self) -> str:
        """The primary token, made at the first call ever."""
        existing = read_token(self.path)
        if existing:
            return existing
        token = secrets.token_urlsafe(24)
        _write_atomically(self.path / "token", f"{token}\n".encode())
        return token

    def choices(self) -> Choices:
        """What was chosen before; defaults where nothing was.

        A file that can't be read is set aside as ``state.json.broken`` and never overwritten; one from a newer
        Rockfill is refused.
        """
        path = self.path / "state.json"
        try:
            value = json.loads(path.read_bytes())
            version = decode(_Version, value).version
            choices = decode(Choices, value) if version <= STATE_VERSION else Choices(version)
        except FileNotFoundError:
            return Choices()
        except (ValueError, RecursionError, DecodeError):
            with contextlib.suppress(OSError):
                path.rename(path.with_name("state.json.broken"))
            return Choices()
        except OSError as error:
            raise _unusable(self.path, error) from None
        if choices.version > STATE_VERSION:
            raise Problem(
                Code.STATE_TOO_NEW,
                f"{path} was written by a newer Rockfill (version {choices.version}, this one knows {STATE_VERSION}).",
                "Upgrade Rockfill, or move that file away to start with the defaults.",
            )
        return choices

    def selftests(self) -> dict[str, Any]:
        """The stored selftest results by key, as they were given to `keep_selftest`. Read from disk once."""
        found = self._selftests
        if found is None:
            with self._changing:
                if self._selftests is None:
                    self._selftests = self._read_selftests()
                found = self._selftests
        return found

    def _read_selftests(self) -> dict[str, Any]:
        try:
            value = json.loads((self.path / "selftests.json").read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}  # they can be made again
        return value if isinstance(value, dict) else {}

    def keep_selftest(self, key: str, result: Mapping[str, Any]) -> None:
        """Store a selftest's result."""
        with self._changing:
            kept = {**self.selftests(), key: dict(result)}
            _write_atomically(self.path / "selftests.json", json.dumps(kept, indent=1).encode() + b"\n")
            self._selftests = kept

    def tokens(self) -> list[Any]:
        """The named tokens, as they were given to `keep_tokens`. None if they can't be read, so that nobody gets in."""
        try:
            value = json.loads((self.path / "tokens.json").read_bytes())
        except (OSError, ValueError, RecursionError):
            return []
        return value if isinstance(value, list) else []

    def keep_tokens(self, tokens: Callable[[], Sequence[Any]]) -> None:
        """Store the named tokens, asked for only when it is our turn: whoever writes last then has the newest."""
        with self._changing:
            _write_atomically(self.path / "tokens.json", json.dumps(tokens(), indent=1).encode() + b"\n")

    def history(self) -> list[Any]:
        """The stored lifecycle events, as they were given to `keep_history`."""
        return self._stored_list("history.json")

    def keep_history(self, events: Callable[[], Sequence[Any]]) -> None:
        """Store the lifecycle events, asked for likewise."""
        with self._changing:
            text = json.dumps(events(), separators=(",", ":"))
            _write_atomically(self.path / "history.json", text.encode() + b"\n")

    def evaluations(self) -> list[Any]:
        """The stored results of evaluations, as they were given to `keep_evaluations`."""
        return self._stored_list("evaluations.json")

    def keep_evaluations(self, results: Callable[[], Sequence[Any]]) -> None:
        """Store the results of evaluations, asked for likewise."""
        with self._changing:
            _write_atomically(self.path / "evaluations.json", json.dumps(results(), indent=1).encode() + b"\n")

    def _stored_list(self, name: str) -> list[Any]:
        """A list that can be made again: where it can't be read it is empty."""
        try:
            value = json.loads((self.path / name).read_bytes())
        except (OSError, ValueError, RecursionError):
            return []
        return value if isinstance(value, list) else []

    def clocks(self) -> Any:
        """What `keep_clocks` stored last, None if there is nothing."""
        try:
            return json.loads((self.path / "clocks.json").read_bytes())
        except (OSError, ValueError, RecursionError):
            return None

    def keep_clocks(self, value: Mapping[str, Any] | None) -> None:
        """Store which clocks are held and what they were before; None once they are given back."""
        path = self.path / "clocks.json"
        if value is not None:
            _write_atomically(path, json.dumps(value, indent=1).encode() + b"\n")
            return
        try:
            path.unlink(missing_ok=True)  # if a power cut undoes this, the next boot's id says that it is old
        except OSError as error:
            raise _unusable(self.path, error) from None

    def worker(self) -> Any:
        """What `keep_worker` stored last, None if there is nothing."""
        try:
            return json.loads((self.path / "worker.json").read_bytes())
        except (OSError, ValueError, RecursionError):
            return None

    def keep_worker(self, value: Mapping[str, Any] | None) -> None:
        """Store which process is the engine's; None once it is gone. Not synced to the disk: a boot forgets it."""
        path = self.path / "worker.json"
        with contextlib.suppress(OSError):  # a full disk is no reason to have no engine
            if value is None:
                path.unlink(missing_ok=True)
            else:
                path.write_text(json.dumps(value))

    def choose(self, choices: Choices) -> None:
        """Write `choices` down."""
        _write_atomically(self.path / "state.json", json.dumps(asdict(choices), indent=1).encode() + b"\n")

    def change(self, **changes: Any) -> None:
        """Choose anew what `changes` names, a field of `Choices` each, and leave the rest as it was chosen."""
        with self._changing:
            self.choose(replace(self.choices(), **changes))

    def acceptances(self) -> tuple[Acceptance, ...]:
        """The licences that were accepted here."""
        try:
            value = json.loads((self.path / "licences.json").read_bytes())
            return decode(_Acceptances, value).accepted
        except (OSError, ValueError, RecursionError, DecodeError):
            return ()  # not there, or spoilt: then they are asked for once more

    def accept(self, acceptance: Acceptance) -> None:
        """Write down that a licence was accepted."""
        with self._changing:
            others = [one for one in self.acceptances() if one.key != acceptance.key]
            value = asdict(_Acceptances((*others, acceptance)))
            _write_atomically(self.path / "licences.json", json.dumps(value, indent=1).encode() + b"\n")

    def hub_token(self) -> str | None:
        """The token for the Hub that was stored here, None if there is none. Read from disk once."""
        if self._hub_token is None:
            with self._changing:
                self._hub_token = self._read_hub_token()
        return self._hub_token or None

    def _read_hub_token(self) -> str:
        try:
            return (self.path / "hub-token").read_text("ascii").strip()
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            raise Problem(
                Code.FILE_UNREADABLE,
                f"The Hub's token in {self.path} can't be read: {error}.",
                "Store it again: `rockfill hub login`.",
            ) from None

    def keep_hub_token(self, token: str | None) -> None:
        """Store a token for the Hub, readable by this user only; None forgets the one that is stored."""
        path = self.path / "hub-token"
        with self._changing:
            if token is not None:
                _write_atomically(path, f"{token}\n".encode())
            else:
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    raise _unusable(self.path, error) from None
            self._hub_token = token or ""


def read_token(path: Path) -> str | None:
    """The primary token in the state directory `path`, or None if there is none yet."""
    try:
        return (path / "token").read_text("ascii").strip() or None
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Problem(
            Code.FILE_UNREADABLE,
            f"The token in {path} can't be read: {error.strerror if isinstance(error, OSError) else 'not ASCII'}.",
            "Run this as the user that the service runs as, or with sudo.",
        ) from None


def read_address(path: Path) -> str | None:
    """Where the daemon answers that has, or last had, the state directory `path`; None if none said so."""
    try:
        lines = (path / "lock").read_text("ascii", "replace").splitlines()
    except OSError:
        return None
    return lines[1] if len(lines) > 1 else None


_writing = threading.Lock()  # threads write too, and share the temporary name


def _write_atomically(path: Path, content: bytes) -> None:
    try:
        with _writing:
            write_atomically(path, content, 0o600)
    except OSError as error:
        raise _unusable(path.parent, error) from None


def _unusable(path: Path, error: OSError) -> Problem:
    return Problem(
        Code.STATE_DIR_UNUSABLE,
        f"The state directory {path} can't be used: {error.strerror}.",
        "Give the user that runs Rockfill write access to it and room on its disk, or choose another with --state-dir.",
    )
