"""What somebody gains who types: answers from memory, no waiting for what is pointless, and first place."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from rockfill.completion.budget import LEAST_TOKENS
from rockfill.completion.scheduler import Priority
from rockfill.completion.service import Completion, CompletionRequest, CompletionService
from rockfill.errors import Code, Problem
from rockfill.snapshots import Phase
from tests.engines import Engine, Script, engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CODE = "def f():\n    return 1\n" * 10


@pytest.fixture
async def running() -> AsyncIterator[Engine]:
    async with engine() as started:
        yield started


@pytest.fixture
def service(running: Engine, script: Script) -> CompletionService:
    target = script.target
    return CompletionService(
        running.supervisor, lambda name: target, max_queue=8, switch_idle_s=60, first_token_target_s=1
    )


def key(prefix: str, **fields: object) -> CompletionRequest:
    """A key typed in an editor."""
    wanted = CompletionRequest(
        prefix, suffix="\n", max_tokens=64, priority=Priority.TYPING, client="vim", supersedes=True
    )
    return replace(wanted, **fields)  # type: ignore[arg-type] # of any field


async def complete(service: CompletionService, wanted: CompletionRequest) -> tuple[str, Completion]:
    async with service.start(wanted) as completion:
        return "".join([text async for text in completion]), completion


def started(service: CompletionService, wanted: CompletionRequest) -> asyncio.Task[tuple[str, Completion]]:
    return asyncio.create_task(complete(service, wanted))


async def test_a_completion_that_is_typed_is_answered_from_memory(service: CompletionService, script: Script) -> None:
    script.says(text="compute(x)")
    assert (await complete(service, key("y = ")))[0] == "compute(x)"
    script.says(text="something else")
    text, completion = await complete(service, key("y = comp"))
    assert text == "ute(x)"
    assert (completion.result.from_memory, completion.result.finish_reason) == (6, "stop")
    assert completion.result.timings.prefill_ms is None
    assert (await complete(service, key("y = cow")))[0] == "something else"


async def test_only_what_comes_after_a_cut_completion_is_run(service: CompletionService, script: Script) -> None:
    script.says(text="abcdefgh")
    text, completion = await complete(service, key("y = ", max_tokens=4))
    assert (text, completion.result.finish_reason) == ("abcd", "length")
    script.says(text="EFGH")
    text, completion = await complete(service, key("y = ab", max_tokens=6))
    assert text == "cdEFGH"
    assert (completion.result.from_memory, completion.result.generated_tokens) == (2, 6)


async def test_the_same_question_with_the_same_bound_gets_no_more_than_its_bound(
    service: CompletionService, script: Script
) -> None:
    script.says(text="abcdefgh")
    for _ in range(2):
        text, completion = await complete(service, key("y = ", max_tokens=4))
        assert (text, completion.result.finish_reason) == ("abcd", "length")


async def test_plain_requests_are_never_answered_from_memory(service: CompletionService, script: Script) -> None:
    plain = key("y = ", priority=Priority.PLAIN)
    script.says(text="one")
    assert (await complete(service, plain))[0] == "one"
    script.says(text="two")
    assert (await complete(service, plain))[0] == "two"
    assert (await complete(service, key("y = ")))[0] == "two"


async def test_a_newer_key_ends_the_run_of_the_older_one(
    service: CompletionService, running: Engine, script: Script
) -> None:
    script.says(text="x" * 60, token_s=0.05)
    older = started(service, key(CODE))
    await running.reaches(Phase.BUSY)
    middle = started(service, key(CODE + "a"))
    await asyncio.sleep(0)
    script.says(text="fine")
    newest = started(service, key(CODE + "ab"))
    assert (await newest)[0] == "fine"
    for superseded in (older, middle):
        with pytest.raises(Problem) as caught:
            await superseded
        assert caught.value.code is Code.SUPERSEDED
    assert service.queue_depth == 0


async def test_the_same_question_of_two_clients_is_asked_once(
    service: CompletionService, running: Engine, script: Script
) -> None:
    script.says(text="shared", token_s=0.02)
    first = started(service, key(CODE, client="a"))
    await running.reaches(Phase.BUSY)
    second = started(service, key(CODE, client="b"))
    assert (await first)[0] == (await second)[0] == "shared"
    assert [snapshot.phase for snapshot in running.snapshots].count(Phase.BUSY) == 1


async def test_a_shared_run_goes_on_when_one_of_its_clients_leaves(
    service: CompletionService, running: Engine, script: Script
) -> None:
    script.says(text="shared", token_s=0.02)
    first = started(service, key(CODE, client="a"))
    await running.reaches(Phase.BUSY)
    second = started(service, key(CODE, client="b"))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second)[0] == "shared"
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_background_work_makes_way_and_goes_on_where_it_was(
    service: CompletionService, running: Engine, script: Script
) -> None:
    script.says(text="abcdefgh", token_s=0.3)
    background = CompletionRequest("long work", max_tokens=8, priority=Priority.BACKGROUND)
    async with service.start(background) as completion:
        texts = aiter(completion)
        said = await anext(texts)
        script.says(text="-what both get from now on")
        assert (await complete(service, key("y = ")))[0] == "-what both get from now on"
        said += "".join([text async for text in texts])
    begun = said[: said.index("-")]
    assert begun
    assert "abcdefgh".startswith(begun)
    assert said == (begun + "-what both get")[:8]
    assert completion.result.generated_tokens == 8


async def test_a_time_budget_ends_the_text_at_the_end_of_a_line(service: CompletionService, script: Script) -> None:
    script.says(text="first\nsecond\nthird\n", token_s=0.01)
    wanted = key("y = ", mode="block", predict_s=0.0)
    text, completion = await complete(service, wanted)
    assert (text, completion.result.finish_reason) == ("first", "stop")


async def test_a_typed_prompt_is_kept_within_the_budget(service: CompletionService) -> None:
    _, completion = await complete(service, key(CODE * 100))
    assert completion.result.prompt_tokens <= LEAST_TOKENS
    assert completion.result.trimmed.prefix_chars > 0
    _, completion = await complete(service, key(CODE * 100, priority=Priority.PLAIN))
    assert completion.result.prompt_tokens > 2000
