"""The websocket of a running daemon, frame by frame."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from rockfill.api.commands.all import COMMANDS
from rockfill.api.ws.connection import MOST_COMMANDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from rockfill.api.commands.table import Command
    from tests.appliance import Appliance, ScriptedAppliance

ANSWER_S = 50.0


def goes_on_while(held: Path) -> dict[str, object]:
    """A script: one token, and the rest once `held` is gone."""
    return {"text": "x" * 40, "holds": {"before": 1, "while": str(held)}}


class Socket:
    """A client that takes nothing for granted."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def says(self) -> Any:
        """The next frame."""
        return await self.socket.receive_json(timeout=ANSWER_S)

    async def hears(self, *frames: object) -> Any:
        """The answer to the last of `frames`."""
        answer = None
        for frame in frames:
            await self.socket.send_json(frame)
            answer = await self.says()
        return answer

    async def error(self, frame: object) -> str:
        answer = await self.hears(frame)
        assert (answer["type"], answer["success"]) == ("result", False)
        assert set(answer["error"]) == {"code", "message", "advice", "detail"}
        code: str = answer["error"]["code"]
        return code

    async def ends(self) -> int | None:
        """The code with which the appliance closes the connection."""
        message = await self.socket.receive(timeout=ANSWER_S)
        assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
        return self.socket.close_code


@asynccontextmanager
async def connect(appliance: Appliance, headers: Mapping[str, str] | None = None) -> AsyncIterator[Socket]:
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{appliance.url}/ws", headers=headers) as ws:
        yield Socket(ws)


@asynccontextmanager
async def let_in(appliance: Appliance) -> AsyncIterator[Socket]:
    """A connection that its header has let in."""
    async with connect(appliance, {"Authorization": f"Bearer {appliance.token}"}) as socket:
        assert (await socket.says())["type"] == "auth_ok"
        yield socket


async def test_who_has_shown_nothing_is_asked_for_the_token_first(speaking: ScriptedAppliance) -> None:
    async with connect(speaking) as socket:
        asked = await socket.says()
        assert asked == {"type": "auth_required", "version": asked["version"], "protocol": 1}
        answer = await socket.hears({"type": "auth", "token": speaking.token})
        assert answer == {**asked, "type": "auth_ok"}
        assert await socket.hears({"id": 1, "type": "ping"}) == {
            "id": 1,
            "type": "result",
            "success": True,
            "result": {},
        }


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ({"type": "auth", "token": "wrong"}, "unauthorized"),
        ({"type": "auth", "token": ""}, "unauthorized"),
        ({"type": "auth", "token": 1}, "unauthorized"),
        ({"type": "auth"}, "unauthorized"),
        ({"id": 1, "type": "engine.unload"}, "unauthorized"),
        ({"id": 1, "type": "ping", "token": "RIGHT"}, "unauthorized"),
        ([], "invalid_format"),
    ],
)
async def test_whoever_does_not_show_it_is_sent_away(speaking: ScriptedAppliance, frame: object, code: str) -> None:
    async with connect(speaking) as socket:
        await socket.says()
        if isinstance(frame, dict) and frame.get("token") == "RIGHT":
            frame = {**frame, "token": speaking.token}
        answer = await socket.hears(frame)
        assert (answer["type"], answer["code"]) == ("auth_invalid", code)
        assert await socket.ends() == 1008


async def test_another_version_of_the_protocol_is_refused_by_name(speaking: ScriptedAppliance) -> None:
    async with connect(speaking) as socket:
        await socket.says()
        answer = await socket.hears({"type": "auth", "token": speaking.token, "protocol": 2})
        assert (answer["type"], answer["code"]) == ("auth_invalid", "unsupported")
        assert "protocol 1" in answer["advice"]


async def test_the_cookie_of_the_page_lets_in_but_only_our_own_page(speaking: ScriptedAppliance) -> None:
    cookie = speaking.request("POST", "/login", {"token": speaking.token}, token=None).headers["Set-Cookie"]
    ours = {"Cookie": cookie.partition(";")[0], "Origin": speaking.url}
    async with connect(speaking, ours) as socket:
        assert (await socket.says())["type"] == "auth_ok"
    for origin in ("http://evil.example", "null", speaking.url + ".evil.example", "", None):
        said = {"Cookie": ours["Cookie"]} if origin is None else {**ours, "Origin": origin}
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with connect(speaking, said):
                pass
        assert refused.value.status == 403


async def test_a_page_from_elsewhere_may_not_even_ask(speaking: ScriptedAppliance) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with connect(speaking, {"Origin": "http://evil.example"}):
            pass
    assert refused.value.status == 403


async def test_what_is_wrong_with_a_frame_is_told_under_its_id(speaking: ScriptedAppliance) -> None:
    async with let_in(speaking) as socket:
        assert await socket.error({"id": 5, "type": "nothing"}) == "unknown_command"
        assert await socket.error({"id": 5, "type": "ping"}) == "id_reuse"
        assert await socket.error({"id": 4, "type": "ping"}) == "id_reuse"
        assert await socket.error({"type": "ping"}) == "invalid_format"
        assert await socket.error({"id": 6}) == "invalid_format"
        assert await socket.error([1]) == "invalid_format"
        assert await socket.error({"id": 7, "type": "engine.logs", "lines": "x"}) == "invalid_format"
        assert await socket.error({"id": 8, "type": "complete.start", "prefix": "", "model": "no"}) == "model_not_found"
        assert await socket.error({"id": 9, "type": "unsubscribe", "subscription": 1}) == "not_found"
        assert await socket.error({"id": 10, "type": "complete.cancel", "completion": 1}) == "not_found"
        await socket.socket.send_bytes(b'{"id": 11, "type": "ping"}')
        assert (await socket.says())["error"]["code"] == "invalid_format"
        await socket.socket.send_str("{")
        answer = await socket.says()
        assert (answer["id"], answer["error"]["code"]) == (None, "invalid_format")
        assert (await socket.hears({"id": 12, "type": "ping"}))["success"]


async def test_a_frame_that_is_too_large_ends_the_connection(speaking: ScriptedAppliance) -> None:
    async with let_in(speaking) as socket:
        with contextlib.suppress(ConnectionError):  # it is not even read to its end
            await socket.socket.send_str("x" * (4 * 1024 * 1024 + 1))
        assert await socket.ends() in (1009, 1006)


async def test_a_completion_streams_its_text_and_ends_once(speaking: ScriptedAppliance) -> None:
    async with let_in(speaking) as socket:
        started = await socket.hears({"id": 1, "type": "complete.start", "prefix": "x = ", "suffix": "\n"})
        assert started == {"id": 1, "type": "result", "success": True, "result": {"model": "fake"}}
        delta, done = await socket.says(), await socket.says()
        assert delta == {"id": 1, "type": "event", "event": {"type": "complete.delta", "text": "a + b"}}
        told = {"finish_reason", "trimmed", "reused_tokens", "from_memory", "ignored", "timings"}
        assert set(done["event"]) == {"type", "text", *told}
        assert (done["event"]["type"], done["event"]["text"]) == ("complete.done", "a + b")
        assert (await socket.hears({"id": 2, "type": "ping"}))["id"] == 2


async def test_a_cancelled_completion_ends_as_such_and_frees_the_engine(
    scripted: ScriptedAppliance, held: Path
) -> None:
    scripted.script(**goes_on_while(held))
    async with let_in(scripted) as socket:
        await socket.hears({"id": 1, "type": "complete.start", "prefix": "x = "})
        await socket.says()
        await socket.socket.send_json({"id": 2, "type": "complete.cancel", "completion": 1})
        events = []
        while (frame := await socket.says())["id"] == 1:
            events.append(frame["event"])
        assert frame == {"id": 2, "type": "result", "success": True, "result": {}}
        failed = await socket.says()
        assert {event["type"] for event in events} <= {"complete.delta"}
        assert (failed["event"]["type"], failed["event"]["error"]["code"]) == ("complete.failed", "cancelled")
        assert await socket.error({"id": 3, "type": "complete.cancel", "completion": 1}) == "not_found"
        await asyncio.to_thread(scripted.wait_for_state, "ready")


async def test_a_completion_that_waits_for_its_turn_can_be_cancelled(scripted: ScriptedAppliance, held: Path) -> None:
    scripted.script(**goes_on_while(held))
    async with let_in(scripted) as socket:
        await socket.hears({"id": 1, "type": "complete.start", "prefix": "x = "})
        await socket.socket.send_json({"id": 2, "type": "complete.start", "prefix": "y = "})
        await socket.socket.send_json({"id": 3, "type": "complete.cancel", "completion": 2})
        ended = None
        while ended is None:
            frame = await socket.says()
            ended = frame["event"] if frame["id"] == 2 and frame["type"] == "event" else None
        assert ended["error"]["code"] == "cancelled"


async def test_an_engine_that_dies_ends_the_stream_with_the_reason(scripted: ScriptedAppliance) -> None:
    scripted.script(text="x" * 20, token_s=0.01, fault={"when": 10, "what": "exit"})
    async with let_in(scripted) as socket:
        await socket.hears({"id": 1, "type": "complete.start", "prefix": "x = "})
        while (event := (await socket.says())["event"])["type"] == "complete.delta":
            pass
        assert (event["type"], event["error"]["code"]) == ("complete.failed", "engine_crashed")


async def test_a_client_that_goes_away_ends_its_completion(scripted: ScriptedAppliance, held: Path) -> None:
    scripted.script(**goes_on_while(held))
    async with let_in(scripted) as socket:
        await socket.hears({"id": 1, "type": "complete.start", "prefix": "x = "})
        await socket.says()
    await asyncio.to_thread(scripted.wait_for_state, "ready")


async def test_commands_run_side_by_side_but_not_any_number(scripted: ScriptedAppliance, held: Path) -> None:
    scripted.script(**goes_on_while(held))
    async with let_in(scripted) as socket:
        for id_ in range(1, MOST_COMMANDS + 1):
            await socket.socket.send_json({"id": id_, "type": "complete.start", "prefix": "x"})
        await socket.socket.send_json({"id": 99, "type": "ping"})
        while (frame := await socket.says())["id"] != 99:
            pass
        assert frame["error"]["code"] == "too_many_requests"


async def test_a_subscription_tells_the_present_state_and_then_every_change(scripted: ScriptedAppliance) -> None:
    async with let_in(scripted) as socket:
        frame = {"id": 1, "type": "subscribe", "topics": ["engine", "events", "stats", "downloads", "logs"]}
        assert (await socket.hears(frame))["success"]
        first = await socket.says()
        assert (first["id"], first["event"]["type"], first["event"]["state"]) == (1, "engine.changed", "ready")
        await socket.socket.send_json({"id": 2, "type": "engine.unload"})
        states = [first["event"]["state"]]
        while states[-1] != "stopped":
            frame = await socket.says()
            states += [frame["event"]["state"]] if frame.get("event", {}).get("topic") == "engine" else []
        assert states == ["ready", "stopping", "stopped"]
        await socket.socket.send_json({"id": 3, "type": "engine.load"})
        heard: list[Any] = []  # types of events, ids of results
        while not {"model.loaded", 3} <= set(heard):
            frame = await socket.says()
            heard.append(frame["event"]["type"] if frame["type"] == "event" else frame["id"])
        await socket.socket.send_json({"id": 4, "type": "unsubscribe", "subscription": 1})
        while (frame := await socket.says())["id"] != 4:
            pass
        await socket.socket.send_json({"id": 5, "type": "engine.unload"})
        await asyncio.to_thread(scripted.wait_for_state, "stopped")
        assert (await socket.says())["id"] == 5
        assert (await socket.hears({"id": 6, "type": "ping"}))["id"] == 6


async def test_a_subscription_to_what_is_not_there_is_refused(speaking: ScriptedAppliance) -> None:
    async with let_in(speaking) as socket:
        assert await socket.error({"id": 1, "type": "subscribe", "topics": ["nothing"]}) == "invalid_format"
        assert await socket.error({"id": 2, "type": "subscribe"}) == "invalid_format"
        frame = {"id": 3, "type": "subscribe", "topics": ["stats"], "interval_s": 0}
        assert await socket.error(frame) == "invalid_format"


async def test_the_lines_of_the_engine_need_more_than_to_read(speaking: ScriptedAppliance) -> None:
    token = speaking.command("tokens.add", name="reader", scopes=["read"])["token"]
    async with connect(speaking, {"Authorization": f"Bearer {token}"}) as socket:
        await socket.says()
        assert await socket.error({"id": 1, "type": "subscribe", "topics": ["events", "logs"]}) == "unauthorized"
        assert (await socket.hears({"id": 2, "type": "subscribe", "topics": ["events"]}))["success"]
        await asyncio.to_thread(speaking.command, "tokens.revoke", name="reader")
        while (message := await socket.socket.receive(timeout=ANSWER_S)).type is aiohttp.WSMsgType.TEXT:
            pass  # what happened before
        assert message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)  # cut off, without a goodbye


async def test_a_stop_says_goodbye_to_who_waits_and_lets_who_works_finish(
    scripted: ScriptedAppliance, held: Path
) -> None:
    scripted.script(**goes_on_while(held))
    async with let_in(scripted) as idle, let_in(scripted) as busy:
        await busy.hears({"id": 1, "type": "complete.start", "prefix": "x = "})
        await busy.says()
        stopping = asyncio.create_task(asyncio.to_thread(scripted.stop))
        assert await idle.ends() == 1001
        await asyncio.to_thread(held.unlink)
        while (event := (await busy.says())["event"])["type"] == "complete.delta":
            pass
        assert (event["type"], event["text"]) == ("complete.done", "x" * 40)
        assert await busy.ends() == 1001
        assert await stopping == 0


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.type)
async def test_every_command_checks_its_parameters_on_either_way(speaking: ScriptedAppliance, command: Command) -> None:
    """Every parameter of every command, with a value of a type that no parameter has."""
    names = list(command.parameters.__dataclass_fields__)
    if not names:
        return
    wrong: dict[str, object] = {name: [[{}]] for name in names}
    async with let_in(speaking) as socket:
        answer = await socket.hears({"id": 1, "type": command.type, **wrong})
    assert answer["error"]["code"] == "invalid_format"
    over_http = speaking.request("POST", f"/api/command/{command.type}", wrong)
    assert over_http.status == 400
    assert over_http.json()["error"]["code"] == "invalid_value"
    assert over_http.json()["error"]["detail"] == answer["error"]["detail"]
    assert len(answer["error"]["detail"]["fields"]) == len(names)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.type)
def test_every_command_is_refused_to_strangers(speaking: ScriptedAppliance, command: Command) -> None:
    answer = speaking.request("POST", f"/api/command/{command.type}", {}, token=None)
    assert (answer.status, answer.json()["error"]["code"]) == (401, "unauthorized")


def test_over_http_a_completion_is_one_answer(speaking: ScriptedAppliance) -> None:
    result = speaking.command("complete.start", prefix="x = ", suffix="\n")
    assert (result["model"], result["text"], result["finish_reason"]) == ("fake", "a + b", "stop")


def test_what_needs_a_connection_is_refused_over_http(speaking: ScriptedAppliance) -> None:
    answer = speaking.request("POST", "/api/command/subscribe", {"topics": ["stats"]})
    assert (answer.status, answer.json()["error"]["code"]) == (400, "unsupported")


def test_programs_can_read_the_protocol_without_a_token(speaking: ScriptedAppliance) -> None:
    told = speaking.request("GET", "/api/protocol.json", token=None).json()
    assert set(told["commands"]) == {command.type for command in COMMANDS}
    assert told["commands"]["engine.logs"]["parameters"]["properties"]["lines"]["maximum"] == 200
