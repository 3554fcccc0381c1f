"""What can happen to the engine, and what the lifecycle asks for in turn.

Events of a child carry its `epoch`, the count of children started so far. `ticket` names a caller's wish.
"""

from __future__ import annotations

from dataclasses import dataclass

from rockfill.errors import ProblemInfo
from rockfill.snapshots import Target

# ---- events


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds; their reasons stand in the example configuration. `idle_unload_s` 0 means never."""

    hello_s: float
    load_s: float
    accepted_s: float
    first_token_s: float
    token_gap_s: float
    abort_s: float
    stop_s: float
    ping_s: float
    pong_s: float
    idle_unload_s: float


@dataclass(frozen=True, slots=True)
class EnsureReady:
    """A caller wants `target` loaded, and asks in person: a permanent failure is tried again."""

    ticket: int
    target: Target


@dataclass(frozen=True, slots=True)
class Submit:
    """A request to run on `target`. `fingerprint` tells equal requests, "" none."""

    ticket: int
    target: Target
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Whoever holds `ticket` does not want it any more."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Unload:
    pass


@dataclass(frozen=True, slots=True)
class Restart:
    pass


@dataclass(frozen=True, slots=True)
class Close:
    pass


@dataclass(frozen=True, slots=True)
class HelloCame:
    epoch: int


@dataclass(frozen=True, slots=True)
class LoadDone:
    epoch: int


@dataclass(frozen=True, slots=True)
class LoadFailed:
    epoch: int
    problem: ProblemInfo


@dataclass(frozen=True, slots=True)
class AcceptedCame:
    """The run begins. `prefill_tokens_per_second` is the slowest that was measured lately, None if nothing was."""

    epoch: int
    ticket: int
    prompt_tokens: int = 0
    prefill_tokens_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class FirstToken:
    epoch: int
    ticket: int


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The run is over. `well` if the engine came to its end, and not because somebody had enough.

    With a problem it failed: in a way that leaves the worker usable, unless its code says otherwise.
    """

    epoch: int
    ticket: int
    problem: ProblemInfo | None = None
    well: bool = True


@dataclass(frozen=True, slots=True)
class PongCame:
    epoch: int


@dataclass(frozen=True, slots=True)
class Recycle:
    """The idle worker has grown too large: begin anew with a fresh one."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Pin:
    """Whether the model is to stay loaded however long it is idle."""

    pinned: bool


@dataclass(frozen=True, slots=True)
class Reconfigure:
    """Deadlines from now on; what runs already keeps its own."""

    timeouts: Timeouts


@dataclass(frozen=True, slots=True)
class LinkLost:
    """The link ended (`problem` is None, the exit will explain it) or carried nonsense."""

    epoch: int
    problem: ProblemInfo | None


@dataclass(frozen=True, slots=True)
class Exited:
    """The child is gone; `problem` explains it by its exit status and last words."""

    epoch: int
    problem: ProblemInfo


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    serial: int


Event = (
    EnsureReady
    | Submit
    | Cancel
    | Unload
    | Restart
    | Close
    | HelloCame
    | LoadDone
    | LoadFailed
    | AcceptedCame
    | FirstToken
    | RunEnded
    | PongCame
    | Recycle
    | Pin
    | Reconfigure
    | LinkLost
    | Exited
    | DeadlinePassed
)

# ---- effects


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a child; its events carry `epoch`. A spawn that fails is reported as `Exited`."""

    epoch: int


@dataclass(frozen=True, slots=True)
class SendLoad:
    target: Target


@dataclass(frozen=True, slots=True)
class SendGenerate:
    ticket: int


@dataclass(frozen=True, slots=True)
class SendAbort:
    ticket: int


@dataclass(frozen=True, slots=True)
class SendPing:
    pass


@dataclass(frozen=True, slots=True)
class Terminate:
    """Ask the child to go: close its link, SIGTERM its process group."""


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL its process group."""


@dataclass(frozen=True, slots=True)
class Settle:
    """Answer a waiter: ready, or the problem."""

    ticket: int
    problem: ProblemInfo | None


@dataclass(frozen=True, slots=True)
class EndRun:
    """End a job that never reached its own end."""

    ticket: int
    problem: ProblemInfo


Effect = Spawn | SendLoad | SendGenerate | SendAbort | SendPing | Terminate | Kill | Settle | EndRun
