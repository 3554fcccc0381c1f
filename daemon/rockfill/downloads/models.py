"""Choosing a variant, having it fetched, and what becomes of the models that are here."""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rockfill.compat.catalogue import Entry, Terms, entry_of, entry_of_repository, terms_of
from rockfill.compat.variants import ENGINES, named, parse_name, variants_of
from rockfill.compat.verdict import Finding, Verdict, best_of, judge
from rockfill.downloads.importing import Import, Importable, bring_in, importable
from rockfill.downloads.jobs import PASSING, RETRY_S, Job
from rockfill.downloads.plan import TOKENIZER, plan_model
from rockfill.errors import Code, Problem
from rockfill.hub.client import Repository, gated
from rockfill.hub.transfer import Content
from rockfill.state import Acceptance, Wanted
from rockfill.store.models import Source, manifest_of
from rockfill.store.shelf import wrong_files
from rockfill.unbroken import to_the_end

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from rockfill.compat.verdict import BoardFacts
    from rockfill.downloads.jobs import Downloads
    from rockfill.downloads.plan import Plan
    from rockfill.downloads.runtimes import RuntimeLibrary
    from rockfill.hub.client import Hub
    from rockfill.hub.transfer import Transfer
    from rockfill.snapshots import Target
    from rockfill.state import StateDir
    from rockfill.store.models import ModelStore
    from rockfill.store.shelf import Shelf

log = logging.getLogger(__name__)

RETRY_AFTER_S = 10  # what a client is told that asks for a model still being fetched, where the time left is not known
LONGEST_RETRY_AFTER_S = 120

_PREFIX = re.compile(r"^(https?://[^/]+/|hf\.co/)")


@dataclass(frozen=True, slots=True)
class Offering:
    """What a repository offers to this machine."""

    repository: Repository
    terms: Terms
    accepted: bool
    verdicts: tuple[Verdict, ...]
    entry: Entry | None


@dataclass(frozen=True, slots=True)
class Request:
    """What to fetch: a name of the catalogue or a repository, and which of its variants (None: the recommended one)."""

    reference: str
    variant: str | None = None
    revision: str | None = None
    tokenizer: str | None = None
    accept_licence: bool = False
    force: bool = False
    use: bool = False


@dataclass(frozen=True, slots=True)
class Pulled:
    """What became of a request: the name of the model, and its download unless it was here already."""

    name: str
    job: Job | None
    warnings: tuple[Finding, ...]
    runtime: Job | None = None


class ModelLibrary:
    """The models of this machine and those that it could have."""

    def __init__(
        self,
        hub: Hub,
        models: ModelStore,
        shelf: Shelf,
        downloads: Downloads,
        runtimes: RuntimeLibrary,
        state: StateDir,
        board: Callable[[], BoardFacts],
        transfer: Callable[[str], Transfer],
        arrived: Callable[[Target], None] = lambda target: None,
    ) -> None:
        """`arrived` is called with a model that was to be run once it is here."""
        self._transfer = transfer
        self._arrived = arrived
        self._hub = hub
        self._models = models
        self._shelf = shelf
        self._downloads = downloads
        self._runtimes = runtimes
        self._state = state
        self._board = board
        self._wanted = state.choices().wanted
        self._needed = asyncio.Event()
        self._importing = asyncio.Lock()  # two would have the same name, and so the same place
        self._beginning = asyncio.Lock()  # likewise
        self._choosing = asyncio.Lock()  # held while it is written down what is chosen and wanted
        self._problem: Problem | None = None  # why what is wanted could not even be begun
        if self._wanted is not None:
            self._needed.set()

    @property
    def wanted(self) -> Wanted | None:
        """What was chosen and is still to be fetched."""
        return self._wanted

    @property
    def problem(self) -> Problem | None:
        """Why what was chosen is not being fetched."""
        return self._problem

    @property
    def hub(self) -> Hub:
        return self._hub

    # ---- what there is to be had

    async def variants(self, reference: str, revision: str | None = None) -> Offering:
        """The variants that a repository, or a name of the catalogue, offers, and what is to be said of each here.

        Raises a problem of the hub family, or `variant_not_found` where there is no model file at all.
        """
        board = await asyncio.to_thread(self._board)
        entry, name = self._resolve(reference, board)
        repository = await self._hub.repository(name, revision)
        variants = variants_of(repository.name, repository.files)
        if not variants:
            raise Problem(
                Code.VARIANT_NOT_FOUND,
                f"{repository.name} has no model file that an engine here runs.",
                "Look for one with .rkllm files (for the NPU) or .gguf files (for the CPU).",
            )
        await self._runtimes.refresh()
        verdicts = judge(
            variants,
            board,
            self._runtimes.usable_versions,
            await asyncio.to_thread(self._measured, repository.name),
            self._runtimes.pinned,
        )
        terms = self._terms(repository, entry)
        accepted = await asyncio.to_thread(self._is_accepted, terms)
        return Offering(repository, terms, accepted, verdicts, entry)

    async def pull(self, request: Request) -> Pulled:
        """See whether the variant can run here and may be fetched, and have it fetched.

        Raises what keeps it from that: a problem of the hub family, `licence_not_accepted`, `disk_full`, or the reason
        why it could not run here, unless the request says to go on all the same.
        """
        offering = await self.variants(request.reference, request.revision)
        verdict = _choose(offering, request.variant)
        if not verdict.fits and not request.force:
            raise _refusal(verdict)
        repository = offering.repository
        if repository.gated and self._hub.token is None:
            raise gated(repository.name, self._hub.page(repository.name), has_token=False)
        await self._see_to_licence(offering, accept=request.accept_licence)
        tokenizer = await self._tokenizer_for(offering, verdict, request.tokenizer)
        return await to_the_end(self._begin_alone(request, offering, verdict, tokenizer))

    async def _begin_alone(
        self, request: Request, offering: Offering, verdict: Verdict, tokenizer: Repository | None
    ) -> Pulled:
        async with self._beginning:
            return await self._begin(request, offering, verdict, tokenizer)

    async def _begin(
        self, request: Request, offering: Offering, verdict: Verdict, tokenizer: Repository | None
    ) -> Pulled:
        repository = offering.repository
        plan = plan_model(
            repository,
            verdict,
            offering.terms,
            self._hub.address,
            await asyncio.to_thread(self._sources, self._downloads.plans),
            tokenizer=tokenizer,
            entry=offering.entry,
            use=request.use,
        )
        warnings = tuple(finding for finding in verdict.problems)
        here = await asyncio.to_thread(self._installed_target, plan)
        if here is not None:
            return Pulled(here.name, None, warnings)
        if request.use:
            file = verdict.variant.file
            await self._want(
                Wanted(plan.name, repository.name, file, request.revision, request.force, request.tokenizer)
            )
        runtime = await self._runtime_for(verdict)  # first, so that the model can be run once it is here
        job = await self._downloads.add(plan)
        return Pulled(plan.name, job, warnings, runtime)

    async def cancel(self, job_id: str) -> Job:
        """End a download. What was to be run once it had come is not wanted any more."""
        return await to_the_end(self._cancel(job_id))

    async def _cancel(self, job_id: str) -> Job:
        wanted = self._wanted
        job = await self._downloads.cancel(job_id)
        if wanted is not None and wanted.reference == job.name and job.state != "done":
            await self._want(None, instead_of=wanted)
        return job

    async def run(self) -> None:
        """Have what was chosen fetched whenever something needs it, until cancelled."""
        while True:
            await self._needed.wait()
            self._needed.clear()
            while self._wanted is not None and self._job_of_wanted() is None:
                wanted = self._wanted
                try:
                    pulled = await self.pull(_request_for(wanted))
                    self._problem = None
                    if pulled.job is None:  # it came, and we were killed before we chose it
                        await self._run(self._models.find(pulled.name), wanted)
                    break
                except Problem as problem:
                    self._problem = problem
                    log.warning("%s is not being fetched: %s", wanted.reference, problem.message)
                    if problem.code not in PASSING:
                        break
                    await asyncio.sleep(RETRY_S)

    async def choose(self, target: Target, then: Callable[[], None]) -> None:
        """Remember a model that is here as the chosen one, in place of whatever was wanted before.

        `then` is called once that is so, also where whoever asked has gone meanwhile.
        """
        await to_the_end(self._choose(target, then))

    async def _choose(self, target: Target, then: Callable[[], None], *, instead_of: Wanted | None = None) -> None:
        async with self._choosing:
            if instead_of is None or instead_of == self._wanted:  # else somebody has chosen otherwise meanwhile
                await asyncio.to_thread(partial(self._state.change, model=target.name, wanted=None))
                self._wanted = self._problem = None
                then()

    async def _want(self, wanted: Wanted | None, *, instead_of: Wanted | None = None) -> None:
        async with self._choosing:
            if instead_of is None or instead_of is self._wanted:
                await asyncio.to_thread(partial(self._state.change, wanted=wanted))
                self._wanted, self._problem = wanted, None

    # ---- what is here

    def find(self, name: str) -> Target:
        """The model called `name` ("" for the chosen one), as completions ask for it.

        Raises `model_fetching`, with progress, for one that is chosen and still on its way; `model_not_found`.
        """
        if name:
            try:
                return self._models.find(name)
            except Problem:
                job = self._downloads.unfinished(name)
                if job is None or job.state == "cancelled":
                    raise
                raise fetching(job) from None
        chosen, wanted = self._models.chosen, self._wanted
        if wanted is None or (chosen is not None and not chosen.demonstration):
            return self._models.find("")
        # A demonstration is no stand-in for what somebody chose.
        job = self._job_of_wanted()
        if job is not None:
            raise fetching(job)
        self._needed.set()
        if self._problem is not None and self._problem.code not in PASSING:
            raise self._problem.info.raised()
        raise _about_to_fetch(wanted)

    def _job_of_wanted(self) -> Job | None:
        """The download of what is to be run once it is here; None if there is none that goes on."""
        if self._wanted is None:
            return None
        job = self._downloads.unfinished(self._wanted.reference)
        return job if job is not None and (job.state != "failed" or job.retry_in_s is not None) else None

    def is_removable(self, target: Target) -> bool:
        """Whether Rockfill installed it, and so may remove it."""
        return self._shelf.is_removable(Path(target.path).parent)

    def converter_of(self, path: str) -> str | None:
        """Which converter made the model file at `path`, by its manifest, else by its name and its directory's."""
        file = Path(path)
        target = next((target for target in self._models.targets if target.path == path), None)
        manifest = manifest_of(target) if target is not None else None
        if manifest is not None and manifest.converter_version is not None:
            return manifest.converter_version
        if file.suffix.lower() not in ENGINES:
            return None
        return parse_name(file.parent.name, file.name).converter_version

    def verdict_of(self, target: Target) -> Verdict | None:
        """What is to be said of a model that is here; None for one that no engine of ours runs. Blocks."""
        file = Path(target.path)
        if file.suffix.lower() not in ENGINES:
            return None
        manifest = manifest_of(target)
        source = manifest.source if manifest is not None else None
        variant = parse_name(
            source.repository if source is not None else file.parent.name, file.name, target.size_bytes
        )
        if manifest is not None:
            variant = replace(
                variant,
                quantisation=manifest.quantisation or variant.quantisation,
                platform=manifest.platform or variant.platform,
                converter_version=manifest.converter_version or variant.converter_version,
            )
        measured = self._rate_of(target)
        rates = {} if measured is None else {variant.file: measured}
        [verdict] = judge([variant], self._board(), self._runtimes.usable_versions, rates, self._runtimes.pinned)
        return verdict

    async def verify(self, target: Target) -> dict[str, str]:
        """What of a model's files is not as it was installed, by name. Raises `unsupported` where nothing is known."""
        manifest = await asyncio.to_thread(manifest_of, target)
        if manifest is None or not manifest.files:
            raise Problem(
                Code.UNSUPPORTED,
                f"Nothing says what {target.name} must contain: Rockfill did not install it.",
                "Fetch it with `rockfill models pull`, or bring it in with `rockfill models import`.",
            )
        return await asyncio.to_thread(wrong_files, Path(target.path).parent, manifest.files)

    async def remove(self, target: Target) -> list[str]:
        """Remove a model that Rockfill installed; returns what was left of its directory.

        Raises `not_removable` for any other.
        """
        return await to_the_end(asyncio.to_thread(self._remove, Path(target.path).parent))

    def _remove(self, directory: Path) -> list[str]:
        try:
            return self._shelf.remove(directory)
        finally:
            self._models.read_again()

    @property
    def import_directory(self) -> Path:
        """Where people put models that they want to bring in."""
        return self._state.path / "import"

    def importable(self) -> list[Importable]:
        """What lies there. Blocks."""
        return importable(self.import_directory)

    async def bring_in(self, wish: Import, tokenizer: str = "") -> str:
        """Copy a model file, or a directory with one, to the models here; returns its name.

        `tokenizer` is a directory with a tokenizer.json, or a repository of the Hub that has one; "" takes that
        beside the model.
        """
        if not tokenizer or await asyncio.to_thread(Path(tokenizer).exists):
            return await self._bring_in_alone(replace(wish, tokenizer=Path(tokenizer) if tokenizer else None))
        directory = Path(await asyncio.to_thread(tempfile.mkdtemp))
        try:
            path = await self._fetch_tokenizer(tokenizer, directory)
            return await self._bring_in_alone(replace(wish, tokenizer=path))
        finally:
            await asyncio.to_thread(shutil.rmtree, directory)

    async def _bring_in_alone(self, wish: Import) -> str:
        async with self._importing:
            return await to_the_end(self._bring_in(wish))

    async def _bring_in(self, wish: Import) -> str:
        taken = await asyncio.to_thread(self._sources, self._downloads.plans)
        name = await asyncio.to_thread(bring_in, self._shelf, wish, taken)
        await asyncio.to_thread(self._models.read_again)
        return name

    async def _fetch_tokenizer(self, repository_name: str, directory: Path) -> Path:
        repository = await self._hub.repository(repository_name)
        file = repository.file(TOKENIZER)
        if file is None:
            raise Problem(Code.TOKENIZER_MISSING, f"There is no {TOKENIZER} in {repository.name}.", "Name another one.")
        address = self._hub.address(repository.name, repository.commit, TOKENIZER)
        async with self._transfer("model") as transfer:
            content = Content(file.size_bytes, file.sha256, None if file.sha256 else file.blob_id)
            await transfer.fetch(address, directory / TOKENIZER, content)
        return directory / TOKENIZER

    async def installed(self, plan: Plan) -> None:
        """Take note that a plan was carried out, and run the model if it was wanted for that."""
        if plan.kind == "runtime":
            await self._runtimes.note_arrival()
            return
        await asyncio.to_thread(self._models.read_again)
        wanted = self._wanted
        if wanted is not None and wanted.reference == plan.name:
            await self._run(self._models.find(plan.name), wanted)

    async def _run(self, target: Target, wanted: Wanted) -> None:
        """Run what was wanted, if it still is."""
        await self._choose(target, partial(self._arrived, target), instead_of=wanted)

    # ---- how

    def _resolve(self, reference: str, board: BoardFacts) -> tuple[Entry | None, str]:
        reference = _PREFIX.sub("", reference.strip()).rstrip("/")
        entry = entry_of(reference)
        if entry is None:
            return entry_of_repository(reference), reference
        engines = ("llama", "rkllm") if board.platform == "" else ("rkllm", "llama")
        offer = next(offer for engine in engines if (offer := entry.offer(engine)) is not None)
        return entry, offer.repository

    def _terms(self, repository: Repository, entry: Entry | None) -> Terms:
        licence = repository.licence
        identifier, name = licence.id, licence.name
        if entry is not None and identifier in ("", "other"):
            identifier, name = entry.licence, ""  # whoever converted it did not say; the original does
        return terms_of(identifier, name, licence.url, repository.name, self._hub.page(repository.name))

    def _is_accepted(self, terms: Terms) -> bool:
        return not terms.to_be_accepted or any(one.key == terms.key for one in self._state.acceptances())

    async def _see_to_licence(self, offering: Offering, *, accept: bool) -> None:
        terms, repository = offering.terms, offering.repository
        if offering.accepted:
            return
        if not accept:
            raise Problem(
                Code.LICENCE_NOT_ACCEPTED,
                f"{repository.name} comes under a licence that has to be accepted: {terms.name}, {terms.url}.",
                "Read it; --accept-licence (or the page) says that you accept it.",
                licence=terms.id,
                name=terms.name,
                url=terms.url,
                repository=repository.name,
            )
        acceptance = Acceptance(terms.key, terms.id, repository.name, int(time.time()))
        await asyncio.to_thread(self._state.accept, acceptance)

    async def _tokenizer_for(self, offering: Offering, verdict: Verdict, asked: str | None) -> Repository | None:
        """The repository to take the tokenizer from, where it is not the model's own."""
        repository, entry = offering.repository, offering.entry
        if verdict.variant.engine != "rkllm" or (asked is None and repository.file(TOKENIZER) is not None):
            return None
        offer = entry.offer("rkllm") if entry is not None else None
        known = offer.tokenizer if offer is not None else None
        name = asked or known or repository.base_model or (entry.card if entry is not None else None)
        return await self._hub.repository(name) if name is not None else None

    async def _runtime_for(self, verdict: Verdict) -> Job | None:
        """Have the runtime fetched that the model needs, where there is an NPU to run it on."""
        choice = verdict.runtime
        board = await asyncio.to_thread(self._board)
        if choice is None or choice.installed or not board.platform:
            return None
        return await self._runtimes.install(choice.version)

    def _sources(self, plans: Iterable[Plan]) -> Mapping[str, Source | None]:
        """The names that are taken, and by what."""
        found: dict[str, Source | None] = {}
        for target in self._models.targets:
            manifest = manifest_of(target)
            found[target.name] = manifest.source if manifest is not None else None
        for plan in plans:
            if plan.manifest is not None:
                found.setdefault(plan.name, plan.manifest.source)
        return found

    def _installed_target(self, plan: Plan) -> Target | None:
        """The model here that is just what `plan` would fetch."""
        assert plan.manifest is not None
        for target in self._models.targets:
            manifest = manifest_of(target)
            if manifest is not None and manifest.source == plan.manifest.source:
                return target
        return None

    def _measured(self, repository: str) -> dict[str, float]:
        """Tokens a second that the selftest saw here, by the file of `repository` that it was of."""
        found: dict[str, float] = {}
        for target in self._models.targets:
            manifest = manifest_of(target)
            source = manifest.source if manifest is not None else None
            rate = self._rate_of(target)
            if source is not None and source.repository == repository and rate is not None:
                found[source.file] = rate
        return found

    def _rate_of(self, target: Target) -> float | None:
        """The best that a selftest saw of `target`, with whatever runtime."""
        start = f"{target.engine}|{target.path}|"
        rates = [
            value.get("decode_tokens_per_second")
            for key, value in self._state.selftests().items()
            if key.startswith(start) and isinstance(value, dict)
        ]
        return max((rate for rate in rates if isinstance(rate, int | float)), default=None)


def fetching(job: Job) -> Problem:
    """What somebody is told who asks for a model that is still on its way."""
    left_s = job.seconds_left
    if job.state == "failed" and job.problem is not None and job.retry_in_s is None:
        return Problem(job.problem.code, f"{job.name} could not be fetched. {job.problem.message}", job.problem.advice)
    share = f"{100 * job.done_bytes / job.total_bytes:.0f} %" if job.total_bytes else f"{job.done_bytes / 1e6:.0f} MB"
    retry_s = RETRY_AFTER_S if left_s is None else max(1, min(LONGEST_RETRY_AFTER_S, round(left_s)))
    return Problem(
        Code.MODEL_FETCHING,
        f"{job.name} is being fetched: {share} is here.",
        "Ask again later; `rockfill models downloads` shows how far it is.",
        retry_after_s=retry_s,
        download=job.value(),
    )


def _choose(offering: Offering, wanted: str | None) -> Verdict:
    verdicts = offering.verdicts
    if wanted is not None:
        found = named([verdict.variant for verdict in verdicts], wanted)
        verdicts = tuple(verdict for verdict in verdicts if verdict.variant in found)
        if not verdicts:
            known = ", ".join(dict.fromkeys(one.variant.quantisation or one.variant.file for one in offering.verdicts))
            raise Problem(
                Code.VARIANT_NOT_FOUND,
                f'{offering.repository.name} has no variant "{wanted[:200]}".',
                f"There are: {known}. `rockfill models variants {offering.repository.name}` shows all.",
            )
    chosen = best_of(verdicts)
    assert chosen is not None
    return chosen


def _refusal(verdict: Verdict) -> Problem:
    finding = next(finding for finding in verdict.problems if finding.severity == "refuse")
    return Problem(
        finding.code,
        f"{verdict.variant.file}: {finding.message}",
        f"{finding.advice} To fetch it all the same, say --force: it will most likely not load, or stop the machine.",
        problems=[finding.value() for finding in verdict.problems],
    )


def _request_for(wanted: Wanted) -> Request:
    return Request(
        wanted.repository,
        wanted.file,
        wanted.revision,
        wanted.tokenizer,
        force=wanted.forced,
        use=True,
    )


def _about_to_fetch(wanted: Wanted) -> Problem:
    return Problem(
        Code.MODEL_FETCHING,
        f"{wanted.reference} is about to be fetched.",
        "Ask again later; `rockfill models downloads` shows how far it is.",
        retry_after_s=RETRY_AFTER_S,
    )
