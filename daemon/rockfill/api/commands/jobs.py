"""Commands that take longer than whoever asked for them waits: they go on by themselves, and tell when asked."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rockfill.api.commands.table import Caller, Command, Json, NoParameters, command
from rockfill.api.errors import info_of
from rockfill.api.gate import forbidden
from rockfill.bus import Event, Topic
from rockfill.errors import Code, Problem, ProblemInfo

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from rockfill.bus import Bus

# Of those that are over, so many are remembered; of those that run, so many may.
KEPT_JOBS = 64
MOST_JOBS = 16


@dataclass(slots=True)
class Job:
    """A command under way, or what came of it."""

    id: str
    command: Command
    task: asyncio.Task[None] | None = None
    result: Json | None = None
    problem: ProblemInfo | None = None

    @property
    def value(self) -> Json:
        state = "failed" if self.problem is not None else "running" if self.result is None else "done"
        return {
            "job": self.id,
            "command": self.command.type,
            "state": state,
            "result": self.result,
            "problem": self.problem.value() if self.problem is not None else None,
        }


class Jobs:
    """Runs them, and remembers the last ones."""

    def __init__(self, bus: Bus) -> None:
        """`bus` hears of every end, as ``job.done {job, command}`` or ``job.failed {job, command, problem}``."""
        self._bus = bus
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._serial = 0

    @property
    def all(self) -> tuple[Job, ...]:
        return tuple(self._jobs.values())

    def start(self, entry: Command, run: Coroutine[Any, Any, Json]) -> Job:
        """Run it to its end, whoever goes away. Raises `too_many_requests`."""
        if sum(job.task is not None for job in self._jobs.values()) >= MOST_JOBS:
            run.close()
            raise Problem(Code.TOO_MANY_REQUESTS, f"{MOST_JOBS} jobs are running already.", "Wait until one is over.")
        self._serial += 1
        job = self._jobs[str(self._serial)] = Job(str(self._serial), entry)
        job.task = asyncio.create_task(self._run(job, run), name=f"job {job.id}: {entry.type}")
        over = [job for job in self._jobs.values() if job.task is None]
        for forgotten in over[: max(0, len(over) - KEPT_JOBS)]:
            del self._jobs[forgotten.id]
        return job

    def find(self, id_: str) -> Job:
        """The job called `id_`, or `not_found`."""
        job = self._jobs.get(id_)
        if job is None:
            raise Problem(Code.NOT_FOUND, f'There is no job "{id_[:100]}".', "They are forgotten after a while.")
        return job

    async def close(self) -> None:
        """End those that run."""
        running = [job.task for job in self._jobs.values() if job.task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _run(self, job: Job, run: Coroutine[Any, Any, Json]) -> None:
        told: Json = {"job": job.id, "command": job.command.type}
        try:
            job.result = await run
        except Exception as error:  # nobody waits for it: its end is told as whoever asks would have been told
            job.problem = info_of(error)
            self._bus.publish(Event(Topic.EVENTS, "job.failed", {**told, "problem": job.problem.value()}))
        else:
            self._bus.publish(Event(Topic.EVENTS, "job.done", told))
        finally:
            job.task = None


async def wait_for(job: Job, seconds: float) -> None:
    """Return once `job` is over, or the time is up."""
    if job.task is not None and seconds > 0:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.shield(job.task)


@dataclass(frozen=True, slots=True)
class GetParameters:
    """`job` is the id that the answer 202 gave."""

    job: str


@command("jobs.get", scope=None, parameters=GetParameters)
async def get(parameters: GetParameters, jobs: Jobs, caller: Caller) -> Json:
    """What became of a job: its `command`, `state` (running, done, failed), `result` or `problem`.

    It needs the scope of the command.
    """
    job = jobs.find(parameters.job)
    if job.command.scope is not None and job.command.scope not in caller.scopes:
        raise forbidden(job.command.scope)
    return job.value


@command("jobs.list", scope=None)
async def list_jobs(_: NoParameters, jobs: Jobs, caller: Caller) -> Json:
    """The jobs that run, and the last that are over, of commands that the caller may run: `jobs`, oldest first."""
    visible = [job for job in jobs.all if job.command.scope is None or job.command.scope in caller.scopes]
    return {"jobs": [job.value for job in visible]}
