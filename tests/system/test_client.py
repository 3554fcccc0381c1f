"""`rockfill.client`, as those use it who script the appliance."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from rockfill.client import Client
from rockfill.errors import Code, Problem

if TYPE_CHECKING:
    from tests.appliance import ScriptedAppliance


async def test_calls_completions_and_subscriptions_go_on_side_by_side(scripted: ScriptedAppliance) -> None:
    scripted.script(text="abcdefgh", token_s=0.02)
    async with Client(scripted.url, scripted.token) as client:
        subscribed = asyncio.Event()

        async def engine_events() -> list[str]:
            found: list[str] = []
            async for event in client.subscribe(["engine"]):
                found.append(event["state"])
                subscribed.set()
                if found[-2:] == ["busy", "ready"]:
                    break
            return found

        events = asyncio.create_task(engine_events())
        await subscribed.wait()
        completion = client.complete("x = ", "\n", max_tokens=8)
        pieces = []
        async for piece in completion:
            pieces.append(piece)
            assert (await client.call("ping")) == {}
        assert "".join(pieces) == completion.done["text"] == "abcdefgh"
        assert completion.model == "fake"
        assert completion.done["timings"]["generated_tokens"] == 8
        states = await events
        assert (states[0], states[-1]) == ("ready", "ready")
        states = [entry["state"] for entry in (await client.call("engine.history"))["events"]]
        assert "ready" in states


async def test_an_iteration_that_ends_early_ends_the_completion(scripted: ScriptedAppliance) -> None:
    scripted.script(text="x" * 4000, token_s=0.1)
    async with Client(scripted.url, scripted.token) as client:
        text = aiter(client.complete("x = ", max_tokens=4000))
        assert await anext(text)
        await text.aclose()  # type: ignore[attr-defined]
        await asyncio.to_thread(scripted.wait_for_state, "ready")
        assert (await client.call("ping")) == {}


async def test_a_problem_is_the_appliances_own(scripted: ScriptedAppliance) -> None:
    async with Client(scripted.url, scripted.token) as client:
        for type_, parameters, code in (
            ("nothing", {}, Code.UNKNOWN_COMMAND),
            ("engine.load", {"model": "no"}, Code.MODEL_NOT_FOUND),
            ("engine.logs", {"lines": "x"}, Code.INVALID_FORMAT),
        ):
            with pytest.raises(Problem) as caught:
                await client.call(type_, parameters)
            assert caught.value.code is code
            assert caught.value.message
        scripted.script(text="x" * 20, token_s=0.01, fault={"when": 10, "what": "exit"})
        with pytest.raises(Problem) as caught:
            await client.complete("x = ").text()
        assert caught.value.code is Code.ENGINE_CRASHED


@pytest.mark.parametrize("token", [None, "", "wrong"])
async def test_who_is_not_let_in_is_told_so(scripted: ScriptedAppliance, token: str | None) -> None:
    with pytest.raises(Problem) as caught:
        async with Client(scripted.url, token):
            pass
    assert caught.value.code is Code.UNAUTHORIZED


async def test_a_daemon_that_goes_away_ends_everything_that_waits(scripted: ScriptedAppliance) -> None:
    scripted.script(text="x" * 4000, token_s=0.1)
    async with Client(scripted.url, scripted.token) as client:

        async def listen() -> None:
            async for _ in client.subscribe(["events"]):
                pass

        waiting = [asyncio.create_task(listen()), asyncio.create_task(client.complete("x", max_tokens=4000).text())]
        await asyncio.to_thread(scripted.wait_for_state, "busy")
        await asyncio.to_thread(scripted.stop, 9)
        for task in waiting:
            with pytest.raises(Problem) as caught:
                await asyncio.wait_for(task, 60)
            assert caught.value.code is Code.NO_DAEMON
        with pytest.raises(Problem) as caught:
            await client.call("ping")
        assert caught.value.code is Code.NO_DAEMON


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://127.0.0.1:9", Code.NO_DAEMON),
        ("nonsense", Code.INVALID_VALUE),
        ("ftp://127.0.0.1", Code.INVALID_VALUE),
        ("http://", Code.INVALID_VALUE),
    ],
)
async def test_an_address_where_nobody_answers_is_named(url: str, code: Code) -> None:
    with pytest.raises(Problem) as caught:
        async with Client(url, "token"):
            pass
    assert caught.value.code is code
