"""Commands on the engine and its models."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

from rockfill.access.tokens import Scope
from rockfill.api.commands.table import Json, NoParameters, command
from rockfill.bus import Event, Topic
from rockfill.decode import Range

if TYPE_CHECKING:
    from rockfill.bus import Bus
    from rockfill.completion.service import CompletionService
    from rockfill.downloads.models import ModelLibrary
    from rockfill.engine.history import History
    from rockfill.engine.supervisor import Supervisor
    from rockfill.snapshots import Target
    from rockfill.store.models import ModelStore

# A wish may have to wait for a worker to be started, and that for an earlier one to end (`engine/leftover`).
TAKEN_UP_S = 6.0


@dataclass(frozen=True, slots=True)
class LoadParameters:
    """`model` is a name as `models.list` gives it; "" loads the chosen one."""

    model: str = ""


def state_value(supervisor: Supervisor, completions: CompletionService, models: ModelStore) -> Json:
    """All that there is to say of the engine: what `engine.get` answers, and what the bus carries on every change."""
    snapshot = supervisor.snapshot
    facts = snapshot.facts
    fallback = models.instead_of
    return {
        "state": snapshot.phase.value,
        "model": model_value(snapshot.target) if snapshot.target else None,
        "instead_of": {"model": model_value(fallback.target), "problem": fallback.problem.value()}
        if fallback
        else None,
        "problem": snapshot.problem.value() if snapshot.problem else None,
        "runtime": facts.runtime if facts else None,
        "runtime_facts": asdict(supervisor.runtime_facts) if supervisor.runtime_facts else None,
        "context_tokens": facts.context_tokens if facts else None,
        "memory_bytes": supervisor.memory_bytes,
        "honours": list(facts.honours) if facts else None,  # of the sampling that a request may ask for
        "fim_order": snapshot.fim_order,
        "tokens_per_second": supervisor.tokens_per_second,
        "queue_depth": completions.queue_depth,
        "worker_pid": snapshot.worker_pid,
        "pinned": snapshot.pinned,
        "paused": completions.paused,
        **_retry_value(snapshot.next_retry_at_s),
    }


def changed(supervisor: Supervisor, completions: CompletionService, models: ModelStore) -> Event:
    """The event that goes with a change of that value."""
    return Event(Topic.ENGINE, "engine.changed", state_value(supervisor, completions, models))


async def _taken_up(supervisor: Supervisor) -> None:
    """Wait until what was wished is the engine's state, for whoever asks next; not for a supervisor that is stuck."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TAKEN_UP_S):
            await supervisor.heartbeat()


def _retry_value(at_s: float | None) -> Json:
    """`next_retry_at` is Unix time."""
    if at_s is None:
        return {"next_retry_in_s": None, "next_retry_at": None}
    in_s = max(0.0, at_s - asyncio.get_running_loop().time())
    return {"next_retry_in_s": round(in_s, 1), "next_retry_at": round(time.time() + in_s)}


@command("engine.get", scope=Scope.READ)
async def get(_: NoParameters, supervisor: Supervisor, completions: CompletionService, models: ModelStore) -> Json:
    """The engine's state and its reason, the model, what it runs on, and what that runs instead of."""
    return state_value(supervisor, completions, models)


@command("engine.load", scope=Scope.CONTROL, parameters=LoadParameters, long=True)
async def load(
    parameters: LoadParameters,
    supervisor: Supervisor,
    completions: CompletionService,
    models: ModelStore,
    library: ModelLibrary,
    bus: Bus,
) -> Json:
    """Load a model, remember it as the chosen one, and answer once it is ready."""
    target = models.find(parameters.model)
    if parameters.model:  # "" is whatever runs, which may stand in for what was chosen

        def chosen() -> None:
            models.choose(target)
            bus.publish(changed(supervisor, completions, models))

        await library.choose(target, chosen)
    await supervisor.ensure_ready(target)
    return {"model": model_value(target)}


@command("engine.unload", scope=Scope.CONTROL)
async def unload(_: NoParameters, supervisor: Supervisor) -> Json:
    """Unload the model; the next request loads it again."""
    supervisor.unload()
    await _taken_up(supervisor)
    return {}


@command("engine.restart", scope=Scope.CONTROL)
async def restart(_: NoParameters, supervisor: Supervisor) -> Json:
    """Start the worker anew, also when it has been given up."""
    supervisor.restart()
    await _taken_up(supervisor)
    return {}


@command("engine.pin", scope=Scope.CONTROL)
async def pin(_: NoParameters, supervisor: Supervisor) -> Json:
    """Keep the model loaded: neither idleness nor a request for another one unloads it."""
    supervisor.pin(pinned=True)
    await _taken_up(supervisor)
    return {}


@command("engine.unpin", scope=Scope.CONTROL)
async def unpin(_: NoParameters, supervisor: Supervisor) -> Json:
    """Let the model be unloaded again."""
    supervisor.pin(pinned=False)
    await _taken_up(supervisor)
    return {}


@command("engine.pause", scope=Scope.CONTROL)
async def pause(
    _: NoParameters, supervisor: Supervisor, completions: CompletionService, models: ModelStore, bus: Bus
) -> Json:
    """Refuse completions and unload the model, so that the machine is free for something else."""
    completions.pause()
    bus.publish(changed(supervisor, completions, models))
    supervisor.unload()
    await _taken_up(supervisor)
    return {}


@command("engine.resume", scope=Scope.CONTROL, long=True)
async def resume(
    _: NoParameters, supervisor: Supervisor, completions: CompletionService, models: ModelStore, bus: Bus
) -> Json:
    """Accept completions again, and load the chosen model."""
    completions.resume()
    bus.publish(changed(supervisor, completions, models))
    await supervisor.ensure_ready(models.find(""))
    return {}


@dataclass(frozen=True, slots=True)
class LogsParameters:
    """`lines` is at most how many of the last ones are wanted."""

    lines: Annotated[int, Range(1, 200)] = 50


@command("engine.logs", scope=Scope.CONTROL, parameters=LogsParameters)
async def logs(parameters: LogsParameters, supervisor: Supervisor) -> Json:
    """What the worker and its native library printed last, earlier workers included, and how many lines in all."""
    lines, total = supervisor.printed
    return {"lines": list(lines[-parameters.lines :]), "total": total}


@command("engine.history", scope=Scope.READ)
async def history(_: NoParameters, events: History) -> Json:
    """The last lifecycle events, oldest first."""
    return {"events": [asdict(event) for event in events.events]}


def model_value(target: Target) -> Json:
    return {
        "name": target.name,
        "engine": target.engine,
        "family": target.family,
        "demonstration": target.demonstration,
    }
