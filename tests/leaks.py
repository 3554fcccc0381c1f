"""A pytest plugin: no test leaves a task, a child process, or an open file or socket behind, or blocks the event loop.

What a fixture of a wider scope holds was there before the test and is not its leak. Pending garbage counts: what only
the collector would close was not closed by us.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from blockbuster import blockbuster_ctx

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture(autouse=True)
def no_file_or_child_left() -> Iterator[None]:
    """Set up before and torn down after everything else of the test, its event loop included."""
    files, children = _open_files(), _children()
    yield
    left = [f"file descriptor {fd}: {target}" for fd, target in _open_files().items() if files.get(fd) != target]
    for pid in _children() - children:
        left.append(f"child process {pid}: {_command(pid)}")
        _end(pid)
    if left:
        pytest.fail("left behind: " + "; ".join(left), pytrace=False)


@pytest.fixture(autouse=True)
def no_task_left(request: pytest.FixtureRequest, no_file_or_child_left: None) -> None:
    """Only a test that pytest-asyncio runs gets the asynchronous half: it would make a loop for every other one."""
    if request.node.get_closest_marker("asyncio") is not None:
        request.getfixturevalue("event_loop_rules")


@pytest_asyncio.fixture
async def event_loop_rules() -> AsyncIterator[None]:
    """Torn down last of the asynchronous fixtures, in the loop of the test."""
    # Only calls that come from our package count; a test may read its data in the loop.
    with blockbuster_ctx("rockfill") as rules:
        rules.functions["os.read"].can_block_in("rockfill/engine/process.py", "spawn")  # until exec is done
        # /proc/PID is made from counters in memory
        for reader in ("resident_bytes", "is_at_work"):
            rules.functions["io.TextIOWrapper.read"].can_block_in("rockfill/hardware/process.py", reader)
        rules.functions["os.listdir"].can_block_in("rockfill/hardware/process.py", "is_at_work")
        yield
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        pytest.fail("left behind: " + "; ".join(map(repr, left)), pytrace=False)


def _open_files() -> dict[int, str]:
    files = {}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names, not paths
        with contextlib.suppress(FileNotFoundError):  # the descriptor of this very listing
            files[int(name)] = str(Path("/proc/self/fd", name).readlink())
    return files


def _children() -> set[int]:
    """Those that ended and were never waited for count too."""
    children: set[int] = set()
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that just ended
            children.update(map(int, (thread / "children").read_text().split()))
    return children


def _command(pid: int) -> str:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread of asyncio's waited for it just now
        if Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z":
            return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    return "ended, but never waited for"


def _end(pid: int) -> None:
    """The test has failed already; the run must not leave processes on the machine as well."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
