"""What the dialects' requests have in common: prompts that may be templated, stops, lengths, and who asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from rockfill.api.gate import CLIENT
from rockfill.completion.scheduler import Priority
from rockfill.decode import MaxLength, Range
from rockfill.errors import Code, Problem
from rockfill.fim.recognise import recognise
from rockfill.link.messages import File

if TYPE_CHECKING:
    from aiohttp import web

# More than any editor shows at once; a request for more gets this much, or what the context has room for.
MAX_TOKENS = 4096

# Of a question that is no completion: the worker answers one after another, and whoever types waits meanwhile.
MOST_ASKED = 1 << 16

Prompt = str | Annotated[tuple[str, ...], MaxLength(16)]
# Zed sends 14, and Continue adds its own to those that `/api/show` gives it; theirs have a dozen characters. Each piece
# of text is compared with the beginnings of all of them.
Stop = Annotated[str, MaxLength(256)]
Stops = Stop | Annotated[tuple[Stop, ...], MaxLength(64)]
Temperature = Annotated[float, Range(0, 2)]
Share = Annotated[float, Range(0, 1)]
Count = Annotated[int, Range(0)]


@dataclass(frozen=True, slots=True)
class Document:
    """The text round the cursor. `suffix` None asks for plain continuation."""

    prefix: str
    suffix: str | None
    files: tuple[File, ...] = ()

    @property
    def priority(self) -> Priority:
        """Only who sits at a keyboard wants something between what is there already."""
        return Priority.PLAIN if self.suffix is None else Priority.TYPING


def document(prompt: Prompt, suffix: str | None, files: tuple[File, ...] = ()) -> Document:
    """What `prompt` is about.

    Without a suffix, one that is wholly some family's fill-in-the-middle template is taken apart, so that it can be
    rendered for the loaded model. Raises `unsupported` for more than one prompt.
    """
    prompts = (prompt,) if isinstance(prompt, str) else prompt
    if len(prompts) != 1:
        raise Problem(Code.UNSUPPORTED, "prompt: only a single text is supported.", "Send one request per prompt.")
    recognised = recognise(prompts[0]) if suffix is None else None
    if recognised is None:
        return Document(prompts[0], suffix, files)
    context = recognised.context
    named = tuple(File(file.path, file.text) for file in context.files)
    return Document(context.prefix, context.suffix, named + files)


def stops(value: Stops) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def limit(max_tokens: int | None) -> int:
    """How many tokens a request for so many gets; None and negative numbers ask for as many as there are."""
    return MAX_TOKENS if max_tokens is None or max_tokens < 0 else min(max_tokens, MAX_TOKENS)


def refuse(name: str, why: str) -> Problem:
    """The problem with a field that asks for what nobody here can do."""
    return Problem(Code.UNSUPPORTED, f"{name}: {why}.", "Leave it out.")


def client_of(request: web.Request) -> str:
    """What tells one editor from another, as far as a request shows it."""
    return f"{request[CLIENT]} {request.headers.get('User-Agent', '')}"
