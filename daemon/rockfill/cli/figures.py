"""``rockfill stats``: the live figures in a terminal."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

from rockfill.cli.asking import client_for

if TYPE_CHECKING:
    import argparse

WATCH_S = 1.0
CLEAR = "\x1b[H\x1b[J"


def stats(arguments: argparse.Namespace) -> int:
    """Print the figures once, or again and again."""
    return asyncio.run(_stats(arguments))


async def _stats(arguments: argparse.Namespace) -> int:
    async with client_for(arguments) as client:
        while True:
            value = await client.call("stats.get")
            if arguments.json:
                print(json.dumps(value, indent=None if arguments.watch else 1), flush=True)
            else:
                if arguments.watch and sys.stdout.isatty():
                    print(CLEAR, end="")
                print("\n".join(table(value)), flush=True)
            if not arguments.watch:
                return 0
            await asyncio.sleep(WATCH_S)


def table(value: dict[str, Any]) -> list[str]:
    """One line for each part of the machine; what it does not have or say is a dash."""
    figures = value["figures"]
    loads, clocks = figures["cpu.cluster_load_percent"] or [], figures["cpu.cluster_freq_hz"] or []
    rows = [
        (
            "NPU",
            *_listed(figures["npu.load_percent"]),
            _mhz(figures["npu.freq_hz"]),
            _celsius(figures["npu.temp_celsius"]),
        ),
        ("CPU", _percent(figures["cpu.load_percent"]), _celsius(figures["cpu.temp_celsius"])),
    ]
    for position, name in enumerate(value["clusters"]):
        rows.append((f"  {name}", _percent(_at(loads, position)), _mhz(_at(clocks, position))))
    rows += [
        ("DDR", _mhz(figures["ddr.freq_hz"])),
        ("GPU", _mhz(figures["gpu.freq_hz"]), _celsius(figures["gpu.temp_celsius"])),
        ("RAM", _of(figures["ram.used_bytes"], figures["ram.total_bytes"])),
        ("swap", _of(figures["swap.used_bytes"], figures["swap.total_bytes"])),
        ("disk", f"{_size(figures['disk.free_bytes'])} free of {_size(figures['disk.total_bytes'])}"),
        ("daemon", _size(figures["daemon.rss_bytes"])),
        ("worker", _size(figures["worker.rss_bytes"])),
        ("engine", _rate(figures["engine.tokens_per_second"]), _first(figures["engine.first_token_s"])),
        ("queue", str(figures["queue.depth"])),
    ]
    lines = [f"{name:<10}" + "   ".join(cells) for name, *cells in rows]
    return lines + [f"not readable: {source} ({reason})" for source, reason in value["failures"].items()]


def _at(values: list[Any], position: int) -> Any:
    return values[position] if position < len(values) else None


def _listed(loads: list[float | None] | None) -> list[str]:
    return [_percent(load) for load in loads] if loads else ["-"]


def _percent(number: float | None) -> str:
    return "-" if number is None else f"{number:.0f} %"


def _mhz(hertz: float | None) -> str:
    return "-" if hertz is None else f"{hertz / 1e6:.0f} MHz"


def _celsius(number: float | None) -> str:
    return "-" if number is None else f"{number:.1f} °C"


def _size(number: float | None) -> str:
    return "-" if number is None else f"{number / 2**20:.0f} MiB" if number < 2**30 else f"{number / 2**30:.1f} GiB"


def _of(used: float | None, total: float | None) -> str:
    return f"{_size(used)} of {_size(total)}"


def _rate(number: float | None) -> str:
    return "-" if number is None else f"{number:.1f} tok/s"


def _first(seconds: float | None) -> str:
    return "first token -" if seconds is None else f"first token {seconds * 1000:.0f} ms"
