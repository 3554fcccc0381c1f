"""Mistral's fill-in-the-middle API, ``POST /v1/fim/completions``: asked like OpenAI's, answered like a chat.

Shapes: docs.mistral.ai, "Fim API". Continue's adapters speak it to every provider that they take to know a suffix.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rockfill.access.tokens import Scope
from rockfill.api.dialects.openai import CompletionBody, completion_request
from rockfill.api.dialects.streaming import HOLE, SSE, extension, respond, usage
from rockfill.api.errors import dumps
from rockfill.api.server import Route, read_json
from rockfill.decode import decode_request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiohttp import web

    from rockfill.completion.service import CompletionResult, CompletionService


@dataclass(frozen=True, slots=True)
class FimBody(CompletionBody):
    """As OpenAI's, with a name of its own for the seed; without `max_tokens` the model decides where it ends."""

    random_seed: int | None = None


class Mistral:
    """The route of the dialect."""

    def __init__(self, completions: CompletionService) -> None:
        self._completions = completions

    def routes(self) -> list[Route]:
        return [Route("POST", "/v1/fim/completions", self.complete, Scope.COMPLETE)]

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = decode_request(FimBody, await read_json(request))
        if body.seed is None:
            body = replace(body, seed=body.random_seed)
        wanted = completion_request(request, body, default_tokens=None)
        return await respond(request, self._completions, wanted, _Reply, stream=body.stream)


class _Reply:
    framing = SSE

    def __init__(self, model: str) -> None:
        self._id = f"cmpl-{secrets.token_hex(12)}"
        self._created = int(time.time())
        self._model = model

    def whole(self, text: str, result: CompletionResult) -> dict[str, Any]:
        choice = {"index": 0, "message": _said(text), "finish_reason": result.finish_reason}
        return self._value("chat.completion", choice) | {"usage": usage(result), "rockfill": extension(result)}

    def part(self) -> dict[str, Any]:
        return self._value("chat.completion.chunk", {"index": 0, "delta": _said(HOLE), "finish_reason": None})

    def last(self, text: str, result: CompletionResult) -> Iterator[bytes]:
        choice = {"index": 0, "delta": {"content": ""}, "finish_reason": result.finish_reason}
        value = self._value("chat.completion.chunk", choice)
        yield dumps(value | {"usage": usage(result), "rockfill": extension(result)})
        yield b"[DONE]"

    def _value(self, kind: str, choice: dict[str, Any]) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model, "choices": [choice]}


def _said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}
