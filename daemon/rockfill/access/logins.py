"""Limits on guessing, and links that sign a browser in once. Pure but for the clock and the random numbers."""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from rockfill.access.networks import neighbourhood
from rockfill.errors import Code, Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from rockfill.access.tokens import Access, Visitor

# A person mistypes a few times, a program that was given the wrong token goes on for ever; nobody guesses 192 bits.
FREE_FAILURES = 20
FAILURE_FORGOTTEN_S = 3.0

# What is remembered of addresses and of links is bounded: they cost a stranger nothing.
MOST_ADDRESSES = 4096
MOST_LINKS = 16

LINK_S = 600.0


class Logins:
    """Judges tokens, but only so many wrong ones of an address (for IPv6: of a network of 2^64).

    A token that was right before from the same address is never refused: one program with a wrong token must not lock
    out another beside it.
    """

    def __init__(self, access: Access, clock: Callable[[], float]) -> None:
        """`clock` gives seconds, from whenever."""
        self._access = access
        self._clock = clock
        self._failures: OrderedDict[str, tuple[float, float]] = OrderedDict()  # how many, and as of when
        self._good: OrderedDict[bytes, None] = OrderedDict()
        self._links: OrderedDict[bytes, tuple[float, str]] = OrderedDict()  # good until when, and for which session

    def attempt(self, address: str, token: str) -> Visitor | None:
        """Whom `token` lets in, None for a wrong one. Raises `too_many_requests`."""
        place = neighbourhood(address)
        known = hashlib.sha256(f"{place}\0{token}".encode("utf-8", "surrogateescape")).digest()
        if known not in self._good:
            self._refuse_if_too_many(place)
        visitor = self._access.visitor(token)
        if visitor is None:
            self._good.pop(known, None)
            self._failed(place)
        else:
            self._good[known] = None
            self._good.move_to_end(known)
            _trim(self._good, MOST_ADDRESSES)
        return visitor

    # ---- links

    def new_link(self, session: str) -> str:
        """A nonce that is good for `session` once, within `LINK_S` seconds."""
        nonce = secrets.token_urlsafe(24)
        self._links[_digest(nonce)] = self._clock() + LINK_S, session
        _trim(self._links, MOST_LINKS)
        return nonce

    def use_link(self, address: str, nonce: str) -> str | None:
        """The session that `nonce` is good for, which it then was for the last time. Raises `too_many_requests`."""
        place = neighbourhood(address)
        self._refuse_if_too_many(place)
        good_until_s, session = self._links.pop(_digest(nonce), (0.0, ""))
        if not session or good_until_s < self._clock():
            self._failed(place)
            return None
        return session

    # ---- counting

    def _count(self, place: str) -> float:
        count, at_s = self._failures.get(place, (0.0, 0.0))
        return max(0.0, count - (self._clock() - at_s) / FAILURE_FORGOTTEN_S)

    def _failed(self, place: str) -> None:
        self._failures[place] = (self._count(place) + 1, self._clock())
        self._failures.move_to_end(place)
        _trim(self._failures, MOST_ADDRESSES)

    def _refuse_if_too_many(self, place: str) -> None:
        over = self._count(place) - FREE_FAILURES
        if over > -1:
            raise Problem(
                Code.TOO_MANY_REQUESTS,
                "Too many wrong tokens came from this address.",
                "Wait a moment, and check the token of whatever else runs there.",
                retry_after_s=max(1, round((over + 1) * FAILURE_FORGOTTEN_S)),
            )


def _digest(nonce: str) -> bytes:
    return hashlib.sha256(nonce.encode("utf-8", "surrogateescape")).digest()


def _trim(entries: OrderedDict[Any, Any], most: int) -> None:
    while len(entries) > most:
        entries.popitem(last=False)
