"""The appliance with a worker that is a good one most of the time, and otherwise whatever a die says.

One module, two roles: ``python -m tests.fakes.chaos SEED FOLDER serve …`` is the daemon, which lists its tasks in
``FOLDER/tasks`` on SIGUSR1; ``python -m tests.fakes.chaos SEED FOLDER FD`` is the worker that it starts. The die is
thrown before the hello, at the load, at each prefill and at each token, while ``FOLDER/chaos`` exists.
``FOLDER/faults`` gets a line for each time that it came up badly. The nth worker of a seed throws the same as it did
the last time.
"""

from __future__ import annotations

import asyncio
import functools
import os
import random
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rockfill import worker
from rockfill.errors import Code, Problem
from tests.fakes.worker import FakeSession

if TYPE_CHECKING:
    from collections.abc import Callable

    from rockfill.session import Run

# The chance of a fault at each throw; of a run of twenty tokens about one in ten goes wrong.
CHANCE = {"hello": 0.04, "load": 0.04, "prefill": 0.03, "token": 0.0035}

HELLO = b'{"type":"hello","version":%d,"pid":1}\n'
IDLE_TALK = "".join(
    f'{{"type":"{kind}","id":{ticket},{rest}}}\n'
    for ticket in (0, 999_999)
    for kind, rest in (
        ("token", '"text":"of another run","tokens":3'),
        ("accepted", '"prompt_tokens":1,"trimmed":{}'),
        ("tokenized", '"token_ids":[1]'),
        ("detokenized", '"text":"of nothing"'),
        ("pong", '"was_never":"asked for"'),
        ("problem", '"code":"engine_failed","message":"of another run"'),
    )
).encode()


class Die:
    """Seeded, and never the same for two workers: each counts itself in ``FOLDER/workers``."""

    def __init__(self, seed: str, folder: Path, fd: int) -> None:
        self._folder = folder
        self._link = socket.socket(fileno=os.dup(fd))
        with (folder / "workers").open("a+b") as workers:
            workers.write(b".")
            workers.flush()
            self._number = workers.tell()
        self._random = random.Random(f"{seed}:{self._number}")

    def throw(self, when: str) -> None:
        """Misbehave, or not."""
        bad = self._random.random() < CHANCE[when]
        fault = self._random.choice(FAULTS[when])
        if bad and (self._folder / "chaos").exists():
            with (self._folder / "faults").open("a") as faults:
                faults.write(f"worker {self._number} {when} {fault.__name__}\n")
            fault(self)

    # ---- the ends of a process

    def crash(self) -> None:
        os.kill(os.getpid(), self._random.choice((signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGKILL)))

    def leave(self) -> None:
        print("E fake: the last words", flush=True)
        os._exit(self._random.choice((0, 1, 127)))

    def crash_in_a_moment(self) -> None:
        """While it is idle, perhaps."""
        threading.Timer(self._random.uniform(0, 0.05), self.crash).start()

    # ---- silence

    def hang(self) -> None:
        """Deaf to aborts, and to SIGTERM, like a library that blocks every signal."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        time.sleep(3600)

    def freeze(self) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    def freeze_in_a_moment(self) -> None:
        threading.Timer(self._random.uniform(0, 0.05), self.freeze).start()

    def stall(self) -> None:
        """Slow, but within every deadline."""
        time.sleep(self._random.uniform(0, 0.15))

    # ---- noise

    def flood(self) -> None:
        """Lines without end on standard output, a line without end, and what is no text at all."""
        os.write(1, b"noise\n" * 20_000 + b"x" * 200_000 + bytes(range(128, 256)) * 100 + b"\n")

    def talk_idly(self) -> None:
        """Of runs that are not there: to be passed over."""
        self._link.sendall(IDLE_TALK)

    def garble(self) -> None:
        self._link.sendall(
            self._random.choice(
                (
                    b"\x00\xff not JSON\n",
                    b'{"type":"surprise"}\n',
                    b'{"type":"token","id":"one","text":3}\n',
                    b"[" * 100_000 + b"\n",
                    b'{"type":"problem","id":null,"code":"no such code","message":""}\n',
                )
            )
        )

    def never_end_a_line(self) -> None:
        while True:
            self._link.sendall(b"x" * (1 << 20))

    def say_half(self) -> None:
        self._link.sendall(b'{"type":"tok')
        self.leave()

    def say_half_and_hang(self) -> None:
        self._link.sendall(b'{"type":"tok')
        self.hang()

    def speak_another_version(self) -> None:
        self._link.sendall(HELLO % 99)

    def greet_again(self) -> None:
        self._link.sendall(HELLO % 1)

    # ---- the link

    def close_the_link(self) -> None:
        self._link.shutdown(socket.SHUT_RDWR)

    def close_half_the_link(self) -> None:
        """And live on."""
        self._link.shutdown(socket.SHUT_WR)
        self.hang()

    # ---- what it says itself

    def fail(self) -> None:
        """With facts that are not a worker's to tell, in shapes that nobody expects."""
        lies: dict[str, Any] = {
            "last_lines": 3,
            "exit_status": [],
            "code": {},
            "message": None,
            "retry_after_s": "soon",
        }
        raise Problem(Code.NPU_FAILED, "The fake NPU has failed.", "Ask again.", **lies)

    def have_a_defect(self) -> None:
        raise RuntimeError("a defect")


_ALWAYS: tuple[Callable[[Die], None], ...] = (
    Die.crash,
    Die.leave,
    Die.hang,
    Die.freeze,
    Die.stall,
    Die.flood,
    Die.garble,
    Die.never_end_a_line,
    Die.say_half,
    Die.say_half_and_hang,
    Die.speak_another_version,
    Die.close_the_link,
    Die.close_half_the_link,
)
# A defect at the load is for a person to mend, so the engine would wait for one.
_LOADING = (*_ALWAYS, Die.talk_idly, Die.greet_again, Die.fail)
_RUNNING = (*_LOADING, Die.have_a_defect, Die.crash_in_a_moment, Die.freeze_in_a_moment)
FAULTS = {"hello": _ALWAYS, "load": _LOADING, "prefill": _RUNNING, "token": _RUNNING}


class ChaoticSession(FakeSession):
    def __init__(self, path: str, die: Die) -> None:
        super().__init__(path)
        self._die = die
        die.throw("load")

    def generate(
        self,
        prompt_ids: list[int],
        sampling: Any,
        max_tokens: int,
        stop_ids: frozenset[int],
        on_text: Callable[[str, int], None],
        aborted: Callable[[], bool],
    ) -> Run:
        def say(text: str, tokens: int) -> None:
            self._die.throw("token")
            on_text(text, tokens)

        self._die.throw("prefill")
        return super().generate(prompt_ids, sampling, max_tokens, stop_ids, say, aborted)


def _work(seed: str, folder: Path, fd: str) -> None:
    die = Die(seed, folder, int(fd))
    die.throw("hello")
    worker.main(["worker", fd], {"fake": lambda load: ChaoticSession(load.path, die)})


def _list_tasks(path: Path) -> None:
    tasks = sorted(f"{task.get_name()}: {task.get_coro()}".partition(" at 0x")[0] for task in asyncio.all_tasks())
    temporary = path.with_suffix(".new")
    temporary.write_text("\n".join(tasks))
    temporary.replace(path)


def _prepare(folder: Path) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, functools.partial(_list_tasks, folder / "tasks"))


def main(seed: str, folder: Path, *rest: str) -> None:
    if rest[0] != "serve":
        _work(seed, folder, rest[0])
        return
    from tests.fakes import daemon

    command = (sys.executable, "-m", "tests.fakes.chaos", seed, str(folder))
    daemon.main(rest, command, functools.partial(_prepare, folder))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
