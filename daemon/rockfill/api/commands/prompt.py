"""The prompt behind a completion."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

from rockfill.access.tokens import Scope
from rockfill.api.commands.table import Json, command
from rockfill.api.dialects.asking import MOST_ASKED
from rockfill.completion.scheduler import Priority
from rockfill.completion.service import CompletionRequest
from rockfill.decode import MaxLength, Range
from rockfill.link.messages import File

if TYPE_CHECKING:
    from rockfill.completion.service import CompletionService


@dataclass(frozen=True, slots=True)
class PromptParameters:
    """The fields of `complete.start` that make its prompt."""

    prefix: Annotated[str, MaxLength(MOST_ASKED)]
    suffix: Annotated[str, MaxLength(MOST_ASKED)] | None = None
    files: Annotated[tuple[File, ...], MaxLength(256)] = ()
    max_tokens: Annotated[int, Range(1, 4096)] = 64


@command("complete.prompt", scope=Scope.COMPLETE, parameters=PromptParameters)
async def prompt(parameters: PromptParameters, completions: CompletionService) -> Json:
    """The exact prompt that the loaded model would be given, trimmed as it would be now.

    Result: `{pieces: [{text, control}], prompt_tokens, trimmed: {prefix_chars, suffix_chars, files}}`. `control` are
    control tokens, each by itself; all else is ordinary text, whatever it looks like.
    """
    asked = CompletionRequest(
        parameters.prefix,
        parameters.suffix,
        parameters.files,
        max_tokens=parameters.max_tokens,
        priority=Priority.TYPING if parameters.suffix is not None else Priority.PLAIN,
    )
    made = await completions.prompt(asked)
    return {
        "pieces": [asdict(piece) for piece in made.pieces],
        "prompt_tokens": made.tokens,
        "trimmed": asdict(made.trimmed),
    }
