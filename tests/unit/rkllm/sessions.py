"""A session on a simulator, and what is known of a run of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rockfill.rkllm.session import RkllmOptions, RkllmSession
from rockfill.session import Run, Sampling
from tests.fakes.rkllm_simulator import build, make_model
from tests.fakes.vocabulary import sentencepiece_like

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rockfill.compat.runtime import Generation

CONTEXT_TOKENS = 512
OPTIONS = RkllmOptions(context_tokens=CONTEXT_TOKENS)
PROMPT = [2, 300, 301]

_PROMPT_TOKENS = re.compile(r"prompt tokens: \[ ([\d, ]*)\]")


def make_directory(directory: Path) -> Path:
    """A model's directory, as people fetch it; returns the model file."""
    directory.mkdir(exist_ok=True)
    sentencepiece_like(directory / "tokenizer.json")
    return make_model(directory / "codegemma-2b.rkllm")


def open_session(directory: Path, generation: Generation, options: RkllmOptions = OPTIONS) -> RkllmSession:
    return RkllmSession(make_directory(directory), build(generation), options)


def prompts(printed: str) -> list[list[int]]:
    """The ids of the prompts that a simulator printed at RKLLM_LOG_LEVEL=2, the warm-up's first."""
    return [[int(number) for number in ids.split(",") if number.strip()] for ids in _PROMPT_TOKENS.findall(printed)]


@dataclass(slots=True)
class Heard:
    """Everything that a run said."""

    texts: list[str] = field(default_factory=list)
    tokens: int = 0
    run: Run | None = None

    @property
    def text(self) -> str:
        return "".join(self.texts)


def generate(
    session: RkllmSession,
    prompt: list[int] | None = None,
    *,
    sampling: Sampling | None = None,
    max_tokens: int = 100,
    stop_ids: frozenset[int] = frozenset(),
    aborted: Callable[[], bool] = lambda: False,
    also: Callable[[], None] = lambda: None,
) -> Heard:
    """One run to its end; `also` is called with each text."""
    heard = Heard()

    def on_text(text: str, tokens: int) -> None:
        heard.texts.append(text)
        heard.tokens += tokens
        also()

    heard.run = session.generate(prompt or PROMPT, sampling or Sampling(), max_tokens, stop_ids, on_text, aborted)
    return heard
