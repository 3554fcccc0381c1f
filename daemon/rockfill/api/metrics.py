"""``GET /metrics``: the figures for Prometheus, in its text format (version 0.0.4), with its names and base units.

Everything is put together when somebody scrapes, from one sample that is taken then; between scrapes nothing happens.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from aiohttp import web

from rockfill import __version__
from rockfill.access.tokens import Scope
from rockfill.api.server import Route
from rockfill.bus import Topic
from rockfill.snapshots import Phase

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rockfill.bus import Bus, Event
    from rockfill.clocks.service import ClockService
    from rockfill.completion.service import CompletionService
    from rockfill.engine.supervisor import Supervisor
    from rockfill.telemetry.service import Stats, Telemetry

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Figures of one number: the key, its name here, what it is multiplied with for the base unit, and the help.
GAUGES: tuple[tuple[str, str, float, str], ...] = (
    ("engine.tokens_per_second", "rockfill_engine_tokens_per_second", 1, "Decoding rate of the last measured run."),
    ("engine.first_token_s", "rockfill_engine_first_token_seconds", 1, "Arrival to first token, last request."),
    ("queue.depth", "rockfill_queue_requests", 1, "Requests that wait for the engine."),
    ("cpu.load_percent", "rockfill_cpu_load_ratio", 0.01, "Share of the whole processor that is busy."),
    ("ram.total_bytes", "rockfill_memory_size_bytes", 1, "Memory of the machine."),
    ("ram.used_bytes", "rockfill_memory_used_bytes", 1, "Memory that is not available."),
    ("swap.total_bytes", "rockfill_swap_size_bytes", 1, "Swap space."),
    ("swap.used_bytes", "rockfill_swap_used_bytes", 1, "Swap space in use."),
    ("disk.total_bytes", "rockfill_disk_size_bytes", 1, "Size of the file system with the models."),
    ("disk.free_bytes", "rockfill_disk_free_bytes", 1, "Free space on it."),
    ("daemon.rss_bytes", "process_resident_memory_bytes", 1, "Resident memory of the daemon."),
    ("worker.rss_bytes", "rockfill_worker_resident_memory_bytes", 1, "Resident memory of the worker."),
)
CLOCKS = {"npu.freq_hz": "npu", "ddr.freq_hz": "ddr", "gpu.freq_hz": "gpu"}


class Family:
    """One metric with its samples."""

    def __init__(self, name: str, kind: str, help_: str) -> None:
        self.name, self.kind, self.help = name, kind, help_
        self.samples: list[tuple[Mapping[str, str], float]] = []

    def add(self, value: object, **labels: str) -> None:
        """A sample, if `value` is a number: what is not known has none."""
        if isinstance(value, int | float):
            self.samples.append((labels, value))

    def text(self) -> str:
        if not self.samples:
            return ""
        lines = [f"# HELP {self.name} {self.help}", f"# TYPE {self.name} {self.kind}"]
        for labels, value in self.samples:
            inner = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
            lines.append(f"{self.name}{{{inner}}} {value}" if inner else f"{self.name} {value}")
        return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class Metrics:
    """The route for Prometheus."""

    def __init__(
        self,
        telemetry: Telemetry,
        supervisor: Supervisor,
        completions: CompletionService,
        clocks: ClockService,
        bus: Bus,
    ) -> None:
        self._telemetry = telemetry
        self._supervisor = supervisor
        self._completions = completions
        self._clocks = clocks
        self._events: Counter[str] = Counter()
        bus.subscribe(self._count)

    def routes(self) -> list[Route]:
        return [Route("GET", "/metrics", self.metrics, Scope.READ)]

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        stats = await self._telemetry.stats()
        text = "".join(family.text() for family in [*machine(stats), *self._appliance()])
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})

    def _count(self, event: Event) -> None:
        if event.topic is Topic.EVENTS:
            self._events[event.type] += 1

    def _appliance(self) -> Iterable[Family]:
        info = Family("rockfill_build_info", "gauge", "The version that runs.")
        info.add(1, version=__version__)
        states = Family("rockfill_engine_state", "gauge", "1 for the engine's state, 0 for all others.")
        for phase in Phase:
            states.add(int(self._supervisor.snapshot.phase is phase), state=phase.value)
        events = Family("rockfill_events_total", "counter", "What happened, by the type of the event.")
        for type_, count in sorted(self._events.items()):
            events.add(count, type=type_)
        raised = Family("rockfill_clocks_raised", "gauge", "Whether clocks are raised.")
        raised.add(int(self._clocks.raised))
        lowered = Family("rockfill_clocks_lowered_ratio", "gauge", "What heat takes off the highest clocks.")
        lowered.add(self._clocks.lowered_percent / 100)
        totals = self._completions.totals
        counters = []
        for name, value, help_ in (
            ("rockfill_completions_total", totals.completions, "Completions that came to their end."),
            ("rockfill_prompt_tokens_total", totals.prompt_tokens, "Tokens of their prompts."),
            ("rockfill_generated_tokens_total", totals.generated_tokens, "Tokens that they were made of."),
        ):
            counter = Family(name, "counter", help_)
            counter.add(value)
            counters.append(counter)
        return [info, states, events, raised, lowered, *counters]


def machine(stats: Stats) -> list[Family]:
    """What the sample tells. Percentages become ratios."""
    figures = stats.figures
    families = []
    for key, name, factor, help_ in GAUGES:
        family = Family(name, "gauge", help_)
        value = figures[key]
        family.add(value * factor if isinstance(value, int | float) and factor != 1 else value)
        families.append(family)
    npu = Family("rockfill_npu_load_ratio", "gauge", "Share of the last second in which a core of the NPU was busy.")
    for core, percent in enumerate(_numbers(figures["npu.load_percent"])):
        npu.add(percent / 100 if percent is not None else None, core=str(core))
    clusters = Family("rockfill_cpu_cluster_load_ratio", "gauge", "Share of a cluster's cores that is busy.")
    clocks = Family("rockfill_clock_frequency_hertz", "gauge", "Present frequency.")
    for name, percent, hertz in zip(
        stats.clusters,
        _numbers(figures["cpu.cluster_load_percent"]) or [None] * len(stats.clusters),
        _numbers(figures["cpu.cluster_freq_hz"]) or [None] * len(stats.clusters),
        strict=False,
    ):
        clusters.add(percent / 100 if percent is not None else None, cluster=name)
        clocks.add(hertz, device=name)
    for key, device in CLOCKS.items():
        clocks.add(figures[key], device=device)
    temperatures = Family("rockfill_temperature_celsius", "gauge", "Of a thermal zone.")
    zones = figures["thermal.temp_celsius"]
    for zone, celsius in (zones if isinstance(zones, dict) else {}).items():
        temperatures.add(celsius, zone=zone)
    failing = Family("rockfill_sensors_failing", "gauge", "Sources of figures that can't be read.")
    failing.add(len(stats.failures))
    return [*families, npu, clusters, clocks, temperatures, failing]


def _numbers(value: object) -> list[float | None]:
    return value if isinstance(value, list) else []
