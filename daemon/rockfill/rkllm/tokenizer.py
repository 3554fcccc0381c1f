"""The model's own tokenizer, from the `tokenizer.json` beside it, made to treat every text as ordinary."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rockfill.errors import Code, Problem

if TYPE_CHECKING:
    from pathlib import Path

_BOS_NAMES = ("<bos>", "<s>", "<｜begin▁of▁sentence｜>", "<|begin_of_text|>")
_EOS_NAMES = (
    "<eos>",
    "</s>",
    "<|endoftext|>",
    "<｜end▁of▁sentence｜>",
    "<|im_end|>",
    "<end_of_turn>",
    "<|end_of_text|>",
)


class ModelTokenizer:
    """Ids of text and control tokens, and the vocabulary's own ends.

    `eos_ids` are all tokens by which a model of some family ends. The runtime's own list can't be relied on: 1.3.0 has
    it wrong for models converted with toolkit 1.2.2 (rknn-llm issue 534).
    """

    def __init__(self, path: Path) -> None:
        """Load ``tokenizer.json``. Raises `tokenizer_missing`, also where it can't be read."""
        from tokenizers import Tokenizer  # 4 MB of code that only a worker with such a model needs

        if not path.is_file():
            raise Problem(
                Code.TOKENIZER_MISSING,
                f"There is no tokenizer.json beside {path.parent.name}.",
                "`rockfill models import --tokenizer` adds that of the model's original repository.",
            )
        try:
            self._tokenizer: Any = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception for whatever it can't parse
            raise Problem(
                Code.TOKENIZER_MISSING,
                f"{path} can't be used: {error}.",
                "Fetch it again from the model's original repository.",
            ) from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True  # special tokens in a text are text
        self._adds: list[int] = self._tokenizer.encode("").ids
        self._drop_dummy_prefix()
        self.eos_ids = self._find_eos_ids()

    def encode(self, text: str) -> list[int]:
        """Ids of ordinary text, nothing added in front or behind."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, token_ids: list[int]) -> str:
        """The text of ids, control tokens written out."""
        text: str = self._tokenizer.decode(token_ids, skip_special_tokens=False)
        return text

    def token_id(self, text: str) -> int | None:
        found: int | None = self._tokenizer.token_to_id(text)
        return found

    @property
    def vocabulary_tokens(self) -> int:
        size: int = self._tokenizer.get_vocab_size()
        return size

    @property
    def adds_bos(self) -> bool:
        """Whether the vocabulary itself begins every text with a token."""
        return bool(self._adds)

    @property
    def bos_id(self) -> int | None:
        if self._adds:
            return self._adds[0]
        return next((found for name in _BOS_NAMES if (found := self.token_id(name)) is not None), None)

    def _find_eos_ids(self) -> frozenset[int]:
        """Only special tokens: in Gemma's vocabulary ``</s>`` is the HTML tag that ends struck-out text."""
        added = self._tokenizer.get_added_tokens_decoder()
        special = frozenset(number for number, token in added.items() if token.special and token.content in _EOS_NAMES)
        return special or frozenset(found for name in _EOS_NAMES if (found := self.token_id(name)) is not None)

    def _drop_dummy_prefix(self) -> None:
        """SentencePiece puts a space before each text; our pieces are parts of one text, and only a template knows
        where such a space belongs."""
        from tokenizers import normalizers, pre_tokenizers

        for name, parts, made in (
            ("normalizer", "normalizers", normalizers.Sequence([])),
            ("pre_tokenizer", "pretokenizers", pre_tokenizers.Sequence([])),
        ):
            component = getattr(self._tokenizer, name)
            if component is not None:
                state = json.loads(component.__getstate__())
                kept = [_without_prefix(part) for part in state.get(parts, [state]) if part["type"] != "Prepend"]
                made.__setstate__(json.dumps({"type": "Sequence", parts: kept}).encode())
                setattr(self._tokenizer, name, made)


def _without_prefix(part: dict[str, Any]) -> dict[str, Any]:
    """A normaliser or pre-tokeniser, as tokenizer.json has it, that puts nothing before a text."""
    changed = dict(part)
    if "prepend_scheme" in part:
        changed["prepend_scheme"] = "never"
    if "add_prefix_space" in part:
        changed["add_prefix_space"] = False
    return changed
