"""The `ollama` package against the real daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ollama
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.appliance import Appliance, ScriptedAppliance

PROMPT, SUFFIX = "def add(a, b):\n    return ", "\n\nprint(add(1, 2))\n"


@pytest.fixture
def client(running: Appliance) -> Iterator[ollama.Client]:
    with client_of(running) as made:
        yield made


def client_of(appliance: Appliance) -> ollama.Client:
    return ollama.Client(appliance.url, headers={"Authorization": f"Bearer {appliance.token}"})


def test_a_completion_with_a_suffix_whole_and_streamed(client: ollama.Client) -> None:
    whole = client.generate("rockfill-tiny", PROMPT, suffix=SUFFIX, options={"num_predict": 16})
    assert whole.response
    assert whole.done_reason in ("stop", "length")
    assert whole.prompt_eval_count is not None
    assert whole.prompt_eval_count > 10
    assert whole.total_duration is not None
    *parts, last = client.generate(
        "rockfill-tiny:latest", PROMPT, suffix=SUFFIX, options={"num_predict": 16}, stream=True
    )
    assert "".join(part.response or "" for part in parts) == whole.response
    assert not any(part.done for part in parts)
    assert (last.done, last.response, last.done_reason) == (True, "", whole.done_reason)


def test_the_models_and_what_they_can_do(client: ollama.Client) -> None:
    [listed] = client.list().models
    assert listed.model == "rockfill-tiny:latest"
    assert listed.modified_at is not None
    assert listed.details is not None
    assert (listed.details.format, listed.details.quantization_level) == ("gguf", "Q8_0")
    shown = client.show("rockfill-tiny")
    assert shown.capabilities is not None
    assert "insert" in shown.capabilities
    assert ".Suffix" in (shown.template or "")
    assert [loaded.model for loaded in client.ps().models] == ["rockfill-tiny:latest"]


def test_an_empty_prompt_unloads_and_loads(appliance: Appliance) -> None:
    with client_of(appliance) as client:
        assert client.generate("rockfill-tiny", keep_alive=0).done_reason == "unload"
        appliance.wait_for_state("stopped")
        assert client.ps().models == []
        assert client.generate("rockfill-tiny", keep_alive="5m").done_reason == "load"
        assert appliance.command("engine.get")["state"] == "ready"


def test_errors_have_a_status_and_say_what_is_wrong(client: ollama.Client, running: Appliance) -> None:
    with pytest.raises(ollama.ResponseError, match="no model") as caught:
        client.generate("llama3", "a")
    assert caught.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="raw mode") as caught:
        client.generate("rockfill-tiny", "a", raw=True, system="Be brief.")
    assert caught.value.status_code == 400
    with ollama.Client(running.url) as stranger, pytest.raises(ollama.ResponseError, match="token") as caught:
        stranger.list()
    assert caught.value.status_code == 401


def test_an_error_in_the_stream_is_raised(scripted: ScriptedAppliance) -> None:
    scripted.script(text="x" * 10, token_s=0.01, fault={"when": 5, "what": "exit"})
    with client_of(scripted) as client, pytest.raises(ollama.ResponseError, match="ended by itself"):
        list(client.generate("fake", "a", stream=True))
