"""Where the text of an ``/infill`` ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.appliance import ScriptedAppliance


@pytest.mark.parametrize(
    ("asked", "content"),
    [
        ({}, "one\n    two\nthree\n"),
        ({"n_indent": 4}, "one\n    two"),
        ({"t_max_predict_ms": 1}, "one"),
        ({"n_predict": 5}, "one\n "),
        ({"stop": "wo"}, "one\n    t"),
        ({"stop": ["x", "\n"]}, "one"),
        ({"input_suffix": "\nthree\n"}, "one\n    two"),
    ],
)
def test_it_goes_over_lines_as_long_as_it_may(
    scripted: ScriptedAppliance, asked: dict[str, object], content: str
) -> None:
    scripted.script(text="one\n    two\nthree\n", token_s=0.005)
    body = {"input_prefix": "x = 1\n", "input_suffix": "", "prompt": "y = ", **asked}
    answer = scripted.request("POST", "/infill", body).json()
    assert answer["content"] == content
    assert answer["has_new_line"] == ("\n" in content)
    assert answer["stop_type"] == ("limit" if "n_predict" in asked else "eos")
