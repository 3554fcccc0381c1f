"""The servers that are compared differ in what they say they differ in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from rockfill.completion import cache
from rockfill.completion.scheduler import Arrival, Priority, Supersede
from rockfill.completion.service import CompletionRequest
from rockfill.snapshots import Phase
from tests.bench.contenders import Contender, Queue, parts
from tests.engines import Script, engine

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engines import Engine

DOCUMENT = "import os\n" * 20


def _typing(ticket: int, document: str, key: str) -> Arrival:
    return Arrival(ticket, Priority.TYPING, client="one", key=key, document=document)


@pytest.mark.parametrize("supersedes", [True, False])
def test_what_does_not_supersede_lets_both_run(*, supersedes: bool) -> None:
    scheduler = parts(Contender(supersedes=supersedes))["Scheduler"](8)
    scheduler.arrive(_typing(1, DOCUMENT, "a"))
    effects = scheduler.arrive(_typing(2, DOCUMENT + "p", "b"))
    assert (Supersede(1) in effects) is supersedes


@pytest.mark.parametrize("shares", [True, False])
def test_what_does_not_share_queues_the_same_twice(*, shares: bool) -> None:
    scheduler = parts(Contender(shares=shares))["Scheduler"](8)
    scheduler.arrive(_typing(1, DOCUMENT, "a"))
    scheduler.arrive(_typing(2, DOCUMENT, "a"))
    assert scheduler.depth == (0 if shares else 1)


def test_what_does_not_remember_finds_nothing() -> None:
    for remembers in (True, False):
        memory = parts(Contender(remembers=remembers))["TypedAhead"](10_000)
        memory.remember("place", cache.Entry("a = ", "b", 1, complete=True))
        assert (memory.find("place", "a = ") is not None) is remembers


def test_a_budget_that_is_set_does_not_follow_the_engine() -> None:
    assert parts(Contender(budget_tokens=777))["Budget"](1.0).tokens(5000.0) == 777
    assert parts(Contender())["Budget"](1.0).tokens(5000.0) == 5000


async def _read(queue: Queue, prefix: str, seen: list[str]) -> None:
    async with queue.start(CompletionRequest(prefix, max_tokens=64)) as completion:
        async for _ in completion:
            pass
    seen.append(prefix)


def _queue(running: Engine, script: Script, contender: Contender) -> Queue:
    return Queue(contender, running.supervisor, lambda name: script.target, first_token_target_s=1.0)


async def test_a_queue_serves_in_the_order_of_arrival(tmp_path: Path) -> None:
    script = Script(tmp_path / "script.json")
    script.says(text="xyz", token_s=0.01)
    async with engine() as running:
        queue, seen = _queue(running, script, Contender(queue=True)), list[str]()
        async with asyncio.TaskGroup() as tasks:
            for prefix in "abcd":
                tasks.create_task(_read(queue, prefix, seen))
        assert seen == list("abcd")


@pytest.mark.parametrize("aborts", [True, False])
async def test_a_naive_queue_goes_on_without_its_client(tmp_path: Path, *, aborts: bool) -> None:
    script = Script(tmp_path / "script.json")
    script.says(text="x" * 40, token_s=0.01)
    async with engine() as running:
        queue = _queue(running, script, Contender(queue=True, aborts=aborts))
        async with queue.start(CompletionRequest("a", max_tokens=64)) as completion:
            async for _ in completion:
                break
        await asyncio.gather(*queue.running, return_exceptions=True)
        assert (completion.result is None) is aborts
        await running.reaches(Phase.READY)
