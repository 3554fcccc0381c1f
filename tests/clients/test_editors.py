"""Each editor's own request, as its source writes it, and what the editor reads of the answer.

They are written after llama.vim (autoload/llama.vim), llama.vscode (src/llama-server.ts, statusbar.ts), Continue
(core/llm/llms, packages/openai-adapters), Zed (crates/edit_prediction), Tabby (clients/tabby-agent), minuet
(lua/minuet/backends) and twinny (src/extension/inference/adapters/fim-dialects.ts).
"""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.appliance import Answer, Appliance

BEFORE = "import os\n\n\ndef add(a, b):\n    return "
AFTER = "\n\n\nprint(add(1, 2))\n"

# Prompts as clients template them, whichever model is loaded.
QWEN = f"<|fim_prefix|>{BEFORE}<|fim_suffix|>{AFTER}<|fim_middle|>"
STARCODER = f"<fim_prefix>{BEFORE}<fim_suffix>{AFTER}<fim_middle>"
CODELLAMA = f"<PRE> {BEFORE} <SUF>{AFTER} <MID>"
DEEPSEEK = f"<｜fim▁begin｜>{BEFORE}<｜fim▁hole｜>{AFTER}<｜fim▁end｜>"
CODESTRAL = f"[SUFFIX]{AFTER}[PREFIX]{BEFORE}"
GLM = f"<|code_prefix|>{BEFORE}<|code_suffix|>{AFTER}<|code_middle|>"

ZED_STOPS = [
    *("<|endoftext|>", "<|file_separator|>", "<|fim_pad|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"),
    *("<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<PRE>", "<SUF>", "<MID>", "[PREFIX]", "[SUFFIX]"),
]


@pytest.fixture(scope="module")
def expected(running: Appliance) -> str:
    """What the model writes between BEFORE and AFTER."""
    text: str = running.complete(BEFORE, AFTER, max_tokens=64)["choices"][0]["text"]
    assert text.strip()
    return text


def posted(appliance: Appliance, path: str, **body: object) -> Answer:
    answer = appliance.request("POST", path, body)
    assert answer.status == 200, answer.body
    return answer


def sse(answer: Answer) -> list[Any]:
    """What a reader of server-sent events makes of it, ``[DONE]`` aside."""
    data = [line.removeprefix("data: ") for line in answer.body.decode().splitlines() if line.startswith("data: ")]
    return [json.loads(event) for event in data if event != "[DONE]"]


# ---- llama.vim


def llama_vim(appliance: Appliance, **fields: object) -> Answer:
    return posted(
        appliance,
        "/infill",
        id_slot=0,
        input_prefix="import os\n\n\ndef add(a, b):\n",
        input_suffix=AFTER,
        input_extra=[{"text": "def sub(a, b):\n    return a - b\n", "time": [1, 250000], "filename": "sub.py"}],
        prompt="    return ",
        n_predict=128,
        stop=[],
        n_indent=4,
        top_k=40,
        top_p=0.90,
        samplers=["top_k", "top_p", "infill"],
        stream=False,
        cache_prompt=True,
        t_max_prompt_ms=500,
        t_max_predict_ms=1000,
        response_fields=[
            *("content", "timings/prompt_n", "timings/prompt_ms", "timings/prompt_per_token_ms"),
            *("timings/prompt_per_second", "timings/predicted_n", "timings/predicted_ms"),
            *("timings/predicted_per_token_ms", "timings/predicted_per_second", "truncated", "tokens_cached"),
        ],
        model="",
        **fields,
    )


def test_llama_vim_takes_the_line_for_a_completion(running: Appliance) -> None:
    raw = llama_vim(running).body.decode()
    assert "\n" not in raw.strip(), "its callback gets one line at a time"
    assert re.search(r'"content"\s*:"', raw), "anything else is dropped without a word"
    response = json.loads(raw)
    assert response["content"].strip()
    assert isinstance(response["tokens_cached"], int)
    for name in ("prompt_n", "prompt_ms", "prompt_per_second", "predicted_n", "predicted_ms", "predicted_per_second"):
        f"{response[f'timings/{name}']:.2f}"


def test_llama_vims_warming_up_costs_nothing(running: Appliance) -> None:
    answer = posted(
        running,
        "/infill",
        id_slot=0,
        input_prefix="",
        input_suffix="",
        input_extra=[{"text": "x\n", "time": [1, 2], "filename": "x.py"}],
        prompt="",
        n_predict=0,
        temperature=0.0,
        samplers=[],
        stream=False,
        cache_prompt=True,
        t_max_prompt_ms=1,
        t_max_predict_ms=1,
        response_fields=[""],
        model="",
    )
    assert answer.body == b"{}"


# ---- llama.vscode


def test_llama_vscode_reads_the_completion_and_the_settings(running: Appliance) -> None:
    data = posted(
        running,
        "/infill",
        input_prefix="import os\n\n\ndef add(a, b):\n",
        input_suffix=AFTER,
        input_extra=[{"text": "x = 1\n", "time": 1700000000000, "filename": "x.py"}],
        prompt="    return ",
        n_predict=128,
        n_cmpl=3,
        top_k=40,
        top_p=0.99,
        stream=False,
        samplers=["top_k", "top_p", "infill"],
        cache_prompt=True,
        t_max_prompt_ms=500,
        t_max_predict_ms=2500,
    ).json()
    assert data["content"].strip()
    assert data["generation_settings"]["n_ctx"] > 0
    assert data["timings"]["predicted_n"] > 0
    assert {"prompt_ms", "prompt_per_second", "prompt_n", "predicted_ms"} <= set(data["timings"])
    assert data["tokens_cached"] > 0


def test_llama_vscode_shows_the_message_of_an_error(running: Appliance) -> None:
    answer = running.request("POST", "/infill", {"input_prefix": ""})
    assert "input_suffix" in answer.json()["error"]["message"]


# ---- Continue


def test_continue_finds_out_about_the_model_and_streams(running: Appliance, expected: str) -> None:
    shown = posted(running, "/api/show", name="rockfill-tiny").json()
    parameters = [re.fullmatch(r'(\S+)\s+((?:".*")|\S+)', line) for line in shown["parameters"].split("\n")]
    assert all(parameters)
    found = [(match[1], match[2]) for match in parameters if match is not None]
    assert int(dict(found)["num_ctx"]) > 0
    stops = [json.loads(value) for name, value in found if name == "stop"]
    assert ".Suffix" in shown["template"]
    answer = posted(
        running,
        "/api/generate",
        model="rockfill-tiny",
        prompt=BEFORE,
        suffix=AFTER,
        options={"temperature": 0, "num_predict": 64, "stop": stops, "num_ctx": 4096, "mirostat": None, "num_gpu": 0},
        keep_alive=1800,
        stream=True,
    )
    parts = [json.loads(line) for line in answer.body.splitlines()]
    assert not any("error" in part for part in parts)
    assert "".join(part["response"] for part in parts) == expected
    assert parts[-1]["done"]


def test_continue_speaks_mistrals_and_openais_and_llamacpps_too(running: Appliance, expected: str) -> None:
    asked = {"model": "rockfill-tiny", "max_tokens": 64, "temperature": 0, "top_p": 1, "stop": None, "stream": True}
    fim = posted(running, "/v1/fim/completions", prompt=BEFORE, suffix=AFTER, **asked)
    assert "".join(event["choices"][0]["delta"]["content"] for event in sse(fim)) == expected
    legacy = posted(running, "/v1/completions", prompt=STARCODER, **{**asked, "stop": ["<file_sep>"]})
    assert "".join(event["choices"][0]["text"] for event in sse(legacy)) == expected
    own = posted(running, "/completion", model="", prompt=QWEN, stream=True, n_predict=64, stop=["<|fim_pad|>"])
    assert "".join(event["content"] for event in sse(own)) == expected
    assert sse(own)[-1]["stop"]


# ---- Zed


@pytest.mark.parametrize("prompt", [QWEN, STARCODER, CODELLAMA, DEEPSEEK, CODESTRAL, GLM])
def test_zed_gets_its_completion_whatever_prompt_format_is_set(running: Appliance, expected: str, prompt: str) -> None:
    answer = posted(running, "/v1/completions", model="rockfill-tiny", prompt=prompt, max_tokens=64, stop=ZED_STOPS)
    assert isinstance(answer.json()["id"], str)
    assert answer.json()["choices"][0]["text"] == expected


def test_zed_gets_it_as_from_ollama_too(running: Appliance, expected: str) -> None:
    for model in running.request("GET", "/api/tags").json()["models"]:
        assert {"name", "modified_at", "size", "digest", "details"} <= set(model)
    options = {"num_predict": 64, "temperature": 0, "stop": ZED_STOPS}
    body = posted(
        running, "/api/generate", model="rockfill-tiny:latest", prompt=QWEN, raw=True, stream=False, options=options
    ).json()
    assert body["response"] == expected
    assert datetime.fromisoformat(body["created_at"]).tzinfo is not None


# ---- Tabby's extensions


def test_tabby_sees_that_there_is_a_model_and_completes(running: Appliance) -> None:
    health = running.request("GET", "/v1/health").json()
    assert health["model"]
    assert isinstance(health["version"]["git_describe"], str)
    answer = posted(
        running,
        "/v1/completions",
        language="python",
        segments={
            "prefix": BEFORE,
            "suffix": AFTER,
            "filepath": "add.py",
            "git_url": "https://example.org/add.git",
            "declarations": [{"filepath": "sub.py", "body": "def sub(a, b): ..."}],
            "relevant_snippets_from_changed_files": [{"filepath": "mul.py", "body": "a * b", "score": 0.5}],
        },
        temperature=None,
        mode="standard",
    ).json()
    assert answer["choices"][0]["text"].strip()
    event = {"type": "view", "completion_id": answer["id"], "choice_index": 0}
    assert posted(running, "/v1/events?select_kind=line", **event).body == b""


# ---- minuet


def test_minuet_asks_three_times_at_once_and_reads_the_streams(running: Appliance, expected: str) -> None:
    def complete(_: int) -> str:
        answer = posted(
            running, "/v1/completions", model="rockfill-tiny", prompt=BEFORE, suffix=AFTER, stream=True, max_tokens=64
        )
        return "".join(event["choices"][0]["text"] for event in sse(answer))

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(complete, range(3))) == [expected] * 3


# ---- twinny


def test_twinny_templates_for_itself_in_each_of_its_providers(running: Appliance, expected: str) -> None:
    stop = ["<|endoftext|>", "<|file_separator|>", "<|fim_pad|>"]
    lines = posted(
        running,
        "/api/generate",
        model="rockfill-tiny",
        prompt=QWEN,
        stream=True,
        keep_alive="5m",
        options={"temperature": 0, "num_predict": 64, "stop": stop},
    ).body.splitlines()
    assert "".join(json.loads(line)["response"] for line in lines) == expected
    events = sse(posted(running, "/completion", prompt=QWEN, stream=True, temperature=0, max_tokens=64, stop=stop))
    assert "".join(event["content"] for event in events) == expected
    assert events[-1]["tokens_predicted"] > 0
