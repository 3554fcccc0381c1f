"""Infilling tasks, each with a program that tells whether an answer works, one JSON object a line.

The format is that of OpenAI's human-eval-infilling (``HumanEval-SingleLineInfilling.jsonl.gz`` and its siblings), whose
files are the user's to fetch.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rockfill.decode import DecodeError, decode
from rockfill.errors import Code, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# The published files are 75 to 170 kB; one that is unpacked to more than this is something else.
MOST_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Task:
    """Text before and after a hole, an answer that is known to be right, and a test of the function `entry_point`."""

    task_id: str
    entry_point: str
    prompt: str
    suffix: str
    canonical_solution: str
    test: str

    @property
    def ends_line(self) -> bool:
        """Whether the hole is whole lines: the published prompt leaves the newline after it to the answer.

        An editor has that newline behind its cursor, so that is how the question is put (see `after`).
        """
        return self.canonical_solution.endswith("\n")

    @property
    def single_line(self) -> bool:
        return "\n" not in self.answer

    @property
    def answer(self) -> str:
        """What is to stand between `prompt` and `after`."""
        return self.canonical_solution.removesuffix("\n")

    @property
    def after(self) -> str:
        """The text behind the cursor."""
        return "\n" + self.suffix if self.ends_line else self.suffix

    def program(self, completion: str) -> str:
        """The program that ends well if `completion` is right, put together as the published evaluation does."""
        return f"{self.prompt}{completion}{self.after}\n{self.test}\ncheck({self.entry_point})"


@dataclass(frozen=True, slots=True)
class TaskFile:
    """The tasks of one file. `sha256` is over its unpacked content."""

    name: str
    sha256: str
    tasks: tuple[Task, ...]


def read_tasks(path: Path) -> TaskFile:
    """The tasks in `path`, plain or packed with gzip. Raises `file_unreadable`, or `invalid_value` naming the line."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, EOFError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise Problem(Code.FILE_UNREADABLE, f"{path} can't be read: {reason}.") from None
    if len(content) > MOST_BYTES:
        raise Problem(Code.INVALID_VALUE, f"{path} is larger than {MOST_BYTES >> 20} MiB; it can't be a file of tasks.")
    tasks = []
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            try:
                tasks.append(decode(Task, json.loads(line)))
            except (ValueError, RecursionError, DecodeError) as error:
                raise Problem(
                    Code.INVALID_VALUE,
                    f"Line {number} of {path} is no infilling task: {error}.",
                    "The format is that of human-eval-infilling's JSONL files.",
                ) from None
    if not tasks:
        raise Problem(Code.INVALID_VALUE, f"{path} holds no tasks.")
    return TaskFile(path.name, hashlib.sha256(content).hexdigest(), tuple(tasks))


def sample(tasks: Sequence[Task], limit: int | None, seed: int) -> list[Task]:
    """At most `limit` of the tasks, chosen by `seed`, in their order: the first few would all be of a few functions."""
    if limit is None or limit >= len(tasks):
        return list(tasks)
    chosen = sorted(random.Random(seed).sample(range(len(tasks)), limit))  # noqa: S311 - a sample, not a secret
    return [tasks[index] for index in chosen]
