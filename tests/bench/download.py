"""What fetching a model costs the daemon: memory, CPU, and how long others wait for its event loop."""

from __future__ import annotations

import contextlib
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
MEMORY_S = 0.25
BEFORE_S = 3.0


def download() -> Iterator[Row]:
    """4 GiB from another process on loopback, hashed and written: at a gigabit line's pace, and as fast as it goes."""
    with HubServer() as hub:
        hub.add(REPOSITORY, {FILE: FileSpec(size_bytes=SIZE_BYTES)})
        with _daemon(hub, GIGABIT_MB_S) as appliance:
            pid = appliance.pid
            idle_mb = rss_mb(pid)
            cpu_before_s = cpu_s(pid)
            wall_s, most_mb = _fetch(appliance)
            used_s = cpu_s(pid) - cpu_before_s
        rate = SIZE_BYTES / 1e6 / wall_s
        name = f"download, {SIZE_BYTES >> 30} GiB at the pace of a gigabit line"
        yield Row(name, "MB/s", (rate,), None, f"{GIGABIT_MB_S} are asked for")
        yield Row("  CPU of the daemon, of one core", "%", (100 * used_s / wall_s,), 40)
        yield Row("  the same, at that pace", "%", (100 * used_s / SIZE_BYTES * GIGABIT_MB_S * 1e6,), 40)
        yield Row("  memory over idle", "MB", (most_mb - idle_mb,), 20, f"idle {idle_mb:.0f} MB")
        with _daemon(hub, 0) as appliance:
            with _asking_for_health(appliance) as before_ms:
                time.sleep(BEFORE_S)
            with _asking_for_health(appliance) as meanwhile_ms:
                wall_s, _ = _fetch(appliance)
        yield Row("download, no limit", "MB/s", (SIZE_BYTES / 1e6 / wall_s,))
        yield Row("  GET /health before", "ms", tuple(before_ms))
        note = "the longest contains the longest block of the event loop, and whatever the machine adds"
        yield Row("  GET /health meanwhile", "ms", tuple(meanwhile_ms), None, note)


@contextlib.contextmanager
def _daemon(hub: HubServer, limit_mb_s: int) -> Iterator[Appliance]:
    with tempfile.TemporaryDirectory(prefix="rockfill-bench-") as folder:
        config = Path(folder, "config.toml")
        config.write_text(f'[hub]\nendpoint = "{hub.url}"\nbandwidth_limit_mb_s = {limit_mb_s}\n')
        appliance = Appliance(Path(folder, "state"), ["--config", str(config)])
        appliance.start()
        try:
            time.sleep(BEFORE_S)
            yield appliance
        finally:
            appliance.stop()


def _fetch(appliance: Appliance) -> tuple[float, float]:
    """How long it took, and the most memory that the daemon had meanwhile."""
    began_s, most_mb = time.monotonic(), 0.0
    appliance.command("models.pull", model=REPOSITORY, force=True)  # whether it would run here is not the question
    while True:
        [job] = appliance.command("models.downloads")["downloads"]
        most_mb = max(most_mb, rss_mb(appliance.pid))
        if job["state"] not in ("queued", "fetching"):
            assert job["state"] == "done", job
            return time.monotonic() - began_s, most_mb
        time.sleep(MEMORY_S)


@contextlib.contextmanager
def _asking_for_health(appliance: Appliance) -> Iterator[list[float]]:
    """Ask all the time; gives how long each answer took, in milliseconds."""
    over = threading.Event()
    waits_ms: list[float] = []

    def ask() -> None:
        with Connection(appliance.port, appliance.token) as client:
            while not over.wait(POLL_S):
                began_s = time.perf_counter()
                client.exchange("GET", "/health")
                waits_ms.append((time.perf_counter() - began_s) * 1000)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield waits_ms
    finally:
        over.set()
        asking.join()
