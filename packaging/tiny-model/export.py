"""Writes the trained weights as GGUF for llama.cpp: matrices in Q8_0 (or float32, to compare), norms in float32."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType, LlamaFileType

from examples import BOS, END, EOS, MIDDLE, PREFIX, SUFFIX
from model import EPSILON, ROPE_BASE
from tokenizer import PRE_TOKENIZER

QUANTISATIONS = {
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
}


def weights_of(folder: Path) -> dict[str, np.ndarray]:
    """All parts that train.py wrote there, by parameter, in float32."""
    weights = {}
    for path in sorted(folder.glob("weights-*.npz")):
        with np.load(path) as part:
            weights.update({name: part[name].astype(np.float32) for name in part.files})
    return weights


def add_tokenizer(writer: gguf.GGUFWriter, path: Path) -> int:
    """The vocabulary of a tokenizer.json; returns its size."""
    tokenizer = json.loads(path.read_text())
    tokens = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
    control = {each["content"] for each in tokenizer["added_tokens"]}
    merges = tokenizer["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENIZER)
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if each in control else gguf.TokenType.NORMAL for each in tokens])
    writer.add_token_merges([each if isinstance(each, str) else " ".join(each) for each in merges])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_pad_token_id(EOS)
    writer.add_add_bos_token(value=True)
    writer.add_eot_token_id(END)
    for name, token in (("fim_pre", PREFIX), ("fim_suf", SUFFIX), ("fim_mid", MIDDLE), ("fim_sep", END)):
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", token)
    return len(tokens)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="the folder that train.py wrote")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--quantisation", choices=QUANTISATIONS, default="q8_0")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    kind, file_type = QUANTISATIONS[arguments.quantisation]
    shape = json.loads((arguments.weights / "weights.json").read_text())["shape"]
    writer = gguf.GGUFWriter(str(arguments.out), "qwen3")
    writer.add_name("rockfill-tiny")
    writer.add_license("Apache-2.0")
    writer.add_file_type(file_type)
    writer.add_context_length(shape["context"])
    writer.add_embedding_length(shape["width"])
    writer.add_block_count(shape["layers"])
    writer.add_feed_forward_length(shape["ffn_width"])
    writer.add_head_count(shape["heads"])
    writer.add_head_count_kv(shape["kv_heads"])
    writer.add_key_length(shape["head_width"])
    writer.add_value_length(shape["head_width"])
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_vocab_size(add_tokenizer(writer, arguments.tokenizer))
    for name, values in weights_of(arguments.weights).items():
        if values.ndim == 1 or kind == GGMLQuantizationType.F32:
            writer.add_tensor(f"{name}.weight", values)
        else:
            writer.add_tensor(f"{name}.weight", gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{arguments.out}: {arguments.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
