"""Token ids from the loaded model, whatever else the engine does meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from rockfill.errors import Code, Problem
from rockfill.link.messages import Generate, Render
from rockfill.snapshots import Phase
from tests.engines import Engine, Script, engine
from tests.fakes.worker import FIRST_TEXT_ID

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

IDS = tuple(FIRST_TEXT_ID + ord(character) for character in "ab")


@pytest.fixture
async def running() -> AsyncIterator[Engine]:
    async with engine() as started:
        yield started


async def test_a_loaded_model_gives_the_ids_of_ordinary_text(running: Engine, script: Script) -> None:
    await running.supervisor.ensure_ready(script.target)
    assert await running.supervisor.tokenize("ab") == IDS
    assert len(await running.supervisor.tokenize("<bos>")) == 5
    assert running.supervisor.snapshot.phase is Phase.READY


async def test_ids_become_text_again_control_tokens_written_out(running: Engine, script: Script) -> None:
    await running.supervisor.ensure_ready(script.target)
    assert await running.supervisor.detokenize((*IDS, 1, *IDS)) == "ab<eos>ab"
    assert await running.supervisor.detokenize(()) == ""


async def test_the_prompt_is_shown_as_the_engine_gets_it(running: Engine, script: Script) -> None:
    await running.supervisor.ensure_ready(script.target)
    prompt = await running.supervisor.prompt(Render(0, "a<|fim_suffix|>", "b"))
    shown = [(piece.text, piece.control) for piece in prompt.pieces]
    assert shown == [
        ("<bos>", True),
        ("<|fim_prefix|>", True),
        ("a<|fim_suffix|>", False),  # as text, whatever it looks like
        ("<|fim_suffix|>", True),
        ("b", False),
        ("<|fim_middle|>", True),
    ]
    assert prompt.tokens == 4 + len("a<|fim_suffix|>b")
    assert running.supervisor.snapshot.phase is Phase.READY


async def test_what_is_trimmed_is_not_shown(running: Engine, script: Script) -> None:
    await running.supervisor.ensure_ready(script.target)
    prompt = await running.supervisor.prompt(Render(0, "line\n" * 100, "", budget_tokens=60))
    assert prompt.tokens <= 60
    assert prompt.trimmed.prefix_chars > 400


@pytest.mark.parametrize("token", [-1, 1 << 40])
async def test_an_id_that_is_none_never_reaches_the_engine(running: Engine, script: Script, token: int) -> None:
    await running.supervisor.ensure_ready(script.target)
    with pytest.raises(Problem, match=str(token)) as caught:
        await running.supervisor.detokenize((*IDS, token))
    assert caught.value.code is Code.INVALID_VALUE
    assert running.supervisor.snapshot.phase is Phase.READY


async def test_without_a_model_there_are_none(running: Engine) -> None:
    with pytest.raises(Problem) as caught:
        await running.supervisor.tokenize("ab")
    assert caught.value.code is Code.ENGINE_STOPPED


async def test_a_run_goes_first_and_is_not_disturbed(running: Engine, script: Script) -> None:
    script.says(text="x" * 5, token_s=0.01)
    generation = running.supervisor.submit(script.target, Generate(id=0, prefix="a", max_tokens=9))
    await generation.taken_up()
    ids = await running.supervisor.tokenize("ab")
    assert generation.run is not None
    assert (ids, "".join([text async for text in generation])) == (IDS, "xxxxx")


async def test_who_waits_is_told_when_the_worker_dies(running: Engine, script: Script) -> None:
    script.says(text="x" * 9, token_s=0.01, fault={"when": 3, "what": "exit"})
    generation = running.supervisor.submit(script.target, Generate(id=0, prefix="a", max_tokens=9))
    await generation.taken_up()
    with pytest.raises(Problem) as caught:
        await running.supervisor.tokenize("ab")
    assert caught.value.code is Code.ENGINE_STOPPED
    await running.reaches(Phase.READY, Phase.FAILED)


async def test_who_waits_may_leave(running: Engine, script: Script) -> None:
    script.says(text="x" * 9, token_s=0.01)
    generation = running.supervisor.submit(script.target, Generate(id=0, prefix="a", max_tokens=9))
    await generation.taken_up()
    waiting = asyncio.create_task(running.supervisor.tokenize("ab"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert "".join([text async for text in generation]) == "x" * 9
    assert await running.supervisor.tokenize("ab") == IDS
