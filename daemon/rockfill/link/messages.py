"""The messages of the worker link.

Each is a frozen dataclass; its `TYPE` is what stands in the line's ``type``. The worker says `Hello` first and ends
when the link does. After `Load` comes `Loaded` or `Failed`; a request with an id is answered under that id, and
ends exactly once, with `Done` or `Failed`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from rockfill.errors import Code, ProblemInfo
from rockfill.session import ModelFacts, Run, Sampling

LINK_VERSION = 1


@dataclass(frozen=True, slots=True)
class File:
    """Another file that goes along as context."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What of a request's context was left out to fit the budget: characters, and whole or partial files."""

    prefix_chars: int = 0
    suffix_chars: int = 0
    files: int = 0

    def __bool__(self) -> bool:
        return bool(self.prefix_chars or self.suffix_chars or self.files)


# daemon → worker


@dataclass(frozen=True, slots=True)
class Load:
    """Load a model. `engine` names the session to use; `family` whose fill-in-the-middle template it speaks.

    `fim_order` chooses the order of its prompts where the family has both, also one that is known from memory only.
    `threads` is for the CPU engine (0: every core that it may use), the rest for the RKLLM runtime.
    """

    TYPE: ClassVar = "load"
    engine: str
    path: str
    family: str | None = None
    threads: int = 0
    library: str | None = None
    context_tokens: int = 2048
    base_domain_id: int = 0
    embed_flash: bool = True
    fim_order: Literal["psm", "spm"] | None = None


@dataclass(frozen=True, slots=True)
class Tokenize:
    """Ask for the ids of ordinary text; answered with `Tokenized`."""

    TYPE: ClassVar = "tokenize"
    id: int
    text: str


@dataclass(frozen=True, slots=True)
class Detokenize:
    """Ask for the text that ids stand for; answered with `Detokenized`."""

    TYPE: ClassVar = "detokenize"
    id: int
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Render:
    """Ask for the prompt that `Generate` with the same fields would run; answered with `Rendered`."""

    TYPE: ClassVar = "render"
    id: int
    prefix: str
    suffix: str | None = None
    files: tuple[File, ...] = ()
    max_tokens: int = 64
    budget_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Generate:
    """Complete between `prefix` and `suffix`, or, where `suffix` is None, continue `prefix` plainly.

    `max_tokens` bounds the completion, `budget_tokens` the prompt (0: as much as the context allows). `fim_order` is
    for trying an order out; None takes the model's.
    """

    TYPE: ClassVar = "generate"
    id: int
    prefix: str
    suffix: str | None = None
    files: tuple[File, ...] = ()
    max_tokens: int = 64
    budget_tokens: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    fim_order: Literal["psm", "spm"] | None = None


@dataclass(frozen=True, slots=True)
class Abort:
    """End request `id` as soon as the engine can; it still ends with `Done` (finish ``aborted``) or `Failed`."""

    TYPE: ClassVar = "abort"
    id: int


@dataclass(frozen=True, slots=True)
class Ping:
    """Answered with `Pong` by the engine's thread: a worker that is idle and well answers at once."""

    TYPE: ClassVar = "ping"
    id: int


# worker → daemon


@dataclass(frozen=True, slots=True)
class Hello:
    """The worker's first line."""

    TYPE: ClassVar = "hello"
    version: int
    pid: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """The model is ready. `fim_order` is ``psm``, ``spm``, or None where it can't fill in the middle."""

    TYPE: ClassVar = "loaded"
    facts: ModelFacts
    fim_order: str | None


@dataclass(frozen=True, slots=True)
class Tokenized:
    TYPE: ClassVar = "tokenized"
    id: int
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Detokenized:
    TYPE: ClassVar = "detokenized"
    id: int
    text: str


@dataclass(frozen=True, slots=True)
class PromptPiece:
    """A control token, or ordinary text up to the next one."""

    text: str
    control: bool


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as the engine gets it."""

    pieces: tuple[PromptPiece, ...]
    tokens: int
    trimmed: Trimmed


@dataclass(frozen=True, slots=True)
class Rendered:
    TYPE: ClassVar = "rendered"
    id: int
    prompt: Prompt


@dataclass(frozen=True, slots=True)
class Accepted:
    """Request `id` starts now, with a prompt of `prompt_tokens`, of which an engine that reuses its cache may have the
    first `shared_tokens` from the prompt before; `ignored` names what could not be honoured."""

    TYPE: ClassVar = "accepted"
    id: int
    prompt_tokens: int
    trimmed: Trimmed
    ignored: tuple[str, ...] = ()
    shared_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Token:
    """Text of request `id`: whole characters, of `tokens` tokens that arrived together."""

    TYPE: ClassVar = "token"
    id: int
    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Done:
    """Request `id` is over."""

    TYPE: ClassVar = "done"
    id: int
    run: Run


@dataclass(frozen=True, slots=True)
class Pong:
    TYPE: ClassVar = "pong"
    id: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A problem: of request `id`, or of the load where `id` is None."""

    TYPE: ClassVar = "problem"
    id: int | None
    code: Code
    message: str
    advice: str = ""
    detail: dict[str, Any] | None = None

    @classmethod
    def of(cls, request_id: int | None, info: ProblemInfo) -> Failed:
        return cls(request_id, info.code, info.message, info.advice, dict(info.detail) if info.detail else None)

    @property
    def problem(self) -> ProblemInfo:
        return ProblemInfo(self.code, self.message, self.advice, self.detail)


ToWorker = Load | Tokenize | Detokenize | Render | Generate | Abort | Ping
ToDaemon = Hello | Loaded | Tokenized | Detokenized | Rendered | Accepted | Token | Done | Pong | Failed
TO_WORKER: tuple[type[ToWorker], ...] = (Load, Tokenize, Detokenize, Render, Generate, Abort, Ping)
TO_DAEMON: tuple[type[ToDaemon], ...] = (
    *(Hello, Loaded, Tokenized, Detokenized, Rendered, Accepted, Token, Done, Pong, Failed),
)
