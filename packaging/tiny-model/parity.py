"""Compares the exported model with what was trained: token ids with `tokenizers`, greedy completions with PyTorch.

Exits with 1 unless every snippet's ids are equal, and every completion up to where two tokens are all but equally
likely: llama.cpp's arithmetic differs from PyTorch's in the last digits, in Q8_0 in the third.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer

from examples import BOS, END, EOS, MIDDLE, PREFIX, SUFFIX
from export import weights_of
from model import Model, Shape
from rockfill.llama.session import LlamaSession
from rockfill.session import Sampling

# What the first bytes of a character are decoded to.
HALF = "\ufffd"
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


@torch.no_grad()
def greedy(model: Model, ids: list[int], most_tokens: int) -> tuple[list[int], list[float]]:
    """The likeliest tokens one by one, and by how many nats each is ahead of the next likely one."""
    out: list[int] = []
    ahead: list[float] = []
    while len(out) < most_tokens:
        best = model(torch.tensor([ids + out]))[0, -1].log_softmax(-1).topk(2)
        out.append(int(best.indices[0]))
        ahead.append(float(best.values[0] - best.values[1]))
        if out[-1] in (END, EOS):
            break
    return out, ahead


def completion(session: LlamaSession, ids: list[int], most_tokens: int) -> str:
    pieces: list[str] = []
    stops = frozenset((END, EOS))
    session.generate(ids, Sampling(), most_tokens, stops, lambda text, _: pieces.append(text), lambda: False)
    return "".join(pieces)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="the GGUF file")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True, help="JSON lines of what is held out")
    parser.add_argument("--snippets", type=int, default=500)
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--most-tokens", type=int, default=24)
    parser.add_argument("--tie", type=float, default=0.05, help="how far apart in nats two tokens may be to be a tie")
    arguments = parser.parse_args()
    rng = random.Random(3)  # noqa: S311
    texts = [json.loads(line)["text"] for line in arguments.held_out.open()]
    tokenizer = Tokenizer.from_file(str(arguments.tokenizer))
    session = LlamaSession(str(arguments.model), threads=1)

    snippets = list(ODD)
    while len(snippets) < arguments.snippets:
        text = rng.choice(texts)
        start = rng.randrange(len(text))
        snippets.append(text[start : start + rng.randint(1, 1500)])
    tokenizer.encode_special_tokens = True
    different = [each for each in snippets if tokenizer.encode(each).ids != session.tokenize(each)]
    print(f"token ids equal on {len(snippets) - len(different)} of {len(snippets)} snippets", *map(repr, different[:5]))

    model = Model(Shape(**json.loads((arguments.weights / "weights.json").read_text())["shape"]))
    model.load_state_dict({name: torch.from_numpy(each) for name, each in weights_of(arguments.weights).items()})
    equal = 0
    ties = [0.0]
    for _ in range(arguments.prompts):
        text = rng.choice(texts)
        at = rng.randrange(len(text))
        prefix, suffix = session.tokenize(text[max(0, at - 1000) : at]), session.tokenize(text[at : at + 400])
        ids = [BOS, SUFFIX, *suffix[:120], PREFIX, *prefix[-300:], MIDDLE]
        given = completion(session, ids, arguments.most_tokens)
        tokens, ahead = greedy(model, ids, arguments.most_tokens)
        wanted = [tokenizer.decode(tokens[: count + 1]).rstrip(HALF) for count in range(len(tokens))]
        if given == wanted[-1]:
            equal += 1
        else:
            parts_at = (lead for text, lead in zip(wanted, ahead, strict=True) if not given.startswith(text))
            ties.append(next(parts_at, ahead[-1]))
    print(f"greedy completions equal on {equal} of {arguments.prompts} prompts; where they part, PyTorch's choice was")
    print(f"ahead by {max(ties):.3f} nats at most")
    if different or max(ties) > arguments.tie:
        sys.exit(1)


if __name__ == "__main__":
    main()
