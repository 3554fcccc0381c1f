"""Fetching one file: resumable over restarts, verified, at a limited rate.

The bytes gather in ``NAME.part``; ``NAME.part.json`` beside it says for which content, and up to where they are on the
disk for certain. After a power cut a file may be longer than what was written, and zeros there: so only what is
recorded is believed, and the whole content is hashed before the file gets its name.

Redirects are followed here, not by the HTTP library: what the Hub may know (the token) is sent to its own origin only,
and every new attempt begins at the Hub, so that a signed address that has expired is simply asked for again.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import stat
import threading
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp
from yarl import URL

from rockfill.decode import DecodeError, decode
from rockfill.disk import refusals_told, sync_directory, write_atomically
from rockfill.errors import Code, Problem
from rockfill.hub.client import from_status, gated, unreachable
from rockfill.unbroken import to_the_end

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Self

log = logging.getLogger(__name__)


CHUNK_BYTES = 1 << 20
# What aiohttp holds when a connection breaks, it throws away: up to a megabyte was seen where the disk was slower.
BUFFER_BYTES = 64 << 10
SYNC_BYTES = 64 << 20
CREDIT_S = 0.25

MOST_REDIRECTS = 5
CONNECT_S = 15.0

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


@dataclass(frozen=True, slots=True)
class Content:
    """What a file must be: its sha256, or git's blob id of it; None where neither is known.

    `size_bytes` None takes what the server says.
    """

    size_bytes: int | None
    sha256: str | None = None
    blob_id: str | None = None

    @property
    def key(self) -> str:
        return self.sha256 or self.blob_id or ""


@dataclass(frozen=True, slots=True)
class Patience:
    """How often something is tried again without a byte gained in between, and how long the pauses grow."""

    attempts: int = 6
    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0
    longest_retry_after_s: float = 300.0
    silence_s: float = 30.0  # a server that says nothing for so long is given up, and asked anew

    def pause_s(self, fruitless: int) -> float:
        return min(self.longest_pause_s, self.first_pause_s * 2.0 ** (fruitless - 1))


class Progress(Protocol):
    def __call__(self, done_bytes: int) -> None:
        """So much of the file is here now."""
        ...


@dataclass(frozen=True, slots=True)
class _Record:
    """What stands in ``.part.json``."""

    key: str
    size_bytes: int
    synced_bytes: int


@dataclass(slots=True)
class Limit:
    """A rate that everything fetched through it shares; `bytes_per_s` 0 is none."""

    bytes_per_s: float
    _free_at_s: float = field(default=0.0)

    async def pass_(self, size_bytes: int) -> None:
        """Wait until `size_bytes` more may have come."""
        if self.bytes_per_s <= 0:
            return
        now_s = asyncio.get_running_loop().time()
        # What was not used lately may be made up for: between two waits time passes as well.
        since_s = max(self._free_at_s, now_s - CREDIT_S) if self._free_at_s else now_s
        self._free_at_s = since_s + size_bytes / self.bytes_per_s
        await asyncio.sleep(max(0.0, self._free_at_s - now_s))


class Transfer:
    """Fetches files from one origin and wherever that redirects to. Use it as an async context manager."""

    def __init__(
        self,
        origin: str,
        token: Callable[[], str | None] = lambda: None,
        *,
        limit: Limit | None = None,
        patience: Patience | None = None,
        sync_bytes: int = SYNC_BYTES,
    ) -> None:
        """`token` is sent to `origin` (scheme, host and port of an address) and nowhere else."""
        self._origin = URL(origin).origin()
        self._token = token
        self._limit = limit or Limit(0)
        self._patience = patience or Patience()
        self._sync_bytes = sync_bytes
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=self._patience.silence_s),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=BUFFER_BYTES,
            trust_env=True,  # HTTPS_PROXY and its like
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def fetch(self, address: str, target: Path, content: Content, progress: Progress = lambda _: None) -> None:
        """Have the content of `address` in `target`, whose directory must exist; an existing file is replaced.

        Goes on where an earlier call for the same content ended. Raises a problem of the hub family, `disk_full` or
        `state_dir_unusable`; what came is kept for the next call, unless it was proven wrong (`download_corrupt`).
        """
        part = await _opened(target, content, self._sync_bytes)
        try:
            await self._fill(part, address, progress)
            await to_the_end(asyncio.to_thread(part.finish))
        finally:
            await to_the_end(asyncio.to_thread(part.close))

    async def _fill(self, part: _Part, address: str, progress: Progress) -> None:
        progress(part.done_bytes)
        fruitless = 0
        while part.missing_bytes != 0:
            before = part.done_bytes
            failure = await self._attempt(part, address, progress)
            if failure is None:
                continue
            fruitless = 1 if part.done_bytes > before else fruitless + 1
            asked_s = failure.detail.get("retry_after_s", 0)
            if fruitless >= self._patience.attempts or asked_s > self._patience.longest_retry_after_s:
                raise failure
            pause_s = max(self._patience.pause_s(fruitless), asked_s)
            log.info("%s Trying again in %.1f s.", failure.message, pause_s)
            await asyncio.sleep(pause_s)

    async def _attempt(self, part: _Part, address: str, progress: Progress) -> Problem | None:
        """Ask once and take what comes. Returns why that was not all, where another attempt may help, else raises."""
        try:
            async with contextlib.AsyncExitStack() as stack:
                response = await self._ask(stack, part, URL(address, encoded=True))
                await self._take(response, part, progress)
        except _Again as again:
            return again.problem
        except aiohttp.ClientPayloadError:
            pass
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            return unreachable(_origin(address), error)
        if part.missing_bytes == 0:
            return None
        return unreachable(_origin(address), ConnectionError("the connection ended early"))

    async def _take(self, response: aiohttp.ClientResponse, part: _Part, progress: Progress) -> None:
        """Write what comes, while more comes. Whatever ends it, what has come is written."""
        skip = _check_range(response, part)
        writer = _Writer(part, progress)
        try:
            async for chunk in response.content.iter_any():
                wanted = memoryview(chunk)[skip:]  # a server without ranges begins at the beginning; we do not
                skip = max(0, skip - len(chunk))
                writer.gather(wanted)
                if writer.gathered_bytes >= CHUNK_BYTES:
                    await self._limit.pass_(writer.gathered_bytes)
                    await writer.flush()
        finally:
            await to_the_end(writer.end())

    async def _ask(self, stack: contextlib.AsyncExitStack, part: _Part, url: URL) -> aiohttp.ClientResponse:
        """The response with the content, past all redirects. Raises `_Again` for what time may mend, or a `Problem`."""
        assert self._session is not None
        for _ in range(MOST_REDIRECTS + 1):
            headers = {"Accept-Encoding": "identity", "User-Agent": "rockfill"}
            ours = url.origin() == self._origin
            token = self._token()
            if ours and token:
                headers["Authorization"] = f"Bearer {token}"
            if part.done_bytes:
                headers["Range"] = f"bytes={part.done_bytes}-"
            response = await stack.enter_async_context(
                self._session.get(url, headers=headers, allow_redirects=False, raise_for_status=False)
            )
            if ours:
                _check_unchanged(response, part)
            if response.status in (301, 302, 303, 307, 308):
                url = _redirected(url, response)
                continue
            _check_status(response, part, ours=ours, has_token=bool(token))
            return response
        raise Problem(Code.HUB_FAILED, f"{self._origin} redirects without end.", "Check [hub] endpoint.")


class _Writer:
    """Writes in a thread, a chunk behind what is being gathered."""

    def __init__(self, part: _Part, progress: Progress) -> None:
        self._part = part
        self._progress = progress
        self._gathered: list[memoryview] = []
        self._writing: asyncio.Future[None] | None = None
        self.gathered_bytes = 0

    def gather(self, data: memoryview) -> None:
        if data:
            self._gathered.append(data)
            self.gathered_bytes += len(data)

    async def flush(self) -> None:
        """Begin to write what was gathered, once what was before is written."""
        await self._written()
        if self._gathered:
            self._writing = asyncio.ensure_future(asyncio.to_thread(self._part.write, self._gathered))
            self._gathered, self.gathered_bytes = [], 0

    async def end(self) -> None:
        """Write everything. To be waited for to its end, whatever happens: the file is closed next."""
        await self.flush()
        await self._written()

    async def _written(self) -> None:
        if self._writing is None:
            return
        await asyncio.wait([self._writing])  # shielded: a thread can't be called back
        writing, self._writing = self._writing, None
        writing.result()
        self._progress(self._part.done_bytes)


class _Again(Exception):  # noqa: N818 - not an error: the next attempt may well succeed
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def _origin(address: str) -> str:
    return str(URL(address, encoded=True).origin())


def _redirected(url: URL, response: aiohttp.ClientResponse) -> URL:
    location = response.headers.get("Location", "")
    with contextlib.suppress(ValueError):
        target = url.join(URL(location, encoded=True))
        if location and target.host and target.scheme in ("https", url.scheme):
            return target
    raise Problem(Code.HUB_FAILED, f"{url.origin()} redirects to no safe address.", "Check [hub] endpoint.")


def _check_unchanged(response: aiohttp.ClientResponse, part: _Part) -> None:
    """The Hub says what it would send; a file that was changed since we were told is not worth fetching."""
    etag = response.headers.get("X-Linked-Etag") or response.headers.get("ETag") or ""
    told = etag.removeprefix("W/").strip('"')
    known = [digest for digest in (part.content.sha256, part.content.blob_id) if digest]
    if response.status < 400 and known and re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", told) and told not in known:
        raise _changed(part)


def _changed(part: _Part) -> Problem:
    return Problem(
        Code.DOWNLOAD_CORRUPT,
        f"{part.name} was changed at its source meanwhile.",
        "Fetch it again: that begins with what is there now.",
    )


def _check_status(response: aiohttp.ClientResponse, part: _Part, *, ours: bool, has_token: bool) -> None:
    status = response.status
    where = str(response.url.origin())
    if status in (200, 206):
        return
    if status == 416:
        raise _changed(part)
    if ours and (response.headers.get("X-Error-Code") == "GatedRepo" or status == 403):
        repository = "/".join(response.url.path.split("/")[1:3])
        raise gated(repository, f"{where}/{repository}", has_token=has_token)
    if ours and status == 404:
        raise Problem(
            Code.VARIANT_NOT_FOUND, f"{part.name} is not there any more.", "Look what is: `rockfill models variants`."
        )
    problem = from_status(status, response.headers.get("Retry-After"), where)
    # Elsewhere a 401, 403 or 404 is a signed address that has expired: the Hub gives a fresh one.
    raise _Again(problem) if not ours or status in (408, 425, 429) or status >= 500 else problem


def _check_range(response: aiohttp.ClientResponse, part: _Part) -> int:
    """How many bytes to skip: what comes may begin before what we want."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise _Again(
            Problem(Code.HUB_FAILED, f"{_origin(str(response.url))} sends the file packed.", "Try again later.")
        )
    if response.status == 206:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != part.done_bytes:
            raise _Again(
                Problem(Code.HUB_FAILED, f"{part.name}: another part was sent than asked.", "Try again later.")
            )
        part.expect(int(match[3]) if match[3] != "*" else None)
        return 0
    part.expect(response.content_length)
    return part.done_bytes


class _Part:
    """The ``.part`` of one file. Everything here blocks."""

    def __init__(self, target: Path, content: Content, fd: int, sync_bytes: int) -> None:
        self.content = content
        self.name = target.name
        self.done_bytes = 0
        self.size_bytes = content.size_bytes
        self._target = target
        self._path, self._record_path = _paths(target)
        self._fd = fd
        self._sync_bytes = sync_bytes
        self._synced_bytes = 0
        self._digest = hashlib.sha256()

    @classmethod
    def open(cls, target: Path, content: Content, sync_bytes: int, given_up: threading.Event) -> Self:
        """The part as far as it can be believed, read once to hash it, unless that is `given_up`."""
        path, _ = _paths(target)
        with refusals_told(target.parent):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            part = cls(target, content, fd, sync_bytes)
            try:
                part._take_up(given_up)
            except BaseException:
                os.close(fd)
                raise
        return part

    @property
    def missing_bytes(self) -> int | None:
        """How many are still to come; None while nobody has said how long the file is."""
        return None if self.size_bytes is None else self.size_bytes - self.done_bytes

    def expect(self, size_bytes: int | None) -> None:
        """The server says how long the file is."""
        if size_bytes is None:
            return
        if self.size_bytes is None:
            self.size_bytes = size_bytes
            self._digest = self._fresh_digest()
        elif self.size_bytes != size_bytes:
            raise _changed(self)

    def write(self, pieces: list[memoryview]) -> None:
        if self.size_bytes is None:
            raise _Again(Problem(Code.HUB_FAILED, f"The server does not say how long {self.name} is.", "Try later."))
        for piece in pieces:
            if self.done_bytes + len(piece) > self.size_bytes:
                self.discard()
                raise Problem(
                    Code.DOWNLOAD_CORRUPT,
                    f"More came for {self.name} than it has.",
                    "Fetch it again; if that does not help, something between (a proxy) changes what is sent.",
                )
            with refusals_told(self._target.parent):
                _write_all(self._fd, piece)
            self._digest.update(piece)
            self.done_bytes += len(piece)
        if self.done_bytes - self._synced_bytes >= self._sync_bytes:
            self.sync()

    def sync(self) -> None:
        """Have everything so far on the disk, and say so beside it."""
        if self.size_bytes is None or self.done_bytes == self._synced_bytes:
            return
        with refusals_told(self._target.parent):
            os.fsync(self._fd)
            record = _Record(self.content.key, self.size_bytes, self.done_bytes)
            write_atomically(self._record_path, json.dumps(asdict(record)).encode())
        self._synced_bytes = self.done_bytes

    def finish(self) -> None:
        """Verify the content and give the file its name."""
        if self._digest.hexdigest() != self.content.key and self.content.key:
            self.discard()
            raise Problem(
                Code.DOWNLOAD_CORRUPT,
                f"What came for {self.name} is not what it should be: its digest is wrong.",
                "It was thrown away. Fetch it again; if that does not help, something between (a proxy) changes it.",
                expected=self.content.key,
                got=self._digest.hexdigest(),
            )
        with refusals_told(self._target.parent):
            os.fsync(self._fd)
            self._path.replace(self._target)
            self._record_path.unlink(missing_ok=True)
            sync_directory(self._target.parent)

    def discard(self) -> None:
        """Begin anew the next time."""
        self.done_bytes = self._synced_bytes = 0
        with refusals_told(self._target.parent):
            self._record_path.unlink(missing_ok=True)
            os.ftruncate(self._fd, 0)

    def close(self) -> None:
        try:
            with contextlib.suppress(Problem):  # what is not recorded is fetched again
                if self._path.exists():
                    self.sync()
        finally:
            os.close(self._fd)

    def abandon(self) -> None:
        """Close it as it is."""
        os.close(self._fd)

    def _take_up(self, given_up: threading.Event) -> None:
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            raise OSError(errno.EINVAL, "not a file")
        record = _read_record(self._record_path)
        length = os.fstat(self._fd).st_size
        ours = record is not None and record.key == self.content.key and bool(self.content.key)
        if record is not None and ours and self.content.size_bytes in (None, record.size_bytes):
            self.size_bytes = record.size_bytes
            self._synced_bytes = min(record.synced_bytes, length, record.size_bytes)
        os.ftruncate(self._fd, self._synced_bytes)
        self._digest = self._fresh_digest()
        while self.done_bytes < self._synced_bytes and not given_up.is_set():
            chunk = os.read(self._fd, min(CHUNK_BYTES, self._synced_bytes - self.done_bytes))
            if not chunk:
                raise OSError(errno.EIO, "the file became shorter")
            self._digest.update(chunk)
            self.done_bytes += len(chunk)

    def _fresh_digest(self) -> Any:
        if self.content.sha256 is not None or self.content.blob_id is None:
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % (self.size_bytes or 0), usedforsecurity=False)


def _paths(target: Path) -> tuple[Path, Path]:
    return target.with_name(f"{target.name}.part"), target.with_name(f"{target.name}.part.json")


def _read_record(path: Path) -> _Record | None:
    try:
        record = decode(_Record, json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError, DecodeError):
        return None
    return record if 0 <= record.synced_bytes <= record.size_bytes else None


def _write_all(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]


async def _opened(target: Path, content: Content, sync_bytes: int) -> _Part:
    """The part, or nothing open at all: hashing gigabytes takes a while, in which this may well be cancelled."""
    given_up = threading.Event()
    opening = asyncio.ensure_future(asyncio.to_thread(_Part.open, target, content, sync_bytes, given_up))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        given_up.set()
        await asyncio.wait([opening])
        if opening.exception() is None:
            await asyncio.to_thread(opening.result().abandon)
        raise
