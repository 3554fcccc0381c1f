"""Under which names the appliance answers.

A page of somebody else's domain that resolves to this machine (DNS rebinding) sends that domain as its Host. Literal
addresses and names that only a local resolver gives can't be used so.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class HostNames:
    """The names allowed in a Host header: IP literals, localhost, `*.local`, this machine's own, and those given."""

    def __init__(self, own_name: str, allowed: Iterable[str]) -> None:
        own = own_name.lower()
        self._own = {"localhost", own, own.partition(".")[0]}
        self.allow(allowed)

    def allow(self, names: Iterable[str]) -> None:
        """From now on these are the names given."""
        self._names = self._own | {name.lower().rstrip(".") for name in names}

    def allows(self, host_header: str) -> bool:
        """Whether a request with this Host header (port and all) may be answered."""
        name = host_name(host_header)
        if name is None:
            return False
        if name in self._names or name.endswith((".local", ".localhost")):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def host_name(host_header: str) -> str | None:
    """The host in a Host header, lower case, without port and brackets; None for what is not one."""
    text = host_header.strip().lower()
    if text.startswith("["):
        name, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            return None
    else:
        name, _, port = text.partition(":")
        if not (port.isascii() and port.isdigit()) and port:
            return None
    name = name.rstrip(".")
    return name or None
