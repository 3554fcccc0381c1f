"""Thirty-two people type at once into one engine."""

from __future__ import annotations

import contextlib
import http.client
import json
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from tests.appliance import ScriptedAppliance

CLIENTS, KEYS = 32, 6
CODE = "".join(f"value_{number} = compute({number})\n" for number in range(30))

# What a daemon that forgets nothing would need more than once: all the texts of a run of this test are 1 MB.
MOST_GROWTH_BYTES = 30_000_000


def line(client: int, key: int) -> str:
    return f"client {client} key " + "x" * key


def ask(appliance: ScriptedAppliance, client: int, key: int) -> http.client.HTTPConnection:
    """A request on its way, its answer not read."""
    connection = http.client.HTTPConnection("127.0.0.1", appliance.port, timeout=60)
    body = {"input_prefix": CODE, "prompt": line(client, key), "input_suffix": "\n", "n_predict": 64}
    headers = {"User-Agent": f"editor {client}", "Authorization": f"Bearer {appliance.token}"}
    connection.request("POST", "/infill", json.dumps(body), headers)
    return connection


def answer_of(connection: http.client.HTTPConnection) -> str:
    with contextlib.closing(connection):
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200, body
        return str(json.loads(body)["content"])


def test_each_gets_an_answer_to_the_last_key_and_nothing_of_anybody_else_s(scripted: ScriptedAppliance) -> None:
    """No client waits for an answer before its next key, so that most keys are superseded; the engine says the
    prompt's last line, which shows whose it was."""
    scripted.script(text=None, prefill_s=0.005, token_s=0.0005)

    daemon = psutil.Process(scripted.pid)
    answer_of(ask(scripted, 0, 0))
    before_bytes = daemon.memory_info().rss
    superseded = 0
    before: dict[int, http.client.HTTPConnection] = {}
    for key in range(1, KEYS + 1):
        now = {client: ask(scripted, client, key) for client in range(CLIENTS)}
        # What was sent before is with the daemon once this is answered: no key may overtake another.
        assert scripted.request("GET", "/health").status == 200
        for client, connection in before.items():
            answer = answer_of(connection)
            assert answer in ("", line(client, key - 1))
            superseded += answer == ""
        before = now
    for client, connection in before.items():
        assert answer_of(connection) == line(client, KEYS)
    assert superseded
    assert scripted.command("engine.get")["queue_depth"] == 0
    assert daemon.memory_info().rss - before_bytes < MOST_GROWTH_BYTES
