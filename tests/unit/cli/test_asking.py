from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rockfill.cli.asking import fresh_lines, split_at, status_line
from rockfill.errors import Code, Problem

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a file.py"


@pytest.mark.parametrize(
    ("content", "position", "before", "after"),
    [
        (b"abc\ndef\n", "1:1", "", "abc\ndef\n"),
        (b"abc\ndef\n", "1:4", "abc", "\ndef\n"),
        (b"abc\ndef\n", "2:2", "abc\nd", "ef\n"),
        (b"abc\ndef\n", "3:1", "abc\ndef\n", ""),  # the empty line that an editor shows at the end
        (b"abc\ndef", "2:4", "abc\ndef", ""),
        (b"", "1:1", "", ""),
        (b"abc\r\ndef\r\n", "1:4", "abc", "\r\ndef\r\n"),
        (b"abc\r\ndef\r\n", "2:2", "abc\r\nd", "ef\r\n"),
        ("äö🙂x\n".encode(), "1:4", "äö🙂", "x\n"),
        (b"a\x0bb\x85c\n".decode("latin-1").encode(), "1:4", "a\x0bb", "\x85c\n"),  # no line ends for an editor
        (b"abc\n", "01:002", "a", "bc\n"),
    ],
)
def test_a_file_is_split_at_line_and_column(file: Path, content: bytes, position: str, before: str, after: str) -> None:
    file.write_bytes(content)
    assert split_at(f"{file}:{position}") == (before, after)


@pytest.mark.parametrize(
    ("position", "says"),
    [
        ("0:1", "there is no line 0"),
        ("4:1", "has 3 lines, there is no line 4"),
        ("1:0", "there is no column 0"),
        ("1:5", "has columns 1 to 4, there is no column 5"),
        ("2:5", "has columns 1 to 4, there is no column 5"),  # not into the middle of a CRLF
        ("3:2", "has columns 1 to 1, there is no column 2"),
    ],
)
def test_a_place_that_is_not_there_is_named(file: Path, position: str, says: str) -> None:
    file.write_bytes(b"abc\ndef\r\n")
    with pytest.raises(Problem) as caught:
        split_at(f"{file}:{position}")
    assert caught.value.code is Code.INVALID_VALUE
    assert says in caught.value.message


@pytest.mark.parametrize(
    "position", ["", "file", "file:1", ":1:1", "file:1:", "file::1", "file:-1:1", "file:a:1", "file:1:²"]
)
def test_what_is_no_position_is_told_with_an_example(position: str) -> None:
    with pytest.raises(Problem) as caught:
        split_at(position)
    assert caught.value.code is Code.INVALID_VALUE
    assert "FILE:LINE:COL" in caught.value.message


def test_a_name_with_colons_is_a_name(tmp_path: Path) -> None:
    (tmp_path / "a:3:4").write_text("text")
    assert split_at(f"{tmp_path}/a:3:4:1:3") == ("te", "xt")


def test_what_can_not_be_read_is_told(file: Path, tmp_path: Path) -> None:
    file.write_bytes(b"\xff")
    for path, says in ((file, "not UTF-8"), (tmp_path, "Is a directory"), (tmp_path / "none", "No such file")):
        with pytest.raises(Problem) as caught:
            split_at(f"{path}:1:1")
        assert caught.value.code is Code.FILE_UNREADABLE
        assert says in caught.value.message


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_is_lost_at_any_place(file: Path, data: st.DataObject) -> None:
    text = data.draw(st.text("ab\r\n\té", max_size=30))
    file.write_bytes(text.encode())
    lines = text.split("\n")
    line = data.draw(st.integers(1, len(lines)))
    column = data.draw(st.integers(1, len(lines[line - 1].rstrip("\r")) + 1))
    before, after = split_at(f"{file}:{line}:{column}")
    assert before + after == text
    assert (before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1) == (line, column)


def test_the_status_is_one_line() -> None:
    model = {"name": "tiny", "demonstration": True}
    value = {"state": "ready", "model": model, "runtime": "llama.cpp", "tokens_per_second": 12.34}
    assert status_line(value) == "ready · tiny (demonstration) · llama.cpp · 12.3 tok/s"
    assert status_line({"state": "stopped", "model": None, "runtime": None, "tokens_per_second": None}) == "stopped"


@pytest.mark.parametrize(
    ("total", "seen", "fresh"),
    [
        (3, 3, []),
        (3, 2, ["c"]),
        (3, 0, ["a", "b", "c"]),
        (9, 6, ["a", "b", "c"]),
        (9, 4, ["… 2 lines are lost", "a", "b", "c"]),
        (3, 8, ["a", "b", "c"]),  # of another daemon
    ],
)
def test_followed_lines_come_once_and_what_is_lost_is_told(total: int, seen: int, fresh: list[str]) -> None:
    assert fresh_lines(["a", "b", "c"], total, seen) == fresh
