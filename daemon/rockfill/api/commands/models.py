"""Models: what there is to be had, fetching it, and what is here."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Any

from rockfill.access.tokens import Scope
from rockfill.api.commands.table import Json, NoParameters, command
from rockfill.compat.catalogue import CATALOGUE
from rockfill.decode import MaxLength
from rockfill.downloads.importing import Import
from rockfill.downloads.models import Request
from rockfill.errors import Code, Problem
from rockfill.store.models import evaluations_beside, manifest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rockfill.compat.catalogue import Terms
    from rockfill.compat.verdict import Verdict
    from rockfill.downloads.jobs import Downloads
    from rockfill.downloads.models import ModelLibrary, Pulled
    from rockfill.evaluation.results import Results
    from rockfill.snapshots import Target
    from rockfill.state import StateDir
    from rockfill.store.models import ModelStore

Name = Annotated[str, MaxLength(300)]


@dataclass(frozen=True, slots=True)
class VariantsParameters:
    """`repository` is USER/NAME on the Hub or a name of `models.catalogue`; `revision` a branch, tag or commit."""

    repository: Name
    revision: Name | None = None


@command("models.variants", scope=Scope.READ, parameters=VariantsParameters)
async def variants(parameters: VariantsParameters, library: ModelLibrary, evaluations: Results) -> Json:
    """The model files that a repository offers, and what is to be said of each on this machine.

    Result: `{repository, commit, gated, licence: {id, name, url, to_be_accepted, accepted}, variants: […]}`, and of
    each variant `{file, model, engine, quantisation, optimisation, hybrid_ratio, platform, converter_version,
    size_bytes, fits, problems: [{severity: "refuse" | "warn", code, message, advice}], expected_tokens_per_second,
    measured, speed_source, recommended, reason, runtime: {version, installed, reason} | null, evaluations}`. What the
    names do not tell is null. At most one variant is recommended. `evaluations` are as of `evaluations.list`.
    """
    offering = await library.variants(parameters.repository, parameters.revision)
    repository = offering.repository
    return {
        "repository": repository.name,
        "commit": repository.commit,
        "gated": repository.gated,
        "licence": {**licence_value(offering.terms), "accepted": offering.accepted},
        "variants": [
            {**verdict_value(verdict), "evaluations": _scores(evaluations, repository.name, verdict.variant.file)}
            for verdict in offering.verdicts
        ],
    }


@dataclass(frozen=True, slots=True)
class PullParameters:
    """`model` is a name of `models.catalogue` or USER/NAME on the Hub.

    `variant` is a file or a quantisation, null takes the recommended one; `tokenizer` a repository to take the
    tokenizer from. `accept_licence` says that the caller has read and accepts the licence, `force` that it is fetched
    even though it can't run here.
    """

    model: Name
    variant: Name | None = None
    revision: Name | None = None
    tokenizer: Name | None = None
    accept_licence: bool = False
    force: bool = False


@command("models.pull", scope=Scope.CONTROL, parameters=PullParameters)
async def pull(parameters: PullParameters, library: ModelLibrary) -> Json:
    """Fetch a variant. Answers once it is in the queue; `models.downloads` and the topic `downloads` tell the rest.

    Result: `{model, installed, download: {…} | null, runtime_download: {…} | null, problems: […]}`. `download` is null
    where just that is here already; `runtime_download` is that of the runtime which the model needs. Errors:
    `licence_not_accepted` with `{licence, name, url, repository}`, `hub_gated`, `disk_full`, and where it could not run
    here the code of the first problem that refuses, with all of them as `problems`.
    """
    return _pulled_value(await library.pull(_request(parameters, use=False)))


@command("models.use", scope=Scope.CONTROL, parameters=PullParameters)
async def use(
    parameters: PullParameters,
    library: ModelLibrary,
    models: ModelStore,
    state: StateDir,
    run_model: Callable[[Target], None],
) -> Json:
    """Choose the model to run from now on: one that is here, by its name, else one to fetch first, as `models.pull`.

    Result: as of `models.pull`. It is loaded in the background; one that has to be fetched is loaded once it is here,
    and until then the model that is running goes on, unless that is a demonstration.
    """
    target = _here(models, parameters.model) if parameters.variant is None and parameters.revision is None else None
    if target is None:
        pulled = await library.pull(_request(parameters, use=True))
        if pulled.job is not None:
            return _pulled_value(pulled)
        target = models.find(pulled.name)
    await library.choose(target, partial(run_model, target))
    return {"model": target.name, "installed": True, "download": None, "runtime_download": None, "problems": []}


@command("models.downloads", scope=Scope.READ)
async def list_downloads(_: NoParameters, downloads: Downloads) -> Json:
    """What is being fetched, has been since the start, or was left unfinished.

    Result: `{downloads: [{id, kind: "model" | "runtime", name, repository, file, state: "queued" | "fetching" |
    "done" | "failed" | "cancelled", done_bytes, total_bytes, bytes_per_second, seconds_left, problem, retry_in_s}]}`.
    The topic `downloads` carries the same, whole, on every change.
    """
    return dict(downloads.event().value)


@dataclass(frozen=True, slots=True)
class DownloadParameters:
    """`download` is the `id` of a download. `discard` throws away what has come of it."""

    download: Name
    discard: bool = False


@command("models.cancel", scope=Scope.CONTROL, parameters=DownloadParameters)
async def cancel(parameters: DownloadParameters, library: ModelLibrary, downloads: Downloads) -> Json:
    """End a download. What has come is kept, and used when it is asked for again, unless it is to be discarded.

    Result: `{download}`, or with `discard` `{download: null}`.
    """
    job = await library.cancel(parameters.download)
    if parameters.discard:
        await downloads.forget(parameters.download)
        return {"download": None}
    return {"download": job.value()}


@command("models.list", scope=Scope.READ)
async def list_models(_: NoParameters, models: ModelStore, library: ModelLibrary, evaluations: Results) -> Json:
    """The models on this machine.

    Result: `{models: [{name, aliases, engine, family, demonstration, chosen, size_bytes, quantisation, licence,
    source: {repository, commit, file} | null, path, removable, evaluations}]}`; `removable` are those that Rockfill
    installed, `evaluations` the scores as of `evaluations.list`, with those that the model came with.
    """
    return {"models": await asyncio.to_thread(_list, models, library, evaluations)}


@dataclass(frozen=True, slots=True)
class ModelParameters:
    """`model` is a name as `models.list` gives it; "" is the chosen one."""

    model: Name = ""


@command("models.show", scope=Scope.READ, parameters=ModelParameters)
async def show(parameters: ModelParameters, models: ModelStore, library: ModelLibrary, evaluations: Results) -> Json:
    """All that is known of a model that is here.

    Result: what `models.list` gives of it, `manifest` (null for a file that stands alone), and `verdict` as of
    `models.variants` (null where none can be given).
    """
    target = models.find(parameters.model)
    value = await asyncio.to_thread(_value, target, models, library, evaluations)
    manifest = await asyncio.to_thread(manifest_of, target)
    verdict = await asyncio.to_thread(library.verdict_of, target)
    return {
        **value,
        "manifest": asdict(manifest) if manifest is not None else None,
        "verdict": verdict_value(verdict) if verdict is not None else None,
    }


@command("models.verify", scope=Scope.READ, parameters=ModelParameters, long=True)
async def verify(parameters: ModelParameters, models: ModelStore, library: ModelLibrary) -> Json:
    """Read a model's files to the end and compare them with what was installed.

    Result: `{model, ok, wrong: {FILE: what is wrong}}`.
    """
    target = models.find(parameters.model)
    wrong = await library.verify(target)
    return {"model": target.name, "ok": not wrong, "wrong": wrong}


@dataclass(frozen=True, slots=True)
class RemoveParameters:
    """`model` is a name as `models.list` gives it."""

    model: Name


@command("models.remove", scope=Scope.CONTROL, parameters=RemoveParameters)
async def remove(parameters: RemoveParameters, models: ModelStore, library: ModelLibrary) -> Json:
    """Remove a model that Rockfill installed, and nothing that it did not. Not the one that is chosen.

    Result: `{model, left: [names of files beside it that are not Rockfill's]}`.
    """
    if not parameters.model:
        raise Problem(Code.INVALID_VALUE, "model: must not be empty.")
    target = models.find(parameters.model)
    if target == models.chosen:
        raise Problem(
            Code.NOT_REMOVABLE,
            f"{target.name} is the chosen model.",
            "Choose another one first: `rockfill models use`.",
        )
    return {"model": target.name, "left": await library.remove(target)}


@command("models.importable", scope=Scope.READ)
async def importable(_: NoParameters, library: ModelLibrary) -> Json:
    """The models that lie in the state directory's ``import``, to be brought in with `models.import`.

    Result: `{directory, found: [{path, name, size_bytes}]}`.
    """
    found = await asyncio.to_thread(library.importable)
    return {
        "directory": str(library.import_directory),
        "found": [{"path": str(item.path), "name": item.path.name, "size_bytes": item.size_bytes} for item in found],
    }


@dataclass(frozen=True, slots=True)
class ImportParameters:
    """`path` is a model file, or a directory with one, that the service may read.

    `tokenizer` is a directory with a tokenizer.json or a repository of the Hub; null: it lies beside the model. `name`
    is what to call it; null: what its file's name says.
    """

    path: Annotated[str, MaxLength(4096)]
    tokenizer: Annotated[str, MaxLength(4096)] | None = None
    name: Name | None = None


@command("models.import", scope=Scope.ADMIN, parameters=ImportParameters, long=True)
async def bring_in(parameters: ImportParameters, library: ModelLibrary) -> Json:
    """Copy a model from a file of this machine to where models are. Result: `{model}`."""
    if not parameters.path.startswith("/") or "\0" in parameters.path + (parameters.tokenizer or ""):
        raise Problem(Code.INVALID_VALUE, "path: must be an absolute path.")
    wish = Import(Path(parameters.path), name=parameters.name)
    return {"model": await library.bring_in(wish, parameters.tokenizer or "")}


@command("models.catalogue", scope=Scope.READ)
async def catalogue(_: NoParameters, models: ModelStore) -> Json:
    """The models that Rockfill suggests.

    Result: `{models: [{name, title, family, card, licence: {id, name, url, to_be_accepted}, note, installed,
    offers: [{engine: "rkllm" | "llama", repository, capabilities: ["completion" | "generation" | "chat" |
    "instructions"], tuned}]}]}`; `capabilities` as each model's own card states them.
    """
    here = {name for target in models.targets for name in (target.name, *target.aliases)}
    return {
        "models": [
            {
                "name": entry.name,
                "title": entry.title,
                "family": entry.family,
                "card": entry.card,
                "licence": licence_value(entry.terms),
                "note": entry.note,
                "installed": entry.name in here,
                "offers": [
                    {
                        "engine": offer.engine,
                        "repository": offer.repository,
                        "capabilities": list(offer.capabilities),
                        "tuned": offer.tuned,
                    }
                    for offer in entry.offers
                ],
            }
            for entry in CATALOGUE
        ]
    }


def verdict_value(verdict: Verdict) -> Json:
    """A row of `models.variants`."""
    variant, runtime = verdict.variant, verdict.runtime
    return {
        "file": variant.file,
        "model": variant.model,
        "engine": variant.engine,
        "quantisation": variant.quantisation,
        "optimisation": variant.optimisation,
        "hybrid_ratio": variant.hybrid_ratio,
        "platform": variant.platform,
        "converter_version": variant.converter_version,
        "size_bytes": variant.size_bytes,
        "fits": verdict.fits,
        "problems": [finding.value() for finding in verdict.problems],
        "expected_tokens_per_second": verdict.tokens_per_second,
        "measured": verdict.measured,
        "speed_source": verdict.source or None,
        "recommended": verdict.recommended,
        "reason": verdict.reason,
        "runtime": asdict(runtime) if runtime is not None else None,
    }


def licence_value(terms: Terms) -> Json:
    """A licence as results have it."""
    return {"id": terms.id, "name": terms.name, "url": terms.url, "to_be_accepted": terms.to_be_accepted}


def _request(parameters: PullParameters, *, use: bool) -> Request:
    return Request(
        parameters.model,
        parameters.variant,
        parameters.revision,
        parameters.tokenizer,
        parameters.accept_licence,
        parameters.force,
        use,
    )


def _pulled_value(pulled: Pulled) -> Json:
    return {
        "model": pulled.name,
        "installed": pulled.job is None,
        "download": pulled.job.value() if pulled.job is not None else None,
        "runtime_download": pulled.runtime.value() if pulled.runtime is not None else None,
        "problems": [finding.value() for finding in pulled.warnings],
    }


def _here(models: ModelStore, name: str) -> Target | None:
    try:
        return models.find(name)
    except Problem:
        return None


def _scores(evaluations: Results, repository: str | None, file: str, brought: Iterable[Any] = ()) -> list[Json]:
    """What `rockfill eval` found of one model file."""
    return [asdict(result) for result in evaluations.of(repository, file, brought)]


def _list(models: ModelStore, library: ModelLibrary, evaluations: Results) -> list[Json]:
    return [_value(target, models, library, evaluations) for target in models.targets]


def _value(target: Target, models: ModelStore, library: ModelLibrary, evaluations: Results) -> Json:
    manifest = manifest_of(target)
    source = manifest.source if manifest is not None else None
    repository, file = source.repository if source is not None else None, PurePath(target.path).name
    return {
        "name": target.name,
        "aliases": list(target.aliases),
        "engine": target.engine,
        "family": target.family,
        "demonstration": target.demonstration,
        "chosen": target == models.chosen,
        "size_bytes": target.size_bytes,
        "quantisation": manifest.quantisation or None if manifest is not None else None,
        "licence": manifest.licence or None if manifest is not None else None,
        "source": asdict(source) if source is not None else None,
        "path": target.path,
        "removable": library.is_removable(target),
        "evaluations": _scores(evaluations, repository, file, evaluations_beside(target)),
    }
