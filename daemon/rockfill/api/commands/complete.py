"""Completions for scripts and for the page."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from rockfill.access.tokens import Scope
from rockfill.api.commands.table import Connection, Json, command
from rockfill.completion.service import CompletionRequest
from rockfill.decode import MaxLength, Range
from rockfill.errors import Code, Problem
from rockfill.link.messages import File

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from rockfill.completion.service import CompletionResult, CompletionService


@dataclass(frozen=True, slots=True)
class StartParameters:
    """`suffix` null asks for plain continuation. `mode` says where the text ends: `line` with the line, `block` where
    the suffix begins to repeat or the text loops, `raw` where the model ends it. `model` "" is the chosen one. A
    completion supersedes the one before it in the same `session`, if that is not "".
    """

    prefix: str
    suffix: str | None = None
    files: Annotated[tuple[File, ...], MaxLength(256)] = ()
    model: str = ""
    max_tokens: Annotated[int, Range(1, 4096)] = 64
    mode: Literal["raw", "line", "block"] = "line"
    n_indent: Annotated[int, Range(0, 1000)] = 0
    session: str = ""


@command("complete.start", scope=Scope.COMPLETE, parameters=StartParameters)
async def start(parameters: StartParameters, completions: CompletionService) -> AsyncGenerator[Json, None]:
    """Complete what stands between prefix and suffix. The result names the `model` that does it.

    Then come any number of `complete.delta {text}`, and one `complete.done {text, finish_reason, trimmed, ignored,
    timings}` with the whole text, or one `complete.failed {error}`. Over HTTP the answer is the result and what is in
    `complete.done`.
    """
    wanted = CompletionRequest(
        prefix=parameters.prefix,
        suffix=parameters.suffix,
        files=parameters.files,
        model=parameters.model,
        max_tokens=parameters.max_tokens,
        mode=parameters.mode,
        n_indent=parameters.n_indent,
        session=parameters.session,
    )
    async with completions.start(wanted) as completion:
        yield {"model": completion.target.name}
        said: list[str] = []
        async for text in completion:
            said.append(text)
            yield {"type": "complete.delta", "text": text}
        yield {"type": "complete.done", "text": "".join(said), **_outcome(completion.result)}


def _outcome(result: CompletionResult) -> Json:
    return {
        "finish_reason": result.finish_reason,
        "trimmed": asdict(result.trimmed),
        "ignored": list(result.ignored),
        "timings": {
            **asdict(result.timings),
            "prompt_tokens": result.prompt_tokens,
            "generated_tokens": result.generated_tokens,
            "reused_tokens": result.reused_tokens,
        },
    }


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
