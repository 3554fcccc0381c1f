"""How far a download is, on the terminal: a bar where there is one, a line now and then where there is none."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any

from rockfill.errors import Code, Problem, ProblemInfo

if TYPE_CHECKING:
    from rockfill.cli.reaching import Ask

POLL_S = 0.25
LINE_EVERY_S = 15.0
BAR_CHARS = 24


async def follow(ask: Ask, download: str) -> dict[str, Any]:
    """Show the download until it is over; returns it. Raises the problem that ended it."""
    shown = _Shown()
    try:
        while True:
            job = await _find(ask, download)
            shown.show(job)
            if job["state"] == "done":
                return job
            if job["state"] == "cancelled":
                raise Problem(Code.CANCELLED, f"The download of {job['name']} was cancelled; what has come is kept.")
            if job["state"] == "failed" and (job["retry_in_s"] is None or not ask.is_daemon):
                raise _problem(job["problem"])
            await asyncio.sleep(POLL_S)
    finally:
        shown.end()


async def _find(ask: Ask, download: str) -> dict[str, Any]:
    jobs = (await ask.call("models.downloads"))["downloads"]
    return next(job for job in jobs if job["id"] == download)


class _Shown:
    def __init__(self) -> None:
        self._bar = sys.stderr.isatty()
        self._last_line_s = time.monotonic() - LINE_EVERY_S
        self._width = 0

    def show(self, job: dict[str, Any]) -> None:
        if self._bar:
            text = line(job, bar=True)
            print(f"\r{text.ljust(self._width)}", end="", file=sys.stderr, flush=True)
            self._width = len(text)
        elif time.monotonic() - self._last_line_s >= LINE_EVERY_S:
            print(line(job, bar=False), file=sys.stderr, flush=True)
            self._last_line_s = time.monotonic()

    def end(self) -> None:
        if self._bar:
            print(file=sys.stderr)


def line(job: dict[str, Any], *, bar: bool) -> str:
    """One line: ``codegemma:2b  43 % ##########-------  1.5 of 3.6 GB  11.2 MB/s  3 min 12 s left``."""
    done, total = job["done_bytes"], job["total_bytes"]
    parts = [job["name"]]
    if job["state"] == "queued":
        parts.append("waiting")
    if job["problem"]:
        parts.append(job["problem"]["message"])
    if total:
        share = done / total
        parts.append(f"{100 * share:3.0f} %")
        if bar:
            full = round(share * BAR_CHARS)
            parts.append("#" * full + "-" * (BAR_CHARS - full))
        parts.append(f"{size(done)} of {size(total)}")
    else:
        parts.append(size(done))
    if job["bytes_per_second"]:
        parts.append(f"{job['bytes_per_second'] / 1e6:.1f} MB/s")
    if job["seconds_left"] is not None:
        parts.append(f"{duration(job['seconds_left'])} left")
    return "  ".join(parts)


def size(size_bytes: int) -> str:
    """``3.6 GB``, in powers of ten as disks have them."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} B"


def duration(seconds: float) -> str:
    """``1 h 5 min``, ``3 min 12 s``, ``8 s``."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def _problem(value: dict[str, Any]) -> Problem:
    return ProblemInfo(Code(value["code"]), value["message"], value["advice"], value["detail"]).raised()
