"""Which models there are, and which one a name means."""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rockfill.decode import DecodeError, decode
from rockfill.errors import Code, Problem, ProblemInfo
from rockfill.fim.families import family_of
from rockfill.snapshots import Target

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
EVALUATIONS = "evaluations.json"
DEFAULT_MODEL = "rockfill-tiny"  # bundled
ENGINE_OF_SUFFIX = {".gguf": "llama", ".rkllm": "rkllm"}


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model came from: a file of a repository on the Hub, at one commit."""

    repository: str
    commit: str
    file: str


@dataclass(frozen=True, slots=True)
class InstalledFile:
    """A file that Rockfill put beside a manifest, and what is in it."""

    name: str
    size_bytes: int
    sha256: str | None = None
    blob_id: str | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What stands in the ``manifest.json`` beside a model's weights.

    `files` are those that Rockfill installed, the weights first; there are none where somebody else made the
    directory, and then nothing of it is ever removed. `tokenizer` is the repository that the tokenizer came from.
    """

    name: str
    engine: str
    file: str
    family: str | None = None
    aliases: tuple[str, ...] = ()
    demonstration: bool = False
    quantisation: str = ""
    licence: str = ""
    description: str = ""
    platform: str | None = None
    optimisation: int | None = None
    hybrid_ratio: float | None = None
    converter_version: str | None = None
    source: Source | None = None
    tokenizer: str | None = None
    files: tuple[InstalledFile, ...] = ()


@dataclass(frozen=True, slots=True)
class Fallback:
    """The model that was wanted, and why another one runs."""

    target: Target
    problem: ProblemInfo


class ModelStore:
    """The models that can be run: those in the given directories, and one given by its path."""

    def __init__(self, directories: list[Path]) -> None:
        """Each of `directories` holds one directory per model. One that is not there holds none."""
        self._directories = directories
        self._reading = threading.Lock()  # held while they are read: who looks later knows better
        self._changing = threading.Lock()  # held for the moment of a change: reading again is done in threads
        self._targets = self._read()
        self._chosen: Target | None = None
        self.instead_of: Fallback | None = None

    @property
    def targets(self) -> tuple[Target, ...]:
        return tuple(self._targets)

    def read_again(self) -> None:
        """Look at the directories anew: something was installed or removed. Blocks for some milliseconds."""
        with self._reading:
            before = self._chosen
            found = self._read()
            gone = before is not None and not Path(before.path).exists()
            with self._changing:
                chosen = self._chosen
                if chosen is not None and chosen not in found:
                    same_place = [target for target in found if target.path == chosen.path]
                    if same_place:
                        self._chosen = same_place[0]
                    elif gone and chosen == before:
                        self._chosen = None
                    else:  # given by its path
                        found.append(chosen)
                self._targets = found

    def _read(self) -> list[Target]:
        return [target for directory in self._directories for target in _targets_in(directory)]

    @property
    def chosen(self) -> Target | None:
        """The model for requests that name none."""
        return self._chosen

    def choose(self, target: Target, instead_of: Fallback | None = None) -> None:
        """Make `target` the one for requests that name none. `instead_of` says what could not be run."""
        with self._changing:
            if target not in self._targets:
                self._targets = [*self._targets, target]
            self._chosen = target
            self.instead_of = instead_of

    def find(self, name: str) -> Target:
        """The model called `name`; "" is the chosen one. Raises `model_not_found`."""
        wanted, chosen = name.lower().removesuffix(":latest"), self._chosen
        if not wanted:
            if chosen is None:
                raise Problem(Code.MODEL_NOT_FOUND, "No model has been chosen yet.", "Choose one on the page.")
            return chosen
        # The chosen one first: a file given by its path may have the name of another. No alias hides a name.
        targets = (*([chosen] if chosen is not None else []), *self._targets)
        for target in targets:
            if wanted == target.name.lower():
                return target
        for target in targets:
            if wanted in map(str.lower, target.aliases):
                return target
        known = ", ".join(target.name for target in self.targets)
        raise Problem(
            Code.MODEL_NOT_FOUND,
            f'There is no model "{name[:200]}" here.',
            f"Leave the name out, or use one of: {known}.",
        )


def choose_remembered(models: ModelStore, name: str | None) -> None:
    """Make the model called `name` the chosen one, else the bundled one, if that is there."""
    for candidate in filter(None, (name, DEFAULT_MODEL)):
        try:
            models.choose(models.find(candidate))
            return
        except Problem as problem:  # the remembered one was removed meanwhile; the bundled one is a package of its own
            log.warning("%s", problem.message)


def target_at(path: Path) -> Target:
    """The model at `path`, a directory with a manifest or a single model file; `path` need not be readable yet.

    Raises `unsupported` for a kind of file that no engine runs.
    """
    if (path / MANIFEST).is_file():
        return _from_manifest(path)
    engine = ENGINE_OF_SUFFIX.get(path.suffix.lower())
    if engine is None and path.is_dir():
        candidates = sorted(file for file in path.iterdir() if file.suffix.lower() in ENGINE_OF_SUFFIX)
        if len(candidates) == 1:
            return replace(target_at(candidates[0]), name=path.resolve().name.lower())
        raise Problem(
            Code.UNSUPPORTED,
            f"The directory {path} holds {len(candidates) or 'no'} model files.",
            "Name one model file (.gguf or .rkllm), or a directory with exactly one.",
        )
    if engine is None:
        raise Problem(
            Code.UNSUPPORTED,
            f"{path.name} is not a kind of model file that Rockfill runs.",
            "Use a .rkllm file on a board with the NPU, or a GGUF file (.gguf) on the CPU.",
        )
    family = family_of(path.name)
    return Target(
        name=path.stem.lower(),
        engine=engine,
        path=str(path.absolute()),
        family=family.name if family is not None else None,
        size_bytes=_size_bytes(path),
    )


def _targets_in(directory: Path) -> list[Target]:
    if not directory.is_dir():
        return []
    targets = []
    for entry in sorted(directory.iterdir()):
        if (entry / MANIFEST).is_file():
            try:
                targets.append(_from_manifest(entry))
            except Problem as problem:  # the other models are none the worse for it
                log.warning("a model is left out: %s", problem.message)
    return targets


def manifest_at(directory: Path) -> Manifest:
    """The manifest in `directory`. Raises `invalid_model` where there is none that can be used."""
    try:
        return decode(Manifest, json.loads((directory / MANIFEST).read_bytes()))
    except (OSError, ValueError, RecursionError, DecodeError) as error:
        raise Problem(
            Code.INVALID_MODEL, f"The manifest in {directory} can't be used: {error}.", "Fetch the model again."
        ) from None


def manifest_of(target: Target) -> Manifest | None:
    """The manifest that `target` was read from; None for a file that stands alone."""
    directory = Path(target.path).parent
    try:
        manifest = manifest_at(directory)
    except Problem:
        if (directory / MANIFEST).is_file():
            raise
        return None  # there is none, or it is just being removed
    return manifest if manifest.file == Path(target.path).name else None


def evaluations_beside(target: Target) -> list[Any]:
    """The scores that came with the model, as `rockfill eval --json` printed them for whoever made it; unchecked."""
    try:
        value = json.loads((Path(target.path).parent / EVALUATIONS).read_bytes())
    except (OSError, ValueError, RecursionError):
        return []
    found = value.get("evaluations") if isinstance(value, dict) else None
    return found if isinstance(found, list) else []


def _from_manifest(directory: Path) -> Target:
    manifest = manifest_at(directory)
    return Target(
        name=manifest.name,
        engine=manifest.engine,
        path=str(directory / manifest.file),
        family=manifest.family,
        demonstration=manifest.demonstration,
        aliases=manifest.aliases,
        size_bytes=_size_bytes(directory / manifest.file),
        quantisation=manifest.quantisation,
    )


def _size_bytes(path: Path) -> int:
    """How large the weights are; 0 for a file that is not there, which the load will say."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
