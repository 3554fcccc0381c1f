"""Where the text of an ``/infill`` ends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from rockfill.completion.guesses import AT_ONCE_S

if TYPE_CHECKING:
    from tests.appliance import ScriptedAppliance


@pytest.mark.parametrize(
    ("asked", "content", "stopped"),
    [
        ({}, "one\n    two\nthree\n", ("eos", "")),
        ({"n_indent": 4}, "one\n    two", ("limit", "")),
        ({"t_max_predict_ms": 1}, "one", ("limit", "")),
        ({"n_predict": 5}, "one\n ", ("limit", "")),
        ({"stop": "wo"}, "one\n    t", ("word", "wo")),
        ({"stop": ["x", "\n"]}, "one", ("word", "\n")),
        ({"input_suffix": "\nthree\n"}, "one\n    two", ("eos", "")),
    ],
)
def test_it_goes_over_lines_as_long_as_it_may(
    scripted: ScriptedAppliance, asked: dict[str, object], content: str, stopped: tuple[str, str]
) -> None:
    scripted.script(text="one\n    two\nthree\n", token_s=0.005)
    body = {"input_prefix": "x = 1\n", "input_suffix": "", "prompt": "y = ", **asked}
    answer = scripted.request("POST", "/infill", body).json()
    assert answer["content"] == content
    assert answer["has_new_line"] == ("\n" in content)
    assert (answer["stop_type"], answer["stopping_word"]) == stopped


def test_what_would_follow_an_offer_that_nobody_took_is_not_run_on_a_slow_engine(scripted: ScriptedAppliance) -> None:
    """As llama.vim asks: 250 ms for who waits, longer for a guess. It keeps no answer that has no content."""
    scripted.script(text="compute(x)", token_s=0.05)
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
    scripted.script(text="compute(x)", token_s=0.002)
    body = {"input_prefix": "x = 1\n", "input_suffix": "\n", "prompt": "y = ", "t_max_predict_ms": 250}
    assert scripted.request("POST", "/infill", body).json()["content"] == "compute(x)"
    guess = {**body, "prompt": "y = compute(x)", "t_max_predict_ms": 1000}
    assert scripted.request("POST", "/infill", guess).json()["content"] == "compute(x)"
