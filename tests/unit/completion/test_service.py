"""Completions with a real worker whose engine follows a script; without one of its own it repeats the last line."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from rockfill.bus import Event, Topic
from rockfill.completion.service import FULL_PAUSE_S, Completion, CompletionRequest, CompletionService
from rockfill.errors import Code, Problem
from rockfill.link.messages import Trimmed
from rockfill.session import Sampling
from rockfill.snapshots import Phase
from tests.engines import Engine, Script, engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rockfill.snapshots import Target


@pytest.fixture
async def running() -> AsyncIterator[Engine]:
    async with engine() as started:
        yield started


@pytest.fixture
def service(running: Engine, script: Script) -> CompletionService:
    """At most two wait; any name but "" and "other" is no model."""

    def find(name: str) -> Target:
        if name not in ("", "other"):
            raise Problem(Code.MODEL_NOT_FOUND, "no")
        return replace(script.target, name=name or "fake")

    return CompletionService(running.supervisor, find, max_queue=2, switch_idle_s=60, first_token_target_s=1)


def request(prompt: str, **fields: object) -> CompletionRequest:
    return replace(CompletionRequest(prompt, max_tokens=1000), **fields)  # type: ignore[arg-type] # of any field


async def complete(service: CompletionService, wanted: CompletionRequest) -> tuple[str, Completion]:
    async with service.start(wanted) as completion:
        return "".join([text async for text in completion]), completion


def refusal(service: CompletionService, wanted: CompletionRequest) -> Problem:
    with pytest.raises(Problem) as caught:
        service.start(wanted)
    return caught.value


async def begun(service: CompletionService, script: Script) -> asyncio.Task[None]:
    """A completion that runs until it is cancelled; its first text has come."""
    script.says(text="x" * 900, token_s=0.01)
    first = asyncio.Event()

    async def run() -> None:
        async with service.start(request("long")) as completion:
            async for _ in completion:
                first.set()

    task = asyncio.create_task(run())
    await first.wait()
    return task


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# ---- one completion


async def test_a_completion_tells_how_it_went(service: CompletionService) -> None:
    text, completion = await complete(service, request("first line\nsecond", sampling=Sampling(top_k=5, seed=1)))
    assert text == "second"
    result = completion.result
    assert (result.model, result.finish_reason) == ("fake", "stop")
    assert (result.prompt_tokens, result.generated_tokens) == (len("first line\nsecond") + 1, len("second"))
    assert (result.reused_tokens, result.trimmed, result.ignored) == (0, Trimmed(), ("top_k", "seed"))
    timings = result.timings
    assert timings.first_token_ms is not None
    assert 0 <= timings.queue_ms <= timings.first_token_ms <= timings.total_ms


async def test_a_completion_cut_by_its_own_bound_says_length(service: CompletionService) -> None:
    text, completion = await complete(service, request("abcdef", max_tokens=3))
    assert (text, completion.result.finish_reason) == ("abc", "length")


@pytest.mark.parametrize("token_s", [0, 0.01])
async def test_a_stop_text_across_chunks_ends_the_engine_s_run(
    service: CompletionService, running: Engine, script: Script, token_s: float
) -> None:
    """Whether the texts come together or one by one: what is before the stop comes whole, nothing of it does."""
    script.says(text="one;; two" + "x" * 900, token_s=token_s)
    text, completion = await complete(service, request("a", stops=(";; ",)))
    assert (text, completion.result.finish_reason) == ("one", "stop")
    assert (completion.result.ended, completion.result.stop) == ("stop", ";; ")
    await running.reaches(Phase.READY)
    if token_s:
        assert completion.result.generated_tokens < 900


async def test_line_mode_ends_at_the_line(service: CompletionService, script: Script) -> None:
    script.says(text="a + b)\nreturn", tokens=4)
    text, completion = await complete(service, request("f(", suffix=")\n", mode="line"))
    assert text == "a + b"
    assert (completion.result.ended, completion.result.stop) == ("line", "")


async def test_the_stop_texts_of_the_family_apply(service: CompletionService, script: Script) -> None:
    script.says(text="x</code>y")
    starcoder = replace(script.target, family="starcoder")
    service._find_model = lambda name: starcoder
    text, completion = await complete(service, request("a"))
    assert (text, completion.result.ended, completion.result.stop) == ("x", "stop", "")  # nobody had asked for it


async def test_a_failed_run_raises_its_problem_and_frees_the_turn(service: CompletionService, script: Script) -> None:
    script.says(fault={"when": "prefill", "what": "raise"})
    with pytest.raises(Problem) as caught:
        await complete(service, request("a"))
    assert caught.value.code is Code.ENGINE_FAILED
    script.says()
    assert (await complete(service, request("b")))[0] == "b"


async def test_a_request_that_took_two_workers_with_it_is_refused_and_others_are_not(
    service: CompletionService, running: Engine, script: Script
) -> None:
    script.says(text="x", fault={"when": 0, "what": "segv"})
    codes = []
    for _ in range(3):
        await running.reaches(Phase.STOPPED, Phase.STARTING, Phase.LOADING, Phase.READY)
        with pytest.raises(Problem) as caught:
            await complete(service, request("bad"))
        codes.append(caught.value.code)
    assert codes == [Code.ENGINE_CRASHED, Code.ENGINE_CRASHED, Code.REQUEST_CRASHES_ENGINE]
    script.says()
    await running.reaches(Phase.READY)
    assert (await complete(service, request("good")))[0] == "good"


# ---- whose turn it is


async def test_many_at_once_run_one_after_another_and_never_mix(service: CompletionService, script: Script) -> None:
    script.says(token_s=0.001)
    prompts = ["alpha " * 5, "beta " * 5, "gamma " * 5]
    order: list[str] = []

    async def run(prompt: str) -> str:
        text, _ = await complete(service, request(prompt))
        order.append(prompt)
        return text

    assert await asyncio.gather(*map(run, prompts)) == prompts
    assert order == prompts


async def test_a_full_queue_refuses_with_a_time_to_come_back_and_says_so_once(
    service: CompletionService, script: Script
) -> None:
    told: list[Event] = []
    service._bus.subscribe(told.append)
    task = await begun(service, script)
    waiting = [service.start(request("a")), service.start(request("b"))]
    assert service.queue_depth == 2
    problem = refusal(service, request("c"))
    assert (problem.code, problem.detail) == (Code.QUEUE_FULL, {"retry_after_s": 1})
    refusal(service, request("d"))
    [event] = told
    assert (event.topic, event.type, event.value) == (Topic.EVENTS, "queue.full", {"waiting": 2, "refused": 1})
    service._told_full_s -= FULL_PAUSE_S
    refusal(service, request("e"))
    assert told[-1].value == {"waiting": 2, "refused": 2}
    for completion in waiting:
        async with completion:
            pass
    assert service.queue_depth == 0
    await ended(task)


async def test_a_vanished_client_frees_the_engine_for_the_next(
    service: CompletionService, running: Engine, script: Script
) -> None:
    task = await begun(service, script)
    worker = running.supervisor.snapshot.worker_pid
    following = asyncio.create_task(complete(service, request("next")))
    await asyncio.sleep(0)
    script.says()
    await ended(task)
    assert (await following)[0] == "next"
    assert running.supervisor.snapshot.worker_pid == worker


async def test_one_that_gives_up_waiting_is_never_run(service: CompletionService, script: Script) -> None:
    task = await begun(service, script)
    waiting = [asyncio.create_task(complete(service, request(prompt))) for prompt in ("gives up", "stays")]
    await asyncio.sleep(0)
    waiting[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]
    script.says()
    await ended(task)
    assert (await waiting[1])[0] == "stays"


async def test_one_that_gives_up_as_its_turn_comes_passes_it_on(service: CompletionService) -> None:
    """In the same turn of the loop: what it waits for is cancelled already when the one before leaves."""
    async with service.alone():
        waiting = [asyncio.create_task(complete(service, request(prompt))) for prompt in ("gives up", "stays")]
        await asyncio.sleep(0)
        waiting[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]
    assert (await waiting[1])[0] == "stays"


async def test_one_that_never_asks_for_its_text_gives_its_turn_back(service: CompletionService) -> None:
    async with service.start(request("unused")):
        assert service.queue_depth == 0
    assert (await complete(service, request("a")))[0] == "a"


async def test_leaving_early_ends_the_run(service: CompletionService, running: Engine, script: Script) -> None:
    script.says(text="x" * 900, token_s=0.01)
    async with service.start(request("a")) as completion:
        texts = aiter(completion)
        await anext(texts)
    await running.reaches(Phase.READY)
    await texts.aclose()


async def test_whoever_wants_the_engine_alone_waits_for_it_and_has_it(
    service: CompletionService, script: Script
) -> None:
    task = await begun(service, script)
    had: list[str] = []

    async def alone() -> None:
        async with service.alone():
            had.append("alone")

    waiting = asyncio.create_task(alone())
    await asyncio.sleep(0)
    following = asyncio.create_task(complete(service, request("next")))
    await asyncio.sleep(0)
    assert (had, service.queue_depth) == ([], 2)
    script.says()
    await ended(task)
    await waiting
    assert (await following)[0] == "next"
    assert had == ["alone"]


async def pause_ends_the_waiting(service: CompletionService) -> None:
    """Pause while somebody waits for the engine alone, who never has a turn."""

    async def alone() -> None:
        async with service.alone():
            raise AssertionError("it had its turn")

    waiting = asyncio.create_task(alone())
    await asyncio.sleep(0)
    service.pause()
    with pytest.raises(Problem) as caught:
        await asyncio.wait_for(waiting, 5)
    assert (caught.value.code, service.queue_depth) == (Code.ENGINE_PAUSED, 0)


async def test_a_pause_ends_the_waiting_for_the_engine_alone(service: CompletionService, script: Script) -> None:
    task = await begun(service, script)
    await pause_ends_the_waiting(service)
    with pytest.raises(Problem):
        await task
    service.resume()
    script.says()
    assert (await complete(service, request("a")))[0] == "a"


async def test_a_pause_does_not_wait_for_who_has_the_engine_alone(service: CompletionService) -> None:
    async with service.alone():
        await pause_ends_the_waiting(service)
    service.resume()
    assert (await complete(service, request("a")))[0] == "a"


# ---- which model


async def test_a_name_that_is_no_model_takes_no_turn(service: CompletionService) -> None:
    assert refusal(service, request("a", model="gpt-4")).code is Code.MODEL_NOT_FOUND
    assert (await complete(service, request("a")))[0] == "a"


async def test_another_model_is_refused_until_the_loaded_one_has_been_idle(
    service: CompletionService, running: Engine
) -> None:
    await complete(service, request("a"))
    await running.reaches(Phase.READY)
    problem = refusal(service, request("a", model="other"))
    assert problem.code is Code.MODEL_BUSY
    assert 1 <= problem.detail["retry_after_s"] <= 60
    service._switch_idle_s = 0
    assert (await complete(service, request("b", model="other")))[1].result.model == "other"


async def test_a_pinned_model_is_not_replaced(service: CompletionService, running: Engine) -> None:
    service._switch_idle_s = 0
    await complete(service, request("a"))
    running.supervisor.pin(pinned=True)
    await running.supervisor.heartbeat()
    assert refusal(service, request("a", model="other")).code is Code.MODEL_BUSY


async def test_a_paused_service_refuses(service: CompletionService) -> None:
    service.paused = True
    assert refusal(service, request("a")).code is Code.ENGINE_PAUSED
    service.paused = False
    assert (await complete(service, request("a")))[0] == "a"
