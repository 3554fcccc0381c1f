"""OpenAI's completions API: ``POST /v1/completions`` with ``prompt`` and ``suffix``, and ``GET /v1/models``.

Without `suffix` the prompt is continued, unless all of it is one family's fill-in-the-middle template, which many
editors send ready-made: then it is taken apart and rendered for the loaded model.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from aiohttp import web

from rockfill.access.tokens import Scope
from rockfill.api.errors import STATUS, dumps, info_of, json_response, openai_shape
from rockfill.api.server import Route, read_json
from rockfill.completion.service import CompletionRequest
from rockfill.decode import MaxLength, Range, decode_request
from rockfill.errors import Code, Problem
from rockfill.fim.output import Mode
from rockfill.fim.recognise import recognise
from rockfill.link.messages import File
from rockfill.session import Sampling

if TYPE_CHECKING:
    from rockfill.completion.service import Completion, CompletionResult, CompletionService
    from rockfill.snapshots import Target
    from rockfill.store.models import ModelStore

MAX_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class StreamOptions:
    include_usage: bool = False


@dataclass(frozen=True, slots=True)
class Extension:
    """What Rockfill understands beyond OpenAI's fields, under ``rockfill``."""

    mode: Mode = "raw"
    files: Annotated[tuple[File, ...], MaxLength(256)] = ()
    n_indent: Annotated[int, Range(0, 1000)] = 0


@dataclass(frozen=True, slots=True)
class CompletionBody:
    """The fields of a request that mean something here; others are ignored."""

    prompt: str | Annotated[tuple[str, ...], MaxLength(16)]
    suffix: str | None = None
    model: str = ""
    max_tokens: Annotated[int, Range(0, MAX_TOKENS)] = 16
    temperature: Annotated[float, Range(0, 2)] = 0.0
    top_p: Annotated[float, Range(0, 1)] = 1.0
    n: int = 1
    best_of: int = 1
    seed: int | None = None
    stop: str | Annotated[tuple[str, ...], MaxLength(16)] = ()
    stream: bool = False
    stream_options: StreamOptions = field(default_factory=StreamOptions)
    logprobs: int | bool | None = None
    echo: bool = False
    rockfill: Extension = field(default_factory=Extension)


class OpenAI:
    """The routes of the dialect."""

    def __init__(self, completions: CompletionService, models: ModelStore, started_at_s: float) -> None:
        """`started_at_s` (Unix time) stands as ``created`` of the models."""
        self._completions = completions
        self._models = models
        self._created = int(started_at_s)

    def routes(self) -> list[Route]:
        return [
            Route("POST", "/v1/completions", self.complete, Scope.COMPLETE),
            Route("GET", "/v1/models", self.models, Scope.READ),
            Route("GET", "/v1/models/{name}", self.model, Scope.READ),
        ]

    async def models(self, request: web.Request) -> web.StreamResponse:
        data = [self._model(target) for target in self._models.targets]
        return json_response({"object": "list", "data": data})

    async def model(self, request: web.Request) -> web.StreamResponse:
        return json_response(self._model(self._models.find(request.match_info["name"])))

    def _model(self, target: Target) -> dict[str, Any]:
        return {"id": target.name, "object": "model", "created": self._created, "owned_by": "rockfill"}

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = decode_request(CompletionBody, await read_json(request))
        wanted = completion_request(body)
        identity = _Identity(f"cmpl-{secrets.token_hex(12)}", int(time.time()))
        async with self._completions.start(wanted) as completion:
            if body.stream:
                return await _stream(request, completion, identity, usage=body.stream_options.include_usage)
            text = "".join([part async for part in completion])
            return json_response(_whole(identity, completion.result, text))


def completion_request(body: CompletionBody) -> CompletionRequest:
    """What `body` asks for, in the service's terms. Raises `unsupported` for what nobody here can do."""
    for name, value, only in (("n", body.n, 1), ("best_of", body.best_of, 1), ("echo", body.echo, False)):
        if value != only:
            raise Problem(Code.UNSUPPORTED, f"{name}: only {json.dumps(only)} is supported.", "Leave it out.")
    if body.logprobs:
        raise Problem(Code.UNSUPPORTED, "logprobs: not supported, the engines do not give them.", "Leave it out.")
    prompts = (body.prompt,) if isinstance(body.prompt, str) else body.prompt
    if len(prompts) != 1:
        raise Problem(Code.UNSUPPORTED, "prompt: only a single text is supported.", "Send one request per prompt.")
    prefix, suffix, files = prompts[0], body.suffix, body.rockfill.files
    if suffix is None:
        recognised = recognise(prefix)
        if recognised is not None:
            context = recognised.context
            prefix, suffix = context.prefix, context.suffix
            files = tuple(File(file.path, file.text) for file in context.files) + files
    return CompletionRequest(
        prefix=prefix,
        suffix=suffix,
        files=files,
        model=body.model,
        max_tokens=body.max_tokens,
        sampling=Sampling(body.temperature, body.top_p, 0, body.seed),
        stops=(body.stop,) if isinstance(body.stop, str) else body.stop,
        mode=body.rockfill.mode,
        n_indent=body.rockfill.n_indent,
    )


@dataclass(frozen=True, slots=True)
class _Identity:
    id: str
    created: int

    def head(self, model: str) -> dict[str, Any]:
        return {"id": self.id, "object": "text_completion", "created": self.created, "model": model}


def _choice(text: str, finish_reason: str | None) -> list[dict[str, Any]]:
    return [{"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}]


def _usage(result: CompletionResult) -> dict[str, int]:
    total = result.prompt_tokens + result.generated_tokens
    return {
        "prompt_tokens": result.prompt_tokens,
        "completion_tokens": result.generated_tokens,
        "total_tokens": total,
    }


def _extension(result: CompletionResult) -> dict[str, Any]:
    return {
        "trimmed": asdict(result.trimmed),
        "reused_tokens": result.reused_tokens,
        "ignored": list(result.ignored),
        "timings": {
            **asdict(result.timings),
            "prompt_tokens": result.prompt_tokens,
            "generated_tokens": result.generated_tokens,
        },
    }


def _whole(identity: _Identity, result: CompletionResult, text: str) -> dict[str, Any]:
    return {
        **identity.head(result.model),
        "choices": _choice(text, result.finish_reason),
        "usage": _usage(result),
        "rockfill": _extension(result),
    }


async def _stream(
    request: web.Request, completion: Completion, identity: _Identity, *, usage: bool
) -> web.StreamResponse:
    """Server-sent events. What fails before the first of them is answered as if nothing had been streamed."""
    head = identity.head(completion.target.name)
    # Only the text differs from one event to the next, so the rest is written once.
    before, after = dumps({**head, "choices": _choice("\0", None)}).split(b'"\\u0000"')
    before, after = b"data: " + before, after + b"\n\n"
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    texts = aiter(completion)
    text = await anext(texts, None)
    await response.prepare(request)
    try:
        while text is not None:
            await response.write(before + dumps(text) + after)
            text = await anext(texts, None)
        result = completion.result
        final = {**head, "choices": _choice("", result.finish_reason), "rockfill": _extension(result)}
        events = [dumps(final)]
        if usage:
            events.append(dumps({**head, "choices": [], "usage": _usage(result)}))
        events.append(b"[DONE]")
    except Exception as error:  # too late for a status: the stream itself has to say it
        if isinstance(error, ConnectionError):
            raise
        info = info_of(error)
        events = [dumps(openai_shape(info, STATUS[info.code]))]
    await response.write(b"".join(b"data: " + event + b"\n\n" for event in events))
    await response.write_eof()
    return response
