"""Trains the model: by the clock (`--seconds`) or, repeatably, by tokens (`--tokens`), on a GPU where there is one.

Writes OUT/weights-*.npz (float16) and OUT/log.jsonl; with `--checkpoint FILE` it also saves all that a later run of
the same command needs to go on from there.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import queue
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tokenizers import Tokenizer

from examples import BOS, EOS, MIDDLE_FLAG, Examples, functions_of
from model import Model, Shape, token_losses

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

MIDDLE_WEIGHT = 4.0
CHUNK_ROWS = 64
# What counts most on the way to one's own functions: short ones that say what they do.
FUNCTION_WEIGHT = 1.5
STDLIB_WEIGHT = 1.6
ALGORITHMS_WEIGHT = 3.0
WEIGHT_DECAY = 0.02
WARM_UP_STEPS = 100
FALLS_FROM = 0.2  # of the run; from here on the learning rate goes to zero in a straight line
HELD_OUT_SEED = "held out"
HELD_OUT_ROWS = 128
LARGEST_PART_BYTES = 14 * 1024**2


def documents(path: Path, part: int, parts: int) -> list[tuple[str, float]]:
    """Every `parts`-th document of a corpus, and its functions once more on their own, with their weights."""
    texts = []
    with path.open() as file:
        for number, line in enumerate(file):
            if number % parts != part:
                continue
            document = json.loads(line)
            weight = {"cpython": STDLIB_WEIGHT, "algorithms": ALGORITHMS_WEIGHT}.get(document["kind"], 1.0)
            texts.append((document["text"], weight))
            for text in functions_of(document["text"]):
                described = '"""' in text[:400]
                texts.append((text, weight * FUNCTION_WEIGHT * (0.5 if described else 0.15)))
    return texts


def produce(corpus: Path, tokenizer: Path, part: int, parts: int, row_tokens: int, seed: str, out: Any) -> None:
    """One process that makes examples of its share of the corpus for as long as somebody takes them."""
    made = Examples(documents(corpus, part, parts), Tokenizer.from_file(str(tokenizer)), f"{seed} {part}")
    while True:
        out.put(made.rows(CHUNK_ROWS, row_tokens).tobytes())


class Rows:
    """Batches of rows, from processes that make them meanwhile."""

    def __init__(self, arguments: argparse.Namespace, row_tokens: int, seed: str) -> None:
        """Made before anything touches the GPU: the processes are forked."""
        self._queues = [multiprocessing.Queue(4) for _ in range(arguments.producers)]
        for part, out in enumerate(self._queues):
            common = (arguments.corpus, arguments.tokenizer, part, arguments.producers, row_tokens, seed, out)
            multiprocessing.Process(target=produce, args=common, daemon=True).start()
        self._row_tokens, self._rows, self._reuse = row_tokens, arguments.batch_rows, arguments.reuse
        self._shuffle = np.random.default_rng(0)
        self._ready: queue.Queue[Tensor] = queue.Queue(8)
        self.waited_s = 0.0

    def start(self, device: str) -> None:
        threading.Thread(target=self._fill, args=(device,), daemon=True).start()

    def _fill(self, device: str) -> None:
        chunks: list[np.ndarray] = []
        while True:
            chunks += [np.frombuffer(each.get(), np.uint16).reshape(-1, self._row_tokens) for each in self._queues]
            if sum(map(len, chunks)) < self._rows:
                continue
            for _ in range(self._reuse):
                rows = self._shuffle.permutation(np.concatenate(chunks))
                for start in range(0, len(rows) - self._rows + 1, self._rows):
                    batch = torch.from_numpy(rows[start : start + self._rows].astype(np.int32))
                    self._ready.put(batch.to(device))
            chunks = [rows[len(rows) // self._rows * self._rows :]]

    def __iter__(self) -> Iterator[Tensor]:
        while True:
            started = time.perf_counter()
            batch = self._ready.get()
            self.waited_s += time.perf_counter() - started
            yield batch


def split(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, targets and the targets' weights: 0 for `<bos>` and padding, more than 1 for a middle's tokens."""
    ids = (rows & (MIDDLE_FLAG - 1)).long()
    targets, flags = ids[:, 1:], rows[:, 1:] >= MIDDLE_FLAG
    weights = ((targets != BOS) & (targets != EOS)).float() + flags.float() * (MIDDLE_WEIGHT - 1)
    return ids[:, :-1], targets, weights


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearest orthogonal matrices, roughly: five Newton-Schulz steps with the coefficients of Muon."""
    x = matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * (square @ square)) @ x
    return (x.mT if tall else x).float()


class Optimizer:
    """Muon for the blocks' matrices, Adam for the embedding and the norms."""

    def __init__(self, model: Model, matrix_rate: float, other_rate: float) -> None:
        self._matrix_rate, self._other_rate = matrix_rate, other_rate
        self._groups: dict[tuple[int, ...], list[Any]] = {}
        self._others = []
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and name != "token_embd":
                self._groups.setdefault(tuple(parameter.shape), []).append(parameter)
            else:
                self._others.append(parameter)
        self.state: dict[str, Any] = {
            "momentum": [
                torch.zeros(len(group), *shape, device=group[0].device) for shape, group in self._groups.items()
            ],
            "first": [torch.zeros_like(each) for each in self._others],
            "second": [torch.zeros_like(each) for each in self._others],
        }

    def load(self, state: dict[str, Any]) -> None:
        for mine, theirs in ((self.state[name], state[name]) for name in self.state):
            for one, other in zip(mine, theirs, strict=True):
                one.copy_(other)

    @torch.no_grad()
    def step(self, step: int, scale: float) -> None:
        mu = 0.85 + 0.1 * min(1, step / 300)
        rate = self._matrix_rate * scale
        for (shape, group), momentum in zip(self._groups.items(), self.state["momentum"], strict=True):
            gradients = torch.stack([each.grad for each in group])
            momentum.lerp_(gradients, 1 - mu)
            updates = orthogonal(gradients.lerp(momentum, mu))
            torch._foreach_mul_(group, 1 - rate * WEIGHT_DECAY)
            torch._foreach_add_(group, list(updates), alpha=-rate * max(1, shape[0] / shape[1]) ** 0.5)
        rate = self._other_rate * scale
        for each, first, second in zip(self._others, self.state["first"], self.state["second"], strict=True):
            first.lerp_(each.grad, 0.1)
            second.lerp_(each.grad.square(), 0.05)
            corrected = (second / (1 - 0.95 ** (step + 1))).sqrt_().add_(1e-10)
            each.addcdiv_(first, corrected, value=-rate / (1 - 0.9 ** (step + 1)))
        for each in (*self._others, *(each for group in self._groups.values() for each in group)):
            each.grad = None


def learning_rate(step: int, done: float) -> float:
    """The factor on the learning rates at this step, with this share of the run done."""
    return min(1, (step + 1) / WARM_UP_STEPS) * min(1, (1 - done) / (1 - FALLS_FROM))


def save_weights(model: Model, out: Path, report: dict[str, Any]) -> None:
    """The weights as float16 in parts that stay below `LARGEST_PART_BYTES`, and what they are."""
    parts: list[dict[str, np.ndarray]] = [{}]
    for name, parameter in model.named_parameters():
        values = parameter.detach().half().cpu().numpy()
        if sum(each.nbytes for each in parts[-1].values()) + values.nbytes > LARGEST_PART_BYTES:
            parts.append({})
        parts[-1][name] = values
    for number, part in enumerate(parts):
        np.savez(out / f"weights-{number}.npz", **part)
    (out / "weights.json").write_text(json.dumps({"shape": asdict(model.shape), **report}, indent=1) + "\n")


def arguments_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="JSON lines of the corpus")
    parser.add_argument("--held-out", type=Path, required=True, help="JSON lines of what is held out")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, help="saved every --save-every seconds, resumed from if there")
    parser.add_argument("--save-every", type=float, default=300)
    parser.add_argument("--seconds", type=float, help="how long to train, by the clock")
    parser.add_argument("--tokens", type=float, help="how many tokens to train on")
    parser.add_argument(
        "--shape", type=json.loads, default={}, help="what differs from the shipped model's shape, JSON"
    )
    parser.add_argument("--batch-rows", type=int, default=128)
    parser.add_argument("--micro-rows", type=int, help="how many rows at once; default: the batch")
    parser.add_argument("--producers", type=int, default=1, help="processes that make examples")
    parser.add_argument("--reuse", type=int, default=1, help="how often a row is used: more where making them is slow")
    parser.add_argument("--matrix-rate", type=float, default=0.02)
    parser.add_argument("--other-rate", type=float, default=0.004)
    parser.add_argument("--validate-every", type=float, default=60, help="seconds")
    parser.add_argument("--seed", default="rockfill")
    arguments = parser.parse_args()
    if (arguments.seconds is None) == (arguments.tokens is None):
        parser.error("give one of --seconds and --tokens")
    return arguments


class Training:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        shape = Shape(**arguments.shape)
        row_tokens = shape.context + 1
        self.step, self.tokens, self.spent_s = 0, 0, 0.0
        saved = None
        if arguments.checkpoint and arguments.checkpoint.exists():
            saved = torch.load(arguments.checkpoint, map_location="cpu")
            self.step, self.tokens, self.spent_s = saved["step"], saved["tokens"], saved["spent_s"]
        # The examples after a resumption are other ones, not the first ones again.
        self.rows = Rows(arguments, row_tokens, f"{arguments.seed} {self.step}")
        gpu = torch.cuda.is_available()
        self.device = "cuda" if gpu else "cpu"
        torch.manual_seed(0)
        torch.set_float32_matmul_precision("high")
        self.model = Model(shape, torch.bfloat16 if gpu else torch.float32).to(self.device)
        self.optimizer = Optimizer(self.model, arguments.matrix_rate, arguments.other_rate)
        if saved:
            self.model.load_state_dict(saved["model"])
            self.optimizer.load(saved["optimizer"])
        self.losses = torch.compile(token_losses, dynamic=False) if gpu else token_losses
        if gpu:
            for block in self.model.blk:
                block.compile(dynamic=False)
        held_out = Examples(
            documents(arguments.held_out, 0, 1), Tokenizer.from_file(str(arguments.tokenizer)), HELD_OUT_SEED
        )
        rows = np.frombuffer(held_out.rows(HELD_OUT_ROWS, row_tokens).tobytes(), np.uint16).reshape(-1, row_tokens)
        self.held_out = torch.from_numpy(rows.astype(np.int32)).to(self.device)
        self.rows.start(self.device)
        self.log = (arguments.out / "log.jsonl").open("a")

    def say(self, **facts: Any) -> None:
        line = json.dumps({"seconds": round(self.spent_s, 1), "step": self.step, "tokens": self.tokens, **facts})
        print(line, flush=True)
        print(line, file=self.log, flush=True)

    def loss(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Each token's loss, and its weight."""
        ids, targets, weights = split(rows)
        model = self.model
        return self.losses(model.hidden(ids), model.output_norm, model.token_embd, targets), weights

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The mean loss in nats a token on what is held out: in contexts and plain text, and in middles."""
        sums = {"context": [0.0, 0.0], "middle": [0.0, 0.0]}
        micro = self.arguments.micro_rows or self.arguments.batch_rows
        for rows in self.held_out.split(min(micro, len(self.held_out))):
            losses, weights = self.loss(rows)
            for name, chosen in (("context", weights == 1), ("middle", weights > 1)):
                sums[name][0] += (losses * chosen).sum().item()
                sums[name][1] += chosen.sum().item()
        return {name: round(total / count, 4) for name, (total, count) in sums.items()}

    def save(self, checkpoint: Path) -> None:
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state}
        partial = checkpoint.with_suffix(".partial")
        torch.save({**state, "step": self.step, "tokens": self.tokens, "spent_s": self.spent_s}, partial)
        partial.replace(checkpoint)

    def run(self) -> None:
        arguments, batches = self.arguments, iter(self.rows)
        parameters = sum(each.numel() for each in self.model.parameters())
        self.say(parameters=parameters, shape=asdict(self.model.shape), device=self.device)
        micro = arguments.micro_rows or arguments.batch_rows
        recent, logged_step = torch.zeros((), device=self.device), self.step
        # Compiling and the first examples are no part of the clock.
        for rows in next(batches).split(micro)[:1]:
            losses, weights = self.loss(rows)
            (losses * weights).sum().backward()
            self.model.zero_grad()
        self.validate()
        started = last_validated = last_saved = time.perf_counter() - self.spent_s
        self.rows.waited_s = 0.0
        while True:
            done = self.spent_s / arguments.seconds if arguments.seconds else self.tokens / arguments.tokens
            if done >= 1:
                break
            batch = next(batches)
            weight = split(batch)[2].sum()
            for rows in batch.split(micro):
                losses, weights = self.loss(rows)
                loss = (losses * weights).sum() / weight
                loss.backward()
                recent += loss.detach()
            self.optimizer.step(self.step, learning_rate(self.step, done))
            self.step += 1
            self.tokens += batch.numel()
            if self.step % 20 == 0 and self.device == "cuda":
                torch.cuda.synchronize()
            now = time.perf_counter()
            self.spent_s = now - started
            if self.step in (10, 50) or self.step % 100 == 0:
                mean = recent.item() / (self.step - logged_step)
                recent, logged_step = recent * 0, self.step
                if not math.isfinite(mean):
                    raise SystemExit("The loss is no number any more.")
                self.say(loss=round(mean, 4), done=round(done, 3), waited_s=round(self.rows.waited_s, 1))
            if now - last_validated > arguments.validate_every:
                last_validated = now
                self.say(held_out=self.validate())
                save_weights(self.model, arguments.out, {"tokens": self.tokens, "finished": False})
            if arguments.checkpoint and now - last_saved > arguments.save_every:
                last_saved = now
                self.save(arguments.checkpoint)
        held_out = self.validate()
        self.say(held_out=held_out, finished=True)
        report = {"tokens": self.tokens, "seconds": round(self.spent_s), "held_out_nats": held_out, "finished": True}
        save_weights(self.model, arguments.out, report)
        if arguments.checkpoint:
            self.save(arguments.checkpoint)


def main() -> None:
    arguments = arguments_of()
    arguments.out.mkdir(parents=True, exist_ok=True)
    Training(arguments).run()


if __name__ == "__main__":
    main()
