"""What Tabby's extensions ask: completions of ``segments`` at OpenAI's address, a health check, and usage events.

Shapes: openapi.json of tabby-openapi, and tabby-agent, src/http/tabbyApiClient.ts.
"""

from __future__ import annotations

import os
import platform
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from aiohttp import web

from rockfill import __version__
from rockfill.access.tokens import Scope
from rockfill.api.dialects.asking import Temperature, client_of
from rockfill.api.dialects.streaming import extension, respond_whole
from rockfill.api.errors import json_response
from rockfill.api.server import Route
from rockfill.completion.scheduler import Priority
from rockfill.completion.service import CompletionRequest
from rockfill.decode import MaxLength, decode_request
from rockfill.link.messages import File
from rockfill.session import Sampling

if TYPE_CHECKING:
    from rockfill.completion.service import CompletionResult, CompletionService
    from rockfill.store.models import ModelStore

# Its requests do not say how long the text may be; Tabby's own server has this as `max_decoding_tokens`.
MAX_DECODING_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Snippet:
    filepath: str
    body: str


Snippets = Annotated[tuple[Snippet, ...], MaxLength(256)]


@dataclass(frozen=True, slots=True)
class Segments:
    """The text round the cursor and what the editor found to go with it, most relevant first."""

    prefix: str
    suffix: str = ""
    declarations: Snippets = ()
    relevant_snippets_from_changed_files: Snippets = ()
    relevant_snippets_from_recently_opened_files: Snippets = ()

    @property
    def files(self) -> tuple[File, ...]:
        """Most relevant last: what is trimmed first comes first."""
        found = (
            *self.declarations,
            *self.relevant_snippets_from_changed_files,
            *self.relevant_snippets_from_recently_opened_files,
        )
        return tuple(File(snippet.filepath, snippet.body) for snippet in reversed(found))


@dataclass(frozen=True, slots=True)
class SegmentsBody:
    segments: Segments
    temperature: Temperature = 0.0
    seed: int | None = None


def asks(value: object) -> bool:
    """Whether the body of ``/v1/completions`` is Tabby's."""
    return isinstance(value, dict) and "segments" in value


async def complete(request: web.Request, value: object, completions: CompletionService) -> web.StreamResponse:
    """Answer Tabby's ``POST /v1/completions`` with the body `value`."""
    body = decode_request(SegmentsBody, value)
    wanted = CompletionRequest(
        prefix=body.segments.prefix,
        suffix=body.segments.suffix,
        files=body.segments.files,
        max_tokens=MAX_DECODING_TOKENS,
        sampling=Sampling(body.temperature, seed=body.seed),
        mode="block",
        priority=Priority.TYPING,
        client=client_of(request),
        supersedes=True,
    )
    return await respond_whole(completions, wanted, _whole)


class Tabby:
    """The routes that only Tabby's extensions use."""

    def __init__(self, models: ModelStore) -> None:
        self._models = models

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/v1/health", self.health, Scope.READ),
            Route("POST", "/v1/events", self.events, Scope.READ),
        ]

    async def health(self, request: web.Request) -> web.StreamResponse:
        """What an extension looks at is `model`: without one it does not ask for completions."""
        chosen = self._models.chosen
        return json_response(
            {
                "model": chosen.name if chosen is not None else None,
                "device": chosen.engine if chosen is not None else "cpu",
                "arch": platform.machine(),
                "cpu_info": "",
                "cpu_count": os.cpu_count() or 1,
                "cuda_devices": [],
                "version": {
                    "build_date": "",
                    "build_timestamp": "",
                    "git_sha": "",
                    "git_describe": f"rockfill {__version__}",
                },
            }
        )

    async def events(self, request: web.Request) -> web.StreamResponse:
        """What was shown and taken is nobody's business here: accepted, and forgotten."""
        return web.Response(status=200)


def _whole(text: str, result: CompletionResult) -> dict[str, Any]:
    return {
        "id": f"cmpl-{secrets.token_hex(12)}",
        "choices": [{"index": 0, "text": text}],
        "rockfill": extension(result),
    }
