"""Tokens and page sessions. Pure but for the clock and the random numbers that it is given."""

from __future__ import annotations

import hashlib
import hmac
from enum import StrEnum

SESSION_S = 30 * 24 * 3600


class Scope(StrEnum):
    """What a token may be good for. The primary token is good for all."""

    READ = "read"
    COMPLETE = "complete"
    CONTROL = "control"
    ADMIN = "admin"


EVERYTHING = frozenset(Scope)
NOTHING: frozenset[Scope] = frozenset()


class Access:
    """Checks what a caller presents.

    A page session is ``EXPIRY.MAC``, signed with a key derived from the primary token: it needs no storage, survives
    a restart, and ends for everybody when the token changes.
    """

    def __init__(self, primary_token: str) -> None:
        self._primary = primary_token.encode()
        self._session_key = hashlib.sha256(b"rockfill session\0" + self._primary).digest()

    def scopes_of_token(self, token: str) -> frozenset[Scope]:
        """What `token` is good for; nothing if it is empty or unknown. Takes the same time for every wrong token."""
        presented = token.encode("utf-8", "surrogateescape")
        return EVERYTHING if presented and hmac.compare_digest(presented, self._primary) else NOTHING

    def new_session(self, now_s: float) -> str:
        """The value of a session cookie that is good for `SESSION_S` seconds from `now_s` (Unix time)."""
        expiry = str(int(now_s) + SESSION_S)
        return f"{expiry}.{self._mac(expiry)}"

    def scopes_of_session(self, cookie: str, now_s: float) -> frozenset[Scope]:
        """What a session cookie is good for; nothing if it was not made here or is too old."""
        expiry, _, mac = cookie.partition(".")
        genuine = hmac.compare_digest(mac.encode("utf-8", "surrogateescape"), self._mac(expiry).encode())
        if not genuine or int(expiry) < now_s:
            return NOTHING
        return EVERYTHING

    def _mac(self, expiry: str) -> str:
        return hmac.new(self._session_key, expiry.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()
