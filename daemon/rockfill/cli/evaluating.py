"""``rockfill eval``: puts questions to the running model, and says how many of the answers are right."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rockfill.cli.asking import client_for
from rockfill.errors import Code, Problem
from rockfill.evaluation.places import Place, places
from rockfill.evaluation.sandbox import Sandbox
from rockfill.evaluation.scores import Answer, Evaluation, Score
from rockfill.evaluation.tasks import read_tasks, sample

if TYPE_CHECKING:
    import argparse

    from rockfill.client import Client
    from rockfill.evaluation.tasks import Task, TaskFile

LINE_TOKENS = 96
BLOCK_TOKENS = 256
PLACES = 500
TRIES = 3

# What a text editor would open; a larger source file is generated.
FILE_BYTES = 1 << 20


def infill(arguments: argparse.Namespace) -> int:
    """Evaluate the running model on tasks, on lines of files, or on both."""
    if not arguments.tasks and not arguments.files:
        raise Problem(
            Code.INVALID_VALUE,
            "There is nothing to ask.",
            "Name source files or directories, or a file of tasks with --tasks.",
        )
    file = read_tasks(Path(arguments.tasks)) if arguments.tasks else None
    sandbox = Sandbox.find() if file else None
    texts = _texts(arguments.files)
    found = places(texts, PLACES if arguments.limit is None else arguments.limit, arguments.seed)
    if arguments.files and not found:
        raise Problem(Code.INVALID_VALUE, "There is no line of code in these files.", "Name others.")
    names = " ".join(Path(name).name for name in arguments.files)[:500]
    return asyncio.run(_infill(arguments, file, sandbox, Asked(names, _digest(texts), found)))


@dataclass(frozen=True, slots=True)
class Asked:
    """The places of source files, whose names and content they are of."""

    names: str
    sha256: str
    places: Sequence[Place]


async def _infill(arguments: argparse.Namespace, file: TaskFile | None, sandbox: Sandbox | None, asked: Asked) -> int:
    limit, seed = arguments.limit, arguments.seed
    evaluations = []
    async with client_for(arguments) as client:
        before = await _running(client)
        if file is not None and sandbox is not None:
            await sandbox.check()
            answers = await _ask_tasks(client, sample(file.tasks, limit, seed), sandbox)
            evaluations.append(Evaluation(file.name, file.sha256, seed, limit, (Score.of("tasks", answers),)))
        if asked.places:
            scores = await _ask_places(client, asked.places)
            evaluations.append(Evaluation(asked.names, asked.sha256, seed, limit, scores))
        if await _running(client) != before:
            raise Problem(Code.MODEL_BUSY, "Another model was loaded meanwhile.", "Run the evaluation again.")
        kept = [await client.call("evaluations.keep", asdict(evaluation)) for evaluation in evaluations]
    if arguments.json:
        print(json.dumps({"evaluations": kept}, indent=1))
    else:
        for result, evaluation in zip(kept, evaluations, strict=True):
            print(f"{result['file']} on {result['runtime']}, {evaluation.questions}")
            for score in evaluation.scores:
                print("\n".join(score.lines()))
    return 0


async def _running(client: Client) -> tuple[str, str]:
    """The model and the runtime; what is not loaded is loaded first."""
    await client.call("engine.load", {"model": ""})
    value = await client.call("engine.get")
    return value["model"]["name"], value["runtime"]


async def _ask_tasks(client: Client, tasks: Sequence[Task], sandbox: Sandbox) -> list[Answer]:
    """Programs run while the next questions are being answered, as many at a time as there are processors."""
    free = asyncio.Semaphore(os.cpu_count() or 1)
    checks: list[asyncio.Task[bool]] = []
    answers: list[Answer] = []

    async def check(program: str) -> bool:
        async with free:
            return await sandbox.passes(program)

    try:
        async with asyncio.TaskGroup() as group:
            for number, task in enumerate(tasks, 1):
                _progress(number, len(tasks))
                given, duration_s = await _ask(client, task.prompt, task.after, single_line=task.single_line)
                answers.append(Answer(task.answer, given, duration_s))
                checks.append(group.create_task(check(task.program(given)), name=task.task_id))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [
        Answer(answer.expected, answer.given, answer.duration_s, check.result())
        for answer, check in zip(answers, checks, strict=True)
    ]


async def _ask_places(client: Client, found: Sequence[Place]) -> tuple[Score, ...]:
    answers: dict[str, list[Answer]] = {}
    for number, place in enumerate(found, 1):
        _progress(number, len(found))
        given, duration_s = await _ask(client, place.prefix, place.suffix, single_line=True)
        answers.setdefault(place.kind, []).append(Answer(place.answer, given, duration_s))
    names = {"line": "whole lines", "rest": "rests of lines"}
    return tuple(Score.of(names[kind], given) for kind, given in sorted(answers.items()))


async def _ask(client: Client, prefix: str, suffix: str, *, single_line: bool) -> tuple[str, float]:
    """One completion, greedy, of the whole context rather than of what is read in time for somebody who types; and
    the seconds that it took.

    An engine that was lost over it is asked again: else an evaluation of hours would be lost with it.
    """
    mode, tokens = ("line", LINE_TOKENS) if single_line else ("block", BLOCK_TOKENS)
    for tries_left in reversed(range(TRIES)):
        started = time.perf_counter()
        try:
            text = await client.complete(prefix, suffix, mode=mode, max_tokens=tokens, priority="background").text()
        except Problem as problem:
            if not tries_left or problem.code not in (Code.ENGINE_CRASHED, Code.ENGINE_HUNG):
                raise
        else:
            return text, time.perf_counter() - started
    raise AssertionError


def _texts(names: Sequence[str]) -> dict[str, str]:
    """The files and, of directories, all the text files below them, hidden ones aside."""
    texts: dict[str, str] = {}
    for name in names:
        path = Path(name)
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in found:
            hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
            if file.is_dir() or hidden:
                continue
            try:
                content = file.read_bytes() if file.stat().st_size <= FILE_BYTES else b""
                texts[str(file)] = content.decode()
            except UnicodeDecodeError:
                continue  # not source code
            except OSError as error:
                raise Problem(Code.FILE_UNREADABLE, f"{file} can't be read: {error.strerror}.") from None
    return texts


def _digest(texts: dict[str, str]) -> str:
    """Of the contents, wherever they lie."""
    digest = hashlib.sha256()
    for part in sorted(hashlib.sha256(text.encode()).digest() for text in texts.values()):
        digest.update(part)
    return digest.hexdigest()


def _progress(number: int, count: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{number} of {count}", end="\n" if number == count else "", file=sys.stderr, flush=True)
