"""Twenty thousand frames and requests that nobody should send: none gets a 500, a traceback, no answer, or its way.

What is thrown is made from the table of commands itself, so that each command meets values of its own
parameters' types, of others', and of none, with a token of every scope.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import json
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rockfill.access.tokens import Scope
from rockfill.api.commands.all import COMMANDS
from rockfill.api.schema import schema
from tests.appliance import ScriptedAppliance

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(400)

# The more a holder may do, the longer it takes to do it.
FRAMES = {"read": 5000, "complete": 5000, "admin": 3000, "control": 1500, "everything": 1500}
STRANGERS = 400
REQUESTS = 3_600
BATCH = 50
ANSWER_S = 60.0

# No example is made smaller: that would take longer than to look at it.
QUICKLY: dict[str, Any] = {
    "suppress_health_check": list(HealthCheck),
    "database": None,
    "phases": [Phase.explicit, Phase.generate],
}

SCOPE_OF = {command.type: command.scope for command in COMMANDS}
SEED = st.integers(0, 2**64)
HOLDERS = ("nothing", *(scope.value for scope in Scope), "everything")

# ---- what is thrown: hypothesis gives the seed, as it takes a second itself for fifty frames

STRANGE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 2**53, 10**40, 1.5, -0.0, 1e308, float("inf"), float("nan")),
    *("", "x", "../../etc/passwd", "\x00", "a\r\nb: c", "x" * 5000, "\ud800", "NaN", "é🙂\u202e", "fake"),
)
BROKEN_TEXT = ("", "{", "[" * 20_000, '{"a":' * 20_000, "1" * 6000, '{"id": 1e999}', "\ud7ff\x00", "null")

# What takes its time, or the whole appliance, by design, and what reads files of the machine's for an administrator.
LEFT_OUT = {"selftest.run", "models.import"}
THROWABLE = [command for command in COMMANDS if command.type not in LEFT_OUT]


def junk(random: Random, depth: int = 3) -> Any:
    match random.randrange(8) if depth else 7:
        case 0:
            return [junk(random, depth - 1) for _ in range(random.randrange(4))]
        case 1:
            return {str(junk(random, 0))[:8]: junk(random, depth - 1) for _ in range(random.randrange(4))}
        case 2:
            return random.randint(-(10**20), 10**20)
        case 3:
            return "".join(map(chr, random.choices(range(1, 0x3000), k=random.randrange(20))))
        case _:
            return random.choice(STRANGE)


def fitting(random: Random, kind: dict[str, Any]) -> Any:
    """A value that a schema takes, or nearly."""
    if "anyOf" in kind:
        return fitting(random, random.choice(kind["anyOf"]))
    if "enum" in kind:
        return random.choice(kind["enum"])
    match kind.get("type"):
        case "integer":
            return random.randint(int(kind.get("minimum", -5)), int(min(kind.get("maximum", 300), 300)))
        case "number":
            return random.uniform(kind.get("minimum", -5), min(kind.get("maximum", 300), 300))
        case "boolean":
            return random.random() < 0.5
        case "string":
            return random.choice(["", "fake", "x = ", "name"])
        case "array":
            return [fitting(random, kind["items"]) for _ in range(random.randrange(1, 4))]
        case "object" if "properties" in kind:
            return {name: fitting(random, inner) for name, inner in kind["properties"].items()}
        case _:
            return junk(random)


def command(random: Random) -> tuple[str, dict[str, Any]]:
    """A command, with parameters that fit, nearly fit, or do not."""
    chosen = random.choice(THROWABLE)
    kind = schema(chosen.parameters)
    made: dict[str, Any] = {}
    for name, inner in kind["properties"].items():
        if name in kind.get("required", ()) or random.random() < 0.5:
            made[name] = fitting(random, inner) if random.random() < 0.8 else junk(random)
    if random.random() < 0.1:
        made[str(junk(random, 0))] = junk(random)
    return chosen.type, made


def frame(random: Random) -> tuple[str, Any]:
    """What to throw, and how."""
    match random.randrange(10):
        case 0:
            value = junk(random)
            return "value", {"x": value} if isinstance(value, dict) and "id" in value else value
        case 1:
            # A large id would make all that follow a reuse.
            id_ = random.choice([-5, 0, 1, 2, 3, "1", None, True, 1.0, [1], float("nan"), 10**40])
            return "ids", (id_, random.choice(list(SCOPE_OF)))
        case 2:
            return "text", random.choice(BROKEN_TEXT)
        case 3:
            return "bytes", random.randbytes(random.randrange(40))
        case _:
            return "command", command(random)


def dumped(value: object) -> str:
    return json.dumps(value)


# ---- at whom


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedAppliance]:
    folder = tmp_path_factory.mktemp("fuzzed")
    (folder / "config.toml").write_text('[hub]\nendpoint = "http://127.0.0.1:9"\n')
    running = ScriptedAppliance(folder / "state", ["--config", str(folder / "config.toml")])
    running.script(text="a + b", tokens=1)
    running.start()
    yield running
    running.stop()
    assert not any("Traceback" in line or "incident" in line for line in running.printed), running.printed


@pytest.fixture(scope="module")
def tokens(target: ScriptedAppliance) -> dict[str, str]:
    """A token for every kind of holder."""
    made = {scope.value: target.command("tokens.add", name=f"fuzz-{scope}", scopes=[scope])["token"] for scope in Scope}
    return {**made, "everything": target.token}


def standing(appliance: ScriptedAppliance) -> str:
    """All that nobody without `control` or `admin` may change: what is on disk, and what the engine was told."""
    digest = hashlib.sha256()
    for path in sorted(appliance.state_dir.rglob("*")):
        if path.is_file() and path.name not in ("history.json", "lock"):
            digest.update(f"{path}\0".encode() + path.read_bytes())
    engine = appliance.command("engine.get")
    told = {name: engine[name] for name in ("pinned", "paused", "model", "instead_of")}
    starts = [event for event in appliance.command("engine.history")["events"] if event["state"] == "starting"]
    return f"{digest.hexdigest()} {told} {len(starts)}"


def settle(appliance: ScriptedAppliance) -> None:
    """The engine may have been told anything."""
    appliance.command("engine.load", model="fake")
    appliance.command("engine.resume")
    appliance.command("engine.unpin")


async def throw(appliance: ScriptedAppliance, token: str, thrown: list[Any]) -> list[tuple[str, Any]]:
    """Throw it all on one connection. Returns each command that could be told from others, with its answer."""
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{appliance.url}/ws", headers=headers, max_msg_size=0) as socket,
    ):
        assert (await socket.receive_json(timeout=ANSWER_S))["type"] == "auth_ok"
        next_id, asked = 1000, dict[int, str]()
        for what, value in thrown:
            match what:
                case "command":
                    next_id += 1
                    asked[next_id] = value[0]
                    await socket.send_str(dumped({**value[1], "id": next_id, "type": value[0]}))
                case "value":
                    await socket.send_str(dumped(value))
                case "ids":
                    await socket.send_str(dumped({"id": value[0], "type": value[1]}))
                case "text":
                    await socket.send_str(value)
                case _:
                    await socket.send_bytes(value)
        answers: dict[int, Any] = {}
        results = 0
        while results < len(thrown):
            frame = await socket.receive_json(timeout=ANSWER_S)
            assert frame["type"] in ("result", "event")
            if frame["type"] == "result":
                results += 1
                answers[frame["id"]] = frame
                if not frame["success"]:
                    assert frame["error"]["code"] != "internal_error", frame
        return [(type_, answers[id_]) for id_, type_ in asked.items()]


seen: Counter[str] = Counter()


@pytest.mark.parametrize("holder", HOLDERS[1:])
def test_no_frame_is_too_strange(target: ScriptedAppliance, tokens: dict[str, str], holder: str) -> None:
    before = standing(target)
    scopes = set(Scope) if holder == "everything" else {Scope(holder)}
    examples = FRAMES[holder] // BATCH

    @settings(max_examples=examples, **QUICKLY)
    @given(SEED)
    def run(seed: int) -> None:
        random = Random(seed)
        thrown = [frame(random) for _ in range(BATCH)]
        seen["frames"] += BATCH
        for type_, answer in asyncio.run(throw(target, tokens[holder], thrown)):
            scope = SCOPE_OF[type_]
            allowed = scope is None or scope in scopes
            if answer["success"]:
                assert allowed, type_
                seen[f"{type_} done"] += 1
            else:
                seen[f"{type_} refused"] += 1
                code = answer["error"]["code"]
                if not allowed:
                    assert code in ("unauthorized", "too_many_requests"), (type_, code)

    run()
    if not scopes & {Scope.CONTROL, Scope.ADMIN}:
        assert standing(target) == before
    settle(target)
    assert target.complete("x")["choices"][0]["text"] == "a + b"


def test_no_stranger_gets_in_with_any_frame(target: ScriptedAppliance) -> None:
    before = standing(target)

    def first(random: Random) -> str | bytes:
        match random.randrange(4):
            case 0:
                guess = {"type": random.choice(["auth", junk(random)]), "token": junk(random)}
                return dumped(guess if random.random() < 0.7 else {**guess, "protocol": junk(random)})
            case 1:
                type_, made = command(random)
                return dumped({**made, "id": 1, "type": type_})
            case 2:
                return random.choice(BROKEN_TEXT)
            case _:
                return random.randbytes(20)

    async def greet(said: str | bytes) -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{target.url}/ws") as socket:
            assert (await socket.receive_json(timeout=ANSWER_S))["type"] == "auth_required"
            await (socket.send_bytes(said) if isinstance(said, bytes) else socket.send_str(said))
            answer = await socket.receive_json(timeout=ANSWER_S)
            assert answer["type"] == "auth_invalid"
            assert answer["code"] != "internal_error"
            assert (await socket.receive(timeout=ANSWER_S)).type is aiohttp.WSMsgType.CLOSE

    @settings(max_examples=STRANGERS, **QUICKLY)
    @given(SEED)
    def run(seed: int) -> None:
        seen["strangers"] += 1
        asyncio.run(greet(first(Random(seed))))

    run()
    assert standing(target) == before


PATHS = (
    *("/", "/ws", "/login", "/logout", "/login/x", "/health", "/ready"),
    *(
        "/static/x/y",
        "/v1/models",
        "/v1/completions",
        "/v1/fim/completions",
        "/v1/events",
        "/infill",
        "/completion",
    ),
    *("/tokenize", "/detokenize", "/props", "/slots", "/api/generate", "/api/show", "/api/tags"),
    *("/api/ps", "/api/protocol.json", "/api/stats", "/metrics", "/x"),
)
METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "X")
HEADERS = ("Origin", "Host", "Content-Type", "Cookie", "Prefer", "Accept", "Range", "X-Forwarded-For")


def request(random: Random) -> tuple[str, str, str, dict[str, str], str]:
    """Method, path, body, headers, and who holds the token that goes with it."""
    type_, made = command(random)
    path = f"/api/command/{type_}" if random.random() < 0.5 else random.choice(PATHS)
    body = random.choice([dumped(made), dumped(junk(random)), random.choice(BROKEN_TEXT), ""])
    text = "".join(map(chr, random.choices(range(0x20, 0x7F), k=random.randrange(30)))).strip()
    headers = {random.choice(HEADERS): text} if random.random() < 0.3 else {}
    return random.choice(METHODS), path, body, headers, random.choice(HOLDERS)


def test_no_request_is_too_strange(target: ScriptedAppliance, tokens: dict[str, str]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=ANSWER_S)

    def send(method: str, path: str, body: str, headers: dict[str, str], holder: str) -> tuple[int, bytes]:
        token = {"Authorization": f"Bearer {tokens[holder]}"} if holder in tokens else {}
        try:
            connection.request(method, path, body.encode("utf-8", "surrogatepass"), {**headers, **token})
            response = connection.getresponse()
            return response.status, response.read()
        except (http.client.HTTPException, ConnectionError):
            connection.close()  # it may have been closed after the last one
            connection.request(method, path, body.encode("utf-8", "surrogatepass"), {**headers, **token})
            response = connection.getresponse()
            return response.status, response.read()

    @settings(max_examples=REQUESTS // BATCH, **QUICKLY)
    @given(SEED)
    def run(seed: int) -> None:
        random = Random(seed)
        for method, path, body, headers, holder in (request(random) for _ in range(BATCH)):
            seen["requests"] += 1
            status, answer = send(method, path, body, headers, holder)
            assert status != 500, (method, path, body, headers)
            assert b"Traceback" not in answer
            assert b'"code":"internal_error"' not in answer

    with contextlib.closing(connection):
        run()
    settle(target)
    assert target.complete("x")["choices"][0]["text"] == "a + b"


def test_that_was_enough() -> None:
    """Of everything there was as much as was promised, and commands were carried out as well as refused."""
    if not seen:
        pytest.skip("only with the tests before it")
    assert seen["frames"] + seen["strangers"] + seen["requests"] >= 20_000
    for command in COMMANDS:
        if command.type not in LEFT_OUT:
            assert seen[f"{command.type} refused"] + seen[f"{command.type} done"], command.type
    done = {name.removesuffix(" done") for name in seen if name.endswith(" done")}
    assert {"ping", "engine.get", "complete.start", "subscribe", "engine.load", "tokens.add", "config.get"} <= done
