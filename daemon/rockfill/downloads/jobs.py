"""The queue of downloads: one at a time, resumed after whatever ended the last run, and told to everybody.

A job's plan lies beside what has come of it, so that a daemon that starts again goes on where it was killed. A job that
was cancelled keeps what has come, and waits for somebody to ask for it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import deque
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from rockfill.bus import Event, Topic
from rockfill.decode import DecodeError, decode
from rockfill.downloads.plan import Plan
from rockfill.errors import Code, Problem, ProblemInfo
from rockfill.hub.transfer import Content
from rockfill.store.shelf import as_value
from rockfill.unbroken import to_the_end

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from rockfill.bus import Bus
    from rockfill.hub.transfer import Transfer
    from rockfill.store.shelf import Shelf

log = logging.getLogger(__name__)

State = Literal["queued", "fetching", "done", "failed", "cancelled"]

PUBLISH_S = 0.5
RATE_WINDOW_S = 5.0

# What may mend itself: a job that failed of it is tried again by and by, without anybody asking.
PASSING = frozenset({Code.HUB_UNREACHABLE, Code.HUB_RATE_LIMITED, Code.HUB_FAILED})
RETRY_S = 60.0


_AT_REST: Mapping[str, Any] = {"bytes_per_second": None, "seconds_left": None, "problem": None, "retry_in_s": None}


@dataclass(frozen=True, slots=True)
class Job:
    """One download, as it is now. Sizes in bytes; None is what is not known (yet)."""

    id: str
    kind: str
    name: str
    repository: str
    file: str
    state: State
    done_bytes: int
    total_bytes: int | None
    bytes_per_second: float | None = None
    seconds_left: float | None = None
    problem: ProblemInfo | None = None
    retry_in_s: float | None = None

    def value(self) -> dict[str, Any]:
        """As JSON."""
        problem = self.problem.value() if self.problem is not None else None
        return {**asdict(replace(self, problem=None)), "problem": problem}


class _Pace:
    """How fast it goes, from what came in the last seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, now_s: float, done_bytes: int) -> None:
        self._seen.append((now_s, done_bytes))
        while len(self._seen) > 2 and self._seen[1][0] <= now_s - RATE_WINDOW_S:
            self._seen.popleft()

    def bytes_per_second(self) -> float | None:
        if len(self._seen) < 2:
            return None
        (first_s, first), (last_s, last) = self._seen[0], self._seen[-1]
        return (last - first) / (last_s - first_s) if last_s > first_s else None


class Downloads:
    """Fetches plans one after another. `run` must be running for anything to happen."""

    def __init__(
        self,
        shelves: Mapping[str, Shelf],
        transfer: Callable[[str], Transfer],
        bus: Bus,
        *,
        installed: Callable[[Plan], Awaitable[None]] | None = None,
    ) -> None:
        """`shelves` are where things of each kind are put. `transfer(kind)` makes what fetches files of one;
        `installed` is awaited once a plan's files are in their place."""
        self._shelves = shelves
        self._transfer = transfer
        self._bus = bus
        self._installed = installed
        self._plans: dict[str, Plan] = {}
        self._jobs: dict[str, Job] = {}
        self._queue: deque[str] = deque()
        self._changed = asyncio.Event()
        self._current: asyncio.Task[None] | None = None
        self._retries: dict[str, asyncio.TimerHandle] = {}
        self._ended: dict[str, asyncio.Future[None]] = {}
        self._published_at_s = 0.0
        self._changing = asyncio.Lock()  # held while somebody adds or ends a download, which takes several steps
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Every download of this run of the daemon, and those that an earlier one left unfinished."""
        return tuple(self._jobs.values())

    def find(self, job_id: str) -> Job:
        """The download with that id. Raises `not_found`."""
        job = self._jobs.get(job_id)
        if job is None:
            raise Problem(
                Code.NOT_FOUND,
                f'There is no download "{job_id[:100]}".',
                f"There are: {', '.join(self._jobs) or 'none'}.",
            )
        return job

    def plan_of(self, job_id: str) -> Plan:
        return self._plans[job_id]

    @property
    def plans(self) -> tuple[Plan, ...]:
        """Those of `jobs`."""
        return tuple(self._plans.values())

    def unfinished(self, name: str) -> Job | None:
        """The download of the model called `name` that is under way or failed, if there is one."""
        wanted = name.lower().removesuffix(":latest")
        for job in reversed(self.jobs):
            plan = self._plans[job.id]
            names = (job.name, *(plan.manifest.aliases if plan.manifest is not None else ()))
            if job.kind == "model" and job.state != "done" and wanted in names:
                return job
        return None

    async def add(self, plan: Plan) -> Job:
        """Put `plan` into the queue, unless the same is there already. Raises `disk_full` if there is no room."""
        return await to_the_end(self._add(plan))

    async def _add(self, plan: Plan) -> Job:
        async with self._changing:
            shelf = self._shelves[plan.kind]
            job = self._joined(plan)
            if job is None:
                await asyncio.to_thread(_check_room, shelf, plan)
                job = self._joined(plan)  # it may have been tried again by itself meanwhile
            if job is None:
                if self._drop_retry(plan.slug):  # from here on what was kept of it changes
                    self._set(plan.slug, retry_in_s=None)
                await asyncio.to_thread(_keep, shelf, plan)
                job = self._enqueue(plan)
            return job

    def _joined(self, plan: Plan) -> Job | None:
        """The download that is doing what `plan` says already."""
        job = self._jobs.get(plan.slug)
        if job is None or (plan.slug not in self._queue and job.state != "fetching"):
            return None
        self._plans[plan.slug] = replace(self._plans[plan.slug], use=plan.use or self._plans[plan.slug].use)
        return job

    async def cancel(self, job_id: str) -> Job:
        """End a download; what has come stays and is used when it is asked for again."""
        return await to_the_end(self._cancel_alone(job_id))

    async def _cancel_alone(self, job_id: str) -> Job:
        async with self._changing:
            return await self._cancel(job_id)

    async def _cancel(self, job_id: str) -> Job:
        job = self.find(job_id)
        if job.state in ("done", "cancelled"):
            return job
        self._drop_retry(job_id)
        with contextlib.suppress(ValueError):
            self._queue.remove(job_id)
        if job.state == "fetching" and self._current is not None:
            self._current.cancel()
            await asyncio.shield(self._ended[job_id])
            if self._jobs[job_id].state == "done":  # it came first
                return self._jobs[job_id]
        plan = self._plans[job_id]
        try:
            await asyncio.to_thread(self._shelves[plan.kind].keep_plan, plan.slug, _plan_value(plan, paused=True))
        finally:  # also where the disk refuses that: nobody works on it any more
            self._set(job_id, state="cancelled", **_AT_REST)
        return self._jobs[job_id]

    async def forget(self, job_id: str) -> None:
        """Cancel a download and throw away what has come of it."""
        await to_the_end(self._forget(job_id))

    async def _forget(self, job_id: str) -> None:
        async with self._changing:
            await self._cancel(job_id)
            plan = self._plans[job_id]
            if self._jobs[job_id].state != "done":
                await asyncio.to_thread(self._shelves[plan.kind].discard, plan.slug)
            del self._plans[job_id], self._jobs[job_id]
            self._publish()

    async def take_up(self, *, go_on: bool = True) -> None:
        """Go on with what an earlier run did not finish; without `go_on`, only know of it."""
        async with self._changing:
            for kind, shelf in self._shelves.items():
                for slug, value in (await asyncio.to_thread(shelf.plans)).items():
                    if slug not in self._jobs:  # nobody was quicker to ask for it again
                        await self._take_up_one(kind, slug, value, go_on=go_on)
            if self._jobs:
                self._publish()

    async def _take_up_one(self, kind: str, slug: str, value: object, *, go_on: bool) -> None:
        try:
            kept = decode(_Kept, value)
        except DecodeError as error:
            log.warning("what was begun as %s can't be gone on with: %s", slug, error)
            return
        plan = kept.plan
        if plan.kind != kind or plan.slug != slug:
            return
        if go_on and not kept.paused:
            self._enqueue(plan)
            return
        done_bytes = await asyncio.to_thread(self._shelves[kind].part_bytes, slug)
        state: State = "cancelled" if kept.paused else "queued"
        self._plans[slug] = plan
        self._jobs[slug] = replace(_job(plan), state=state, done_bytes=done_bytes)

    async def run(self) -> None:
        """Work the queue off, until cancelled; what is under way is then left as it is, for the next run."""
        try:
            while True:
                while self._queue:
                    await self._work(self._queue.popleft())
                self._idle.set()
                self._changed.clear()
                await self._changed.wait()
        finally:
            for job_id in list(self._retries):
                self._drop_retry(job_id)

    async def idle(self) -> None:
        """Wait until nothing is queued or under way."""
        await self._idle.wait()

    def _enqueue(self, plan: Plan) -> Job:
        self._drop_retry(plan.slug)
        self._plans[plan.slug] = plan
        self._jobs.pop(plan.slug, None)  # it goes to the end
        self._jobs[plan.slug] = _job(plan)
        self._queue.append(plan.slug)
        self._idle.clear()
        self._changed.set()
        self._publish()
        return self._jobs[plan.slug]

    async def _work(self, job_id: str) -> None:
        """Fetch one plan; cancelling it ends that and nothing else."""
        plan = self._plans[job_id]
        self._ended[job_id] = asyncio.get_running_loop().create_future()
        self._set(job_id, state="fetching", problem=None)
        self._current = asyncio.create_task(self._fetch(plan), name=f"fetch {job_id}")
        try:
            await asyncio.wait([self._current])
            if self._current.cancelled():
                return
            error = self._current.exception()
            if error is None:
                self._done(plan)
                self._bus.publish(Event(Topic.EVENTS, "download.finished", self._jobs[job_id].value()))
            elif isinstance(error, Problem):
                self._failed(plan, error.info)
            else:  # a defect of ours: this download ends, the daemon goes on
                log.error("fetching %s", plan.name, exc_info=error)
                self._failed(plan, _defect(error))
        except asyncio.CancelledError:  # the daemon ends
            self._current.cancel()
            await asyncio.wait([self._current])
            raise
        finally:
            self._current = None
            ended = self._ended.pop(job_id)
            if not ended.done():
                ended.set_result(None)

    async def _fetch(self, plan: Plan) -> None:
        shelf = self._shelves[plan.kind]
        directory = await asyncio.to_thread(shelf.staging, plan.slug)
        pace = _Pace()
        done_before = 0
        async with self._transfer(plan.kind) as transfer:
            for file in plan.files:
                here = await asyncio.to_thread(_size_bytes, directory / file.name)
                if here is None or here != (file.size_bytes if file.size_bytes is not None else here):

                    def progress(done_bytes: int, before: int = done_before) -> None:
                        self._note(plan.slug, pace, before + done_bytes)

                    content = Content(file.size_bytes, file.sha256, file.blob_id)
                    await transfer.fetch(file.address, directory / file.name, content, progress)
                    here = await asyncio.to_thread(_size_bytes, directory / file.name)
                done_before += here or 0
                self._note(plan.slug, pace, done_before)
        finishing = asyncio.create_task(self._finish(shelf, plan, directory), name=f"finish {plan.slug}")
        try:
            await asyncio.shield(finishing)
        except asyncio.CancelledError:  # too late: it takes its place all the same
            await asyncio.wait([finishing])
            finishing.result()

    async def _finish(self, shelf: Shelf, plan: Plan, directory: Path) -> None:
        """Give what has come its place. Whoever hears that it is done finds it there, so that is told afterwards."""
        await asyncio.to_thread(_publish_files, shelf, plan, directory)
        if self._installed is not None:
            await self._installed(plan)

    def _note(self, job_id: str, pace: _Pace, done_bytes: int) -> None:
        now_s = asyncio.get_running_loop().time()
        pace.note(now_s, done_bytes)
        job, rate = self._jobs[job_id], pace.bytes_per_second()
        left = job.total_bytes - done_bytes if job.total_bytes is not None else None
        self._jobs[job_id] = replace(
            job,
            done_bytes=done_bytes,
            bytes_per_second=None if rate is None else round(rate),
            seconds_left=round(left / rate, 1) if left is not None and rate else None,
        )
        if now_s - self._published_at_s >= PUBLISH_S:
            self._publish()

    def _done(self, plan: Plan) -> None:
        job = self._jobs[plan.slug]
        total = job.total_bytes if job.total_bytes is not None else job.done_bytes
        self._set(
            plan.slug, state="done", done_bytes=total, total_bytes=total, bytes_per_second=None, seconds_left=None
        )

    def _failed(self, plan: Plan, problem: ProblemInfo) -> None:
        log.warning("fetching %s failed: %s", plan.name, problem.message)
        retry_s = RETRY_S if problem.code in PASSING else None
        asked_s = (problem.detail or {}).get("retry_after_s")
        if retry_s is not None and isinstance(asked_s, int):
            retry_s = max(retry_s, float(asked_s))
        self._set(plan.slug, **{**_AT_REST, "state": "failed", "problem": problem, "retry_in_s": retry_s})
        if retry_s is not None:
            loop = asyncio.get_running_loop()
            self._retries[plan.slug] = loop.call_later(retry_s, self._enqueue, plan)
        self._bus.publish(Event(Topic.EVENTS, "download.failed", self._jobs[plan.slug].value()))

    def _drop_retry(self, job_id: str) -> bool:
        timer = self._retries.pop(job_id, None)
        if timer is not None:
            timer.cancel()
        return timer is not None

    def _set(self, job_id: str, **changes: Any) -> None:
        self._jobs[job_id] = replace(self._jobs[job_id], **changes)
        self._publish()

    def _publish(self) -> None:
        self._published_at_s = asyncio.get_running_loop().time()
        self._bus.publish(self.event())

    def event(self) -> Event:
        """The whole present state, as subscribers get it."""
        return Event(Topic.DOWNLOADS, "downloads.changed", {"downloads": [job.value() for job in self.jobs]})


@dataclass(frozen=True, slots=True)
class _Kept:
    """What lies beside an unfinished download."""

    plan: Plan
    paused: bool = False


def _plan_value(plan: Plan, *, paused: bool) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(json.dumps(asdict(_Kept(plan, paused))))
    return value


def _defect(error: BaseException) -> ProblemInfo:
    return ProblemInfo(
        Code.INTERNAL_ERROR,
        f"Something went wrong inside Rockfill ({type(error).__name__}).",
        "The journal has the details; please report them.",
    )


def _job(plan: Plan) -> Job:
    manifest = plan.manifest
    file = manifest.source.file if manifest is not None and manifest.source is not None else plan.files[0].name
    return Job(plan.slug, plan.kind, plan.name, plan.repository, file, "queued", 0, plan.total_bytes)


def _keep(shelf: Shelf, plan: Plan) -> None:
    shelf.keep_only(plan.slug, {file.name: (file.sha256, file.blob_id) for file in plan.files})
    shelf.keep_plan(plan.slug, _plan_value(plan, paused=False))


def _check_room(shelf: Shelf, plan: Plan) -> None:
    shelf.check_room(plan.name, sum(file.size_bytes or 0 for file in plan.files) - shelf.part_bytes(plan.slug))


def _publish_files(shelf: Shelf, plan: Plan, directory: Path) -> None:
    sizes = {file.name: (directory / file.name).stat().st_size for file in plan.files}
    installed = plan.installed(sizes)
    if plan.manifest is None:
        value = {"version": plan.version, "source": plan.repository, "files": [asdict(file) for file in installed]}
        shelf.publish(plan.slug, value)
        return
    value = as_value(replace(plan.manifest, files=installed))
    # Somebody may have brought in another model of this name meanwhile.
    shelf.publish(plan.slug, value, over=lambda there: _origin(there) == _origin(value))


def _origin(manifest: Mapping[str, Any]) -> tuple[object, object] | None:
    """The repository and the file that a model is of; None for one that was brought in."""
    source = manifest.get("source")
    return (source.get("repository"), source.get("file")) if isinstance(source, dict) else None


def _size_bytes(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
