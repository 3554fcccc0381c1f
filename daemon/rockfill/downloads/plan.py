"""What a fetch will do: which files from where become what. Decided before a byte is fetched, and pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rockfill.compat.runtime import OFFICIAL_BLOB_IDS
from rockfill.compat.variants import name_of
from rockfill.compat.verdict import parse_version
from rockfill.errors import Code, Problem
from rockfill.fim.families import family_of
from rockfill.store.models import InstalledFile, Manifest, Source
from rockfill.store.shelf import check_file_name, slug_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from rockfill.compat.catalogue import Entry, Terms
    from rockfill.compat.variants import RepoFile, Variant
    from rockfill.compat.verdict import Verdict
    from rockfill.hub.client import Repository

# Beside a .rkllm file: the engine tokenises with the first, the others describe the model.
TOKENIZER = "tokenizer.json"
_COMPANIONS = (
    TOKENIZER,
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model"),
    *("config.json", "generation_config.json"),
)
_LICENCE_FILES = ("license", "licence", "notice", "use_policy")

RUNTIME = "librkllmrt.so"
RUNTIME_LICENCE = "LICENSE"
# Of every release from 1.1.0 to 1.2.3, and of 1.3.0: the tree objects of airockchip/rknn-llm.
_RUNTIME_LICENCE_BLOB_IDS = {
    "1.3.0": "347d9ab7c4bda00bacc86e9ad91f03d59a290275",
    "": "0bc8afcf2bdb95f8233785001e87cc7d730f57b4",
}
_OLD_RUNTIME_PATH_UNTIL = (1, 1, 3)


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file to fetch: from where, under which name, and what must be in it (`size_bytes` None: not known before)."""

    address: str
    name: str
    size_bytes: int | None
    sha256: str | None = None
    blob_id: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A fetch. `kind` is "model" or "runtime"; `manifest` is a model's, complete but for its files.

    `use` says that the model is to be run once it is here.
    """

    kind: str
    slug: str
    name: str
    files: tuple[PlannedFile, ...]
    repository: str = ""
    manifest: Manifest | None = None
    version: str = ""
    use: bool = False

    @property
    def total_bytes(self) -> int | None:
        sizes = [file.size_bytes for file in self.files]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    def installed(self, sizes_bytes: Mapping[str, int]) -> tuple[InstalledFile, ...]:
        """What was installed, `sizes_bytes` being how large the files became."""
        return tuple(InstalledFile(file.name, sizes_bytes[file.name], file.sha256, file.blob_id) for file in self.files)


def plan_model(
    repository: Repository,
    verdict: Verdict,
    terms: Terms,
    address: Callable[[str, str, str], str],
    taken: Mapping[str, Source | None],
    *,
    tokenizer: Repository | None = None,
    entry: Entry | None = None,
    use: bool = False,
) -> Plan:
    """The plan for one variant, with what belongs to it.

    `address(repository, commit, path)` is where a file's content is. `taken` are the names of the models here with
    their sources; `tokenizer` is the repository that has the tokenizer where `repository` has none. Raises
    `tokenizer_missing`, `invalid_value` for a name that is none, `hub_failed` for a file without a digest.
    """
    variant = verdict.variant
    weights = repository.file(variant.file)
    assert weights is not None
    chosen = [(repository, weights), *((repository, file) for file in _licence_files(repository.files))]
    if variant.engine == "rkllm":
        chosen += _companions(repository, tokenizer)
    files = tuple(
        _planned(address(source.name, source.commit, file.path), file)
        for source, file in {file.path.rpartition("/")[2]: (source, file) for source, file in chosen}.values()
    )
    source = Source(repository.name, repository.commit, variant.file)
    family = family_of(variant.model) or family_of(repository.name)
    family_name = entry.family if entry is not None else family.name if family is not None else None
    base = entry.name if entry is not None else name_of(variant.model, family_name)
    name = free_name(base, variant, source, taken)
    manifest = Manifest(
        name=name,
        engine=variant.engine,
        file=files[0].name,
        family=family_name,
        aliases=tuple(dict.fromkeys(alias for alias in (base,) if alias != name)),
        quantisation=variant.quantisation or "",
        licence=terms.name if terms.id else "",
        platform=variant.platform,
        optimisation=variant.optimisation,
        hybrid_ratio=variant.hybrid_ratio,
        converter_version=variant.converter_version,
        source=source,
        tokenizer=tokenizer.name if tokenizer is not None else None,
    )
    return Plan("model", slug_of(name), name, files, repository.name, manifest, use=use)


def free_name(base: str, variant: Variant, source: Source | None, taken: Mapping[str, Source | None]) -> str:
    """`base`, made longer until no other model here has its place: by quantisation, optimisation, then the file's."""
    # Short enough that a number at its end is still in the name of the directory.
    stem = slug_of(variant.file.rpartition("/")[2].rpartition(".")[0])[:100]
    places: dict[str, list[Source | None]] = {}
    for other, there in taken.items():
        places.setdefault(slug_of(other), []).append(there)
    candidates = [base]
    if variant.quantisation:
        candidates.append(f"{base}-{variant.quantisation}")
    if variant.optimisation is not None:
        candidates.append(f"{candidates[-1]}-opt{variant.optimisation}")
    candidates.append(stem)
    candidates += (f"{stem}-{number}" for number in range(2, len(taken) + 3))
    return next(
        name
        for name in candidates
        if all(
            source is not None and _is_of(there, source.repository, source.file)
            for there in places.get(slug_of(name), [])
        )
    )


def _is_of(there: Source | None, repository: str, file: str) -> bool:
    return there is not None and (there.repository, there.file) == (repository, file)


def _companions(repository: Repository, tokenizer: Repository | None) -> list[tuple[Repository, RepoFile]]:
    """The tokenizer and what describes the model, all from one repository."""
    source = repository if repository.file(TOKENIZER) is not None or tokenizer is None else tokenizer
    if source.file(TOKENIZER) is None:
        raise Problem(
            Code.TOKENIZER_MISSING,
            f"There is no {TOKENIZER} in {source.name}.",
            "Name the model's original repository with --tokenizer USER/NAME.",
        )
    return [(source, file) for name in _COMPANIONS if (file := source.file(name)) is not None]


def _licence_files(files: Iterable[RepoFile]) -> list[RepoFile]:
    return [file for file in files if "/" not in file.path and file.path.lower().startswith(_LICENCE_FILES)]


def _planned(address: str, file: RepoFile) -> PlannedFile:
    if file.size_bytes is None or (file.sha256 is None and file.blob_id is None):
        raise Problem(
            Code.HUB_FAILED, f"The Hub does not say what {file.path} must contain.", "Without that it is not fetched."
        )
    name = check_file_name(file.path.rpartition("/")[2])
    # git's id of a file in LFS is that of the pointer.
    blob_id = file.blob_id if file.sha256 is None else None
    return PlannedFile(address, name, file.size_bytes, file.sha256, blob_id)


def plan_runtime(version: str, endpoint: str) -> Plan:
    """The plan for a release of Rockchip's runtime, with its licence. `endpoint` is the address of its repository.

    Raises `runtime_unsupported` for a version that is not known, since nothing could vouch for what came.
    """
    blob_id = OFFICIAL_BLOB_IDS.get(version)
    parsed = parse_version(version)
    if blob_id is None or parsed is None or parsed < (1, 1):
        known = ", ".join(name for name in OFFICIAL_BLOB_IDS if (parse_version(name) or (0,)) >= (1, 1))
        raise Problem(
            Code.RUNTIME_UNSUPPORTED,
            f"Rockfill knows no runtime {version[:50]}.",
            f"There are: {known}. Another one can be installed from a file.",
        )
    raw = f"{endpoint.rstrip('/')}/raw/release-v{version}"
    folder = "rkllm-runtime/runtime" if parsed <= _OLD_RUNTIME_PATH_UNTIL else "rkllm-runtime"
    licence_id = _RUNTIME_LICENCE_BLOB_IDS.get(version, _RUNTIME_LICENCE_BLOB_IDS[""])
    files = (
        PlannedFile(f"{raw}/{folder}/Linux/librkllm_api/aarch64/{RUNTIME}", RUNTIME, None, blob_id=blob_id),
        PlannedFile(f"{raw}/{RUNTIME_LICENCE}", RUNTIME_LICENCE, None, blob_id=licence_id),
    )
    return Plan("runtime", version, f"runtime {version}", files, endpoint, version=version)
