"""Bringing in a model from a file that somebody has: for boards without a network, and for one's own conversions."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rockfill.compat.variants import ENGINES, name_of, parse_name
from rockfill.disk import refusals_told
from rockfill.downloads.plan import TOKENIZER, free_name
from rockfill.errors import Code, Problem
from rockfill.fim.families import family_of
from rockfill.store.models import InstalledFile, Manifest, Source
from rockfill.store.shelf import CHUNK_BYTES, as_value, check_file_name, never, slug_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rockfill.store.shelf import Shelf


# Where an import gathers, one at a time; no download can: there is no such slug.
GATHERED = "~import"


@dataclass(frozen=True, slots=True)
class Import:
    """What to copy: the weights, and the tokenizer that goes with them (None: beside the weights, if needed)."""

    path: Path
    tokenizer: Path | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Importable:
    """A model that lies ready: a file, or a directory with one. `size_bytes` is that of its weights."""

    path: Path
    size_bytes: int


def importable(directory: Path) -> list[Importable]:
    """The models that somebody put into `directory`, by name; none where it can't be read. Blocks."""
    found = []
    try:
        paths = sorted(directory.iterdir())
    except OSError:
        return []
    for path in paths:
        try:
            weights = _weights_at(path)
            if len(weights) == 1:
                found.append(Importable(path, weights[0].stat().st_size))
        except OSError:  # as little to be had as one that is not there
            continue
    return found


def bring_in(shelf: Shelf, wish: Import, taken: Mapping[str, Source | None]) -> str:
    """Copy the model to where models are, and return its name; `taken` are the names that others have. Blocks.

    Raises `file_unreadable`, `invalid_value` for what is no model, `tokenizer_missing`, `disk_full`.
    """
    try:
        weights = _weights(wish.path)
        sources = [weights]
        if weights.suffix.lower() == ".rkllm":
            sources.append(_tokenizer(weights, wish.tokenizer))
        size_bytes = sum(source.stat().st_size for source in sources)
    except OSError as error:
        raise _unreadable(wish.path, error) from None
    shelf.check_room(weights.name, size_bytes)
    beside = weights.absolute().parent.name
    variant = parse_name(beside, weights.name)
    family = family_of(weights.name) or family_of(beside)
    base = wish.name or name_of(variant.model, family.name if family is not None else None)
    name = free_name(base, variant, None, taken)
    manifest = Manifest(
        name=name,
        engine=variant.engine,
        file=check_file_name(weights.name),
        family=family.name if family is not None else None,
        quantisation=variant.quantisation or "",
        platform=variant.platform,
        optimisation=variant.optimisation,
        hybrid_ratio=variant.hybrid_ratio,
        converter_version=variant.converter_version,
    )
    shelf.discard(GATHERED)  # of an import that was cut short
    directory = shelf.staging(GATHERED)
    files = []
    for source, target in zip(sources, (weights.name, TOKENIZER), strict=False):
        files.append(copy_synced(source, directory / target))
    value = as_value(replace(manifest, files=tuple(files)))
    shelf.publish(slug_of(name), value, gathered=GATHERED, over=never)
    return name


def _weights_at(path: Path) -> list[Path]:
    """The model files that `path` is or holds."""
    files = [path] if path.is_file() else sorted(path.iterdir()) if path.is_dir() else []
    return [file for file in files if file.suffix.lower() in ENGINES]


def _weights(path: Path) -> Path:
    if not path.exists():
        raise Problem(Code.FILE_UNREADABLE, f"There is no {path}.")
    found = _weights_at(path)
    if len(found) != 1:
        raise Problem(
            Code.INVALID_VALUE,
            f"{path} is no model file, and no directory with exactly one.",
            "Name a .rkllm or .gguf file.",
        )
    return found[0]


def _tokenizer(weights: Path, tokenizer: Path | None) -> Path:
    path = tokenizer or weights.with_name(TOKENIZER)
    if path.is_dir():
        path /= TOKENIZER
    if not path.is_file():
        raise Problem(
            Code.TOKENIZER_MISSING,
            f"There is no {TOKENIZER} beside {weights.name}.",
            "Name a directory that has one, or the model's original repository, with --tokenizer.",
        )
    return path


def copy_synced(source: Path, target: Path) -> InstalledFile:
    """Copy and hash in one go; then it is on the disk, so that what is published is there after a power cut."""
    digest, size_bytes = hashlib.sha256(), 0
    try:
        opened = source.open("rb")
    except OSError as error:
        raise _unreadable(source, error) from None
    with opened, refusals_told(target.parent), target.open("wb") as copy:
        while chunk := opened.read(CHUNK_BYTES):
            copy.write(chunk)
            digest.update(chunk)
            size_bytes += len(chunk)
        copy.flush()
        os.fsync(copy.fileno())
    return InstalledFile(target.name, size_bytes, digest.hexdigest())


def _unreadable(path: Path, error: OSError) -> Problem:
    return Problem(
        Code.FILE_UNREADABLE,
        f"{path} can't be read: {error.strerror}.",
        "The service reads it as its own user: put it where that user may read, such as /var/lib/rockfill/import.",
    )
