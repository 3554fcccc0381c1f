"""Trains the tokenizer: byte-level BPE with Qwen2's pre-tokenizer, which llama.cpp knows by name."""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from examples import SPECIAL_TOKENS

PRE_TOKENIZER = "qwen2"
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SAMPLE_DOCUMENTS = 8000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--vocabulary", type=int, default=6144)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    with arguments.corpus.open() as file:
        texts = [json.loads(line)["text"] for line in file]
    sample = random.Random(0).sample(texts, min(len(texts), SAMPLE_DOCUMENTS))  # noqa: S311
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=arguments.vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample, trainer)
    tokenizer.save(str(arguments.out))
    some = sample[:300]
    tokens = sum(len(each.ids) for each in tokenizer.encode_batch(some, add_special_tokens=False))
    print(f"{sum(map(len, some)) / tokens:.2f} characters a token")


if __name__ == "__main__":
    main()
