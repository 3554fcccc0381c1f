"""How a completion becomes an answer, whole or as a stream, in whichever dialect it was asked for."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import web

from rockfill.api.errors import STATUS, dumps, info_of, json_response
from rockfill.api.server import error_shape
from rockfill.completion.service import CompletionResult, Timings
from rockfill.errors import Code, Problem
from rockfill.link.messages import Trimmed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from rockfill.completion.service import Completion, CompletionRequest, CompletionService

# Stands in a part of a stream where the text goes. No model's name has it.
HOLE = "\0"


@dataclass(frozen=True, slots=True)
class Framing:
    """What a stream is called, and what stands round each value in it."""

    content_type: str
    before: bytes
    after: bytes

    def frame(self, data: bytes) -> bytes:
        return self.before + data + self.after


SSE = Framing("text/event-stream; charset=utf-8", b"data: ", b"\n\n")
NDJSON = Framing("application/x-ndjson", b"", b"\n")


class Reply(Protocol):
    """One completion in the words of one dialect."""

    framing: Framing

    def whole(self, text: str, result: CompletionResult) -> dict[str, Any]:
        """The answer to a request that wants no stream."""
        ...

    def part(self) -> dict[str, Any]:
        """What carries a piece of text in a stream, with `HOLE` where that stands."""
        ...

    def last(self, text: str, result: CompletionResult) -> Iterable[bytes]:
        """What ends a stream that has carried `text`."""
        ...


async def respond(
    request: web.Request,
    completions: CompletionService,
    wanted: CompletionRequest,
    reply_of: Callable[[str], Reply],
    *,
    stream: bool,
) -> web.StreamResponse:
    """Run `wanted` and answer with it. `reply_of` makes the reply for the name of the model that runs it.

    What fails before the first piece of a stream is answered as if none had been asked for; later the stream itself
    says so, in the shape that errors have at this address.
    """
    if not stream:
        return await respond_whole(completions, wanted, lambda text, result: reply_of(result.model).whole(text, result))
    async with completions.start(wanted) as completion:
        return await _stream(request, _Reading(completion), reply_of(completion.target.name))


async def respond_whole(
    completions: CompletionService,
    wanted: CompletionRequest,
    whole: Callable[[str, CompletionResult], dict[str, Any]],
) -> web.StreamResponse:
    """Run `wanted` and answer with what `whole` makes of its text and result.

    An editor's request that a newer one has superseded is answered as an empty completion: nobody looks at it any more,
    and an editor would show an error.
    """
    async with completions.start(wanted) as completion:
        reading = _Reading(completion)
        text = "".join([piece async for piece in reading])
        return json_response(whole("" if reading.superseded else text, reading.result))


class _Reading:
    """A completion's text, then its result; an editor's that was superseded just ends."""

    def __init__(self, completion: Completion) -> None:
        self._completion = completion
        self.superseded = False

    async def __aiter__(self) -> AsyncIterator[str]:
        try:
            async for text in self._completion:
                yield text
        except Problem as problem:
            if problem.code is not Code.SUPERSEDED or not self._completion.request.supersedes:
                raise
            self.superseded = True

    @property
    def result(self) -> CompletionResult:
        if not self.superseded:
            return self._completion.result
        return CompletionResult(
            model=self._completion.target.name,
            ended="model",
            stop="",
            prompt_tokens=0,
            generated_tokens=0,
            reused_tokens=None,
            from_memory=0,
            trimmed=Trimmed(),
            ignored=(),
            timings=Timings(0.0, None, None, None, 0.0),
        )


async def _stream(request: web.Request, reading: _Reading, reply: Reply) -> web.StreamResponse:
    framing = reply.framing
    await asyncio.sleep(0)  # the supervisor sends the run off; what follows is done while the worker is at it
    # Only the text differs from one piece to the next, so the rest is written once.
    before, after = framing.frame(dumps(reply.part())).split(dumps(HOLE))
    response = web.StreamResponse(headers={"Content-Type": framing.content_type})
    texts = aiter(reading)
    text = await anext(texts, None)
    await response.prepare(request)
    said: list[str] = []
    try:
        while text is not None:
            said.append(text)
            await response.write(before + dumps(text) + after)
            text = await anext(texts, None)
        values = reply.last("".join(said), reading.result)
    except Exception as error:  # too late for a status: the stream itself has to say it
        if isinstance(error, ConnectionError):
            raise
        info = info_of(error)
        values = [dumps(error_shape(request.path)(info, STATUS[info.code]))]
    await response.write(b"".join(map(framing.frame, values)))
    await response.write_eof()
    return response


def usage(result: CompletionResult) -> dict[str, int]:
    """OpenAI's count of tokens, which Mistral's is too."""
    return {
        "prompt_tokens": result.prompt_tokens,
        "completion_tokens": result.generated_tokens,
        "total_tokens": result.prompt_tokens + result.generated_tokens,
    }


def extension(result: CompletionResult) -> dict[str, Any]:
    """What Rockfill tells beyond a dialect's own fields, as ``rockfill``."""
    return {
        "trimmed": asdict(result.trimmed),
        "reused_tokens": result.reused_tokens,
        "from_memory": result.from_memory,
        "ignored": list(result.ignored),
        "timings": {
            **asdict(result.timings),
            "prompt_tokens": result.prompt_tokens,
            "generated_tokens": result.generated_tokens,
        },
    }
