"""Where the text of an ``/infill`` ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from typing import TYPE_CHECKING

import pytest

from rockfill.completion.guesses import AT_ONCE_S

if TYPE_CHECKING:
    from pathlib import Path

    from tests.appliance import ScriptedAppliance


LINES = "one\n    two\nthree\n"
BODY = {"input_prefix": "x = 1\n", "input_suffix": "", "prompt": "y = "}


@pytest.mark.parametrize(
    ("asked", "content", "stopped"),
    [
        ({}, "one\n    two\nthree\n", ("eos", "")),
        ({"n_indent": 4}, "one\n    two", ("limit", "")),
        ({"n_predict": 5}, "one\n ", ("limit", "")),
        ({"stop": "wo"}, "one\n    t", ("word", "wo")),
        ({"stop": ["x", "\n"]}, "one", ("word", "\n")),
        ({"input_suffix": "\nthree\n"}, "one\n    two", ("eos", "")),
    ],
)
def test_it_goes_over_lines_as_long_as_it_may(
    scripted: ScriptedAppliance, asked: dict[str, object], content: str, stopped: tuple[str, str]
) -> None:
    scripted.script(text=LINES)
    body = {**BODY, **asked}
    answer = scripted.request("POST", "/infill", body).json()
    assert answer["content"] == content
    assert answer["has_new_line"] == ("\n" in content)
    assert (answer["stop_type"], answer["stopping_word"]) == stopped


def test_once_its_time_is_up_it_ends_with_the_line(scripted: ScriptedAppliance, held: Path) -> None:
    """The time is counted from the first piece: the line's end comes once that piece is here, and a moment later."""
    scripted.script(text=LINES, holds={"before": 2, "while": str(held)})
    body = json.dumps({**BODY, "t_max_predict_ms": 1, "stream": True})
    connection = http.client.HTTPConnection("127.0.0.1", scripted.port)
    with contextlib.closing(connection):
        connection.request("POST", "/infill", body, {"Authorization": f"Bearer {scripted.token}"})
        answer = connection.getresponse()
        lines = [answer.readline()]
        time.sleep(0.01)
        held.unlink()
        lines += answer.read().splitlines()
    events = [json.loads(line.removeprefix(b"data: ")) for line in lines if line]
    assert "".join(event["content"] for event in events) == "one"
    assert (events[-1]["stop_type"], events[-1]["stopping_word"]) == ("limit", "")


def test_what_would_follow_an_offer_that_nobody_took_is_not_run_on_a_slow_engine(scripted: ScriptedAppliance) -> None:
    """As llama.vim asks: 250 ms for who waits, longer for a guess. It keeps no answer that has no content."""
    scripted.script(text="compute(x)", decode_s=0.5)
    body = {"input_prefix": "x = 1\n", "input_suffix": "\n", "prompt": "y = ", "t_max_predict_ms": 250}
    offered = scripted.request("POST", "/infill", body).json()["content"]
    assert offered == "compute(x)"
    after = {**body, "prompt": "y = compute(x)"}
    guess = scripted.request("POST", "/infill", {**after, "t_max_predict_ms": 1000})
    assert (guess.status, guess.body) == (200, b"{}")
    time.sleep(2 * AT_ONCE_S)  # as long at least as anybody needs to press a key
    taken = scripted.request("POST", "/infill", after).json()
    assert taken["content"] == "compute(x)"
    known = scripted.request("POST", "/infill", {**after, "t_max_predict_ms": 1000}).json()
    assert known["content"] == "compute(x)"  # from memory, which costs nothing


def test_on_a_fast_engine_a_guess_is_run(scripted: ScriptedAppliance) -> None:
    scripted.script(text="compute(x)", decode_s=0.02)
    body = {"input_prefix": "x = 1\n", "input_suffix": "\n", "prompt": "y = ", "t_max_predict_ms": 250}
    assert scripted.request("POST", "/infill", body).json()["content"] == "compute(x)"
    guess = {**body, "prompt": "y = compute(x)", "t_max_predict_ms": 1000}
    assert scripted.request("POST", "/infill", guess).json()["content"] == "compute(x)"
