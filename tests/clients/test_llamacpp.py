"""Our ``/infill`` beside the one of llama.cpp's HTTP server, on the same model and for the same requests."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rockfill.paths import bundled_models
from tests.appliance import Answer
from tests.not_run import not_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.appliance import Appliance

MODEL = bundled_models() / "rockfill-tiny" / "rockfill-tiny-q8_0.gguf"

if importlib.util.find_spec("xllamacpp") is None:
    not_run("llama.cpp's own server", "xllamacpp is not installed")

# What every request of this file has; llama.cpp needs the temperature to be greedy too.
INFILL = {"input_prefix": "def add(a, b):\n    return ", "input_suffix": "\n", "n_predict": 8, "temperature": 0}
OF_OUR_OWN = {"n_ctx", "n_indent", "t_max_predict_ms"}


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    """The address of llama.cpp's server."""
    command = [sys.executable, str(Path(__file__).with_name("llamacpp_server.py")), str(MODEL)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        yield next(line for line in process.stdout if line.startswith("http")).strip()
        process.kill()  # its threads would take a second to end


def both(upstream: str, running: Appliance, path: str, body: object) -> tuple[Answer, Answer]:
    """llama.cpp's answer to `body`, and ours."""
    request = urllib.request.Request(upstream + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            theirs = Answer(response.status, dict(response.headers), response.read())
    except urllib.error.HTTPError as error:
        with error:
            theirs = Answer(error.code, dict(error.headers), error.read())
    return theirs, running.request("POST", path, body)


def assert_same_shape(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    assert set(ours) == set(theirs)
    assert set(ours["timings"]) == set(theirs["timings"])
    assert set(ours["generation_settings"]) - OF_OUR_OWN <= set(theirs["generation_settings"])
    for name, value in theirs.items():
        assert type(ours[name]) is type(value), name


def test_a_whole_infill_has_the_same_fields(upstream: str, running: Appliance) -> None:
    theirs, ours = both(upstream, running, "/infill", INFILL)
    assert_same_shape(theirs.json(), ours.json())


def test_a_whole_completion_has_the_same_fields(upstream: str, running: Appliance) -> None:
    theirs, ours = both(
        upstream, running, "/completion", {"prompt": "import os\nimport ", "temperature": 0, "n_predict": 9}
    )
    assert_same_shape(theirs.json(), ours.json())
    for name in ("stop_type", "tokens_predicted", "truncated"):
        assert ours.json()[name] == theirs.json()[name]
    assert theirs.json()["prompt"] == "<bos>" + ours.json()["prompt"]  # it shows the token that both add


def test_a_stream_ends_with_the_same_fields_and_without_done(upstream: str, running: Appliance) -> None:
    theirs, ours = (
        [json.loads(event.removeprefix(b"data: ")) for event in answer.body.strip().split(b"\n\n")]
        for answer in both(upstream, running, "/infill", {**INFILL, "stream": True})
    )
    assert_same_shape(theirs[-1], ours[-1])
    assert (ours[-1]["content"], ours[-1]["stop"]) == ("", True)
    assert set(ours[0]) == set(theirs[0]) - {"tokens_predicted", "tokens_evaluated"}  # told at the end


@pytest.mark.parametrize(
    "fields", [["content"], [""], ["nope"], ["timings/prompt_n", "timings", "truncated"], ["content/nope", "timings/"]]
)
def test_chosen_fields_are_hoisted_alike(upstream: str, running: Appliance, fields: list[str]) -> None:
    theirs, ours = both(upstream, running, "/infill", {**INFILL, "response_fields": fields})
    assert set(ours.json()) == set(theirs.json())


# llama.cpp, tools/server/tests/unit/test_infill.py, and what its server says to the rest.
@pytest.mark.parametrize(
    "wrong",
    [
        {"input_extra": {}},
        {"input_extra": "x"},
        {"input_extra": [{}]},
        {"input_extra": [{"filename": "ok"}]},
        {"input_extra": [{"filename": 123}]},
        {"input_extra": [{"filename": 123, "text": "abc"}]},
        {"input_extra": [{"filename": 123, "text": 456}]},
        {"input_prefix": 1},
        {"n_predict": "x"},
        {"n_cmpl": 0},
    ],
)
def test_what_llamacpp_refuses_is_refused_alike(upstream: str, running: Appliance, wrong: dict[str, Any]) -> None:
    theirs, ours = both(upstream, running, "/infill", {**INFILL, **wrong})
    assert (ours.status, theirs.status) == (400, 400)
    mine, other = ours.json()["error"], theirs.json()["error"]
    assert {name: mine[name] for name in ("code", "type")} == {name: other[name] for name in ("code", "type")}
    assert next(iter(wrong)) in mine["message"]


@pytest.mark.parametrize("missing", ["input_prefix", "input_suffix"])
def test_what_must_be_there_is_missed_alike(upstream: str, running: Appliance, missing: str) -> None:
    body = {name: value for name, value in INFILL.items() if name != missing}
    theirs, ours = both(upstream, running, "/infill", body)
    assert (ours.status, theirs.status) == (400, 400)
    assert missing in ours.json()["error"]["message"]


def test_files_go_along(upstream: str, running: Appliance) -> None:
    extra = [{"filename": "a.py", "text": "x = 1\n", "time": [1, 2]}, {"text": "y = 2\n"}]
    theirs, ours = both(upstream, running, "/infill", {**INFILL, "input_extra": extra})
    assert (ours.status, theirs.status) == (200, 200)


@pytest.mark.parametrize("content", ["def a(b):\n    return b\n", "", "über ☃"])
def test_tokens_are_the_same(upstream: str, running: Appliance, content: str) -> None:
    theirs, ours = both(upstream, running, "/tokenize", {"content": content})
    assert ours.json() == theirs.json()


def test_tokens_become_the_same_text(upstream: str, running: Appliance) -> None:
    tokens = running.request("POST", "/tokenize", {"content": "def a(b):\n    return 'über ☃'\n"}).json()["tokens"]
    theirs, ours = both(upstream, running, "/detokenize", {"tokens": tokens})
    assert ours.json() == theirs.json()


def test_a_stop_text_is_told_alike(upstream: str, running: Appliance) -> None:
    body = {"prompt": "import os\nimport ", "temperature": 0, "n_predict": 40, "stop": ["\n", "zzz"]}
    theirs, ours = both(upstream, running, "/completion", body)
    for answer in (theirs, ours):
        assert (answer.json()["stop_type"], answer.json()["stopping_word"]) == ("word", "\n")


def test_a_control_token_in_the_text_is_text_here(upstream: str, running: Appliance) -> None:
    theirs, ours = both(upstream, running, "/tokenize", {"content": "<|fim_middle|>", "parse_special": False})
    assert ours.json() == theirs.json()
    assert len(ours.json()["tokens"]) > 1
