"""What systemd is told: that we are ready, how we are, and that we still make progress.

Outside of systemd (no ``NOTIFY_SOCKET``) nothing is sent and nothing is timed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import TYPE_CHECKING

from rockfill.snapshots import Phase

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rockfill.snapshots import EngineSnapshot

log = logging.getLogger(__name__)


class ServiceManager:
    """The service manager that started us, if one did."""

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._status = ""

    def ready(self) -> None:
        """We listen; whoever was waiting for us may start."""
        self._send("READY=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """What ``systemctl status`` shows. Line ends in `text` would begin another message, and become spaces."""
        text = " ".join(text.split())
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    async def watchdog(self, heartbeat: Callable[[], Awaitable[None]]) -> None:
        """Send a sign of life as often as is asked for, each after a `heartbeat`: a stuck loop or queue sends none."""
        asked_us = os.environ.get("WATCHDOG_USEC", "")
        for_us = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        interval_s = int(asked_us) / 1e6 / 3 if asked_us.isdigit() else 0
        if not self._address or not interval_s or not for_us:
            return
        while True:
            await heartbeat()
            self._send("WATCHDOG=1")
            await asyncio.sleep(interval_s)

    def _send(self, message: str) -> None:
        """One datagram of UTF-8, sd_notify(3). Nobody listens, or only slowly: that is nothing to wait for."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(0)
                sender.sendto(message.encode(errors="replace"), self._address)
        except OSError as error:
            log.debug("the service manager was not told %s: %s", message, error)


def status_text(snapshot: EngineSnapshot, tokens_per_second: float | None) -> str:
    """One line for people: ``ready · codegemma:2b · RKLLM 1.2.3 · 10.2 tok/s``."""
    parts = [snapshot.phase.value]
    if snapshot.target is not None:
        parts.append(snapshot.target.name)
    if snapshot.facts is not None:
        parts.append(snapshot.facts.runtime)
    if tokens_per_second and snapshot.phase in (Phase.READY, Phase.BUSY):
        parts.append(f"{tokens_per_second:.1f} tok/s")
    if snapshot.problem is not None:
        parts.append(snapshot.problem.message)
    return " · ".join(parts)
