"""Commands on the engine and its models."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rockfill.access.tokens import Scope
from rockfill.api.commands.table import Json, NoParameters, command
from rockfill.state import Choices

if TYPE_CHECKING:
    from rockfill.completion.service import CompletionService
    from rockfill.engine.supervisor import Supervisor
    from rockfill.errors import ProblemInfo
    from rockfill.snapshots import Target
    from rockfill.state import StateDir
    from rockfill.store.models import ModelStore


@dataclass(frozen=True, slots=True)
class LoadParameters:
    """`model` is a name as `models.list` gives it; "" loads the chosen one."""

    model: str = ""


@command("engine.get", scope=Scope.READ)
async def get(_: NoParameters, supervisor: Supervisor, completions: CompletionService, models: ModelStore) -> Json:
    """The engine's state and its reason, the model, what it runs on, and what that runs instead of."""
    snapshot = supervisor.snapshot
    facts = snapshot.facts
    fallback = models.instead_of
    return {
        "state": snapshot.phase.value,
        "model": model_value(snapshot.target) if snapshot.target else None,
        "instead_of": {
            "model": model_value(fallback.target),
            "problem": _problem_value(fallback.problem),
        }
        if fallback
        else None,
        "problem": _problem_value(snapshot.problem) if snapshot.problem else None,
        "runtime": facts.runtime if facts else None,
        "context_tokens": facts.context_tokens if facts else None,
        "fim_order": snapshot.fim_order,
        "tokens_per_second": supervisor.tokens_per_second,
        "queue_depth": completions.queue_depth,
        "worker_pid": snapshot.worker_pid,
    }


@command("engine.load", scope=Scope.CONTROL, parameters=LoadParameters)
async def load(parameters: LoadParameters, supervisor: Supervisor, models: ModelStore, state: StateDir) -> Json:
    """Load a model, remember it as the chosen one, and answer once it is ready."""
    target = models.find(parameters.model)
    models.choose(target)
    await asyncio.to_thread(state.choose, Choices(model=target.name))
    await supervisor.ensure_ready(target)
    return {"model": model_value(target)}


@command("engine.unload", scope=Scope.CONTROL)
async def unload(_: NoParameters, supervisor: Supervisor) -> Json:
    """Unload the model; the next request loads it again."""
    supervisor.unload()
    return {}


@command("engine.restart", scope=Scope.CONTROL)
async def restart(_: NoParameters, supervisor: Supervisor) -> Json:
    """Start the worker anew, also when it has been given up."""
    supervisor.restart()
    return {}


@command("models.list", scope=Scope.READ)
async def list_models(_: NoParameters, models: ModelStore) -> Json:
    """The models on this machine."""
    chosen = models.chosen
    return {"models": [{**model_value(target), "chosen": target == chosen} for target in models.targets]}


def model_value(target: Target) -> Json:
    return {
        "name": target.name,
        "engine": target.engine,
        "family": target.family,
        "demonstration": target.demonstration,
    }


def _problem_value(info: ProblemInfo) -> dict[str, Any]:
    return {"code": info.code.value, "message": info.message, "advice": info.advice, "detail": info.detail or {}}
