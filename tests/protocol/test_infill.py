"""Where the text of an ``/infill`` ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

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
