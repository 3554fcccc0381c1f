"""What is asked of every dialect, whose answers stand in ``golden/``."""

from __future__ import annotations

from dataclasses import dataclass, field

NO_TOKEN = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request. `body` is sent as JSON, or as it is if it is bytes."""

    method: str
    path: str
    body: object = None
    token: str | None = ""
    headers: dict[str, str] = field(default_factory=dict)


def post(path: str, **body: object) -> Exchange:
    return Exchange("POST", path, body)


def get(path: str) -> Exchange:
    return Exchange("GET", path)


def wrong(path: str) -> dict[str, Exchange]:
    """What goes wrong alike for every address that a body is posted to."""
    return {
        "no JSON": Exchange("POST", path, b"{"),
        "no object": Exchange("POST", path, b"[]"),
        "no token": Exchange("POST", path, {}, NO_TOKEN),
        "a wrong token": Exchange("POST", path, {}, "wrong"),
        "another method": get(path),
    }


# Each request of an editor's has a text of its own, as one that was asked before is answered from memory.
BEFORE, AFTER = "def add(a, b):\n    return ", "\n\nprint(add(1, 2))\n"


def templated(before: str) -> str:
    return f"<fim_prefix>{before}<fim_suffix>{AFTER}<fim_middle>"


DIALECTS: dict[str, dict[str, Exchange]] = {
    "llamacpp": {
        "infill": post("/infill", input_prefix=BEFORE, input_suffix=AFTER, n_predict=16),
        "infill, everything": post(
            "/infill",
            input_prefix=BEFORE,
            input_suffix=AFTER,
            input_extra=[{"text": "x = 1\n", "filename": "x.py", "time": [1, 2]}],
            prompt="a",
            n_predict=16,
            n_indent=4,
            top_k=40,
            top_p=0.9,
            seed=7,
            stop=["\n\n"],
            samplers=["top_k", "top_p", "infill"],
            t_max_prompt_ms=500,
            t_max_predict_ms=250,
            cache_prompt=True,
            id_slot=0,
            n_cmpl=3,
            model="",
        ),
        "infill streamed": post("/infill", input_prefix="2" + BEFORE, input_suffix=AFTER, n_predict=16, stream=True),
        "infill, chosen fields": post(
            "/infill",
            input_prefix="1" + BEFORE,
            input_suffix=AFTER,
            response_fields=["content", "timings/prompt_n", "truncated", "no/such"],
        ),
        "infill, no fields": post("/infill", input_prefix=BEFORE, input_suffix=AFTER, response_fields=[""]),
        "infill, nothing to predict": post("/infill", input_prefix=BEFORE, input_suffix=AFTER, n_predict=0),
        "completion": post("/completion", prompt="a = ", n_predict=16),
        "completion, at most": post("/completion", prompt="a = ", max_tokens=1),
        "completion, stopped": post("/completion", prompt="a = ", n_predict=16, stop=["\n", " +"]),
        "completions streamed": post("/completions", prompt="a = ", n_predict=16, stream=True),
        "completion, templated": post("/completion", prompt=templated("101" + BEFORE), n_predict=16),
        "tokenize": post("/tokenize", content="ab"),
        "tokenize, with BOS": post("/tokenize", content="ab", add_special=True),
        "props": get("/props"),
        "slots": get("/slots"),
        "models": get("/v1/models"),
        **{f"infill: {name}": exchange for name, exchange in wrong("/infill").items()},
        "infill: nothing in it": post("/infill"),
        "infill: wrong types": post("/infill", input_prefix=1, input_suffix=None, input_extra="x", n_predict="3"),
        "infill: an unknown model": post("/infill", input_prefix="", input_suffix="", model="gpt-4"),
        "infill: grammar": post("/infill", input_prefix="", input_suffix="", grammar="root ::= x"),
        "completion: two prompts": post("/completion", prompt=["a", "b"]),
        "completion: a long stop": post("/completion", prompt="a", stop=["x" * 257]),
        "tokenize: a long text": post("/tokenize", content="x" * 65_537),
        "detokenize: many": post("/detokenize", tokens=[353] * 65_537),
        "tokenize: pieces": post("/tokenize", content="ab", with_pieces=True),
        "detokenize": post("/detokenize", tokens=[353, 1, 354]),
        "detokenize: no such token": post("/detokenize", tokens=[353, -1]),
        "detokenize: wrong types": post("/detokenize", tokens=["a"]),
        "nothing there": get("/completion/x"),
    },
    "openai": {
        "whole": post("/v1/completions", prompt="3" + BEFORE, suffix=AFTER),
        "streamed": post(
            "/v1/completions", prompt="4" + BEFORE, suffix=AFTER, stream=True, stream_options={"include_usage": True}
        ),
        "at most": post("/v1/completions", prompt="x", max_tokens=1, model="FAKE:latest"),
        "more than there is": post("/v1/completions", prompt="x", max_tokens=1_000_000),
        "templated": post("/v1/completions", prompt=templated("102" + BEFORE)),
        "cannot be honoured": post("/v1/completions", prompt="x", top_p=0.5, seed=1),
        "one model": get("/v1/models/fake"),
        **wrong("/v1/completions"),
        "two prompts": post("/v1/completions", prompt=["a", "b"]),
        "a long stop": post("/v1/completions", prompt="a", stop="x" * 257),
        "logprobs": post("/v1/completions", prompt="a", logprobs=1),
        "an unknown model": get("/v1/models/gpt-4"),
        "nothing there": post("/v1/chat/completions"),
    },
    "mistral": {
        "whole": post("/v1/fim/completions", prompt="5" + BEFORE, suffix=AFTER, random_seed=1),
        "streamed": post("/v1/fim/completions", prompt="6" + BEFORE, suffix=AFTER, stream=True),
        **wrong("/v1/fim/completions"),
        "an unknown model": post("/v1/fim/completions", prompt="", model="codestral"),
    },
    "ollama": {
        "streamed": post("/api/generate", model="fake", prompt="7" + BEFORE, suffix=AFTER),
        "whole": post("/api/generate", model="fake:latest", prompt="8" + BEFORE, suffix=AFTER, stream=False),
        "raw, templated": post("/api/generate", prompt=templated("103" + BEFORE), raw=True, stream=False),
        "at most": post("/api/generate", prompt="x", stream=False, options={"num_predict": 1, "num_ctx": 9}),
        "loads": post("/api/generate", model="fake", keep_alive="5m", stream=False),
        "loads, streamed": post("/api/generate", model="fake"),
        "tags": get("/api/tags"),
        "show": post("/api/show", model="fake"),
        "ps": get("/api/ps"),
        "version": get("/api/version"),
        "is it running": Exchange("GET", "/", None, NO_TOKEN, {"Accept": "*/*"}),
        "is it there": Exchange("HEAD", "/", None, NO_TOKEN),
        "are there tags": Exchange("HEAD", "/api/tags"),
        **wrong("/api/generate"),
        "wrong types": post("/api/generate", prompt=1, options={"stop": 2}, keep_alive=[]),
        "a long stop": post("/api/generate", prompt="x", options={"stop": ["x" * 257]}),
        "no duration": post("/api/generate", prompt="x", keep_alive="soon"),
        "raw with a system": post("/api/generate", prompt="x", raw=True, system="Be brief."),
        "a format": post("/api/generate", prompt="x", format="json"),
        "an unknown model": post("/api/show", name="llama3"),
        "nothing there": post("/api/chat"),
    },
    "tabby": {
        "completion": post(
            "/v1/completions",
            language="python",
            segments={
                "prefix": "9" + BEFORE,
                "suffix": AFTER,
                "filepath": "add.py",
                "declarations": [{"filepath": "x.py", "body": "x = 1"}],
                "clipboard": "",
            },
            user="somebody",
        ),
        "health": get("/v1/health"),
        "events": post("/v1/events", type="view", completion_id="cmpl-1", choice_index=0),
        "wrong types": post("/v1/completions", segments={"prefix": 1, "declarations": [{}]}),
        "no segments": post("/v1/completions", segments=None),
        "health without a token": Exchange("GET", "/v1/health", None, NO_TOKEN),
        "events, another method": get("/v1/events"),
    },
}
