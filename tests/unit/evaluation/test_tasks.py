"""Files of infilling tasks: what is read, and what is refused with the line that is wrong."""

from __future__ import annotations

import gzip
import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from rockfill.errors import Code, Problem
from rockfill.evaluation.tasks import Task, read_tasks, sample

if TYPE_CHECKING:
    from pathlib import Path

LINE: dict[str, Any] = {
    "task_id": "SingleLineInfilling/1/L0",
    "entry_point": "double",
    "prompt": "def double(x):\n",
    "suffix": "    return y\n",
    "canonical_solution": "    y = 2 * x\n",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n",
}


def written(tmp_path: Path, content: bytes, name: str = "tasks.jsonl") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["tasks.jsonl", "tasks.jsonl.gz"])
def test_tasks_are_read_plain_and_packed(tmp_path: Path, name: str) -> None:
    content = f"{json.dumps({**LINE, 'more': 1})}\n\n{json.dumps(LINE)}\n".encode()
    read = read_tasks(written(tmp_path, gzip.compress(content) if name.endswith(".gz") else content, name))
    assert read.tasks == (Task(**LINE), Task(**LINE))
    assert (read.name, read.sha256) == (name, hashlib.sha256(content).hexdigest())


def test_whole_lines_are_asked_for_with_their_newline_behind_the_cursor() -> None:
    task = Task(**LINE)
    assert task.single_line
    assert (task.answer, task.after) == ("    y = 2 * x", "\n    return y\n")
    program = task.program(task.answer)
    assert program == LINE["prompt"] + LINE["canonical_solution"] + LINE["suffix"] + "\n" + LINE["test"] + (
        "\ncheck(double)"
    )
    exec(compile(program, "program", "exec"), {})


def test_a_span_within_a_line_is_asked_for_as_it_stands() -> None:
    task = Task(**{**LINE, "prompt": "def double(x):\n    y = ", "canonical_solution": "2", "suffix": " * x\n"})
    assert (task.answer, task.after, task.single_line) == ("2", " * x\n", True)


def test_several_lines_are_no_single_line() -> None:
    assert not Task(**{**LINE, "canonical_solution": "    y = 2\n    y *= x\n"}).single_line


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "holds no tasks"),
        (b"\n \n", "holds no tasks"),
        (json.dumps(LINE).encode() + b"\n{", "Line 2"),
        (b"[" * 100_000, "Line 1"),
        (b'{"task_id": 1}', "task_id: must be a string"),
        (b"\xff\xfe", "Line 1"),
    ],
)
def test_what_is_no_file_of_tasks_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(Problem) as caught:
        read_tasks(written(tmp_path, content))
    assert caught.value.code is Code.INVALID_VALUE
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("name", "content"), [("missing", None), ("not.gz", b"plain"), ("cut.gz", gzip.compress(b"a" * 999)[:-9])]
)
def test_what_can_not_be_read_is_said(tmp_path: Path, name: str, content: bytes | None) -> None:
    path = tmp_path / name if content is None else written(tmp_path, content, name)
    with pytest.raises(Problem) as caught:
        read_tasks(path)
    assert caught.value.code is Code.FILE_UNREADABLE


def test_a_sample_is_the_same_for_the_same_seed_and_keeps_the_order() -> None:
    tasks = [Task(**{**LINE, "task_id": str(number)}) for number in range(100)]
    ids = [task.task_id for task in sample(tasks, 10, seed=1)]
    assert ids == [task.task_id for task in sample(tasks, 10, seed=1)] == sorted(ids, key=int)
    assert len(set(ids)) == 10
    assert ids != [task.task_id for task in sample(tasks, 10, seed=2)]
    assert sample(tasks, None, 1) == sample(tasks, 100, 1) == tasks
