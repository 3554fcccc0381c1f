"""Runs a program that a model has written, where it can do no harm.

bubblewrap gives it namespaces of its own: no network, no other processes, and of the file system just Python with its
libraries, read-only, and an empty /tmp in memory. No home, no /etc, and no /run, whose sockets a network namespace does
not keep anybody from. Limits on memory, time, files and their size do the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import sys
from dataclasses import dataclass

from rockfill.errors import Code, Problem

# Enough for anything that a task of HumanEval computes.
MEMORY_BYTES = 512 << 20
FILE_BYTES = 16 << 20
TIMEOUT_S = 10.0

# All that a program sees of the machine; a virtual environment's own Python is somewhere else than /usr.
_SEEN = dict.fromkeys(("/usr", "/bin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", sys.base_prefix))

# The program may end itself early in many ways that look like success; only one that came to its end knows the word.
_RUNNER = """
import os, resource, sys
memory, size, seconds = map(int, sys.argv[1:4])
word = sys.argv[4]
del sys.argv[1:]
for limit, most in (
    (resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, size), (resource.RLIMIT_CPU, seconds),
    (resource.RLIMIT_NOFILE, 64), (resource.RLIMIT_CORE, 0),
):
    resource.setrlimit(limit, (most, most))
source = sys.stdin.read()
answer = os.dup(1)
null = os.open(os.devnull, os.O_RDWR)
for fd in (0, 1, 2):
    os.dup2(null, fd)
exec(compile(source, "program.py", "exec"), {"__name__": "__main__"})
os.write(answer, word.encode())
os._exit(0)
"""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Where programs run: the paths of bubblewrap and of a Python that is not below /tmp."""

    bwrap: str
    interpreter: str

    @classmethod
    def find(cls) -> Sandbox:
        """The sandbox of this machine. Raises `sandbox_missing` where it has none."""
        found = shutil.which("bwrap")
        if found is None:
            raise _missing("bubblewrap is not installed", "Install it: `sudo apt install bubblewrap`.")
        # resolved: a virtual environment may well be below /tmp, what it was made from is not
        return cls(found, os.path.realpath(sys.executable))

    async def check(self) -> None:
        """See it work; raises `sandbox_missing` if it does not."""
        if not await self.passes("pass"):
            raise _missing(
                "bubblewrap does not work here",
                "See what `bwrap --ro-bind / / --unshare-all true` says; user namespaces may be switched off.",
            )

    async def passes(self, program: str, *, timeout_s: float = TIMEOUT_S) -> bool:
        """Whether `program` comes to its end: without an exception, an exit of its own, or more than it may use."""
        word = secrets.token_hex(16)
        limits = (str(MEMORY_BYTES), str(FILE_BYTES), str(int(timeout_s) + 1), word)
        process = await asyncio.create_subprocess_exec(
            self.bwrap,
            *(word for path in _SEEN for word in ("--ro-bind-try", path, path)),
            *("--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"),  # noqa: S108
            *("--unshare-all", "--die-with-parent", "--new-session", "--clearenv", "--chdir", "/tmp"),  # noqa: S108
            *(self.interpreter, "-I", "-S", "-B", "-c", _RUNNER, *limits),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(timeout_s):
                said, _ = await process.communicate(program.encode("utf-8", "replace"))
        except TimeoutError:
            return False
        finally:
            if process.returncode is None:
                # bwrap's end is that of everything in its process namespace
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.communicate()
        return said == word.encode()


def _missing(what: str, advice: str) -> Problem:
    return Problem(Code.SANDBOX_MISSING, f"Programs that a model writes are run only in a sandbox, and {what}.", advice)
