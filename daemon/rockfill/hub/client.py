"""What a repository on the Hub holds, under which licence, and whether we may have it.

`huggingface_hub` asks, since it knows the Hub's answers; it is imported at the first question, as it takes 10 MB. It
blocks, so every question runs in a thread.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from rockfill.compat.variants import RepoFile
from rockfill.errors import Code, Problem

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DEFAULT_ENDPOINT = "https://huggingface.co"
ASK_TIMEOUT_S = 20.0  # for each of connecting and reading
PATIENCE_S = 60.0  # for all of it: name service and proxy have no limit of their own

_T = TypeVar("_T")

_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Licence:
    """`id` is as the Hub names it ("gemma", "apache-2.0", "other"), "" where the repository states none."""

    id: str = ""
    name: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at one commit. `gated` says that the Hub asks everybody to accept terms first."""

    name: str
    commit: str
    files: tuple[RepoFile, ...]
    licence: Licence
    gated: bool
    base_model: str | None = None

    def file(self, path: str) -> RepoFile | None:
        return next((file for file in self.files if file.path == path), None)


class _OneSession:
    """`huggingface_hub` has one session for all, which would keep its connections open.

    It is closed behind the last question: one that nobody waits for any more may still be under way beside another.
    """

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._questions = 0

    def __enter__(self) -> None:
        with self._changing:
            self._questions += 1

    def __exit__(self, *exc: object) -> None:
        from huggingface_hub import close_session

        with self._changing:
            self._questions -= 1
            if not self._questions:
                close_session()


_one_session = _OneSession()


class Hub:
    """One Hub. `token` is asked for at every question, as it may change meanwhile."""

    def __init__(self, endpoint: str, token: Callable[[], str | None], cache: Path) -> None:
        """`cache` is a directory of ours, so that nothing is read from or written to the user's own."""
        self.endpoint = endpoint.rstrip("/")
        self._token = token
        self._cache = cache
        self._one_at_a_time = asyncio.Lock()

    @property
    def token(self) -> str | None:
        return self._token()

    async def repository(self, name: str, revision: str | None = None) -> Repository:
        """What the repository holds at `revision`, a branch, tag or commit (None: its main branch).

        Raises `invalid_value`, `repository_not_found`, `hub_gated`, `hub_rate_limited`, `hub_unreachable` or
        `hub_failed`.
        """
        check_name(name)
        return await self._in_thread(self._ask, name, revision)

    async def whoami(self, token: str) -> str:
        """The account that `token` belongs to; `unauthorized` if the Hub does not know it."""
        return await self._in_thread(self._whoami, token)

    def address(self, repository: str, commit: str, path: str) -> str:
        """Where a file's content is; may redirect to another host."""
        return f"{self.endpoint}/{repository}/resolve/{commit}/{quote(path)}"

    def page(self, repository: str) -> str:
        """The repository's page for people."""
        return f"{self.endpoint}/{repository}"

    async def _in_thread(self, ask: Callable[..., _T], *arguments: object) -> _T:
        try:
            async with asyncio.timeout(PATIENCE_S), self._one_at_a_time:
                return await asyncio.to_thread(self._and_hang_up, ask, *arguments)
        except TimeoutError as error:
            raise unreachable(self.endpoint, error) from None

    # ---- in a thread

    def _and_hang_up(self, ask: Callable[..., _T], *arguments: object) -> _T:
        # Without these it asks other addresses too, and keeps files in the user's directory. Read at the first import.
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        os.environ["HF_HOME"] = str(self._cache)
        with _one_session:
            return ask(*arguments)

    def _api(self) -> Any:
        from huggingface_hub import HfApi

        return HfApi(endpoint=self.endpoint, token=self._token() or False)

    def _ask(self, name: str, revision: str | None) -> Repository:
        api = self._api()
        try:
            info = api.model_info(name, revision=revision, files_metadata=True, timeout=ASK_TIMEOUT_S)
            return _repository(name, info)
        except _raised_by_the_hub() as error:
            raise self._problem(error, name, revision) from None

    def _whoami(self, token: str) -> str:
        api = self._api()
        try:
            return str(api.whoami(token=token)["name"])
        except _raised_by_the_hub() as error:
            problem = self._problem(error, "", None)
            raise _unknown_token() if problem.code is Code.REPOSITORY_NOT_FOUND else problem from None

    def _problem(self, error: Exception, name: str, revision: str | None) -> Problem:
        """The problem behind what `huggingface_hub` raised."""
        import httpx2
        from huggingface_hub import errors

        page = self.page(name)
        match error:
            case errors.GatedRepoError():
                return gated(name, page, has_token=self._token() is not None)
            case errors.RevisionNotFoundError():
                return Problem(
                    Code.REPOSITORY_NOT_FOUND,
                    f'{name} has no revision "{revision}".',
                    "Leave the revision out to take the newest.",
                )
            case errors.RepositoryNotFoundError() | errors.HFValidationError():
                return Problem(
                    Code.REPOSITORY_NOT_FOUND,
                    f"There is no repository {name}, or it is private.",
                    f"Look at {page}; for a private one give a token with `rockfill hub login`.",
                )
            case errors.HfHubHTTPError():
                return from_status(error.response.status_code, error.response.headers.get("Retry-After"), self.endpoint)
            case httpx2.HTTPError() | OSError():
                return unreachable(self.endpoint, error)
            case _:  # JSON that is none, or of another shape
                return Problem(
                    Code.HUB_FAILED,
                    f"{self.endpoint} answered what the Hub does not answer.",
                    "Check [hub] endpoint, and whether something between (a proxy, a login page) answers in its place.",
                )


def _raised_by_the_hub() -> tuple[type[Exception], ...]:
    """What `huggingface_hub` raises for whatever the Hub, or something in its place, answers or does not."""
    import httpx2
    from huggingface_hub import errors

    shapes = (ValueError, TypeError, KeyError, AttributeError)
    return (errors.HfHubHTTPError, errors.HFValidationError, httpx2.HTTPError, OSError, *shapes)


def check_name(name: str) -> None:
    """`invalid_value` unless `name` can be a repository's: it becomes part of addresses and paths."""
    if not _REPOSITORY.fullmatch(name) or ".." in name or "--" in name:
        raise Problem(
            Code.INVALID_VALUE,
            f'"{name[:200]}" is no name of a repository.',
            "Write it like c01zaut/codegemma-2b-rk3588-1.1.2, or take a name of `rockfill models catalogue`.",
        )


def gated(name: str, page: str, *, has_token: bool) -> Problem:
    """Whoever asks has not accepted the repository's terms, or did not say who they are."""
    then = "then try again" if has_token else "then give a token of that account with `rockfill hub login`"
    return Problem(
        Code.HUB_GATED,
        f"{name} is given only to those who have accepted its terms.",
        f"Accept them at {page}, {then}.",
        page=page,
        has_token=has_token,
    )


def from_status(status: int, retry_after: str | None, where: str) -> Problem:
    """The problem behind an HTTP status that is an error."""
    if status == 401:
        return _unknown_token()
    if status == 429:
        seconds = int(retry_after) if retry_after and retry_after.isdigit() else 60
        return Problem(
            Code.HUB_RATE_LIMITED,
            f"{where} has had too many requests from here.",
            f"Try again in {seconds} s; a token (`rockfill hub login`) raises the limit.",
            retry_after_s=seconds,
        )
    return Problem(
        Code.HUB_FAILED,
        f"{where} answered with HTTP {status}.",
        "Try again later." if status >= 500 else "Check the address and the token.",
        status=status,
    )


def unreachable(where: str, error: BaseException) -> Problem:
    """`where` did not answer; says which step failed."""
    cause = getattr(error, "os_error", error)  # aiohttp's own text is for programmers
    said = getattr(cause, "strerror", None) or str(cause).strip() or type(cause).__name__
    return Problem(
        Code.HUB_UNREACHABLE,
        f"{where} can't be reached: {said}.",
        "Check the network and the name service; behind a proxy set HTTPS_PROXY. What is here already is kept.",
    )


def _unknown_token() -> Problem:
    return Problem(
        Code.UNAUTHORIZED, "The Hub does not know that token.", "Give a new one: `rockfill hub login`, or HF_TOKEN."
    )


def _repository(name: str, info: Any) -> Repository:
    if not _COMMIT.fullmatch(info.sha or ""):
        raise Problem(Code.HUB_FAILED, f"The Hub does not say which commit of {name} this is.", "Try again later.")
    files = []
    for sibling in info.siblings or ():
        lfs = sibling.lfs
        size = lfs.size if lfs is not None else sibling.size
        files.append(RepoFile(sibling.rfilename, size, lfs.sha256 if lfs is not None else None, sibling.blob_id))
    return Repository(name, info.sha, tuple(files), _licence(info), bool(info.gated), _base_model(info))


def _licence(info: Any) -> Licence:
    card = info.card_data
    values = {key: card.get(key) for key in ("license", "license_name", "license_link")} if card is not None else {}
    identifier, name, link = (
        (value if isinstance(value, str) else "" for value in values.values()) if values else ("",) * 3
    )
    if not identifier:
        tags = (tag.removeprefix("license:") for tag in info.tags or () if tag.startswith("license:"))
        identifier = next(tags, "")
    return Licence(identifier, name, link if link.startswith("https://") else "")


def _base_model(info: Any) -> str | None:
    base = info.card_data.get("base_model") if info.card_data is not None else None
    base = base[0] if isinstance(base, list) and base else base
    return base if isinstance(base, str) and _REPOSITORY.fullmatch(base) else None
