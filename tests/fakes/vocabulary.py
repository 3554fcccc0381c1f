"""Small vocabularies as `tokenizer.json` files, in the shapes that the vocabularies of real models have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

if TYPE_CHECKING:
    from pathlib import Path

# How a vocabulary puts a space before each text: as Llama's old files do, as new ones do, in a longer list, not at all
Prefix = Literal["normalizer", "metaspace", "sequence", "none"]

SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<end_of_turn>", "<|file_separator|>")
FIM = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
ORDINARY_ADDED = ("\n\n", "</s>")  # matched in any text, and meant to be: Gemma has runs of line ends and HTML tags
WORDS = ("de", "def", "re", "ret", "▁a", "▁d", "▁de", "▁def")


def sentencepiece_like(
    path: Path, *, prefix: Prefix = "normalizer", fim_special: bool = True, entries: int = 0
) -> Path:
    """Write one with byte fallback and a BOS before every text; returns `path`.

    `fim_special` False marks the FIM tokens as ordinary added ones, as Qwen's files do. `entries` pads it with words to
    that many.
    """
    pieces = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *map(chr, range(33, 127)), *WORDS]
    pieces += [f"▁w{number}" for number in range(entries - len(pieces) - len(FIM) - len(ORDINARY_ADDED))]
    merges = [("d", "e"), ("de", "f"), ("r", "e"), ("re", "t"), ("▁", "a"), ("▁", "d"), ("▁d", "e"), ("▁de", "f")]
    ids = {piece: number for number, piece in enumerate(pieces)}
    made = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    spaces = normalizers.Replace(" ", "▁")
    if prefix == "normalizer":
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces])
    elif prefix == "metaspace":
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    elif prefix == "sequence":
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Metaspace(prepend_scheme="first", split=False), pre_tokenizers.Punctuation()]
        )
    else:
        made.normalizer = spaces
    made.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", ids["<bos>"])])
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    made.add_special_tokens([AddedToken(text, normalized=False) for text in (*SPECIAL, *(FIM if fim_special else ()))])
    ordinary = (*(() if fim_special else FIM), *ORDINARY_ADDED)
    made.add_tokens([AddedToken(text, normalized=False) for text in ordinary])
    made.save(str(path))
    return path
