"""The worker as a child process: spawned, listened to, signalled, and its end explained."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from rockfill.compat.runtime_log import problem_of
from rockfill.errors import Code, Problem, ProblemInfo
from rockfill.link.codec import daemon_side, encode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

    from rockfill.link.messages import ToDaemon, ToWorker

log = logging.getLogger(__name__)
output_log = logging.getLogger("rockfill.worker")

# What of the daemon's environment a worker gets; tokens and proxies are none of its business.
ENVIRONMENT = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "ROCKFILL_SYSFS_ROOT",
)
# The engines' own variables (RKLLM_LOG_LEVEL, RKNN_LOG_LEVEL, OMP_NUM_THREADS and the like).
ENVIRONMENT_PREFIXES = ("RKLLM_", "RKNN_", "OMP_")

KEPT_LINES = 200
LINE_BYTES = 4096
JOURNAL_LINES_PER_S = 50

# How long the link and the output may stay open after the child's end: only a grandchild can hold them.
# The loop turns so often meanwhile, and reads what is there: on a busy machine time alone may pass without that.
DRAIN_S = 0.25
DRAIN_TURNS = 25


class Listener(Protocol):
    """Who hears from a child. `exited` comes once and last."""

    def message(self, message: ToDaemon) -> None: ...

    def link_lost(self, problem: ProblemInfo | None) -> None:
        """The link ended, or, with a problem, carried something that is not of the protocol."""

    def exited(self, problem: ProblemInfo) -> None: ...

    def printed(self, line: str) -> None:
        """A line for the journal: all that was printed, or, of a flood, some and how many more there were."""


class Child:
    """One worker process, in a process group of its own. Made by `spawn`, on the event loop's main thread."""

    def __init__(self, process: subprocess.Popen[bytes], listener: Listener) -> None:
        self._process = process
        self._listener = listener
        self._pidfd = os.pidfd_open(process.pid)
        self._link: asyncio.WriteTransport | None = None
        self._output: asyncio.ReadTransport | None = None
        self._link_open = True
        self._output_open = True
        self._status: int | None = None
        self._reported = False
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.lines_total = 0
        self._marked = 0
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._pidfd, self._reap)

    @classmethod
    async def spawn(cls, argv: Sequence[str], listener: Listener, environment: Mapping[str, str]) -> Self:
        """Start ``argv + [FD]``, FD being its end of the link. Raises `engine_start_failed`."""
        with contextlib.ExitStack() as undo:
            try:
                return await cls._spawn(argv, listener, environment, undo)
            except OSError as error:
                raise Problem(
                    Code.ENGINE_START_FAILED,
                    f"The engine's process could not be started: {error.strerror}.",
                    "It is tried again by itself; if it repeats, see the journal.",
                ) from None

    @classmethod
    async def _spawn(
        cls,
        argv: Sequence[str],
        listener: Listener,
        environment: Mapping[str, str],
        undo: contextlib.ExitStack,
    ) -> Self:
        """`undo` gets what is to be undone if it comes to no child: any step may fail for want of descriptors."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        undo.callback(ours.close)
        with theirs:
            read_fd, write_fd = os.pipe()
            output = open(read_fd, "rb", buffering=0)  # noqa: ASYNC230, PTH123, SIM115 - a pipe; the transport closes it
            undo.callback(output.close)
            with open(write_fd, "wb", buffering=0) as written:  # noqa: ASYNC230, PTH123 - likewise
                process = subprocess.Popen(  # noqa: ASYNC220 - PDEATHSIG wants the main thread; exec takes 2 ms
                    [*argv, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=written,
                    stderr=written,
                    pass_fds=(theirs.fileno(),),
                    process_group=0,
                    env=_worker_environment(environment),
                )
        undo.callback(_end, process)
        child = cls(process, listener)
        undo.callback(child._forget)
        ours.settimeout(0)
        child._link, _ = await loop.create_unix_connection(lambda: _Link(child), sock=ours)
        child._output, _ = await loop.connect_read_pipe(lambda: _Output(child), output)
        undo.pop_all()
        return child

    def _forget(self) -> None:
        """Nobody will hear of this child."""
        self._reported = True
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)

    @property
    def pid(self) -> int:
        return self._process.pid

    def mark(self) -> None:
        """Something new begins: only what is printed from here on explains how that ends."""
        self._marked = self.lines_total

    @property
    def lines_since_mark(self) -> list[str]:
        lines = list(self.lines)
        return lines[max(0, len(lines) - (self.lines_total - self._marked)) :]

    def send(self, message: ToWorker) -> None:
        """Send `message`; without effect once the link is gone, which the listener hears of by itself."""
        if self._link is not None and not self._link.is_closing():
            self._link.write(encode(message))

    def terminate(self) -> None:
        """Ask it to go: end the link, and SIGTERM to its group."""
        self.close_link()
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def close_link(self) -> None:
        if self._link is not None:
            self._link.close()

    def _signal(self, number: signal.Signals) -> None:
        if self._status is None:  # not reaped yet, so the pid is still its own
            try:
                os.killpg(self._process.pid, number)
            except ProcessLookupError:  # between its start and its setpgid
                self._process.send_signal(number)

    # ---- the ends of link, output and process, in whatever order they come

    def link_ended(self, problem: ProblemInfo | None) -> None:
        if self._link_open:
            self._link_open = False
            self._listener.link_lost(problem)
            self._report_if_over()

    def output_ended(self) -> None:
        self._output_open = False
        self._report_if_over()

    def received(self, message: ToDaemon) -> None:
        self._listener.message(message)

    def tell(self, level: int, line: str) -> None:
        """Pass a line on to the journal and the listener."""
        output_log.log(level, "[%d] %s", self.pid, line)
        self._listener.printed(line)

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._status = self._process.wait()
        self._drain(DRAIN_TURNS)
        self._report_if_over()

    def _drain(self, turns: int) -> None:
        if turns:
            self._loop.call_later(DRAIN_S / DRAIN_TURNS, self._drain, turns - 1)
        else:
            self._report()

    def _report_if_over(self) -> None:
        if self._status is not None and not self._link_open and not self._output_open:
            self._report()

    def _report(self) -> None:
        if self._reported:
            return
        self._reported = True
        self.close_link()
        if self._output is not None:
            self._output.close()  # a grandchild may hold its other end for ever
        assert self._status is not None
        self._listener.exited(explain(self._status, list(self.lines), self.lines_since_mark))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that nobody listens to."""
    process.kill()
    process.wait()


def explain(status: int, lines: Sequence[str], telling: Sequence[str] | None = None) -> ProblemInfo:
    """Why a worker ended that nobody had asked to end: by what the runtime is known to print before it does, looked
    for in `telling` (None: in all `lines`), else by the exit status (negative: a signal). The last lines are in the
    detail."""
    detail: dict[str, object] = {"exit_status": status, "last_lines": list(lines[-20:])}
    known = problem_of(lines if telling is None else telling)
    if known is not None:
        return replace(known, detail={**(known.detail or {}), **detail})
    if status == -signal.SIGKILL:
        message = "The engine's process was killed (SIGKILL)."
        advice = "If nobody did that by hand, the machine ran out of memory: choose a smaller variant or model."
    elif status < 0:
        message = f"The engine's process crashed ({_signal_name(-status)})."
        advice = "It is restarted by itself; if it repeats, `rockfill status` shows its last words."
    else:
        message = f"The engine's process ended by itself (exit status {status})."
        advice = "It is restarted by itself; if it repeats, `rockfill status` shows its last words."
    return ProblemInfo(Code.ENGINE_CRASHED, message, advice, detail)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _worker_environment(environment: Mapping[str, str]) -> dict[str, str]:
    chosen = {
        name: value
        for name, value in environment.items()
        if name in ENVIRONMENT or name.startswith(ENVIRONMENT_PREFIXES)
    }
    return {**chosen, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}


class _Link(asyncio.Protocol):
    def __init__(self, child: Child) -> None:
        self._child = child
        self._decoder = daemon_side()
        self._problem: ProblemInfo | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._problem is not None:
            return
        try:
            for message in self._decoder.feed(data):
                self._child.received(message)
        except Problem as problem:
            self._problem = problem.info
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._child.link_ended(self._problem)


class _Output(asyncio.Protocol):
    """What the worker and its native library print: kept for the explanation, passed on to the journal in measure."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._loop = asyncio.get_running_loop()
        self._rest = b""
        self._second = 0.0
        self._logged = 0
        self._suppressed = 0

    def data_received(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line)
        while len(rest) > LINE_BYTES:
            self._line(rest[:LINE_BYTES])
            rest = rest[LINE_BYTES:]
        self._rest = rest

    def connection_lost(self, exc: Exception | None) -> None:
        if self._rest:
            self._line(self._rest)
        self._child.output_ended()

    def _line(self, line: bytes) -> None:
        text = line[:LINE_BYTES].decode("utf-8", "replace").rstrip("\r")
        self._child.lines.append(text)
        self._child.lines_total += 1
        now = self._loop.time()
        if now - self._second >= 1:
            if self._suppressed:
                self._child.tell(logging.WARNING, f"… {self._suppressed} more lines in that second")
            self._second, self._logged, self._suppressed = now, 0, 0
        if self._logged < JOURNAL_LINES_PER_S:
            self._logged += 1
            self._child.tell(logging.INFO, text)
        else:
            self._suppressed += 1
