"""Where a request comes from, and what that alone is worth. Pure."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from rockfill.config import parse_network

if TYPE_CHECKING:
    from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_address(text: str | None) -> Address | None:
    """An address as a peer or a header gives it; None for what is none."""
    host = (text or "").strip().removeprefix("[").partition("]")[0].partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def neighbourhood(text: str) -> str:
    """Who counts as one: an IPv4 address, or the 2^64 addresses that an IPv6 host has to choose from."""
    address = parse_address(text)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address) if address is not None else text


class Networks:
    """Which addresses are proxies that may speak for others, and which need no token."""

    def __init__(self, trusted_proxies: Sequence[str], tokenless: Sequence[str], *, insecure_lan: bool) -> None:
        self._proxies = tuple(map(parse_network, trusted_proxies))
        self._tokenless = tuple(map(parse_network, tokenless))
        self._insecure_lan = insecure_lan

    @property
    def open_to_some(self) -> bool:
        """Whether anybody gets in without a token."""
        return self._insecure_lan or bool(self._tokenless)

    def is_proxy(self, peer: str | None) -> bool:
        """Whether what `peer` says of others counts."""
        return _within(parse_address(peer), self._proxies)

    def client(self, peer: str | None, forwarded_for: Sequence[str]) -> str:
        """The address that asks: `peer`, or whom a chain of trusted proxies speaks for.

        `forwarded_for` are the addresses of ``X-Forwarded-For``; only what a trusted proxy added to them counts.
        """
        asks = peer or ""
        for claimed in reversed(forwarded_for):
            if not self.is_proxy(asks):
                break
            asks = claimed.strip()
        return asks

    def needs_no_token(self, client: str) -> bool:
        """Whether `client` may read and complete without one.

        A trusted proxy that does not say for whom it asks may not: it may ask for anybody. Nor is this machine part of
        an insecure network by itself: what asks from here may be a proxy that nobody told us of.
        """
        address = parse_address(client)
        if address is None or _within(address, self._proxies):
            return False
        local = (address.is_private or address.is_link_local) and not (address.is_loopback or address.is_unspecified)
        return (self._insecure_lan and local) or _within(address, self._tokenless)


def _within(address: Address | None, networks: Sequence[Network]) -> bool:
    return address is not None and any(address in network for network in networks)
