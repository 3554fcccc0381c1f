"""Completions for scripts and for the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from rockfill.access.tokens import Scope
from rockfill.api.commands.table import Caller, Connection, Json, command
from rockfill.api.dialects.asking import MAX_TOKENS, Document, Stops, Temperature, stops
from rockfill.api.dialects.openai import Extension
from rockfill.api.dialects.streaming import extension
from rockfill.completion.scheduler import Priority
from rockfill.completion.service import CompletionRequest
from rockfill.decode import Range
from rockfill.errors import Code, Problem
from rockfill.fim.output import Mode
from rockfill.session import Sampling

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from rockfill.completion.service import CompletionService


@dataclass(frozen=True, slots=True, kw_only=True)
class StartParameters(Extension):
    """`suffix` null asks for plain continuation. `mode` says where the text ends: `line` with the line, `block` where
    the suffix begins to repeat or the text loops, `raw` where the model ends it. `model` "" is the chosen one. A
    completion supersedes the one before it in the same `session`, if that is not "". `priority` null is "typing" with a
    suffix, else "plain".
    """

    prefix: str
    suffix: str | None = None
    mode: Mode = "line"
    model: str = ""
    max_tokens: Annotated[int, Range(1, MAX_TOKENS)] = 64
    temperature: Temperature = 0.0
    stop: Stops = ()


@command("complete.start", scope=Scope.COMPLETE, parameters=StartParameters)
async def start(
    parameters: StartParameters, completions: CompletionService, caller: Caller
) -> AsyncGenerator[Json, None]:
    """Complete what stands between prefix and suffix. The result names the `model` that does it.

    Then come any number of `complete.delta {text}`, and one `complete.done {text, finish_reason, trimmed,
    reused_tokens, from_memory, ignored, timings}` with the whole text, or one `complete.failed {error}`. Over HTTP the
    answer is the result and what is in `complete.done`.
    """
    asked = Document(parameters.prefix, parameters.suffix, parameters.files)
    wanted = CompletionRequest(
        prefix=asked.prefix,
        suffix=asked.suffix,
        files=asked.files,
        model=parameters.model,
        max_tokens=parameters.max_tokens,
        sampling=Sampling(parameters.temperature),
        stops=stops(parameters.stop),
        mode=parameters.mode,
        n_indent=parameters.n_indent,
        priority=asked.priority if parameters.priority is None else Priority[parameters.priority.upper()],
        budget_tokens=parameters.budget_tokens,
        client=caller.client,
        session=parameters.session,
    )
    async with completions.start(wanted) as completion:
        yield {"model": completion.target.name}
        said: list[str] = []
        async for text in completion:
            said.append(text)
            yield {"type": "complete.delta", "text": text}
        result = completion.result
        ended = {"finish_reason": result.finish_reason, **extension(result)}
        yield {"type": "complete.done", "text": "".join(said), **ended}


@dataclass(frozen=True, slots=True)
class CancelParameters:
    """`completion` is the id that the completion was started with."""

    completion: int


@command("complete.cancel", scope=Scope.COMPLETE, parameters=CancelParameters)
async def cancel(parameters: CancelParameters, connection: Connection) -> Json:
    """End a completion that this connection started; it ends with `complete.failed`, code `cancelled`."""
    if not connection.cancel(parameters.completion):
        raise Problem(Code.NOT_FOUND, f"There is no completion {parameters.completion}; it may be over.")
    return {}
