"""Takes samples as often as somebody wants them, keeps what they were, and says what can't be read."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING

from rockfill.bus import Event, Topic
from rockfill.hardware.own_thread import MOST_LEFT_BEHIND, OwnThread
from rockfill.hardware.sampler import KEYS, Sample, Taken
from rockfill.telemetry.history import History

if TYPE_CHECKING:
    from collections.abc import Callable

    from rockfill.bus import Bus
    from rockfill.hardware.sampler import Sampler

log = logging.getLogger(__name__)

BUSY_S = 1.0
IDLE_S = 60.0

# Whoever asked looks for so long: a page or a terminal that asks once a second is not to wait for each sample.
LOOK_S = 10.0

# Sensors on a slow bus need some milliseconds. What needs this long has hung.
SAMPLE_TIMEOUT_S = 2.0

# At most one line in the journal and one event per source in that time.
REPORT_PAUSE_S = 3600.0


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """What the engine and the queue say of themselves; None where nothing was measured. `working` asks for samples."""

    working: bool
    worker_pid: int | None
    tokens_per_second: float | None
    first_token_s: float | None
    queue_depth: int


@dataclass(frozen=True, slots=True)
class Stats:
    """One sample: Unix time, and a value for each key, the engine's too. `clusters` names the processor's clusters in
    the order of their figures; `failures` says what could not be read, and why."""

    time_s: float
    figures: Sample
    clusters: tuple[str, ...]
    failures: Mapping[str, str]


class Telemetry:
    """The one sampler of the appliance. `run` must be running for samples to be taken."""

    def __init__(self, sampler: Sampler, engine: Callable[[], EngineFigures], bus: Bus) -> None:
        """`engine` is asked at every sample, in the event loop."""
        self._sampler = sampler
        self._thread = OwnThread("sampler")
        self._engine = engine
        self._bus = bus
        self.history = History()
        self._failures: Mapping[str, str] = {}
        self._latest: Stats | None = None
        self._wanted_s: float | None = None
        self._looked_s = self._sampled_s = self._latest_s = -math.inf  # of a sample that was begun, and of the last one
        self._woken = asyncio.Event()
        self._taking = asyncio.Lock()
        self._reported_s: dict[str, float] = {}

    @property
    def event(self) -> Event | None:
        """The last sample as it is published, None before the first."""
        return Event(Topic.STATS, "stats.sampled", asdict(self._latest)) if self._latest is not None else None

    def figure(self, key: str) -> float | None:
        """One number of the last sample; None where the machine does not give it, or before the first."""
        value = self._latest.figures.get(key) if self._latest is not None else None
        return value if isinstance(value, int | float) else None

    def watched(self, interval_s: float | None) -> None:
        """Somebody looks from now on, and wants a sample that often: each is published. None: nobody does any more."""
        self._wanted_s = None if interval_s is None else min(max(interval_s, BUSY_S), IDLE_S)
        if interval_s is not None:
            self._woken.set()

    def engine_changed(self) -> None:
        """The engine may have begun to work: then it is sampled at once."""
        if self._engine().working:
            self._woken.set()

    async def look(self) -> Stats:
        """The figures of now. Whoever asks counts as looking for the next seconds."""
        self._looked_s = asyncio.get_running_loop().time()
        self._woken.set()
        return await self.stats()

    async def stats(self) -> Stats:
        """The figures of now, at most a second old, and no further samples for that: for who asks seldom."""
        async with self._taking:
            age_s = asyncio.get_running_loop().time() - self._latest_s
            return self._latest if self._latest is not None and age_s <= BUSY_S else await self._take()

    async def run(self) -> None:
        """Take samples until cancelled."""
        try:
            while True:
                self._woken.clear()
                wait_s = self._pause_s()
                if wait_s > 0:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(wait_s):
                            await self._woken.wait()
                    continue
                async with self._taking:
                    await self._take()
                seen = self._wanted_s is not None or self._interval_s() == BUSY_S
                if seen and (event := self.event) is not None:
                    self._bus.publish(event)
        finally:
            with contextlib.suppress(TimeoutError):
                await self._thread.call(self._sampler.close, SAMPLE_TIMEOUT_S)
            self._thread.close()

    def _pause_s(self) -> float:
        return self._sampled_s + self._interval_s() - asyncio.get_running_loop().time()

    def _interval_s(self) -> float:
        looked = asyncio.get_running_loop().time() - self._looked_s < LOOK_S
        return BUSY_S if looked or self._engine().working else self._wanted_s or IDLE_S

    async def _take(self) -> Stats:
        self._sampled_s = begun_s = asyncio.get_running_loop().time()
        engine = self._engine()
        taken = await self._read(engine.worker_pid)
        own: Sample = {
            "engine.tokens_per_second": engine.tokens_per_second,
            "engine.first_token_s": engine.first_token_s,
            "queue.depth": engine.queue_depth,
        }
        figures = {**taken.figures, **own}
        self._latest = Stats(round(time.time(), 3), figures, self._sampler.cluster_names, taken.failures)
        self._latest_s = begun_s
        self.history.add(self._latest.time_s, self._latest.figures)
        self._report(taken.failures)
        return self._latest

    async def _read(self, worker_pid: int | None) -> Taken:
        """A sample. A read that hangs costs `SAMPLE_TIMEOUT_S` once, and its figures until it returns."""
        for _ in range(MOST_LEFT_BEHIND):
            try:
                return await self._thread.call(partial(self._sampler.sample, os.getpid(), worker_pid), SAMPLE_TIMEOUT_S)
            except TimeoutError:
                self._sampler.abandon()
        return Taken(dict.fromkeys(KEYS), {"everything": "no read returns"})

    def _report(self, failures: Mapping[str, str]) -> None:
        now_s = asyncio.get_running_loop().time()
        for source, reason in failures.items():
            quiet = now_s - self._reported_s.get(source, -math.inf) < REPORT_PAUSE_S
            if source in self._failures or quiet:
                continue
            self._reported_s[source] = now_s
            log.warning("%s can't be read: %s", source, reason)
            self._bus.publish(Event(Topic.EVENTS, "sensor.failed", {"source": source, "reason": reason}))
        self._failures = failures
