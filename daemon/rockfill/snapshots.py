"""The values that services publish about themselves: frozen, whole, and replaced on every change."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rockfill.errors import ProblemInfo
from rockfill.session import ModelFacts


class Phase(StrEnum):
    """The states of the engine's lifecycle."""

    STOPPED = "stopped"
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    BUSY = "busy"
    STOPPING = "stopping"
    FAILED = "failed"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Target:
    """A model to run, resolved to what the worker needs. Two equal targets are the same model."""

    name: str
    engine: str
    path: str
    family: str | None
    demonstration: bool = False
    aliases: tuple[str, ...] = ()
    size_bytes: int = 0
    quantisation: str = ""


@dataclass(frozen=True, slots=True)
class EngineSnapshot:
    """What the engine is doing and why.

    `problem` is what went wrong last, kept while it explains the state. `facts` and `fim_order` are there while a
    model is loaded. `next_retry_at_s` is on the monotonic clock.
    """

    phase: Phase
    target: Target | None = None
    facts: ModelFacts | None = None
    fim_order: str | None = None
    problem: ProblemInfo | None = None
    next_retry_at_s: float | None = None
    worker_pid: int | None = None
    pinned: bool = False
