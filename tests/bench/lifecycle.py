"""What a misbehaving engine costs: how soon it is found out, and how soon there are answers again.

A worker's start is most of "answers again". Here it is Python's and the link's; a real model adds its own load.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from tests.bench.client import Connection, Refused
from tests.bench.lab import BenchAppliance, Row, connect, worker_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPEATS = 10
POLL_S = 0.0005

# One deadline for everything, so that it can be taken away from what was measured. A prompt's own share of the first
# token's is next to nothing once a few have been measured.
DEADLINE_S = 0.5
CONFIG = "[engine]\n" + "".join(
    f"{name} = {DEADLINE_S}\n"
    for name in ("first_token_timeout_s", "token_gap_timeout_s", "abort_timeout_s", "ping_s", "pong_timeout_s")
)

LINE = "total = price * count\n"
ENDLESS = {"text": LINE * 500, "token_s": 0.005}
HUNG = {"text": LINE, "prefill_s": 3600, "deaf": 3600}  # nothing ends its first token, an abort least of all

_serial = count()


def lifecycle() -> Iterator[Row]:
    """Faults of the worker and of the daemon, one after another."""
    yield from _crash()
    yield from _hang()
    yield from _given_up()
    yield from _stopped()
    yield from _stopped_idle()
    yield from _daemon_killed()


def _crash() -> Iterator[Row]:
    told_ms, again_s = [], []
    with _hasty() as appliance, connect(appliance) as watcher:
        for _ in range(REPEATS):
            appliance.script(**ENDLESS)
            with _asking(appliance) as client:
                client.until_text()
                crashed_s = _send(watcher, signal.SIGSEGV)
                client.until_error()
                told_ms.append((time.perf_counter() - crashed_s) * 1000)
            again_s.append(_until_answered(appliance) - crashed_s)
    yield Row("SIGSEGV in a run → its requester is told", "ms", tuple(told_ms), 100)
    yield Row("  → the next request is answered", "s", tuple(again_s), 0.4)


def _hang() -> Iterator[Row]:
    found_s, again_s = [], []
    with _hasty() as appliance:
        for _ in range(REPEATS):
            appliance.script(**HUNG)
            asked_s = time.perf_counter()
            with _asking(appliance) as client:
                client.until_error()
            told_s = time.perf_counter()
            found_s.append(told_s - asked_s - DEADLINE_S)
            again_s.append(_until_answered(appliance) - told_s)
    yield Row("hang, no first token → found after its deadline", "s", tuple(found_s), 0.5)
    yield Row("  → the next request is answered after that", "s", tuple(again_s), 1)


def _given_up() -> Iterator[Row]:
    """The client leaves, and the engine ignores that: the first token's time is granted as well, as on an NPU."""
    found_s, again_s = [], []
    with _hasty() as appliance, connect(appliance) as watcher:
        for _ in range(REPEATS):
            worker = worker_of(watcher)
            appliance.script(**HUNG)
            with _asking(appliance):
                _until_busy(watcher)
                time.sleep(0.05)
            left_s = time.perf_counter()
            gone_s = _until_replaced(watcher, worker)
            found_s.append(gone_s - left_s - 2 * DEADLINE_S)
            again_s.append(_until_answered(appliance) - gone_s)
    yield Row("hang, abort ignored → found after its deadline", "s", tuple(found_s), 0.5)
    yield Row("  → the next request is answered after that", "s", tuple(again_s), 1)


def _stopped() -> Iterator[Row]:
    found_s, again_s = [], []
    with _hasty() as appliance, connect(appliance) as watcher:
        for _ in range(REPEATS):
            appliance.script(**ENDLESS)
            with _asking(appliance) as client:
                client.until_text()
                stopped_s = _send(watcher, signal.SIGSTOP)
                client.until_error()
            told_s = time.perf_counter()
            found_s.append(told_s - stopped_s - DEADLINE_S)
            again_s.append(_until_answered(appliance) - told_s)
    yield Row("SIGSTOP when busy → found after its deadline", "s", tuple(found_s), 0.5)
    yield Row("  → the next request is answered after that", "s", tuple(again_s), 1)


def _stopped_idle() -> Iterator[Row]:
    found_s, again_s = [], []
    with _hasty() as appliance, connect(appliance) as watcher:
        for _ in range(REPEATS):
            worker = worker_of(watcher)
            stopped_s = _send(watcher, signal.SIGSTOP)
            gone_s = _until_replaced(watcher, worker)
            found_s.append(gone_s - stopped_s)
            again_s.append(_until_answered(appliance) - gone_s)
    note = f"a ping after at most {DEADLINE_S} s, {DEADLINE_S} s for its answer"
    yield Row("SIGSTOP when idle → found by its ping", "s", tuple(found_s), 2 * DEADLINE_S + 0.5, note)
    yield Row("  → the next request is answered after that", "s", tuple(again_s), 1)


def _daemon_killed() -> Iterator[Row]:
    times_ms = []
    with _hasty() as appliance:
        for _ in range(REPEATS):
            appliance.script(**HUNG)
            with connect(appliance) as watcher:
                worker = psutil.Process(worker_of(watcher))
                with _asking(appliance):
                    _until_busy(watcher)
                    os.kill(appliance.pid, signal.SIGKILL)
                    killed_s = time.perf_counter()
                    times_ms.append((_until_gone(worker) - killed_s) * 1000)
            appliance.stop()
            appliance.start()
    yield Row("kill -9 of the daemon → its busy worker is gone", "ms", tuple(times_ms), 1000)


@contextlib.contextmanager
def _hasty() -> Iterator[BenchAppliance]:
    """A running daemon with the deadlines above, which has measured a few prefills."""
    with tempfile.TemporaryDirectory(prefix="rockfill-bench-") as folder:
        config = Path(folder, "config.toml")
        config.write_text(CONFIG)
        appliance = BenchAppliance(Path(folder, "state"), ["--config", str(config)])
        try:
            appliance.start()
            for _ in range(20):
                _until_answered(appliance)
            yield appliance
        finally:
            appliance.stop()


def _request() -> dict[str, Any]:
    """Never the same twice: one that takes two workers with it is not run again."""
    return {"prompt": f"def total_{next(_serial)}(price, count):\n    return ", "max_tokens": 5000}


@contextlib.contextmanager
def _asking(appliance: BenchAppliance) -> Iterator[Connection]:
    """A client that has sent a request, and closes its connection in the end."""
    with connect(appliance) as client:
        client.send("POST", "/v1/completions", {**_request(), "stream": True})
        yield client


def _until_answered(appliance: BenchAppliance) -> float:
    """Ask until there is an answer; returns when that began."""
    appliance.script(text=LINE)
    while True:
        asked_s = time.perf_counter()
        with connect(appliance) as client, contextlib.suppress(Refused):
            return asked_s + client.complete(_request()).first_s


def _send(watcher: Connection, number: signal.Signals) -> float:
    worker = watcher.command("engine.get")["worker_pid"]
    os.kill(worker, number)
    return time.perf_counter()


def _until_busy(watcher: Connection) -> None:
    _until(lambda: watcher.command("engine.get")["state"] == "busy")


def _until_replaced(watcher: Connection, worker: int) -> float:
    """Wait until `worker` is no longer the engine's; returns when that was."""
    _until(lambda: watcher.command("engine.get")["worker_pid"] != worker)
    return time.perf_counter()


def _until_gone(process: psutil.Process) -> float:
    """Wait for its end, not for whoever inherited it to notice; returns when that was."""
    _until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
    return time.perf_counter()


def _until(true: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline_s
        time.sleep(POLL_S)
