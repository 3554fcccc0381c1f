"""Ollama's API, as far as completing code needs it: ``/api/generate`` and what its clients ask before.

Shapes: Ollama, docs/api.md and api/types.go. Different on purpose: greedy unless a temperature is asked for, and no
`context` in replies, since every request here stands for itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from aiohttp import web

from rockfill.access.tokens import Scope
from rockfill.api.dialects.asking import Share, Stops, Temperature, client_of, document, limit, refuse, stops
from rockfill.api.dialects.listing import capabilities, details, facts_of, listed_model, modified_at
from rockfill.api.dialects.streaming import HOLE, NDJSON, extension, respond
from rockfill.api.errors import dumps, json_response
from rockfill.api.server import Route, read_json
from rockfill.completion.service import PAUSED, CompletionRequest
from rockfill.decode import MaxLength, decode_request
from rockfill.errors import Code, Problem
from rockfill.fim.families import BY_NAME, Slot
from rockfill.session import Sampling
from rockfill.snapshots import Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rockfill.api.gate import Gate
    from rockfill.completion.service import CompletionResult, CompletionService
    from rockfill.engine.supervisor import Supervisor
    from rockfill.snapshots import EngineSnapshot, Target
    from rockfill.store.models import ModelStore

# The release whose API this is. Clients ask for 0.6.4 at least: since then `/api/show` tells capabilities.
API_VERSION = "0.9.0"

_DURATION = re.compile(r"-?(\d+(\.\d*)?(ns|us|µs|ms|s|m|h))+|-?\d+(\.\d*)?")

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Options:
    """Of Ollama's options those that mean something here; `num_predict` below 0 asks for as much as there is."""

    num_predict: int | None = None
    temperature: Temperature = 0.0
    top_k: int = 0
    top_p: Share = 1.0
    seed: int | None = None
    stop: Stops = ()


@dataclass(frozen=True, slots=True)
class GenerateBody:
    """`keep_alive` matters only without a prompt: there 0 unloads. How long a model stays is the appliance's to say."""

    model: str = ""
    prompt: str = ""
    suffix: str | None = None
    raw: bool = False
    stream: bool = True
    options: Options = field(default_factory=Options)
    keep_alive: Annotated[str, MaxLength(100)] | float | None = None
    system: str = ""
    template: str = ""
    context: tuple[int, ...] = ()
    images: tuple[str, ...] = ()
    format: Any = None

    def refuse_unsupported(self) -> None:
        """Raise `unsupported` for what would change the text and can't be honoured."""
        named = [name for name in ("system", "template", "context") if getattr(self, name)]
        if named and self.raw:
            raise Problem(Code.UNSUPPORTED, "raw mode does not support template, system, or context.")
        for name in (*named, "images", "format"):
            if getattr(self, name):
                raise refuse(name, "not supported, this completes code and does not chat")

    @property
    def unloads(self) -> bool:
        """Whether `keep_alive` is no time at all. Raises `invalid_value` if it is no time."""
        if isinstance(self.keep_alive, str):
            if not _DURATION.fullmatch(self.keep_alive):
                raise Problem(Code.INVALID_VALUE, 'keep_alive: must be a duration such as "5m", or seconds.')
            return not any(digit in "123456789" for digit in self.keep_alive)
        return self.keep_alive == 0


@dataclass(frozen=True, slots=True)
class ShowBody:
    """`name` is what `model` was called first, and what Continue still says."""

    model: str = ""
    name: str = ""


class Ollama:
    """The routes of the dialect."""

    def __init__(self, completions: CompletionService, models: ModelStore, supervisor: Supervisor, gate: Gate) -> None:
        self._completions = completions
        self._models = models
        self._supervisor = supervisor
        self._gate = gate

    def routes(self) -> list[Route]:
        return [
            Route("POST", "/api/generate", self.generate, Scope.COMPLETE),
            Route("GET", "/api/tags", self.tags, Scope.READ),
            Route("POST", "/api/show", self.show, Scope.READ),
            Route("GET", "/api/ps", self.running, Scope.READ),
            Route("GET", "/api/version", self.version, Scope.READ),
        ]

    async def generate(self, request: web.Request) -> web.StreamResponse:
        """A suffix, raw or not, is filled in; a prompt alone is continued, or taken apart if it is a whole template."""
        body = decode_request(GenerateBody, await read_json(request))
        body.refuse_unsupported()
        unloads = body.unloads
        if not body.prompt and not body.suffix:
            return await self._load(request, body, unload=unloads)
        asked = document(body.prompt, body.suffix or None)
        options = body.options
        wanted = CompletionRequest(
            prefix=asked.prefix,
            suffix=asked.suffix,
            files=asked.files,
            model=body.model,
            max_tokens=limit(options.num_predict),
            sampling=Sampling(options.temperature, options.top_p, max(0, options.top_k), options.seed),
            stops=stops(options.stop),
            priority=asked.priority,
            client=client_of(request),
        )
        return await respond(request, self._completions, wanted, _Reply, stream=body.stream)

    async def _load(self, request: web.Request, body: GenerateBody, *, unload: bool) -> web.StreamResponse:
        """Without a prompt the model is only loaded, or unloaded. What takes it from others needs another scope, and
        so does another try of an engine that failed."""
        target = self._models.find(body.model)
        snapshot = self._supervisor.snapshot
        present = snapshot.target
        if unload or present not in (None, target) or snapshot.phase is Phase.FAILED:
            self._gate.check(request, Scope.CONTROL)
        if not unload:
            if self._completions.paused:
                raise PAUSED.raised()
            await self._supervisor.ensure_ready(target)
        elif present == target:
            self._supervisor.unload()
        reason = "unload" if unload else "load"
        value = _head(target.name) | {"response": "", "done": True, "done_reason": reason}
        if not body.stream:
            return json_response(value)
        return web.Response(body=NDJSON.frame(dumps(value)), content_type=NDJSON.content_type)

    async def tags(self, request: web.Request) -> web.StreamResponse:
        listed = [await listed_model(target, tagged(target.name)) for target in self._models.targets]
        return json_response({"models": listed})

    async def show(self, request: web.Request) -> web.StreamResponse:
        """Continue reads from `template` whether there is a suffix, and its context and stops from `parameters`."""
        body = decode_request(ShowBody, await read_json(request))
        target = self._models.find(body.model or body.name)
        snapshot = self._supervisor.snapshot
        facts = facts_of(snapshot, target)
        order = snapshot.fim_order if facts is not None else None
        architecture = target.family or target.engine
        model_info: Json = {"general.architecture": architecture}
        if facts is not None:
            model_info[f"{architecture}.context_length"] = facts.context_tokens
        return json_response(
            {
                "modelfile": f"FROM {target.name}\n",
                "parameters": _parameters(target, snapshot),
                "template": _template(target, order),
                "details": details(target),
                "model_info": model_info,
                "capabilities": capabilities(target, order),
                "modified_at": await modified_at(target),
            }
        )

    async def running(self, request: web.Request) -> web.StreamResponse:
        """The loaded model, if there is one."""
        snapshot = self._supervisor.snapshot
        if snapshot.target is None or snapshot.phase not in (Phase.READY, Phase.BUSY):
            return json_response({"models": []})
        target = snapshot.target
        listed = await listed_model(target, tagged(target.name))
        assert snapshot.facts is not None
        return json_response({"models": [{**listed, "context_length": snapshot.facts.context_tokens}]})

    async def version(self, request: web.Request) -> web.StreamResponse:
        return json_response({"version": API_VERSION})


def tagged(name: str) -> str:
    """`name` as Ollama writes it."""
    return name if ":" in name else f"{name}:latest"


def _template(target: Target, order: str | None) -> str:
    """The model's prompt in Ollama's template language; clients look for ``.Suffix`` in it."""
    family = BY_NAME.get(target.family or "")
    if family is None:
        insert = "{{ .Prompt }}{{ .Suffix }}" if order is not None else ""
    else:
        template = family.psm if order == "psm" else family.spm if order == "spm" else None
        template = template or family.template(family.default_order)
        assert template is not None
        slots = {Slot.PREFIX: "{{ .Prompt }}", Slot.SUFFIX: "{{ .Suffix }}"}
        insert = "".join(slots.get(part, "") if isinstance(part, Slot) else str(part) for part in template.parts)
    return f"{{{{- if .Suffix }}}}{insert}{{{{- else }}}}{{{{ .Prompt }}}}{{{{- end }}}}" if insert else "{{ .Prompt }}"


def _parameters(target: Target, snapshot: EngineSnapshot) -> str:
    facts = facts_of(snapshot, target)
    family = BY_NAME.get(target.family or "")
    lines = [f"num_ctx    {facts.context_tokens}"] if facts is not None else []
    stop_texts = (*map(str, family.stop_markers), *family.stop_texts) if family is not None else ()
    lines += [f"stop       {dumps(text).decode()}" for text in stop_texts]
    return "\n".join(lines)


class _Reply:
    framing = NDJSON

    def __init__(self, model: str) -> None:
        self._model = model

    def whole(self, text: str, result: CompletionResult) -> Json:
        return _head(self._model) | {"response": text} | _done(result)

    def part(self) -> Json:
        return _head(self._model) | {"response": HOLE, "done": False}

    def last(self, text: str, result: CompletionResult) -> Iterator[bytes]:
        yield dumps(_head(self._model) | {"response": ""} | _done(result))


def _head(model: str) -> Json:
    return {"model": model, "created_at": datetime.now(UTC).isoformat().replace("+00:00", "Z")}


def _done(result: CompletionResult) -> Json:
    """Durations in nanoseconds; one that the engine did not tell is left out."""
    timings = result.timings
    durations = {
        "total_duration": timings.total_ms,
        "load_duration": _loading_ms(result),
        "prompt_eval_duration": timings.prefill_ms,
        "eval_duration": timings.decode_ms,
    }
    return {
        "done": True,
        "done_reason": result.finish_reason,
        "prompt_eval_count": result.prompt_tokens,
        "eval_count": result.generated_tokens,
        **{name: round(ms * 1e6) for name, ms in durations.items() if ms is not None},
        "rockfill": extension(result),
    }


def _loading_ms(result: CompletionResult) -> float | None:
    """What passed from the request's turn to its prefill: loading, where that was needed."""
    timings = result.timings
    if timings.first_token_ms is None or timings.prefill_ms is None:
        return None
    return max(0.0, timings.first_token_ms - timings.queue_ms - timings.prefill_ms)
