"""Compares the exported model with what was trained: token ids with `tokenizers`, greedy completions with PyTorch.

Of a float32 file llama.cpp is made to compute in float32 throughout. Then it is PyTorch but for the order of sums: no
log-probability differs by more than `EXACT_NATS`, and where completions part, two tokens are within twice that.

With a Q8_0 file it computes as Rockfill runs it, and rounds: whatever a matrix is multiplied with to Q8_0, and to
float16 in its attention. A value that the order of sums puts on the other side of a step moves all that follows, so
that no two implementations agree to the last digit. Hence PyTorch, with the file's weights, is compared with PyTorch
that rounds so as well: llama.cpp has to be about as near, on average, and completions may part only where two tokens
are within twice the most that rounding moved a log-probability.

Exits with 1 where any of that is not so, or the ids of a snippet differ.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import gguf
import torch
import torch.nn.functional as F  # noqa: N812 everybody's name for it
import xllamacpp
from gguf import GGMLQuantizationType
from tokenizers import Tokenizer
from torch import Tensor
from torch.overrides import TorchFunctionMode

from examples import BOS, MIDDLE, PREFIX, SUFFIX
from export import weights_of
from model import Model, Shape
from rockfill.llama import session
from rockfill.llama.session import LlamaSession

EXACT_NATS = 1e-3  # measured: 0.0001
# How much farther llama.cpp may be from PyTorch than PyTorch that rounds, on average; measured: 1.1.
ALIKE = 1.25
COMPARED_TOKENS = 10  # at every place, the likeliest ones
Q8_BLOCK = 32
# What the held-out files may lack.
ODD = (
    "naïve café — “quotes” 日本語\n",
    "x = 1234567890\n\t\tif x:\r\n        pass   \n\n\n",
    "it's they'RE I'll  don't\n",
    "😀 é\u200b z a\u00a0b\x0c\x1fc",
    "0x1F_ffff 1e-10 __init__ ==-> **kw",
    "    \n    \n  x",
    "\t\tfoo\n \tbar",
    "<|fim_middle|> as text",
)


class Rounded(TorchFunctionMode):
    """Rounds as ggml does on its way to a product: its ``quantize_row_q8_0``, and the float16 of its attention."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear:
            args = (_as_q8_0(args[0]), *args[1:])
        elif func is F.scaled_dot_product_attention:
            args = tuple(each.half().float() for each in args)
        return func(*args, **(kwargs or {}))


def _as_q8_0(x: Tensor) -> Tensor:
    blocks = x.unflatten(-1, (-1, Q8_BLOCK))
    largest = blocks.abs().amax(-1, keepdim=True)
    numbers = (blocks * torch.where(largest > 0, 127 / largest, 0)).round()
    return (numbers * (largest / 127).half().float()).flatten(-2)


def model_in(path: Path, shape: Shape) -> tuple[Model, bool]:
    """The file's weights in PyTorch, and whether its matrices are Q8_0."""
    tensors = gguf.GGUFReader(path).tensors
    model = Model(shape)
    model.load_state_dict(
        {
            tensor.name.removesuffix(".weight"): torch.from_numpy(
                gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy()
            )
            for tensor in tensors
        }
    )
    return model, any(tensor.tensor_type == GGMLQuantizationType.Q8_0 for tensor in tensors)


def session_of(path: Path, *, exact: bool) -> LlamaSession:
    """llama.cpp as Rockfill runs it or, `exact`, in float32 throughout."""

    def parameters(*arguments: Any) -> Any:
        made = shipped(*arguments)
        if exact:
            made.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
            made.cache_type_k = made.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        return made

    shipped = session._parameters
    with patch.object(session, "_parameters", parameters):
        return LlamaSession(str(path), threads=1)


@torch.no_grad()
def log_probabilities(model: Model, ids: list[int], given: list[int], mode: AbstractContextManager[Any]) -> Tensor:
    """What the model says before each token of `given`, which stands behind `ids`."""
    with mode:
        return model(torch.tensor([ids + given[:-1]]))[0, len(ids) - 1 :].log_softmax(-1)


def behind(found: Tensor, given: Tensor) -> float:
    """By how many nats a token of `given` is behind the likeliest one at most; 0 where each is that."""
    return (found.amax(-1) - found.gather(-1, given[:, None])[:, 0]).max().item()


def snippets_of(texts: list[str], count: int, rng: random.Random) -> list[str]:
    found = list(ODD)
    while len(found) < count:
        text = rng.choice(texts)
        start = rng.randrange(len(text))
        found.append(text[start : start + rng.randint(1, 1500)])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="the GGUF file")
    parser.add_argument("--weights", type=Path, required=True, help="the folder that train.py wrote")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True, help="JSON lines of what is held out")
    parser.add_argument("--snippets", type=int, default=500)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--most-tokens", type=int, default=24)
    arguments = parser.parse_args()
    rng = random.Random(3)  # noqa: S311
    texts = [json.loads(line)["text"] for line in arguments.held_out.open()]
    shape = Shape(**json.loads((arguments.weights / "weights.json").read_text())["shape"])
    model, is_q8_0 = model_in(arguments.model, shape)
    llama = session_of(arguments.model, exact=not is_q8_0)

    tokenizer = Tokenizer.from_file(str(arguments.tokenizer))
    tokenizer.encode_special_tokens = True
    snippets = snippets_of(texts, arguments.snippets, rng)
    different = [each for each in snippets if tokenizer.encode(each).ids != llama.tokenize(each)]
    print(f"token ids equal on {len(snippets) - len(different)} of {len(snippets)} snippets", *map(repr, different[:5]))

    trained = Model(shape)
    trained.load_state_dict({name: torch.from_numpy(each) for name, each in weights_of(arguments.weights).items()})
    equal = equal_to_trained = 0
    lead, apart, rounding = 0.0, [], []
    for _ in range(arguments.prompts):
        text = rng.choice(texts)
        at = rng.randrange(len(text))
        prefix, suffix = llama.tokenize(text[max(0, at - 1000) : at]), llama.tokenize(text[at : at + 400])
        ids = [BOS, SUFFIX, *suffix[:120], PREFIX, *prefix[-300:], MIDDLE]
        # The session has no call for probabilities; its server has.
        asked = {"prompt": ids, "n_predict": arguments.most_tokens, "temperature": 0, "n_probs": COMPARED_TOKENS}
        said = llama._http.post("/completion", asked)["completion_probabilities"]
        given = [each["id"] for each in said]
        top = torch.tensor([[each["id"] for each in place["top_logprobs"]] for place in said])
        theirs = torch.tensor([[each["logprob"] for each in place["top_logprobs"]] for place in said])
        plain = log_probabilities(model, ids, given, nullcontext())
        apart.append((plain.gather(-1, top) - theirs).abs().flatten())
        if is_q8_0:
            rounded = log_probabilities(model, ids, given, Rounded())
            rounding.append((plain - rounded).gather(-1, top).abs().flatten())
        lead = max(lead, behind(plain, torch.tensor(given)))
        equal += behind(plain, torch.tensor(given)) == 0
        equal_to_trained += behind(log_probabilities(trained, ids, given, nullcontext()), torch.tensor(given)) == 0
    distance = torch.cat(apart)
    print(
        f"greedy completions equal to PyTorch's on {equal} of {arguments.prompts} prompts, with the weights as trained"
    )
    print(f"on {equal_to_trained}; where they part, PyTorch's token is ahead by {lead:.5f} nats at most")
    print(f"log-probabilities differ by {distance.mean():.5f} nats on average, {distance.max():.5f} at most")
    if is_q8_0:
        noise = torch.cat(rounding)
        print(f"and those of PyTorch, as it rounds, by {noise.mean():.5f} and {noise.max():.5f}")
        right = distance.mean() <= ALIKE * noise.mean() and lead <= 2 * noise.max()
    else:
        right = distance.max() <= EXACT_NATS and lead <= 2 * EXACT_NATS
    if different or not right:
        sys.exit(1)


if __name__ == "__main__":
    main()
