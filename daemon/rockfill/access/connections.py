"""How many connections there may be, in all and of one address. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rockfill.access.networks import neighbourhood

if TYPE_CHECKING:
    from rockfill.access.networks import Networks


class Connections:
    """Counts those that are open."""

    def __init__(self, networks: Networks, most_per_address: int, most: int) -> None:
        """Trusted proxies, who come for many, count only in all."""
        self._networks = networks
        self._most_per_address = most_per_address
        self._most = most
        self._open: Counter[str] = Counter()
        self.total = 0

    def open(self, peer: str) -> bool:
        """Whether one more of `peer` may be; then it counts until it is closed."""
        place = neighbourhood(peer)
        full = self._open[place] >= self._most_per_address and not self._networks.is_proxy(peer)
        if full or self.total >= self._most:
            self._forget_if_none(place)
            return False
        self._open[place] += 1
        self.total += 1
        return True

    def close(self, peer: str) -> None:
        """One that was opened is over."""
        place = neighbourhood(peer)
        self._open[place] -= 1
        self.total -= 1
        self._forget_if_none(place)

    def _forget_if_none(self, place: str) -> None:
        if not self._open[place]:
            del self._open[place]
