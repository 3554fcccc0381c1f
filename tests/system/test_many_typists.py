"""Thirty-two people type at once into one engine."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.appliance import ScriptedAppliance

CLIENTS, KEYS = 32, 6
CODE = "".join(f"value_{number} = compute({number})\n" for number in range(30))

# What a daemon that forgets nothing would need more than once: all the texts of a run of this test are 1 MB.
MOST_GROWTH_BYTES = 30_000_000


def line(client: int, key: int) -> str:
    return f"client {client} key " + "x" * key


def test_each_gets_an_answer_to_the_last_key_and_nothing_of_anybody_else_s(scripted: ScriptedAppliance) -> None:
    """No client waits for an answer before its next key, so that most keys are superseded; the engine says the
    prompt's last line, which shows whose it was."""
    scripted.script(text=None, prefill_s=0.005, token_s=0.0005)

    def ask(client: int, key: int) -> str:
        body = {"input_prefix": CODE, "prompt": line(client, key), "input_suffix": "\n", "n_predict": 64}
        answer = scripted.request("POST", "/infill", body, headers={"User-Agent": f"editor {client}"})
        assert answer.status == 200, answer.body
        return str(answer.json()["content"])

    def typed(pool: ThreadPoolExecutor) -> Iterator[tuple[int, list[str]]]:
        asked: dict[int, list[object]] = {client: [] for client in range(CLIENTS)}
        for key in range(1, KEYS + 1):
            for client in range(CLIENTS):
                asked[client].append(pool.submit(ask, client, key))
            time.sleep(0.1)
        for client, answers in asked.items():
            yield client, [answer.result(60) for answer in answers]  # type: ignore[attr-defined]

    daemon = psutil.Process(scripted.pid)
    ask(0, 0)
    before_bytes = daemon.memory_info().rss
    superseded = 0
    with ThreadPoolExecutor(CLIENTS * KEYS) as pool:
        for client, answers in typed(pool):
            own = [line(client, key) for key in range(1, KEYS + 1)]
            assert answers[-1] == own[-1]
            assert all(answer in ("", mine) for answer, mine in zip(answers, own, strict=True))
            superseded += answers.count("")
    assert superseded
    assert scripted.command("engine.get")["queue_depth"] == 0
    assert daemon.memory_info().rss - before_bytes < MOST_GROWTH_BYTES
