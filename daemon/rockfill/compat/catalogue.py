"""The models that Rockfill suggests: code models that fill in the middle and run on the NPU or on the CPU.

Capabilities are those that each model's own card states, for the file that is offered (an Instruct model where the
base was never converted). Names are ``family:size``, which editors match.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Capability = Literal["completion", "generation", "chat", "instructions"]

# Licences that ask nothing before use beyond what everybody expects: as the Hub names them.
PERMISSIVE = frozenset(
    {"apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "isc", "unlicense", "cc0-1.0", "cc-by-4.0"}
)
_TERMS = {
    "gemma": ("Gemma Terms of Use", "https://ai.google.dev/gemma/terms"),
    "deepseek": ("DeepSeek License Agreement", "https://github.com/deepseek-ai/DeepSeek-Coder/blob/main/LICENSE-MODEL"),
}


@dataclass(frozen=True, slots=True)
class Terms:
    """A licence for people: what it is called and where it can be read.

    `key` is what an acceptance is stored under: one acceptance of Gemma's terms is enough for all Gemma models, while
    "other" means another one in every repository.
    """

    key: str
    id: str
    name: str
    url: str

    @property
    def to_be_accepted(self) -> bool:
        return self.id != "" and self.id not in PERMISSIVE


def terms_of(identifier: str, name: str, url: str, repository: str, page: str) -> Terms:
    """The licence that `repository` states, `page` being where to look if it gives no address."""
    identifier = identifier.lower()
    known = _TERMS.get(identifier) or _TERMS.get(name.lower().removesuffix("-license"))
    key = f"other:{repository}" if identifier == "other" and known is None else name.lower() or identifier
    title = known[0] if known else name or identifier or "no licence stated"
    return Terms(key if known is None else known[0], identifier, title, url or (known[1] if known else page))


@dataclass(frozen=True, slots=True)
class Offer:
    """Where to get a model for one engine.

    `tokenizer` names the repository with its tokenizer, None where that is the same. `capabilities` are those of this
    file: `tuned` says that it is an Instruct model.
    """

    engine: str
    repository: str
    capabilities: tuple[Capability, ...]
    tuned: bool = False
    tokenizer: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A suggested model. `card` is the repository of the original, whose card says what it can do."""

    name: str
    title: str
    family: str
    card: str
    licence: str
    offers: tuple[Offer, ...]
    note: str = ""

    @property
    def terms(self) -> Terms:
        """The original's licence."""
        return terms_of(self.licence, "", "", self.card, f"https://huggingface.co/{self.card}")

    def offer(self, engine: str) -> Offer | None:
        return next((offer for offer in self.offers if offer.engine == engine), None)


_COMPLETION: tuple[Capability, ...] = ("completion",)
_BASE: tuple[Capability, ...] = ("completion", "generation")
_TUNED: tuple[Capability, ...] = ("completion", "generation", "chat", "instructions")

CATALOGUE: tuple[Entry, ...] = (
    # CodeGemma's card has a table: 2b completes; 7b completes and generates from natural language; 7b-it generates,
    # chats and follows instructions, and the card advises against completing with it.
    Entry(
        "codegemma:2b",
        "CodeGemma 2B",
        "codegemma",
        "google/codegemma-2b",
        "gemma",
        (Offer("rkllm", "c01zaut/codegemma-2b-rk3588-1.1.2", _COMPLETION),),
        "The first choice for a board with 8 GB or more: made for completing while you type.",
    ),
    Entry(
        "codegemma:7b",
        "CodeGemma 7B",
        "codegemma",
        "google/codegemma-7b",
        "gemma",
        (Offer("rkllm", "c01zaut/codegemma-7b-rk3588-1.1.2", _BASE),),
        "Better and about three times slower; needs 16 GB.",
    ),
    Entry(
        "codegemma:7b-it",
        "CodeGemma 7B Instruct",
        "codegemma",
        "google/codegemma-7b-it",
        "gemma",
        (Offer("rkllm", "c01zaut/codegemma-7b-it-rk3588-1.1.1", ("generation", "chat", "instructions"), tuned=True),),
        "For instructions and chat; its card advises one of the others for completing.",
    ),
    # The cards of Qwen2.5-Coder: "code generation, code reasoning and code fixing"; the repository's README shows
    # fill-in-the-middle with base and Instruct models alike. No base model was converted for the NPU.
    Entry(
        "qwen2.5-coder:0.5b",
        "Qwen2.5-Coder 0.5B",
        "qwen2.5-coder",
        "Qwen/Qwen2.5-Coder-0.5B",
        "apache-2.0",
        (Offer("llama", "ggml-org/Qwen2.5-Coder-0.5B-Q8_0-GGUF", _BASE),),
        "Small enough for the CPU of almost any machine.",
    ),
    Entry(
        "qwen2.5-coder:1.5b",
        "Qwen2.5-Coder 1.5B",
        "qwen2.5-coder",
        "Qwen/Qwen2.5-Coder-1.5B",
        "apache-2.0",
        (
            Offer("rkllm", "c01zaut/Qwen2.5-Coder-1.5B-Instruct-rk3588-1.1.4", _TUNED, tuned=True),
            Offer("llama", "ggml-org/Qwen2.5-Coder-1.5B-Q8_0-GGUF", _BASE),
        ),
        "Quick on the NPU, and runs with 4 GB.",
    ),
    Entry(
        "qwen2.5-coder:7b",
        "Qwen2.5-Coder 7B",
        "qwen2.5-coder",
        "Qwen/Qwen2.5-Coder-7B",
        "apache-2.0",
        (
            Offer("rkllm", "c01zaut/Qwen2.5-Coder-7B-Instruct-rk3588-1.1.2", _TUNED, tuned=True),
            Offer("llama", "ggml-org/Qwen2.5-Coder-7B-Q8_0-GGUF", _BASE),
        ),
        "Needs 16 GB, and patience.",
    ),
    # DeepSeek-Coder's card: "project-level code completion and infilling"; the Instruct models chat.
    Entry(
        "deepseek-coder:1.3b",
        "DeepSeek-Coder 1.3B",
        "deepseek-coder",
        "deepseek-ai/deepseek-coder-1.3b-instruct",
        "deepseek",
        (Offer("rkllm", "c01zaut/deepseek-coder-1.3b-instruct-rk3588-1.1.4", _TUNED, tuned=True),),
        "The smallest for the NPU.",
    ),
    Entry(
        "deepseek-coder:6.7b",
        "DeepSeek-Coder 6.7B",
        "deepseek-coder",
        "deepseek-ai/deepseek-coder-6.7b-instruct",
        "deepseek",
        (Offer("rkllm", "c01zaut/deepseek-coder-6.7b-instruct-rk3588-1.1.4", _TUNED, tuned=True),),
        "Needs 16 GB, and patience.",
    ),
)
BY_NAME = {entry.name: entry for entry in CATALOGUE}


def entry_of(name: str) -> Entry | None:
    """The suggestion called `name`, with or without ``:latest``."""
    return BY_NAME.get(name.lower().removesuffix(":latest"))


def entry_of_repository(repository: str) -> Entry | None:
    """The suggestion that is got from `repository`."""
    return next((entry for entry in CATALOGUE if any(offer.repository == repository for offer in entry.offers)), None)
