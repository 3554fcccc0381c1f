"""What systemd is told: that we are ready, how we are, and that we still make progress.

Outside of systemd (no ``NOTIFY_SOCKET``) nothing is sent and nothing is timed.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import sdnotify

from rockfill.snapshots import Phase

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rockfill.snapshots import EngineSnapshot


class ServiceManager:
    """The service manager that started us, if one did."""

    def __init__(self) -> None:
        self._notifier = sdnotify.SystemdNotifier() if os.environ.get("NOTIFY_SOCKET") else None
        if self._notifier is not None and self._notifier.socket is not None:
            self._notifier.socket.settimeout(0)  # a manager that does not listen is nothing to wait for
        self._status = ""

    def close(self) -> None:
        """Nothing more will be told."""
        if self._notifier is not None and self._notifier.socket is not None:
            self._notifier.socket.close()

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

    async def watchdog(
        self, heartbeat: Callable[[], Awaitable[None]], refresh: Callable[[], None] = lambda: None
    ) -> None:
        """Send a sign of life as often as is asked for, each after a `heartbeat`: a stuck loop or queue sends none.

        `refresh` is called after each, for what a status tells that no event goes with.
        """
        asked_us = os.environ.get("WATCHDOG_USEC", "")
        for_us = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        interval_s = int(asked_us) / 1e6 / 3 if asked_us.isdigit() else 0
        if self._notifier is None or not interval_s or not for_us:
            return
        while True:
            await heartbeat()
            self._send("WATCHDOG=1")
            refresh()
            await asyncio.sleep(interval_s)

    def _send(self, message: str) -> None:
        """One datagram, sd_notify(3); without effect where nobody listens."""
        if self._notifier is not None:
            # The package writes Latin-1, and drops what that lacks; systemd reads UTF-8. So these are its bytes.
            self._notifier.notify(message.encode("utf-8", "replace").decode("latin-1"))


def status_text(snapshot: EngineSnapshot, tokens_per_second: float | None, npu_celsius: float | None = None) -> str:
    """One line for people: ``ready · codegemma:2b w8a8 · RKLLM 1.2.3 · 10.2 tok/s · NPU 54 °C``."""
    parts = [snapshot.phase.value]
    target = snapshot.target
    if target is not None:
        told = target.quantisation.lower() in target.name.lower()
        parts.append(target.name if told else f"{target.name} {target.quantisation}")
    if snapshot.facts is not None:
        parts.append(snapshot.facts.runtime)
    if tokens_per_second and snapshot.phase in (Phase.READY, Phase.BUSY):
        parts.append(f"{tokens_per_second:.1f} tok/s")
    if npu_celsius is not None and target is not None and target.engine == "rkllm":
        parts.append(f"NPU {npu_celsius:.0f} °C")
    if snapshot.problem is not None:
        parts.append(snapshot.problem.message)
    return " · ".join(parts)
