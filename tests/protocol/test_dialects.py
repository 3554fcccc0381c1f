"""Every reply, stream and error of every dialect, as it stands in ``golden/``: a change of the API is a visible diff.

``WRITE_GOLDEN=1 pytest tests/protocol`` writes them anew. What differs from run to run is replaced by its kind.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.protocol.exchanges import BEFORE, DIALECTS, post

if TYPE_CHECKING:
    from tests.appliance import Answer, ScriptedAppliance
    from tests.protocol.exchanges import Exchange

GOLDEN = Path(__file__).with_name("golden")
VOLATILE = re.compile(
    r"id|(?!t_max_).*_ms|.*_per_second|.*_duration|created|created_at|modified_at|size|digest|model_path"
    r"|arch|cpu_count|build_info|git_describe"
)
# Which stream of each dialect to break, and where a piece of it has its text.
BROKEN = {
    "llamacpp": post("/infill", input_prefix=BEFORE, input_suffix="", stream=True),
    "openai": post("/v1/completions", prompt=BEFORE, stream=True, max_tokens=99),
    "mistral": post("/v1/fim/completions", prompt=BEFORE, stream=True),
    "ollama": post("/api/generate", prompt=BEFORE),
}


@pytest.mark.parametrize(
    ("dialect", "name"), [(dialect, name) for dialect, exchanges in DIALECTS.items() for name in exchanges]
)
def test_the_answer_is_the_golden_one(speaking: ScriptedAppliance, dialect: str, name: str) -> None:
    compare(dialect, name, answered(ask(speaking, DIALECTS[dialect][name])))


@pytest.mark.parametrize("dialect", BROKEN)
def test_an_engine_that_dies_in_a_stream_is_told_in_its_last_event(scripted: ScriptedAppliance, dialect: str) -> None:
    scripted.script(text="x" * 20, token_s=0.01, fault={"when": 10, "what": "exit"})
    answer = answered(ask(scripted, BROKEN[dialect]))
    assert len(answer["events"]) > 1
    compare(dialect, "the engine dies in the stream", {**answer, "events": answer["events"][-1:]})


@pytest.mark.parametrize("dialect", BROKEN)
def test_an_engine_that_dies_before_the_stream_begins_is_told_by_the_status(
    scripted: ScriptedAppliance, dialect: str
) -> None:
    scripted.script(text="x", fault={"when": "prefill", "what": "exit"})
    compare(dialect, "the engine dies before the stream", answered(ask(scripted, BROKEN[dialect])))


def test_nothing_golden_is_left_over() -> None:
    extra = ("the engine dies in the stream", "the engine dies before the stream")
    for dialect, exchanges in DIALECTS.items():
        expected = [*exchanges, *(extra if dialect in BROKEN else ())]
        assert sorted(golden(dialect)) == sorted(expected)


def ask(appliance: ScriptedAppliance, exchange: Exchange) -> Answer:
    return appliance.request(
        exchange.method, exchange.path, exchange.body, headers=exchange.headers, token=exchange.token
    )


def answered(answer: Answer) -> dict[str, Any]:
    """What of `answer` is to stay as it is: JSON that fits on one line becomes a value, a stream its events."""
    kind = answer.headers.get("Content-Type", "")
    value: dict[str, Any] = {"status": answer.status, "content_type": kind}
    text = answer.body.decode()
    for header in ("WWW-Authenticate", "Retry-After"):
        if header in answer.headers:
            value[header] = answer.headers[header]
    if kind.startswith("text/event-stream"):
        events = text.removesuffix("\n\n").split("\n\n")
        assert all(event.startswith("data: ") for event in events)
        return value | {"events": [event_value(event.removeprefix("data: ")) for event in events]}
    if kind.startswith("application/x-ndjson"):
        assert text.endswith("\n")
        return value | {"events": [event_value(line) for line in text.splitlines()]}
    if kind.startswith("application/json"):
        return value | {"body": event_value(text)} if text else value
    return value | {"text": text}


def event_value(text: str) -> Any:
    if text == "[DONE]":
        return text
    assert not re.search(r'":\s|\n', re.sub(r'"(\\.|[^"\\])*"(?!:)', '""', text)), "one line, no spaces after colons"
    return steady(json.loads(text))


def steady(value: Any, key: str = "") -> Any:
    if VOLATILE.fullmatch(key) and isinstance(value, str | int | float) and not isinstance(value, bool):
        return f"<{'text' if isinstance(value, str) else 'number'}>"
    if isinstance(value, dict):
        return {name: steady(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [steady(inner) for inner in value]
    return value


def golden(dialect: str) -> dict[str, Any]:
    path = GOLDEN / f"{dialect}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def compare(dialect: str, name: str, answer: dict[str, Any]) -> None:
    known = golden(dialect)
    if os.environ.get("WRITE_GOLDEN"):
        known[name] = answer
        (GOLDEN / f"{dialect}.json").write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n")
    assert answer == known.get(name)
