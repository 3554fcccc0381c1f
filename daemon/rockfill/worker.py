"""The worker: one engine in a process of its own, driven over the link (``python -m rockfill.worker FD``).

The main thread runs the engine, since a native library blocks there for as long as it likes. A second thread reads
the link, so that an abort and a ping are heard meanwhile. Nothing here may write to standard output: the native
library's lines are there, and the daemon keeps them as the best diagnosis there is.
"""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from rockfill.errors import Code, Problem, ProblemInfo
from rockfill.hardware.cpus import big_cores
from rockfill.hardware.process import allow_many_files, forbid_core_dumps, prefer_as_oom_victim
from rockfill.link import messages
from rockfill.link.codec import encode, worker_side
from rockfill.prompting import Prompter
from rockfill.session import Sampling

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rockfill.session import Session

    # Makes the session for a `Load`; imports its engine only then.
    OpenSession = Callable[[messages.Load], Session]

PR_SET_PDEATHSIG = 1  # linux/prctl.h

# Tokens that come within this time of each other travel in one message. A board gives one every 100 ms, so nobody
# waits for it there; a fast CPU engine saves most of its messages.
COALESCE_S = 0.001

_DEFAULT_SAMPLING = Sampling()


# What the engine's thread does, one after another; an abort is for the other thread.
Order = messages.Load | messages.Tokenize | messages.Detokenize | messages.Render | messages.Generate | messages.Ping


class Channel:
    """The worker's end of the link. `send` and `text` may be called from any thread and never block for long."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._lock = threading.Condition()
        self._unsent = bytearray()
        self._pending: messages.Token | None = None
        self._sent_at_s = 0.0
        threading.Thread(target=self._write_behind, name="link writer", daemon=True).start()

    def send(self, message: messages.ToDaemon) -> None:
        """Send `message` after all text before it."""
        with self._lock:
            self._flush()
            self._write(encode(message))

    def text(self, ticket: int, text: str, tokens: int) -> None:
        """Send text of a run, at once or together with what comes within a millisecond."""
        with self._lock:
            pending = self._pending
            if pending is not None:
                self._pending = messages.Token(ticket, pending.text + text, pending.tokens + tokens)
            else:
                self._pending = messages.Token(ticket, text, tokens)
                if time.monotonic() - self._sent_at_s >= COALESCE_S:
                    self._flush()
                else:
                    self._lock.notify()

    def _flush(self) -> None:
        if self._pending is not None:
            self._write(encode(self._pending))
            self._pending = None
            self._sent_at_s = time.monotonic()

    def _write(self, line: bytes) -> None:
        """Write what the socket takes now; the rest is left to the writing thread, so that the engine never waits."""
        if not self._unsent:
            try:
                line = line[self._link.send(line, socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                pass
            except OSError:
                return  # the daemon has gone; the reading thread sees that too and ends us
        if line:
            self._unsent += line
            self._lock.notify()

    def _write_behind(self) -> None:
        while True:
            with self._lock:
                while not self._unsent and self._pending is None:
                    self._lock.wait()
                if not self._unsent:
                    self._lock.wait(COALESCE_S)
                    self._flush()
                rest = bytes(self._unsent)
            try:
                self._link.sendall(rest)
            except OSError:
                return
            with self._lock:
                del self._unsent[: len(rest)]  # only now: until then nobody else may write


class Worker:
    """Takes messages one at a time and has its session carry them out."""

    def __init__(self, link: socket.socket, engines: Mapping[str, OpenSession]) -> None:
        self._link = link
        self._engines = engines
        self._channel = Channel(link)
        self._inbox: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._aborted: set[int] = set()
        self._session: Session | None = None
        self._prompter: Prompter | None = None
        self._last_ids: list[int] = []

    def run(self) -> None:
        """Serve the link until it ends, which ends the process."""
        threading.Thread(target=self._listen, name="link reader", daemon=True).start()
        self._channel.send(messages.Hello(messages.LINK_VERSION, os.getpid()))
        while True:
            message = self._inbox.get()
            ticket = None if isinstance(message, messages.Load) else message.id
            try:
                self._carry_out(message)
            except Problem as problem:
                self._channel.send(messages.Failed.of(ticket, problem.info))
            except Exception:  # the edge of the process: the daemon must hear of it, its journal gets the rest
                traceback.print_exc()
                self._channel.send(messages.Failed.of(ticket, _defect()))

    def _carry_out(self, message: Order) -> None:
        match message:
            case messages.Load():
                self._load(message)
            case messages.Tokenize(ticket, text):
                self._channel.send(messages.Tokenized(ticket, tuple(self._ready_prompter().tokenize(text))))
            case messages.Detokenize(ticket, token_ids):
                self._channel.send(messages.Detokenized(ticket, self._ready_prompter().text_of(token_ids)))
            case messages.Render(ticket):
                self._channel.send(messages.Rendered(ticket, self._ready_prompter().shown(message)))
            case messages.Generate():
                self._generate(message)
            case messages.Ping(ticket):
                self._channel.send(messages.Pong(ticket))

    def _load(self, load: messages.Load) -> None:
        opener = self._engines.get(load.engine)
        if opener is None:
            raise Problem(Code.ENGINE_NOT_INSTALLED, f'There is no engine "{load.engine}" in this Rockfill.')
        self._session = opener(load)
        self._prompter = Prompter(self._session, load.family, load.fim_order)
        self._channel.send(messages.Loaded(self._session.facts, self._prompter.order))

    def _ready_prompter(self) -> Prompter:
        if self._prompter is None:
            raise Problem(Code.ENGINE_FAILED, "No model is loaded in this worker.")
        return self._prompter

    def _generate(self, request: messages.Generate) -> None:
        prompter, session = self._ready_prompter(), self._session
        assert session is not None
        ticket = request.id
        ids, max_tokens, trimmed = prompter.prompt(request)
        ignored = _ignored(request.sampling, session.facts.honours)
        shared = _shared(self._last_ids, ids) if session.facts.reuses_prefix else 0
        self._last_ids = ids
        self._channel.send(messages.Accepted(ticket, len(ids), trimmed, ignored, shared))
        run = session.generate(
            ids,
            request.sampling,
            max_tokens,
            prompter.stop_ids,
            lambda text, tokens: self._channel.text(ticket, text, tokens),
            lambda: ticket in self._aborted,
        )
        self._channel.send(messages.Done(ticket, run))

    def _listen(self) -> None:
        """The reading thread: hears aborts and pings while the engine runs, and ends the process with the link."""
        decoder = worker_side()
        while True:
            try:
                data = self._link.recv(1 << 18)
                for message in decoder.feed(data):
                    self._hear(message)
            except (OSError, Problem) as error:
                sys.stderr.write(f"rockfill worker: {error}\n")
                os._exit(1)
            if not data:
                # The daemon has gone or wants us gone; a native library may be in the middle of anything.
                os._exit(0)

    def _hear(self, message: messages.ToWorker) -> None:
        match message:
            case messages.Abort(ticket):
                self._aborted = {ticket}  # runs come one after another: an older one needs no remembering
                if self._session is not None:
                    self._session.abort()
            case _:
                self._inbox.put(message)


def _shared(one: list[int], other: list[int]) -> int:
    """How many tokens both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (left, right) in pairs if left != right), min(len(one), len(other)))


def _ignored(sampling: Sampling, honours: tuple[str, ...]) -> tuple[str, ...]:
    """The fields of `sampling` that were set and that the engine can't set per request."""
    return tuple(
        name
        for name in ("temperature", "top_p", "top_k", "seed")
        if name not in honours and getattr(sampling, name) != getattr(_DEFAULT_SAMPLING, name)
    )


def _defect() -> ProblemInfo:
    return ProblemInfo(
        Code.ENGINE_FAILED, "Something went wrong inside the engine's process.", "The journal has the details."
    )


def _open_llama(load: messages.Load) -> Session:
    from rockfill.llama.session import LlamaSession

    return LlamaSession(load.path, load.threads)


def _open_rkllm(load: messages.Load) -> Session:
    from rockfill.rkllm.session import RkllmOptions, RkllmSession

    assert load.library is not None, "the daemon chooses the runtime"
    allow_many_files()
    cpu_mask = sum(1 << core for core in big_cores())
    options = RkllmOptions(load.context_tokens, load.base_domain_id, load.embed_flash, cpu_mask)
    return RkllmSession(Path(load.path), Path(load.library), options)


ENGINES: Mapping[str, OpenSession] = {"llama": _open_llama, "rkllm": _open_rkllm}


def main(argv: Sequence[str], engines: Mapping[str, OpenSession] = ENGINES) -> None:
    """Be a worker on the file descriptor that ``argv[1]`` names. Does not return."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the daemon died before the call: nobody will ever send us that signal
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal is the daemon's to handle
    forbid_core_dumps()
    prefer_as_oom_victim()
    Worker(socket.socket(fileno=int(argv[1])), engines).run()


if __name__ == "__main__":
    main(sys.argv)
