"""The results of `rockfill eval`, which asks its questions from outside and has the answers' score kept here."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from pathlib import PurePath
from typing import TYPE_CHECKING

from rockfill import __version__
from rockfill.access.tokens import Scope
from rockfill.api.commands.table import Json, NoParameters, command
from rockfill.errors import Code, Problem
from rockfill.evaluation.results import Result
from rockfill.evaluation.scores import Evaluation
from rockfill.store.models import manifest_of

if TYPE_CHECKING:
    from rockfill.engine.supervisor import Supervisor
    from rockfill.evaluation.results import Results
    from rockfill.snapshots import Target
    from rockfill.state import StateDir


@command("evaluations.keep", scope=Scope.CONTROL, parameters=Evaluation)
async def keep(parameters: Evaluation, supervisor: Supervisor, evaluations: Results, state: StateDir) -> Json:
    """Keep the score of the loaded model, in place of an earlier one for the same questions. Returns it as kept."""
    snapshot = supervisor.snapshot
    if snapshot.target is None or snapshot.facts is None:
        raise Problem(Code.ENGINE_STOPPED, "No model is loaded that this could be the score of.", "Load it again.")
    target = snapshot.target
    result = Result(
        model=target.name,
        file=PurePath(target.path).name,
        repository=await asyncio.to_thread(repository_of, target),
        engine=target.engine,
        runtime=snapshot.facts.runtime,
        rockfill=__version__,
        when_s=int(time.time()),
        evaluation=parameters,
    )
    evaluations.add(result)
    await asyncio.to_thread(state.keep_evaluations, lambda: evaluations.values)
    return asdict(result)


@command("evaluations.list", scope=Scope.READ)
async def list_results(_: NoParameters, evaluations: Results) -> Json:
    """The scores that were kept, oldest first.

    Result: `{evaluations: [{model, file, repository, engine, runtime, rockfill, when_s, evaluation: {questions, sha256,
    seed, limit, scores: [{name, count, passed, exact, similarity, loops, median_s}]}}]}`. The shares are 0 to 1;
    `passed` is null where no programs were run. Scores compare only where `sha256`, `seed` and `limit` are equal.
    """
    return {"evaluations": evaluations.values}


def repository_of(target: Target) -> str | None:
    """Where on the Hub the model is from."""
    manifest = manifest_of(target)
    return manifest.source.repository if manifest is not None and manifest.source is not None else None
