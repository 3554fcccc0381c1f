"""Tokens and page sessions. Pure but for the clock and the random numbers that it is given."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

from rockfill.decode import DecodeError, MaxLength, decode
from rockfill.errors import Code, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SESSION_S = 30 * 24 * 3600

MOST_TOKENS = 256
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Scope(StrEnum):
    """What a token may be good for. The primary token is good for all."""

    READ = "read"
    COMPLETE = "complete"
    CONTROL = "control"
    ADMIN = "admin"


EVERYTHING = frozenset(Scope)
NOTHING: frozenset[Scope] = frozenset()


@dataclass(frozen=True, slots=True)
class Visitor:
    """Whoever is let in: what it may do, and the name of the token by which it came, "" for any other way."""

    scopes: frozenset[Scope]
    token_name: str = ""


@dataclass(frozen=True, slots=True)
class NamedToken:
    """What is kept of a token that was given to somebody: enough to know it again, and not enough to use it.

    The tokens are random and as long as the hash, so that a slow hash would add nothing.
    """

    name: Annotated[str, MaxLength(64)]
    sha256: str
    scopes: tuple[Scope, ...]
    created_s: int


class Access:
    """Checks what a caller presents.

    A page session is ``EXPIRY.TOKEN.MAC``, signed with a key derived from the primary token: it needs no storage,
    survives a restart, ends with the token that it was got with, and for everybody when the primary token changes.
    """

    def __init__(self, primary_token: str, stored: Iterable[Any] = ()) -> None:
        """`stored` are the named tokens as `stored` gave them; what is none is left out."""
        self._primary = hashlib.sha256(primary_token.encode()).hexdigest().encode() if primary_token else b""
        self._session_key = hashlib.sha256(b"rockfill session\0" + primary_token.encode()).digest()
        self._named: dict[str, NamedToken] = {}
        self._revoked: list[Callable[[str], None]] = []
        for value in stored:
            try:
                token = decode(NamedToken, value)
            except DecodeError:
                continue
            self._named[token.name] = token

    # ---- what is presented

    def visitor(self, token: str) -> Visitor | None:
        """Whom `token` lets in; None if it is empty or unknown. Takes the same time for every wrong token."""
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest().encode()
        is_primary = hmac.compare_digest(digest, self._primary)
        found = [named for named in self._named.values() if hmac.compare_digest(digest, named.sha256.encode())]
        if is_primary:
            return Visitor(EVERYTHING)
        return _of(found[0]) if found else None

    def new_session(self, visitor: Visitor, now_s: float) -> str:
        """The value of a session cookie that is good for `SESSION_S` seconds from `now_s` (Unix time).

        Raises `unauthorized` if the token by which `visitor` came is gone.
        """
        named = self._named.get(visitor.token_name)
        if named is None and visitor.token_name:
            raise Problem(Code.UNAUTHORIZED, "That token was revoked.", "Use another one.")
        content = f"{int(now_s) + SESSION_S}.{named.sha256[:32] if named else ''}"
        return f"{content}.{self._mac(content)}"

    def visitor_of_session(self, cookie: str, now_s: float) -> Visitor | None:
        """Whom a session cookie lets in; None if it was not made here, is too old, or its token was revoked."""
        content, _, mac = cookie.rpartition(".")
        genuine = hmac.compare_digest(mac.encode("utf-8", "surrogateescape"), self._mac(content).encode())
        expiry, _, token = content.partition(".")
        if not genuine or int(expiry) < now_s:
            return None
        if not token:
            return Visitor(EVERYTHING)
        return next((_of(named) for named in self._named.values() if named.sha256.startswith(token)), None)

    def _mac(self, content: str) -> str:
        return hmac.new(self._session_key, content.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()

    # ---- named tokens

    @property
    def named(self) -> tuple[NamedToken, ...]:
        return tuple(self._named.values())

    @property
    def stored(self) -> list[dict[str, Any]]:
        """The named tokens as JSON values. None of them can be used as a token. May be asked for in a thread."""
        return [{**asdict(token), "scopes": list(token.scopes)} for token in self.named]

    def add(self, name: str, scopes: Iterable[Scope], now_s: float) -> str:
        """A new token of that name; it is told here, and never again. Raises `invalid_value`."""
        if not _NAME.fullmatch(name):
            raise Problem(
                Code.INVALID_VALUE,
                "name: must be letters, digits, dots, dashes and underscores, at most 64.",
                'Take something like "home-assistant".',
            )
        if name in self._named:
            raise Problem(
                Code.INVALID_VALUE, f"There is a token called {name} already.", "Revoke it first, or take another name."
            )
        wanted = tuple(scope for scope in Scope if scope in set(scopes))
        if not wanted:
            raise Problem(Code.INVALID_VALUE, "scopes: must not be empty.", f"There are: {', '.join(Scope)}.")
        if len(self._named) >= MOST_TOKENS:
            raise Problem(Code.INVALID_VALUE, f"There are {MOST_TOKENS} tokens already.", "Revoke some first.")
        token = secrets.token_urlsafe(24)
        digest = hashlib.sha256(token.encode()).hexdigest()
        self._named[name] = NamedToken(name, digest, wanted, int(now_s))
        return token

    def revoke(self, name: str) -> None:
        """Forget a token, and whoever came by it. Raises `not_found`."""
        if self._named.pop(name, None) is None:
            known = ", ".join(self._named) or "none"
            raise Problem(Code.NOT_FOUND, f'There is no token called "{name[:100]}".', f"There are: {known}.")
        for revoked in self._revoked:
            revoked(name)

    def when_revoked(self, revoked: Callable[[str], None]) -> None:
        """Call `revoked` with the name of every token that is revoked from now on."""
        self._revoked.append(revoked)


def _of(named: NamedToken) -> Visitor:
    return Visitor(frozenset(named.scopes), named.name)
