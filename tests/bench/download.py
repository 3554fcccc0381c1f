"""What fetching a model costs the daemon: memory, CPU, and how long others wait for its event loop."""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.appliance import Appliance
from tests.bench.client import Connection
from tests.bench.lab import Row, cpu_s, rss_mb
from tests.fakes.hub import FileSpec, HubServer

if TYPE_CHECKING:
    from collections.abc import Iterator

GIGABIT_MB_S = 118  # what a gigabit line carries of TCP's payload, and what is asked of us
SIZE_BYTES = 4 << 30
REPOSITORY = "user/Qwen2.5-Coder-7B-GGUF"
FILE = "qwen2.5-coder-7b-q4_0.gguf"
POLL_S = 0.005
MEMORY_S = 0.1


def download() -> Iterator[Row]:
    """4 GiB from another process on loopback, hashed and written, at the pace of a gigabit line and without a limit."""
    with HubServer() as hub:
        hub.add(REPOSITORY, {FILE: FileSpec(size_bytes=SIZE_BYTES)})
        yield from _fetched(hub, f"download, {SIZE_BYTES >> 30} GiB at the pace of a gigabit line", GIGABIT_MB_S)
        yield from _fetched(hub, "download, no limit", 0)


def _fetched(hub: HubServer, name: str, limit_mb_s: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="rockfill-bench-") as folder:
        config = Path(folder, "config.toml")
        config.write_text(f'[hub]\nendpoint = "{hub.url}"\nbandwidth_limit_mb_s = {limit_mb_s}\n')
        appliance = Appliance(Path(folder, "state"), ["--config", str(config)])
        appliance.start()
        try:
            time.sleep(1.0)
            yield from _measured(appliance, name, limit_mb_s)
        finally:
            appliance.stop()


def _measured(appliance: Appliance, name: str, limit_mb_s: int) -> Iterator[Row]:
    pid = appliance.pid
    idle_mb = rss_mb(pid)
    over = threading.Event()
    waits_ms: list[float] = []
    poll = threading.Thread(target=_poll_health, args=(appliance, over, waits_ms))
    poll.start()
    try:
        # The engine answers for the bundled model meanwhile; the file that comes is no model that could be loaded.
        appliance.command("models.pull", model=REPOSITORY, force=True)
        began_s, cpu_before_s, most_mb = time.monotonic(), cpu_s(pid), 0.0
        while True:
            [job] = appliance.command("models.downloads")["downloads"]
            most_mb = max(most_mb, rss_mb(pid))
            if job["state"] not in ("queued", "fetching"):
                break
            time.sleep(MEMORY_S)
        wall_s, used_s = time.monotonic() - began_s, cpu_s(pid) - cpu_before_s
    finally:
        over.set()
        poll.join()
    assert job["state"] == "done", job
    asked = limit_mb_s or None
    yield Row(name, "MB/s", (SIZE_BYTES / 1e6 / wall_s,), None, f"asked for: {asked}" if asked else "")
    yield Row("  CPU of the daemon, of one core", "%", (100 * used_s / wall_s,), 40 if asked else None)
    yield Row("  memory over idle", "MB", (most_mb - idle_mb,), 20, f"idle {idle_mb:.0f} MB")
    note = "the longest of them contains the longest block of the event loop"
    yield Row("  GET /health meanwhile", "ms", tuple(waits_ms), None, note)


def _poll_health(appliance: Appliance, over: threading.Event, waits_ms: list[float]) -> None:
    with Connection(appliance.port, appliance.token) as client:
        while not over.wait(POLL_S):
            began_s = time.perf_counter()
            client.exchange("GET", "/health")
            waits_ms.append((time.perf_counter() - began_s) * 1000)
