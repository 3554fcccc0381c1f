"""What becomes of a request that a newer one has made pointless."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path

    from tests.appliance import Answer, ScriptedAppliance

# No two words of it are the same: a loop would be cut.
LONG = " ".join(f"w{number}" for number in range(400))
LINES = "".join(f"value_{number} = compute({number})\n" for number in range(20))


# As many tokens come at once; a run that wants more is not over before the test lets it go on.
SAID = 8


def speaks(scripted: ScriptedAppliance, held: Path) -> None:
    """No run goes beyond its first tokens while `held` is there."""
    scripted.script(text=LONG, holds={"before": SAID, "while": str(held)})


def wait_until_it_runs(held: Path) -> None:
    """It has said its first tokens then."""
    while not held.with_suffix(".reached").exists():
        time.sleep(0.01)


def one_after_the_other(
    scripted: ScriptedAppliance, held: Path, path: str, body: Any, typed: Any
) -> tuple[Answer, Answer]:
    """The answers to `body` and, sent while that runs, `typed`."""
    speaks(scripted, held)
    with ThreadPoolExecutor(2) as pool:
        first: Future[Answer] = pool.submit(scripted.request, "POST", path, body)
        wait_until_it_runs(held)
        second: Future[Answer] = pool.submit(scripted.request, "POST", path, typed)
        while not (first.done() or scripted.command("engine.get")["queue_depth"]):
            time.sleep(0.01)
        held.unlink()
        return first.result(), second.result()


@pytest.mark.parametrize("stream", [False, True])
def test_on_infill_it_is_an_empty_completion(scripted: ScriptedAppliance, held: Path, stream: bool) -> None:
    body = {"input_prefix": LINES, "input_suffix": "\n", "stream": stream}
    older, newer = one_after_the_other(
        scripted, held, "/infill", body, {**body, "prompt": "v", "stream": False, "n_predict": 4}
    )
    assert (older.status, newer.status) == (200, 200)
    last = json.loads(older.body.rstrip().rpartition(b"data: ")[2]) if stream else older.json()
    assert (last["content"], last["stop"]) == ("", True)
    assert set(last) == set(newer.json())
    assert newer.json()["content"] == LONG[:4]


def test_for_tabby_it_is_an_empty_completion(scripted: ScriptedAppliance, held: Path) -> None:
    older, newer = one_after_the_other(
        scripted, held, "/v1/completions", {"segments": {"prefix": LINES}}, {"segments": {"prefix": LINES + "v"}}
    )
    assert older.json()["choices"] == [{"index": 0, "text": ""}]
    assert newer.json()["choices"] == [{"index": 0, "text": LONG[:64]}]


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/fim/completions"])
def test_an_edit_supersedes_nothing_where_a_script_may_ask(scripted: ScriptedAppliance, held: Path, path: str) -> None:
    """A suffix says that somebody types, which is no reason to end what another request was promised."""
    body = {"prompt": LINES, "suffix": "\n", "max_tokens": 20}
    older, newer = one_after_the_other(scripted, held, path, body, {**body, "prompt": LINES + "v", "max_tokens": 4})
    assert (older.status, newer.status) == (200, 200)
    assert (older.json()["usage"]["completion_tokens"], newer.json()["usage"]["completion_tokens"]) == (20, 4)


def test_elsewhere_a_session_supersedes_and_the_older_request_is_told(scripted: ScriptedAppliance, held: Path) -> None:
    body = {"prompt": "a", "max_tokens": 999, "rockfill": {"session": "mine"}}
    other = {**body, "prompt": "other", "max_tokens": 4}
    older, newer = one_after_the_other(scripted, held, "/v1/completions", body, other)
    assert (older.status, older.json()["error"]["code"]) == (409, "superseded")
    assert newer.json()["choices"][0]["text"] == LONG[:4]


@pytest.mark.parametrize(
    ("path", "asked", "said"),
    [
        ("/v1/completions", {"max_tokens": 64, "suffix": "\n"}, lambda answer: answer["choices"][0]["text"]),
        ("/v1/completions", {"max_tokens": 64}, lambda answer: answer["choices"][0]["text"]),
        ("/v1/fim/completions", {}, lambda answer: answer["choices"][0]["message"]["content"]),
        ("/completion", {}, lambda answer: answer["content"]),
        ("/api/generate", {"stream": False}, lambda answer: answer["response"]),
    ],
)
def test_eight_scripts_at_once_all_get_their_own_whole_answer(
    scripted: ScriptedAppliance, path: str, asked: dict[str, Any], said: Any
) -> None:
    """Though each one's text looks like an edit of the others', and all come from one address."""
    scripted.script(text=None, token_s=0.001)
    lines = [f"and this is request {number}" for number in range(8)]

    def complete(line: str) -> Any:
        return said(scripted.request("POST", path, {"prompt": LINES + line, **asked}).json())

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(complete, lines)) == lines


def test_background_work_makes_way_for_typing_and_goes_on(scripted: ScriptedAppliance, held: Path) -> None:
    speaks(scripted, held)
    long = {"prompt": "a", "max_tokens": 150, "rockfill": {"priority": "background"}}
    with ThreadPoolExecutor(1) as pool:
        background: Future[Answer] = pool.submit(scripted.request, "POST", "/v1/completions", long)
        wait_until_it_runs(held)
        typed = scripted.request("POST", "/infill", {"input_prefix": LINES, "input_suffix": "\n", "n_predict": 4})
        assert typed.json()["content"] == LONG[:4]
        assert not background.done()
        held.unlink()
        # The engine says the same from its beginning on each run; what counts is that it was asked for the rest only.
        text = background.result().json()["choices"][0]["text"]
    assert text == LONG[:SAID] + LONG[: 150 - SAID]


def test_a_budget_that_is_asked_for_is_kept(scripted: ScriptedAppliance) -> None:
    def prompt_tokens(first_line: str, **extension: object) -> int:  # of other texts, for memory would answer
        body = {"prompt": first_line + LINES * 2, "suffix": "\n" + first_line, "max_tokens": 4}
        answer = scripted.request("POST", "/v1/completions", {**body, "rockfill": extension})
        tokens: int = answer.json()["usage"]["prompt_tokens"]
        return tokens

    assert prompt_tokens("a") <= 224 < prompt_tokens("b", budget_tokens=500) <= 500
    assert prompt_tokens("c", priority="background") > len(LINES) * 2
