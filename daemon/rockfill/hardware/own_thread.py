"""Calls that may never return, each with a limit: a read of a kernel file, or a write to one, can hang for ever."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# Nothing can end a thread that sits in the kernel. Beyond so many, no further one is tried.
MOST_LEFT_BEHIND = 16

# A limit noticed so much too late says little of what it is for: the event loop stood still, or the whole machine.
LATE_S = 0.2


class OwnThread:
    """Runs functions one after another in a thread of its own, which sleeps between them without ever waking up.

    A thread whose function does not return in time is left behind, and the next call gets a new one. Neither the event
    loop nor the end of the process waits for any of them.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: _Thread | None = None
        self._left_behind: list[_Thread] = []
        self._turn = asyncio.Lock()

    async def call(self, function: Callable[[], T], timeout_s: float) -> T:
        """What `function` returns or raises; TimeoutError if it does neither in time, once it is its turn."""
        async with self._turn:
            return await self._call(function, timeout_s)

    async def _call(self, function: Callable[[], T], timeout_s: float) -> T:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def run() -> None:
            try:
                result = function()
            except Exception as error:  # it is not swallowed: the caller gets it
                settle(answer.set_exception, error)
            else:
                settle(answer.set_result, result)

        def settle(how: Callable[[Any], None], value: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process is ending
                loop.call_soon_threadsafe(lambda: None if answer.done() else how(value))

        due_s = loop.time() + timeout_s
        self._running().calls.put(run)
        try:
            await asyncio.wait([answer], timeout=timeout_s)
            late_s = loop.time() - due_s
            if late_s > LATE_S and not answer.done():
                await asyncio.wait([answer], timeout=late_s)
            if answer.done():
                return answer.result()
            self._leave_behind()
            raise TimeoutError
        finally:
            answer.cancel()  # nobody waits for it any more

    def close(self) -> None:
        """Let the thread end. A later call would start another."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.calls.put(None)

    def _running(self) -> _Thread:
        if self._thread is None:
            self._left_behind = [thread for thread in self._left_behind if thread.is_alive()]
            if len(self._left_behind) >= MOST_LEFT_BEHIND:
                raise TimeoutError(f"{MOST_LEFT_BEHIND} threads hang already")
            self._thread = _Thread(self._name)
            self._thread.start()
        return self._thread

    def _leave_behind(self) -> None:
        if self._thread is not None:
            self._left_behind.append(self._thread)
        self.close()


class _Thread(threading.Thread):
    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def run(self) -> None:
        while (call := self.calls.get()) is not None:
            call()
