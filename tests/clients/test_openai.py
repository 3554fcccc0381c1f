"""The `openai` package against the real daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import openai
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.appliance import Appliance, ScriptedAppliance


@pytest.fixture
def client(appliance: Appliance) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{appliance.url}/v1", api_key=appliance.token, max_retries=0) as made:
        yield made


def test_a_completion_with_a_suffix_whole_and_streamed(client: openai.OpenAI) -> None:
    prompt, suffix = "def add(a, b):\n    return ", "\n\nprint(add(1, 2))\n"
    whole = client.completions.create(model="rockfill-tiny", prompt=prompt, suffix=suffix, max_tokens=16)
    assert whole.choices[0].text
    assert whole.choices[0].finish_reason in ("stop", "length")
    assert whole.usage is not None
    assert whole.usage.prompt_tokens > 10
    stream = client.completions.create(model="", prompt=prompt, suffix=suffix, max_tokens=16, stream=True)
    chunks = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason


def test_the_models_are_listed(client: openai.OpenAI) -> None:
    assert "rockfill-tiny" in [model.id for model in client.models.list()]
    assert client.models.retrieve("rockfill-tiny:latest").id == "rockfill-tiny"


def test_errors_are_the_clients_own_kinds(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no model"):
        client.completions.create(model="gpt-4", prompt="a")
    with pytest.raises(openai.BadRequestError, match="n: only 1"):
        client.completions.create(model="", prompt="a", n=3)
    with pytest.raises(openai.AuthenticationError, match="token"):
        client.with_options(api_key="wrong").models.list()


def test_an_error_in_the_stream_is_raised(scripted: ScriptedAppliance) -> None:
    scripted.script(text="x" * 10, token_s=0.01, fault={"when": 5, "what": "exit"})
    with (
        openai.OpenAI(base_url=f"{scripted.url}/v1", api_key=scripted.token, max_retries=0) as client,
        pytest.raises(openai.APIError, match="ended by itself"),
    ):
        list(client.completions.create(model="", prompt="a", stream=True))
