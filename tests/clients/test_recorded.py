"""What real plugins sent, word for word, and what they read of the answer.

Recorded on 26 November 2026 by a proxy between the plugin and a daemon, in a terminal with somebody's keys sent to it:
llama.vim (commit a1c8e6e, in Vim 9.0; in Neovim 0.11.4 it sends the same), minuet-ai.nvim (479487c, in Neovim 0.11.4),
and @continuedev/openai-adapters 1.37.0. The token, the addresses, and most of the text of llama.vim's chunks were taken
out. Each showed its completions then.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.clients.test_editors import sse

if TYPE_CHECKING:
    from tests.appliance import Answer, Appliance

RECORDED: list[dict[str, Any]] = json.loads(Path(__file__).with_name("recorded.json").read_text())


def send(appliance: Appliance, editor: str, what: str) -> Answer:
    [recorded] = [one for one in RECORDED if (one["editor"], one["what"]) == (editor, what)]
    headers = {name: value for name, value in recorded["headers"].items() if name != "Authorization"}
    assert recorded["headers"]["Authorization"] == "Bearer TOKEN"
    return appliance.request(recorded["method"], recorded["path"], recorded["body"], headers=headers)


def test_every_recorded_request_is_of_use() -> None:
    editors = [one["editor"] for one in RECORDED]
    assert {name: editors.count(name) for name in editors} == {"llama.vim": 4, "minuet": 1, "Continue": 1}


@pytest.mark.parametrize("what", ["the cursor's line is blank", "typed along an offer"])
def test_llama_vim_takes_the_answer(running: Appliance, what: str) -> None:
    raw = send(running, "llama.vim", what).body.decode()
    assert "\n" not in raw
    assert re.match(r"\s*{", raw)
    assert re.search(r'"content"\s*:"', raw)
    response = json.loads(raw)
    assert response["content"].strip()
    assert set(response) == {
        *("content", "truncated", "tokens_cached"),
        *(f"timings/{kind}_{figure}" for kind in ("prompt", "predicted") for figure in ("n", "ms", "per_token_ms")),
        *("timings/prompt_per_second", "timings/predicted_per_second"),
    }


def test_llama_vim_ignores_what_is_no_completion(running: Appliance) -> None:
    assert send(running, "llama.vim", "warming up with chunks").body == b"{}"
    followed = send(running, "llama.vim", "what would follow the offer").body.decode()
    assert followed == "{}" or re.search(r'"content"\s*:"', followed)  # as fast as the engine is


def test_minuet_reads_the_stream(running: Appliance) -> None:
    answer = send(running, "minuet", "one of three at once")
    assert "".join(event["choices"][0]["text"] for event in sse(answer)).strip()


def test_continue_reads_the_stream(running: Appliance) -> None:
    answer = send(running, "Continue", "its adapter for OpenAI's API")
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in sse(answer)).strip()
