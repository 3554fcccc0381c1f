from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from rockfill.cli import progress
from rockfill.errors import Code, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

JOB: dict[str, Any] = {
    "id": "codegemma-2b",
    "name": "codegemma:2b",
    "state": "fetching",
    "done_bytes": 1_500_000_000,
    "total_bytes": 3_600_000_000,
    "bytes_per_second": 11_200_000.0,
    "seconds_left": 187.5,
    "problem": None,
    "retry_in_s": None,
}
PROBLEM = {"code": "disk_full", "message": "The disk is full.", "advice": "Make room.", "detail": {}}


class Scripted:
    """Answers with one job after another."""

    def __init__(self, *changes: dict[str, Any], is_daemon: bool = True) -> None:
        self.is_daemon = is_daemon
        self._jobs = [{**JOB, **change} for change in changes]

    async def call(self, type_: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
        assert type_ == "models.downloads"
        return {"downloads": [{**JOB, "id": "other"}, self._jobs.pop(0)]}


def test_a_line_tells_how_far_how_fast_and_how_long_still() -> None:
    assert progress.line(JOB, bar=True) == (
        "codegemma:2b   42 %  ##########--------------  1.5 GB of 3.6 GB  11.2 MB/s  3 min 8 s left"
    )
    unknown = {**JOB, "total_bytes": None, "bytes_per_second": None, "seconds_left": None, "done_bytes": 900}
    assert progress.line(unknown, bar=True) == "codegemma:2b  900 B"


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (3725, "1 h 2 min")])
def test_durations(seconds: float, text: str) -> None:
    assert progress.duration(seconds) == text


def test_it_follows_to_the_end_over_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "POLL_S", 0)
    waiting = {"state": "failed", "problem": PROBLEM, "retry_in_s": 60.0}
    ask = Scripted({"state": "queued"}, {}, waiting, {"state": "done"})
    assert asyncio.run(progress.follow(ask, "codegemma-2b"))["state"] == "done"


@pytest.mark.parametrize(
    ("end", "is_daemon", "code"),
    [
        ({"state": "failed", "problem": PROBLEM}, True, Code.DISK_FULL),
        # nobody is left to try again once this process has ended
        ({"state": "failed", "problem": PROBLEM, "retry_in_s": 60.0}, False, Code.DISK_FULL),
        ({"state": "cancelled"}, True, Code.CANCELLED),
    ],
)
def test_what_ends_it_is_raised(end: dict[str, Any], is_daemon: bool, code: Code) -> None:
    with pytest.raises(Problem) as caught:
        asyncio.run(progress.follow(Scripted(end, is_daemon=is_daemon), "codegemma-2b"))
    assert caught.value.code is code
