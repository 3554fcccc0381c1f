"""``python -m tests.bench``: run the benchmarks and print one table."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from tests.bench.benches import BENCHES
from tests.bench.lab import ACCELERATED, LEFT_COMPILED, Machine, Row, run_python

LINE = "{:50}{:>6}{:>9}{:>9}{:>9}{:>9}{:>5}{:>7}"


def main() -> int:
    by_name = {bench.__name__.replace("_", "-"): bench for bench in BENCHES}
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure Rockfill against its floors.")
    parser.add_argument("--only", choices=by_name, metavar="NAME", help=f"run one of: {', '.join(by_name)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, every single value included")
    parser.add_argument("--strict", action="store_true", help="exit with status 1 if a figure is over its floor")
    arguments = parser.parse_args()

    for name in ACCELERATED:
        os.environ.setdefault(f"{name.upper()}_NO_EXTENSIONS", "1")
    compiled = run_python(LEFT_COMPILED).split()
    _say(f"{', '.join(ACCELERATED)}: {'compiled: ' + ', '.join(compiled) if compiled else 'pure Python'}")
    machine = Machine()
    _say(LINE.format("", "unit", "least", "median", "p90", "max", "n", "floor"))
    rows: list[dict[str, object]] = []
    over: list[str] = []
    for name in [arguments.only] if arguments.only else by_name:
        for row in by_name[name]():
            _show(row)
            rows.append({"bench": name, "over": row.over, **row.figures(), **asdict(row)})
            over += [row.name.strip()] if row.over else []
    report = machine.report()
    _say("machine: " + ", ".join(f"{name} {value}" for name, value in report.items()))
    _say(f"over its floor: {'; '.join(over)}" if over else "nothing is over its floor")
    if arguments.json:
        arguments.json.write_text(json.dumps({"compiled": compiled, "machine": report, "rows": rows}, indent=1) + "\n")
    return 1 if over and arguments.strict else 0


def _show(row: Row) -> None:
    figures = (
        row.figures() if len(row.values) > 1 else {"least": None, "median": row.values[0], "p90": None, "max": None}
    )
    numbers = [
        "" if value is None else f"{value:.0f}" if value >= 1000 else f"{value:.3g}" for value in figures.values()
    ]
    floor = "" if row.floor is None else f"{row.floor:g}"
    _say(LINE.format(row.name, row.unit, *numbers, len(row.values), floor) + ("  over" if row.over else ""))
    if row.note:
        _say(f"    ({row.note})")


def _say(line: str) -> None:
    sys.stdout.write(line.rstrip() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
