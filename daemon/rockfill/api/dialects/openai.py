"""OpenAI's completions API: ``POST /v1/completions`` with ``prompt`` and ``suffix``, and ``GET /v1/models``.

Without `suffix` the prompt is continued, unless all of it is one family's fill-in-the-middle template, which many
editors send ready-made: then it is taken apart and rendered for the loaded model.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rockfill.access.tokens import Scope
from rockfill.api.dialects import tabby
from rockfill.api.dialects.asking import (
    Count,
    Prompt,
    Share,
    Stops,
    Temperature,
    client_of,
    document,
    limit,
    refuse,
    stops,
)
from rockfill.api.dialects.streaming import HOLE, SSE, extension, respond, usage
from rockfill.api.errors import dumps
from rockfill.api.server import Route, read_json
from rockfill.completion.scheduler import Priority
from rockfill.completion.service import CompletionRequest
from rockfill.decode import MaxLength, Range, decode_request
from rockfill.fim.output import Mode
from rockfill.link.messages import File
from rockfill.session import Sampling

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiohttp import web

    from rockfill.completion.service import CompletionResult, CompletionService

DEFAULT_TOKENS = 16


@dataclass(frozen=True, slots=True)
class StreamOptions:
    include_usage: bool = False


@dataclass(frozen=True, slots=True)
class Extension:
    """What Rockfill understands beyond OpenAI's fields, under ``rockfill``.

    `priority` None is "typing" for a request with a suffix, else "plain". `budget_tokens` is the most that its prompt
    may have; 0 leaves that to the engine's speed for typing, and to the model's context for anything else.
    """

    mode: Mode = "raw"
    files: Annotated[tuple[File, ...], MaxLength(256)] = ()
    n_indent: Annotated[int, Range(0, 1000)] = 0
    session: Annotated[str, MaxLength(200)] = ""
    priority: Literal["typing", "plain", "background"] | None = None
    budget_tokens: Count = 0


@dataclass(frozen=True, slots=True)
class CompletionBody:
    """The fields of a request that mean something here; others are ignored."""

    prompt: Prompt
    suffix: str | None = None
    model: str = ""
    max_tokens: Count | None = None
    temperature: Temperature = 0.0
    top_p: Share = 1.0
    n: int = 1
    best_of: int = 1
    seed: int | None = None
    stop: Stops = ()
    stream: bool = False
    stream_options: StreamOptions = field(default_factory=StreamOptions)
    logprobs: int | bool | None = None
    echo: bool = False
    rockfill: Extension = field(default_factory=Extension)


class OpenAI:
    """The route for completions. Tabby's extensions ask at the same address; their body tells."""

    def __init__(self, completions: CompletionService) -> None:
        self._completions = completions

    def routes(self) -> list[Route]:
        return [Route("POST", "/v1/completions", self.complete, Scope.COMPLETE)]

    async def complete(self, request: web.Request) -> web.StreamResponse:
        value = await read_json(request)
        if tabby.asks(value):
            return await tabby.complete(request, value, self._completions)
        body = decode_request(CompletionBody, value)
        wanted = completion_request(request, body, DEFAULT_TOKENS)

        def reply_of(model: str) -> _Reply:
            return _Reply(model, include_usage=body.stream_options.include_usage)

        return await respond(request, self._completions, wanted, reply_of, stream=body.stream)


def completion_request(request: web.Request, body: CompletionBody, default_tokens: int | None) -> CompletionRequest:
    """What `body` asks for, in the service's terms; without a session it supersedes nothing.

    Raises `unsupported` for what nobody here can do.
    """
    for name, value, only in (("n", body.n, 1), ("best_of", body.best_of, 1), ("echo", body.echo, False)):
        if value != only:
            raise refuse(name, f"only {json.dumps(only)} is supported")
    if body.logprobs:
        raise refuse("logprobs", "not supported, the engines do not give them")
    asked = document(body.prompt, body.suffix, body.rockfill.files)
    said = body.rockfill.priority
    return CompletionRequest(
        prefix=asked.prefix,
        suffix=asked.suffix,
        files=asked.files,
        model=body.model,
        max_tokens=limit(default_tokens if body.max_tokens is None else body.max_tokens),
        sampling=Sampling(body.temperature, body.top_p, 0, body.seed),
        stops=stops(body.stop),
        mode=body.rockfill.mode,
        n_indent=body.rockfill.n_indent,
        priority=asked.priority if said is None else Priority[said.upper()],
        budget_tokens=body.rockfill.budget_tokens,
        client=client_of(request),
        session=body.rockfill.session,
    )


class _Reply:
    framing = SSE

    def __init__(self, model: str, *, include_usage: bool) -> None:
        self._include_usage = include_usage
        self._head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, text: str, result: CompletionResult) -> dict[str, Any]:
        choices = _choice(text, result.finish_reason)
        return {**self._head, "choices": choices, "usage": usage(result), "rockfill": extension(result)}

    def part(self) -> dict[str, Any]:
        return {**self._head, "choices": _choice(HOLE, None)}

    def last(self, text: str, result: CompletionResult) -> Iterator[bytes]:
        yield dumps({**self._head, "choices": _choice("", result.finish_reason), "rockfill": extension(result)})
        if self._include_usage:
            yield dumps({**self._head, "choices": [], "usage": usage(result)})
        yield b"[DONE]"


def _choice(text: str, finish_reason: str | None) -> list[dict[str, Any]]:
    return [{"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}]
