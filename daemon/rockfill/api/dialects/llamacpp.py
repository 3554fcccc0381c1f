"""The HTTP API of llama.cpp's server as far as editors use it: ``/infill``, ``/completion`` and what they ask beside.

Shapes: llama.cpp, tools/server (README.md, server-task.cpp); the tests compare them with that server. Different on
purpose: the model family's own template, greedy sampling unless a temperature is asked for, fields of a wrong type
refused, and what nobody here can do (`n_probs`, grammars) refused rather than ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from rockfill import __version__
from rockfill.access.tokens import Scope
from rockfill.api.dialects.asking import (
    MOST_ASKED,
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
from rockfill.api.dialects.listing import facts_of
from rockfill.api.dialects.streaming import HOLE, SSE, respond
from rockfill.api.errors import dumps, json_response
from rockfill.api.server import Route, read_json
from rockfill.completion.scheduler import Priority
from rockfill.completion.service import CompletionRequest
from rockfill.decode import MaxLength, Range, decode_request
from rockfill.link.messages import File
from rockfill.session import Sampling
from rockfill.snapshots import Phase

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from aiohttp import web

    from rockfill.completion.service import CompletionResult, CompletionService
    from rockfill.engine.supervisor import Supervisor
    from rockfill.store.models import ModelStore

Json = dict[str, Any]

# What its server calls the ways in which a text can end; where it has no such way, the model is said to have ended it.
STOP_TYPES = {"length": "limit", "time": "limit", "indent": "limit"}


@dataclass(frozen=True, slots=True)
class Settings:
    """What ``/infill`` and ``/completion`` share. Others of llama.cpp's many fields are ignored.

    `n_predict` (or `max_tokens`) negative asks for as much as there is; `t_max_predict_ms` 0 or less sets no limit.
    `n_cmpl` may ask for several completions; one is given, as a server of one slot does.
    """

    model: str = ""
    n_predict: int | None = None
    max_tokens: int | None = None
    temperature: Temperature = 0.0
    top_k: int = 0
    top_p: Share = 1.0
    seed: int | None = None
    stop: Stops = ()
    stream: bool = False
    n_indent: Annotated[int, Range(0, 1000)] = 0
    t_max_predict_ms: int = -1
    n_cmpl: Annotated[int, Range(1)] = 1
    response_fields: Annotated[tuple[str, ...], MaxLength(256)] = ()
    n_probs: int = 0
    grammar: str = ""
    json_schema: Any = None

    @property
    def tokens(self) -> int | None:
        return self.max_tokens if self.n_predict is None else self.n_predict

    @property
    def sampling(self) -> Sampling:
        drawn = None if self.seed is not None and self.seed < 0 else self.seed
        return Sampling(self.temperature, self.top_p, max(0, self.top_k), drawn)

    @property
    def predict_s(self) -> float | None:
        return self.t_max_predict_ms / 1000 if self.t_max_predict_ms > 0 else None

    def refuse_unsupported(self) -> None:
        """Raise `unsupported` for what would change the text and can't be honoured."""
        for name in ("n_probs", "grammar", "json_schema"):
            if getattr(self, name):
                raise refuse(name, "not supported")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of another file."""

    text: str
    filename: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InfillBody(Settings):
    """`prompt` is the cursor's line up to the cursor: it comes right after `input_prefix`."""

    input_prefix: str
    input_suffix: str
    input_extra: Annotated[tuple[Chunk, ...], MaxLength(256)] = ()
    prompt: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionBody(Settings):
    prompt: Prompt


@dataclass(frozen=True, slots=True)
class TokenizeBody:
    """`content` is always taken as ordinary text: control tokens written in it are not parsed."""

    content: Annotated[str, MaxLength(MOST_ASKED)]
    add_special: bool = False
    with_pieces: bool = False


@dataclass(frozen=True, slots=True)
class DetokenizeBody:
    tokens: Annotated[tuple[int, ...], MaxLength(MOST_ASKED)]


class LlamaCpp:
    """The routes of the dialect."""

    def __init__(self, completions: CompletionService, models: ModelStore, supervisor: Supervisor) -> None:
        self._completions = completions
        self._models = models
        self._supervisor = supervisor

    def routes(self) -> list[Route]:
        return [
            Route("POST", "/infill", self.infill, Scope.COMPLETE),
            Route("POST", "/completion", self.complete, Scope.COMPLETE),
            Route("POST", "/completions", self.complete, Scope.COMPLETE),
            Route("POST", "/tokenize", self.tokenize, Scope.COMPLETE),
            Route("POST", "/detokenize", self.detokenize, Scope.COMPLETE),
            Route("GET", "/props", self.props, Scope.READ),
            Route("GET", "/slots", self.slots, Scope.READ),
        ]

    async def infill(self, request: web.Request) -> web.StreamResponse:
        """Editors ask here while somebody types: a newer request supersedes the one that it is an edit of.

        The text may have several lines; `n_indent`, `t_max_predict_ms` and the suffix say where it ends.
        """
        body = decode_request(InfillBody, await read_json(request))
        wanted = CompletionRequest(
            prefix=body.input_prefix + body.prompt,
            suffix=body.input_suffix,
            files=tuple(File(chunk.filename, chunk.text) for chunk in body.input_extra),
            model=body.model,
            max_tokens=limit(body.tokens),
            sampling=body.sampling,
            stops=stops(body.stop),
            mode="block",
            n_indent=body.n_indent,
            priority=Priority.TYPING,
            client=client_of(request),
            supersedes=True,
            predict_s=body.predict_s,
        )
        return await self._respond(request, body, wanted)

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """Plain continuation, or, for a prompt that is a whole template, filling in the middle."""
        body = decode_request(CompletionBody, await read_json(request))
        asked = document(body.prompt, None)
        wanted = CompletionRequest(
            prefix=asked.prefix,
            suffix=asked.suffix,
            files=asked.files,
            model=body.model,
            max_tokens=limit(body.tokens),
            sampling=body.sampling,
            stops=stops(body.stop),
            n_indent=body.n_indent,
            priority=asked.priority,
            client=client_of(request),
            predict_s=body.predict_s,
        )
        return await self._respond(request, body, wanted)

    async def _respond(self, request: web.Request, body: Settings, wanted: CompletionRequest) -> web.StreamResponse:
        body.refuse_unsupported()
        if wanted.max_tokens == 0 or self._completions.is_guess(wanted):
            # Editors warm a server's cache up so, or ask what would follow an offer. Here it would keep the NPU from
            # whoever types next: a prompt that is being read can't be interrupted. An answer without a completion is
            # kept by no editor.
            return json_response({})

        def reply_of(model: str) -> _Reply:
            return _Reply(model, body, wanted, self._context_tokens())

        return await respond(request, self._completions, wanted, reply_of, stream=body.stream)

    async def tokenize(self, request: web.Request) -> web.StreamResponse:
        body = decode_request(TokenizeBody, await read_json(request))
        if body.with_pieces:
            raise refuse("with_pieces", "not supported, the engines do not give them")
        ids = list(await self._supervisor.tokenize(body.content))
        facts = self._supervisor.snapshot.facts
        if body.add_special and facts is not None and facts.adds_bos and facts.bos_id is not None:
            ids.insert(0, facts.bos_id)
        return json_response({"tokens": ids})

    async def detokenize(self, request: web.Request) -> web.StreamResponse:
        body = decode_request(DetokenizeBody, await read_json(request))
        return json_response({"content": await self._supervisor.detokenize(body.tokens)})

    async def props(self, request: web.Request) -> web.StreamResponse:
        """Of the model that is loaded, or would be; `n_ctx` is 0 while none is."""
        snapshot = self._supervisor.snapshot
        target = snapshot.target or self._models.find("")
        n_ctx = self._context_tokens()
        return json_response(
            {
                "default_generation_settings": {"params": _settings(Settings(), limit(None), ()), "n_ctx": n_ctx},
                "total_slots": 1,
                "model_alias": target.name,
                "model_path": target.path,
                "modalities": {"vision": False, "audio": False},
                "chat_template": "",
                "bos_token": "",
                "eos_token": "",
                "build_info": f"rockfill {__version__}",
                "is_sleeping": facts_of(snapshot, target) is None,
            }
        )

    async def slots(self, request: web.Request) -> web.StreamResponse:
        """The one place where a completion runs."""
        busy = self._supervisor.snapshot.phase is Phase.BUSY
        return json_response([{"id": 0, "n_ctx": self._context_tokens(), "is_processing": busy}])

    def _context_tokens(self) -> int:
        facts = self._supervisor.snapshot.facts
        return facts.context_tokens if facts is not None else 0


class _Reply:
    framing = SSE

    def __init__(self, model: str, body: Settings, wanted: CompletionRequest, n_ctx: int) -> None:
        self._model = model
        self._body = body
        self._wanted = wanted
        self._n_ctx = n_ctx

    def whole(self, text: str, result: CompletionResult) -> Json:
        return self._final(text, text, result)

    def part(self) -> Json:
        return {"index": 0, "content": HOLE, "tokens": [], "stop": False, "id_slot": -1}

    def last(self, text: str, result: CompletionResult) -> Iterator[bytes]:
        yield dumps(self._final("", text, result))

    def _final(self, content: str, text: str, result: CompletionResult) -> Json:
        """What ends a completion that was `text` and has to carry `content`; of it, what `response_fields` wants."""
        settings = _settings(self._body, self._wanted.max_tokens, result.ignored)
        value = {
            "index": 0,
            "content": content,
            "tokens": [],
            "id_slot": 0,
            "stop": True,
            "model": self._model,
            "tokens_predicted": result.generated_tokens,
            "tokens_evaluated": result.prompt_tokens,
            "generation_settings": {**settings, "n_ctx": self._n_ctx},
            "prompt": self._wanted.prefix,
            "has_new_line": "\n" in text,
            "truncated": bool(result.trimmed),
            "stop_type": STOP_TYPES.get(result.ended, "eos") if not result.stop else "word",
            "stopping_word": result.stop,
            "tokens_cached": result.prompt_tokens + result.generated_tokens,
            "timings": _timings(result),
        }
        return picked(value, self._body.response_fields)


def picked(value: Mapping[str, Any], paths: Sequence[str]) -> Json:
    """The `paths` of `value` ("timings/prompt_ms") that are there, each under its whole path; all of it for none."""
    if not paths:
        return dict(value)
    found: Json = {}
    for path in paths:
        at: Any = value
        for key in path.split("/"):
            if not isinstance(at, dict) or key not in at:
                break
            at = at[key]
        else:
            found[path] = at
    return found


def _settings(body: Settings, max_tokens: int, ignored: Sequence[str]) -> Json:
    """How a completion was made: what is honoured here, less what the engine could not."""
    settings = {
        "seed": body.seed if body.seed is not None else -1,
        "temperature": body.temperature,
        "top_k": body.top_k,
        "top_p": body.top_p,
        "stop": list(stops(body.stop)),
        "max_tokens": max_tokens,
        "n_predict": max_tokens,
        "n_indent": body.n_indent,
        "t_max_predict_ms": body.t_max_predict_ms,
        "stream": body.stream,
    }
    return {name: setting for name, setting in settings.items() if name not in ignored}


def _timings(result: CompletionResult) -> Json:
    """llama.cpp's figures; where the engine told none, what was seen of it from here."""
    timings = result.timings
    first_ms = timings.total_ms if timings.first_token_ms is None else timings.first_token_ms
    prompt_ms = max(0.0, first_ms - timings.queue_ms) if timings.prefill_ms is None else timings.prefill_ms
    predicted_ms = max(0.0, timings.total_ms - first_ms) if timings.decode_ms is None else timings.decode_ms
    asked = not result.from_memory or result.timings.prefill_ms is not None
    reused = (result.reused_tokens or 0) if asked else result.prompt_tokens
    return {
        "cache_n": reused,
        **_rate("prompt", max(0, result.prompt_tokens - reused), prompt_ms),
        **_rate("predicted", result.generated_tokens, predicted_ms),
    }


def _rate(name: str, tokens: int, ms: float) -> Json:
    return {
        f"{name}_n": tokens,
        f"{name}_ms": round(ms, 3),
        f"{name}_per_token_ms": round(ms / tokens, 3) if tokens else 0.0,
        f"{name}_per_second": round(tokens * 1000 / ms, 3) if ms else 0.0,
    }
