"""What an engine is to the worker: the protocol that the native sessions implement, and its values.

A session lives in the worker process and is driven from its main thread; only `abort` may be called from another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

Finish = Literal["stop", "length", "aborted"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen; temperature 0 is greedy, which is what completing code wants."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the engine knows once the model is loaded.

    `context_tokens` is the most that prompt and completion may have together. `bos_id` is the vocabulary's token for
    the beginning, None if it has none; `adds_bos` whether the vocabulary itself asks for it before every text (a
    family's template overrides that). `honours` names the fields of `Sampling` that can be set per request.
    `runtime` is what runs the model, for people ("llama.cpp b1234"). `runtime_adds_bos` is whether the runtime was seen
    to put a BOS before our ids (then `bos_id` is None, so that there is one), None where it does not let that be seen.
    `reuses_prefix`: of a prompt that begins like the last one, only the rest is read.
    """

    context_tokens: int
    vocabulary_tokens: int
    bos_id: int | None
    adds_bos: bool
    honours: tuple[str, ...]
    runtime: str
    runtime_adds_bos: bool | None = None
    reuses_prefix: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """How a generation went. Times in seconds; `reused_tokens` of the prompt came from the last run's KV cache.

    `memory_bytes` is the most that the process has held so far, by the engine's own account. A figure that the engine
    does not give is None, never estimated.
    """

    finish: Finish
    generated_tokens: int
    prefilled_tokens: int | None
    reused_tokens: int | None
    prefill_s: float | None
    decode_s: float | None
    memory_bytes: int | None = None


class Session(Protocol):
    """One loaded model. Every method may raise `Problem`; its code says whether the worker is trusted afterwards."""

    @property
    def facts(self) -> ModelFacts: ...

    def tokenize(self, text: str) -> list[int]:
        """Token ids of ordinary text: nothing in it is ever taken for a control token, no BOS or prefix is added."""
        ...

    def detokenize(self, token_ids: list[int]) -> str:
        """The text of ids of the vocabulary, control tokens written out."""
        ...

    def token_id(self, marker: str) -> int | None:
        """The id of the control token written `marker`, or None if the vocabulary has no such single token."""
        ...

    def generate(
        self,
        prompt_ids: list[int],
        sampling: Sampling,
        max_tokens: int,
        stop_ids: frozenset[int],
        on_text: Callable[[str, int], None],
        aborted: Callable[[], bool],
    ) -> Run:
        """Run to the end and return how it went.

        `on_text(text, tokens)` gets whole characters only, as they come, with the number of tokens since the last
        call; it must not block. `stop_ids` and the model's own end tokens end the run and never reach `on_text`.
        `aborted` is asked at every step, the first included, and ends the run when it says so.
        """
        ...

    def abort(self) -> None:
        """Hurry a run that `aborted` now says to end, prefill included where the engine allows.

        Callable from any thread, at any time; without effect when nothing runs.
        """
        ...

    def close(self) -> None: ...
