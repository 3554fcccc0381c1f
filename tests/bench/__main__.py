"""``python -m tests.bench``: run the benchmarks and print one table."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from tests.bench.benches import BENCHES
from tests.bench.lab import ACCELERATED, LEFT_COMPILED, Machine, Row, run_python

WIDTHS = (50, 6, 9, 9, 9, 9, 5, 7)


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
    _line("", "unit", "least", "median", "p90", "max", "n", "floor")
    rows: list[tuple[str, Row]] = []
    for name in [arguments.only] if arguments.only else by_name:
        for row in by_name[name]():
            rows.append((name, row))
            _show(row)
    report = machine.report()
    _say("machine: " + ", ".join(f"{name} {value}" for name, value in report.items()))
    over = [row.name.strip() for _, row in rows if row.over]
    _say(f"over its floor: {'; '.join(over)}" if over else "nothing is over its floor")
    if arguments.json:
        figures = {"compiled": compiled, "machine": report, "rows": [_value(bench, row) for bench, row in rows]}
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 1 if over and arguments.strict else 0


def _show(row: Row) -> None:
    several = len(row.values) > 1
    _line(
        row.name,
        row.unit,
        _number(row.least) if several else "",
        _number(row.median),
        _number(row.p90) if row.p90 is not None else "",
        _number(max(row.values)) if several else "",
        str(len(row.values)),
        f"{row.floor:g}" if row.floor is not None else "",
        *(["over"] if row.over else []),
    )
    if row.note:
        _say(f"    ({row.note})")


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def _line(name: str, *cells: str) -> None:
    _say(
        (
            name.ljust(WIDTHS[0])
            + "".join(cell.rjust(width) for cell, width in zip(cells, (*WIDTHS[1:], 6), strict=False))
        ).rstrip()
    )


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _value(bench: str, row: Row) -> dict[str, object]:
    return {
        "bench": bench,
        "name": row.name.strip(),
        "unit": row.unit,
        "n": len(row.values),
        "least": row.least,
        "median": row.median,
        "p90": row.p90,
        "max": max(row.values),
        "floor": row.floor,
        "over": row.over,
        "note": row.note,
        "values": row.values,
    }


if __name__ == "__main__":
    sys.exit(main())
