"""The models on this machine, in the words of each dialect that lists them."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rockfill.access.tokens import Scope
from rockfill.api.errors import json_response
from rockfill.api.server import Route
from rockfill.fim.families import BY_NAME

if TYPE_CHECKING:
    from aiohttp import web

    from rockfill.engine.supervisor import Supervisor
    from rockfill.session import ModelFacts
    from rockfill.snapshots import EngineSnapshot, Target
    from rockfill.store.models import ModelStore

# The zero time of Go, which Ollama itself writes for a time that was never set.
UNKNOWN_TIME = "0001-01-01T00:00:00Z"

FORMATS = {"llama": "gguf", "rkllm": "rkllm"}


class Models:
    """``GET /v1/models``: OpenAI's list, with what llama.cpp's server puts beside it, and single models."""

    def __init__(self, models: ModelStore, supervisor: Supervisor, started_at_s: float) -> None:
        """`started_at_s` (Unix time) stands as ``created`` of the models."""
        self._models = models
        self._supervisor = supervisor
        self._created = int(started_at_s)

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/v1/models", self.every, Scope.READ),
            Route("GET", "/v1/models/{name}", self.one, Scope.READ),
        ]

    async def every(self, request: web.Request) -> web.StreamResponse:
        """`models` is llama.cpp's, `data` OpenAI's; each client looks at its own."""
        targets = self._models.targets
        listed = [await listed_model(target, target.name) for target in targets]
        data = [self._model(target) for target in targets]
        return json_response({"models": listed, "object": "list", "data": data})

    async def one(self, request: web.Request) -> web.StreamResponse:
        return json_response(self._model(self._models.find(request.match_info["name"])))

    def _model(self, target: Target) -> dict[str, Any]:
        facts = facts_of(self._supervisor.snapshot, target)
        loaded = {"n_vocab": facts.vocabulary_tokens, "n_ctx": facts.context_tokens} if facts is not None else {}
        return {
            "id": target.name,
            "aliases": list(target.aliases),
            "object": "model",
            "created": self._created,
            "owned_by": "rockfill",
            "meta": {**loaded, "size": target.size_bytes},
        }


async def listed_model(target: Target, name: str) -> dict[str, Any]:
    """`target` as Ollama lists models, which llama.cpp does too."""
    return {
        "name": name,
        "model": name,
        "modified_at": await modified_at(target),
        "size": target.size_bytes,
        # Of the place and the size: reading gigabytes to name a file would be no service.
        "digest": hashlib.sha256(f"{target.path}\0{target.size_bytes}".encode()).hexdigest(),
        "details": details(target),
        "capabilities": capabilities(target, None),
    }


def details(target: Target) -> dict[str, Any]:
    """Ollama's `details`; what is not known is empty."""
    family = target.family or ""
    return {
        "parent_model": "",
        "format": FORMATS.get(target.engine, target.engine),
        "family": family,
        "families": [family] if family else [],
        "parameter_size": "",
        "quantization_level": target.quantisation.upper(),
    }


def capabilities(target: Target, fim_order: str | None) -> list[str]:
    """``insert`` for a model that fills in the middle, by its family or, once it is loaded, by its `fim_order`."""
    inserts = target.family in BY_NAME or fim_order is not None
    return ["completion", "insert"] if inserts else ["completion"]


def facts_of(snapshot: EngineSnapshot, target: Target) -> ModelFacts | None:
    """What the engine knows of `target`, if that is what is loaded."""
    return snapshot.facts if snapshot.target == target else None


async def modified_at(target: Target) -> str:
    """When the model's file was written."""
    try:
        modified_s = (await asyncio.to_thread(Path(target.path).stat)).st_mtime
    except OSError:
        return UNKNOWN_TIME
    return datetime.fromtimestamp(modified_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
