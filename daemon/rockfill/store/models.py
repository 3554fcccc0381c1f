"""Which models there are, and which one a name means."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rockfill.decode import DecodeError, decode
from rockfill.errors import Code, Problem, ProblemInfo
from rockfill.fim.families import family_of
from rockfill.snapshots import Target

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
ENGINE_OF_SUFFIX = {".gguf": "llama", ".rkllm": "rkllm"}


@dataclass(frozen=True, slots=True)
class Manifest:
    """What stands in the ``manifest.json`` beside a model's weights."""

    name: str
    engine: str
    file: str
    family: str | None = None
    aliases: tuple[str, ...] = ()
    demonstration: bool = False
    quantisation: str = ""
    licence: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Fallback:
    """The model that was wanted, and why another one runs."""

    target: Target
    problem: ProblemInfo


class ModelStore:
    """The models that can be run: those in the given directories, and one given by its path."""

    def __init__(self, directories: list[Path]) -> None:
        """Each of `directories` holds one directory per model. One that is not there holds none."""
        self._targets = [target for directory in directories for target in _targets_in(directory)]
        self._chosen: Target | None = None
        self.instead_of: Fallback | None = None

    @property
    def targets(self) -> tuple[Target, ...]:
        return tuple(self._targets)

    @property
    def chosen(self) -> Target | None:
        """The model for requests that name none."""
        return self._chosen

    def choose(self, target: Target, instead_of: Fallback | None = None) -> None:
        """Make `target` the one for requests that name none. `instead_of` says what could not be run."""
        if target not in self._targets:
            self._targets.append(target)
        self._chosen = target
        self.instead_of = instead_of

    def find(self, name: str) -> Target:
        """The model called `name`; "" is the chosen one. Raises `model_not_found`."""
        wanted = name.lower().removesuffix(":latest")
        if not wanted:
            if self._chosen is None:
                raise Problem(Code.MODEL_NOT_FOUND, "No model has been chosen yet.", "Choose one on the page.")
            return self._chosen
        # The chosen one first: a file given by its path may have the name of another.
        for target in (*([self._chosen] if self._chosen is not None else []), *self._targets):
            if wanted in map(str.lower, (target.name, *target.aliases)):
                return target
        known = ", ".join(target.name for target in self._targets)
        raise Problem(
            Code.MODEL_NOT_FOUND,
            f'There is no model "{name[:200]}" here.',
            f"Leave the name out, or use one of: {known}.",
        )


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


def _from_manifest(directory: Path) -> Target:
    try:
        manifest = decode(Manifest, json.loads((directory / MANIFEST).read_bytes()))
    except (OSError, ValueError, RecursionError, DecodeError) as error:
        raise Problem(
            Code.INVALID_MODEL, f"The manifest in {directory} can't be used: {error}.", "Fetch the model again."
        ) from None
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
