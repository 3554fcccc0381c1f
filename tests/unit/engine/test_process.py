"""The worker as a child, alone: what its listener hears, and that it never outlives its daemon."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rockfill.engine import process
from rockfill.engine.process import JOURNAL_LINES_PER_S, KEPT_LINES, LINE_BYTES, Child, explain
from rockfill.errors import Code, Problem, ProblemInfo
from rockfill.link.messages import Done, Generate, Hello, Load, Loaded, Ping
from tests.engines import ENVIRONMENT, WORKER, Script, rogue

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rockfill.link.messages import ToDaemon


class Ear:
    """Keeps all that is heard, in order."""

    def __init__(self) -> None:
        self.heard: list[ToDaemon | str] = []
        self.lines: list[str] = []
        self.problem: ProblemInfo | None = None
        self.end: ProblemInfo | None = None
        self._news = asyncio.Event()

    def message(self, message: ToDaemon) -> None:
        self._note(message)

    def link_lost(self, problem: ProblemInfo | None) -> None:
        self.problem = problem
        self._note("link lost")

    def exited(self, problem: ProblemInfo) -> None:
        self.end = problem
        self._note("exited")

    def printed(self, line: str) -> None:
        self.lines.append(line)
        self._news.set()

    def _note(self, what: ToDaemon | str) -> None:
        assert self.end is None or what == "exited", "heard after the end"
        self.heard.append(what)
        self._news.set()

    async def hears(self, what: type | str) -> None:
        while not any(note == what or (isinstance(what, type) and isinstance(note, what)) for note in self.heard):
            self._news.clear()
            await self._news.wait()

    async def prints(self, line: str) -> None:
        while line not in self.lines:
            self._news.clear()
            await self._news.wait()


async def spawned(argv: Sequence[str]) -> tuple[Child, Ear]:
    ear = Ear()
    return await Child.spawn(argv, ear, ENVIRONMENT), ear


def shell(script: str) -> tuple[str, ...]:
    """A child that is no worker at all; it gets the number of its link as ``$1``."""
    return ("/bin/sh", "-c", script, "sh")


async def test_a_worker_says_hello_and_goes_when_told() -> None:
    child, ear = await spawned(WORKER)
    await ear.hears(Hello)
    child.terminate()
    await ear.hears("exited")
    assert ear.heard == [ear.heard[0], "link lost", "exited"]
    assert isinstance(ear.heard[0], Hello)
    assert ear.heard[0].pid == child.pid


async def test_a_worker_ends_with_its_link_alone() -> None:
    child, ear = await spawned(WORKER)
    await ear.hears(Hello)
    child.close_link()
    await ear.hears("exited")
    assert ear.end is not None
    assert ear.end.detail is not None
    assert ear.end.detail["exit_status"] == 0


async def test_what_is_sent_to_a_dead_child_goes_nowhere(script: Script) -> None:
    child, ear = await spawned(shell("exit 0"))
    await ear.hears("exited")
    child.send(Load("fake", str(script.path)))
    child.terminate()
    child.kill()


async def test_a_program_that_is_not_there_is_a_failed_start() -> None:
    with pytest.raises(Problem) as caught:
        await spawned(("/nonexistent/worker",))
    assert caught.value.code is Code.ENGINE_START_FAILED


@pytest.mark.parametrize(
    ("argv", "status", "line"),
    [
        (rogue("127"), 127, None),
        (rogue("last words"), 9, "E rkllm: the last words"),
        (rogue("half"), 0, None),
        (shell("echo on standard error >&2; kill -SEGV $$"), -signal.SIGSEGV, "on standard error"),
        (shell("printf 'no newline'; exit 4"), 4, "no newline"),
    ],
)
async def test_an_end_is_explained_by_its_status_and_last_words(
    argv: tuple[str, ...], status: int, line: str | None
) -> None:
    child, ear = await spawned(argv)
    await ear.hears("exited")
    assert ear.end == explain(status, list(child.lines))
    assert list(child.lines) == ([line] if line else [])
    assert ear.heard[-1] == "exited"


FLOOD = """
import os, sys
print(*range(1, 1001), sep="\\n", flush=True)  # one write, so that they come within one second on any machine
os.read(int(sys.argv[1]), 1)
print("done")
"""


async def test_lines_are_told_as_they_come_and_of_a_flood_how_many_were_not() -> None:
    child, ear = await spawned((sys.executable, "-c", FLOOD))
    await ear.prints(str(JOURNAL_LINES_PER_S))
    await asyncio.sleep(1)
    child.send(Ping(0))
    await ear.hears("exited")
    assert ear.lines[: JOURNAL_LINES_PER_S + 1] == [str(number) for number in range(1, JOURNAL_LINES_PER_S + 1)] + [
        f"… {1000 - JOURNAL_LINES_PER_S} more lines in that second"
    ]
    assert ear.lines[JOURNAL_LINES_PER_S + 1 :] == ["done"]


async def test_what_ends_as_the_patience_with_it_does_is_heard_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a loop that stood still: the end of the output and the timer come in one turn."""
    monkeypatch.setattr(process, "DRAIN_S", 0)
    for _ in range(20):
        child, ear = await spawned(shell("printf 'no newline'; exit 4"))
        await ear.hears("exited")
        assert list(child.lines) == ["no newline"]
        assert ear.heard == ["link lost", "exited"]


@pytest.mark.parametrize("mode", ["garbage", "unknown", "malformed", "endless"])
async def test_nonsense_on_the_link_is_told_as_such(mode: str) -> None:
    child, ear = await spawned(rogue(mode))
    await ear.hears("link lost")
    assert ear.problem is not None
    assert ear.problem.code is Code.LINK_BROKEN
    child.kill()
    await ear.hears("exited")


async def test_a_flood_of_output_is_read_and_only_its_end_kept(script: Script) -> None:
    script.says(text="fine", fault={"when": "prefill", "what": "flood"})
    child, ear = await spawned(WORKER)
    child.send(Load("fake", str(script.path)))
    await ear.hears(Loaded)
    child.send(Generate(1, "x"))
    await ear.hears(Done)
    child.close_link()
    await ear.hears("exited")
    assert len(child.lines) == KEPT_LINES
    assert max(map(len, child.lines)) == LINE_BYTES
    assert "".join(child.lines).count("x") == 100_000  # one line of that size is kept as several


async def test_output_that_is_not_text_is_kept_as_far_as_it_goes() -> None:
    child, ear = await spawned(shell(r"printf 'caf\351\r\n\0\n'"))
    await ear.hears("exited")
    assert list(child.lines) == ["caf\N{REPLACEMENT CHARACTER}", "\0"]


async def test_a_worker_gets_none_of_our_secrets() -> None:
    ear = Ear()
    child = await Child.spawn(shell("env"), ear, {**ENVIRONMENT, "HF_TOKEN": "secret", "ROCKFILL_TOKEN": "secret"})
    await ear.hears("exited")
    assert child.lines
    assert not any("secret" in line for line in child.lines)


@pytest.fixture
def with_cores() -> Iterator[None]:
    """This process, and so its children, may dump core as far as it is allowed to allow that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


async def test_a_worker_is_the_first_to_go_when_memory_is_short_and_leaves_no_core(with_cores: None) -> None:
    child, ear = await spawned(WORKER)
    await ear.hears(Hello)
    of_child = Path("/proc", str(child.pid))
    adjusted = int((of_child / "oom_score_adj").read_text())
    [core] = re.findall(r"^Max core file size +(\S+)", (of_child / "limits").read_text(), re.MULTILINE)
    child.terminate()
    await ear.hears("exited")
    assert adjusted >= 500
    assert core == "0"


def test_a_kill_is_explained_as_what_it_mostly_is() -> None:
    assert "memory" in explain(-signal.SIGKILL, []).advice
    assert "SIGSEGV" in explain(-signal.SIGSEGV, []).message
    assert "signal 99" in explain(-99, []).message
    assert "exit status 3" in explain(3, []).message


def test_an_explanation_carries_the_last_20_lines() -> None:
    detail = explain(1, [str(number) for number in range(100)]).detail
    assert detail == {"exit_status": 1, "last_lines": [str(number) for number in range(80, 100)]}


# ---- daemon and worker die together

DAEMON = """
import asyncio, os, sys, time
from rockfill.engine.process import Child

class Ear:
    def message(self, message):
        holder = 0
        if sys.argv[1] == "held":  # somebody else keeps our end of the link open
            holder = os.fork()
            if holder == 0:
                time.sleep(3600)
        print(child.pid, holder, flush=True)
    def link_lost(self, problem): pass
    def printed(self, line): pass
    def exited(self, problem): pass

async def main():
    global child
    child = await Child.spawn(sys.argv[2:], Ear(), os.environ)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


@pytest.mark.parametrize("link", ["ended", "held"])
def test_a_worker_dies_with_its_daemon(link: str) -> None:
    """By the end of its link; or, where it can't see that (as in a library that holds every thread), by the kernel."""
    daemon = subprocess.Popen(
        [sys.executable, "-c", DAEMON, link, *WORKER],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with daemon:
        assert daemon.stdout is not None
        worker_pid, holder_pid = map(int, daemon.stdout.readline().split())
        worker = os.pidfd_open(worker_pid)
        try:
            daemon.kill()
            gone, _, _ = select.select([worker], [], [], 30)
        finally:
            if holder_pid:
                os.kill(holder_pid, signal.SIGKILL)
            os.close(worker)
    assert gone
