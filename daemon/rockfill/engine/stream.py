"""Text as it comes, for any number of readers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rockfill.errors import ProblemInfo


class TextStream:
    """Pieces of text, kept whole: a reader that comes late gets it from the start."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.closed = False
        self.problem: ProblemInfo | None = None
        self._readers: list[Reader] = []

    def push(self, text: str) -> None:
        """More text."""
        self.pieces.append(text)
        for reader in self._readers:
            reader.wake()

    def close(self, problem: ProblemInfo | None) -> None:
        """No more text will come, because of `problem` or because that was all."""
        if self.closed:
            return
        self.closed, self.problem = True, problem
        for reader in self._readers:
            reader.wake()

    def reader(self) -> Reader:
        """A new reader, from the first piece on."""
        reader = Reader(self)
        self._readers.append(reader)
        return reader

    def forget(self, reader: Reader) -> None:
        """`reader` reads no more."""
        if reader in self._readers:
            self._readers.remove(reader)


class Reader:
    """Iterate over it once: what has arrived meanwhile comes in one piece, and its problem is raised at the end."""

    def __init__(self, stream: TextStream) -> None:
        self._stream = stream
        self._read = 0
        self._wakeup: asyncio.Future[None] | None = None
        self._interrupted: ProblemInfo | None = None

    def interrupt(self, problem: ProblemInfo) -> None:
        """End this reader, and no other, with `problem`."""
        self._interrupted = problem
        self.wake()

    def wake(self) -> None:
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)

    async def __aiter__(self) -> AsyncIterator[str]:
        stream = self._stream
        try:
            while True:
                if self._interrupted is not None:
                    raise self._interrupted.raised()
                fresh = stream.pieces[self._read :]
                if fresh:
                    self._read += len(fresh)
                    yield fresh[0] if len(fresh) == 1 else "".join(fresh)
                elif not stream.closed:
                    self._wakeup = asyncio.get_running_loop().create_future()
                    await self._wakeup
                elif stream.problem is not None:
                    raise stream.problem.raised()
                else:
                    return
        finally:
            stream.forget(self)
