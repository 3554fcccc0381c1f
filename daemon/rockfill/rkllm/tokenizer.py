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
    """Ids of text and control tokens, and the vocabulary's own ends."""

    def __init__(self, path: Path) -> None:
        """Load ``tokenizer.json``. Raises `tokenizer_missing`, also where it can't be read."""
        from tokenizers import Tokenizer  # 4 MB of code that only a worker with such a model needs

        if not path.is_file():
            raise Problem(
                Code.TOKENIZER_MISSING,
                f"There is no tokenizer.json beside {path.parent.name}.",
                "Put the tokenizer.json of the model's original repository into its directory.",
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

    def encode(self, text: str) -> list[int]:
        """Ids of ordinary text, nothing added in front or behind."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

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

    @property
    def eos_ids(self) -> frozenset[int]:
        """Every token by which a model of some family ends. The runtime's own list can't be relied on: 1.3.0 has it
        wrong for models converted with toolkit 1.2.2 (rknn-llm issue 534)."""
        return frozenset(found for name in _EOS_NAMES if (found := self.token_id(name)) is not None)

    def _drop_dummy_prefix(self) -> None:
        """SentencePiece puts a space before each text; our pieces are parts of one text, and only a template knows
        where such a space belongs."""
        normalizer = self._tokenizer.normalizer
        if normalizer is not None:
            state = json.loads(normalizer.__getstate__())
            kept = [part for part in state.get("normalizers", [state]) if part["type"] != "Prepend"]
            from tokenizers.normalizers import Sequence

            sequence = Sequence([])
            sequence.__setstate__(json.dumps({"type": "Sequence", "normalizers": kept}).encode())
            self._tokenizer.normalizer = sequence
        pre_tokenizer = self._tokenizer.pre_tokenizer
        if pre_tokenizer is not None and hasattr(pre_tokenizer, "prepend_scheme"):
            pre_tokenizer.prepend_scheme = "never"
            self._tokenizer.pre_tokenizer = pre_tokenizer
