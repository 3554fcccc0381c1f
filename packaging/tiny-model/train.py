"""Trains the model: by the clock (`--seconds`) or, repeatably, by tokens (`--tokens`), on a GPU where there is one.

Writes OUT/log.jsonl and, at the end, OUT/weights-*.npz (float16) and OUT/weights.json; with `--checkpoint FILE` it
also saves all that a later run of the same command needs to go on from there. By tokens, on a CPU, an interrupted run
ends in the same weights as one that was not (check_resume.py tries it out); a GPU's sums differ from run to run.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import math
import multiprocessing
import os
import queue
import signal
import time
from dataclasses import asdict
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tokenizers import Tokenizer

from examples import BOS, EOS, MIDDLE_FLAG, Examples, functions_of
from model import Model, Shape, token_losses

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.process import BaseProcess

    from torch import Tensor

MIDDLE_WEIGHT = 4.0
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
PR_SET_PDEATHSIG = 1  # linux/prctl.h


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


def produce(arguments: argparse.Namespace, part: int, first: int, row_tokens: int, parent: int, out: Any) -> None:
    """One process that makes chunks of a batch's rows, from number `first` on, as long as `parent` lives."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    tokenizer = Tokenizer.from_file(str(arguments.tokenizer))
    made = Examples(documents(arguments.corpus, part, arguments.producers), tokenizer)
    for number in count(first):
        out.put(made.rows(arguments.batch_rows, row_tokens, f"{arguments.seed} {part} {number}").tobytes())


class Rows:
    """Batches of rows from the given one on, the same whatever came before, from processes that make them meanwhile.

    A pool is a chunk of every producer, which is dealt out `reuse` times, each time in another order.
    """

    def __init__(self, arguments: argparse.Namespace, row_tokens: int, first_batch: int) -> None:
        """Made before anything touches the GPU: the processes are forked."""
        self._row_tokens, self._batch_rows, self._reuse = row_tokens, arguments.batch_rows, arguments.reuse
        self._first_pool, self._first_batch = divmod(first_batch, arguments.producers * arguments.reuse)
        forked = multiprocessing.get_context("fork")
        self._producers: list[tuple[BaseProcess, Any]] = []
        for part in range(arguments.producers):
            out = forked.Queue(4)
            common = (arguments, part, self._first_pool, row_tokens, os.getpid(), out)
            process = forked.Process(target=produce, args=common, daemon=True)
            process.start()
            self._producers.append((process, out))
        self.waited_s = 0.0

    def batches(self, device: str) -> Iterator[Tensor]:
        return (batch.to(device) for batch in islice(self._dealt(), self._first_batch, None))

    def _dealt(self) -> Iterator[Tensor]:
        for number in count(self._first_pool):
            started = time.perf_counter()
            pool = np.concatenate([np.frombuffer(_next(*each), np.uint16) for each in self._producers])
            self.waited_s += time.perf_counter() - started
            for turn in range(self._reuse):
                rows = np.random.default_rng((number, turn)).permutation(pool.reshape(-1, self._row_tokens))
                yield from torch.from_numpy(rows.astype(np.int32)).split(self._batch_rows)


def _next(process: BaseProcess, out: Any) -> bytes:
    while True:
        try:
            chunk: bytes = out.get(timeout=10)
            return chunk
        except queue.Empty:
            if not process.is_alive():
                raise SystemExit("A process that makes examples has ended; see above.") from None


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
    """The weights as float16 in parts that stay below `LARGEST_PART_BYTES`, and last, since make looks at it, what they
    are."""
    parts: list[dict[str, np.ndarray]] = [{}]
    for name, parameter in model.named_parameters():
        values = parameter.detach().half().cpu().numpy()
        if sum(each.nbytes for each in parts[-1].values()) + values.nbytes > LARGEST_PART_BYTES:
            parts.append({})
        parts[-1][name] = values
    for number, part in enumerate(parts):
        np.savez(out / f"weights-{number}.npz", **part)
    partial = out / "weights.partial"
    partial.write_text(json.dumps({"shape": asdict(model.shape), **report}, indent=1) + "\n")
    partial.replace(out / "weights.json")


def course_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """All that decides what a run does: a checkpoint can go on only where it is the same."""
    names = ("seconds", "tokens", "shape", "batch_rows", "producers", "reuse", "matrix_rate", "other_rate", "seed")
    return {name: getattr(arguments, name) for name in names} | {
        name: _digest(getattr(arguments, name)) for name in ("corpus", "tokenizer")
    }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
        self.course = course_of(arguments)
        saved = None
        if arguments.checkpoint and arguments.checkpoint.exists():
            saved = torch.load(arguments.checkpoint, map_location="cpu")
            others = [name for name, value in self.course.items() if saved["course"][name] != value]
            if others:
                raise SystemExit(
                    f"{arguments.checkpoint} is of a run with other {', '.join(others)}: remove it to begin anew."
                )
            self.step, self.tokens, self.spent_s = saved["step"], saved["tokens"], saved["spent_s"]
        self.rows = Rows(arguments, row_tokens, self.step)
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
        held_out = Examples(documents(arguments.held_out, 0, 1), Tokenizer.from_file(str(arguments.tokenizer)))
        rows = np.frombuffer(held_out.rows(HELD_OUT_ROWS, row_tokens, HELD_OUT_SEED).tobytes(), np.uint16)
        self.held_out = torch.from_numpy(rows.reshape(-1, row_tokens).astype(np.int32)).to(self.device)
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
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state, "course": self.course}
        partial = checkpoint.with_suffix(".partial")
        torch.save({**state, "step": self.step, "tokens": self.tokens, "spent_s": self.spent_s}, partial)
        partial.replace(checkpoint)

    def run(self) -> None:
        arguments, batches = self.arguments, self.rows.batches(self.device)
        parameters = sum(each.numel() for each in self.model.parameters())
        self.say(parameters=parameters, shape=asdict(self.model.shape), device=self.device)
        micro = arguments.micro_rows or arguments.batch_rows
        recent, logged_step = torch.zeros((), device=self.device), self.step
        if self.device == "cuda":  # compiling is no part of the clock
            losses, weights = self.loss(self.held_out[:micro])
            (losses * weights).sum().backward()
            self.model.zero_grad()
            self.validate()
        last_validated = last_saved = time.perf_counter()
        started = last_saved - self.spent_s
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
            if arguments.checkpoint and now - last_saved > arguments.save_every:
                last_saved = now
                self.save(arguments.checkpoint)
        held_out = self.validate()
        self.say(held_out=held_out, finished=True)
        report = {"tokens": self.tokens, "seconds": round(self.spent_s), "held_out_nats": held_out}
        save_weights(self.model, arguments.out, report)
        if arguments.checkpoint:
            self.save(arguments.checkpoint)


def main() -> None:
    arguments = arguments_of()
    arguments.out.mkdir(parents=True, exist_ok=True)
    Training(arguments).run()


if __name__ == "__main__":
    main()
