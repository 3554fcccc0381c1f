"""What the name of a model file tells: quantisation, platform, converter. What it does not tell stays None.

Nobody prescribes these names. Seen in repositories, and all read here:

- ``{model}-rk3588-w8a8_g128-opt-1-hybrid-ratio-0.5.rkllm`` in ``{user}/{model}-rk3588-1.1.2`` (ez-er-rkllm-toolkit),
- ``{model}_W8A8_RK3588.rkllm`` (Rockchip's own demos), ``{model}_w8a8_g128_rk3588.rkllm``,
- ``{model}-rk3588-1.2.1.rkllm``, and ``{model}.rkllm`` with nothing at all,
- ``{model}-q8_0.gguf``, ``{model}.Q4_K_M.gguf``, and parts such as ``{model}-q8_0-00001-of-00003.gguf``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

ENGINES = {".rkllm": "rkllm", ".gguf": "llama"}

_START, _END = r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])"
_PLATFORM = re.compile(rf"{_START}(r[kv]\d{{4}})[a-z]?{_END}", re.I)
_RKLLM_QUANTISATION = re.compile(rf"{_START}(w\d{{1,2}}a\d{{1,2}}(?:_g\d+)?){_END}", re.I)
_GGUF_QUANTISATION = re.compile(rf"{_START}(i?q\d(?:_[a-z0-9]+)*|tq\d_\d|mxfp4|bf16|f16|f32){_END}", re.I)
_OPTIMISATION = re.compile(rf"{_START}opt[-_]?(\d){_END}", re.I)
_HYBRID_RATIO = re.compile(rf"{_START}hybrid[-_]ratio[-_](\d(?:\.\d+)?)", re.I)
_VERSION = re.compile(r"(?<![A-Za-z0-9.])v?(1\.\d{1,2}\.\d{1,2}(?:b\d*)?)(?![A-Za-z0-9]|\.\d)", re.I)
_PART = re.compile(r"-(\d{5})-of-(\d{5})$")
_SIZE = re.compile(rf"{_START}(\d+(?:\.\d+)?b){_END}", re.I)

# GGUF files beside a model that are none: the projector of a vision model, and what a quantiser needs.
_NO_MODEL = re.compile(r"(^|[/_.-])(mmproj|imatrix)([/_.-]|$)", re.I)


@dataclass(frozen=True, slots=True)
class RepoFile:
    """A file of a repository. `sha256` is None where the repository has no such digest (then `blob_id` is git's)."""

    path: str
    size_bytes: int | None
    sha256: str | None = None
    blob_id: str | None = None


@dataclass(frozen=True, slots=True)
class Variant:
    """One model file of a repository; None is what neither its name nor the repository's tells.

    `parts` is into how many files it is split, of which this is the first.
    """

    file: str
    engine: str
    model: str
    quantisation: str | None
    optimisation: int | None
    hybrid_ratio: float | None
    platform: str | None
    converter_version: str | None
    size_bytes: int | None
    parts: int = 1


def variants_of(repository: str, files: Iterable[RepoFile]) -> tuple[Variant, ...]:
    """The model files among `files`, as their names and that of the repository (``user/name``) tell them."""
    found: list[Variant] = []
    for file in files:
        stem, dot, suffix = file.path.rpartition(".")
        engine = ENGINES.get(f"{dot}{suffix}".lower())
        if engine is None or _NO_MODEL.search(file.path):
            continue
        part = _PART.search(stem)
        if part is None or int(part[1]) == 1:
            found.append(parse_name(repository, file.path, file.size_bytes))
    return tuple(found)


def parse_name(repository: str, path: str, size_bytes: int | None = None) -> Variant:
    """The variant that is called `path`, which ends as a model file does, in `repository` ("" for none)."""
    stem, dot, suffix = path.rpartition("/")[2].rpartition(".")
    engine = ENGINES[f"{dot}{suffix}".lower()]
    name = repository.rpartition("/")[2]
    part = _PART.search(stem)
    of_npu = engine == "rkllm"
    quantisation = (_RKLLM_QUANTISATION if of_npu else _GGUF_QUANTISATION).findall(stem)
    optimisation = _OPTIMISATION.search(stem) if of_npu else None
    hybrid_ratio = _HYBRID_RATIO.search(stem) if of_npu else None
    platform = (_PLATFORM.search(stem) or _PLATFORM.search(name)) if of_npu else None
    version = (_VERSION.findall(stem) or _VERSION.findall(name)) if of_npu else ()
    return Variant(
        file=path,
        engine=engine,
        model=_model(stem),
        quantisation=quantisation[-1].lower() if quantisation else None,
        optimisation=int(optimisation[1]) if optimisation else None,
        hybrid_ratio=float(hybrid_ratio[1]) if hybrid_ratio else None,
        platform=platform[1].lower() if platform else None,
        converter_version=version[-1].lower() if version else None,
        size_bytes=size_bytes,
        parts=int(part[2]) if part else 1,
    )


def _model(stem: str) -> str:
    """The file's name without what was read out of it."""
    for pattern in (_PART, _HYBRID_RATIO, _OPTIMISATION, _RKLLM_QUANTISATION, _GGUF_QUANTISATION, _PLATFORM, _VERSION):
        stem = pattern.sub("", stem)
    return re.sub(r"[-_.]{2,}", "-", stem).strip("-_.") or "model"


def name_of(model: str, family: str | None) -> str:
    """What to call `model` (`Variant.model`): ``family:size`` where both are known, which is what editors match."""
    size = _SIZE.search(model)
    lowered = model.lower()
    if family is None or size is None:
        return re.sub(r"[^a-z0-9.]+", "-", lowered).strip("-.") or "model"
    tuned = "-instruct" if "instruct" in lowered else "-it" if re.search(r"(^|[-_.])it($|[-_.])", lowered) else ""
    return f"{family}:{size[1].lower()}{tuned}"


def named(variants: Iterable[Variant], wanted: str) -> tuple[Variant, ...]:
    """Those that `wanted` means: a file's path or name, with or without its suffix, else a quantisation."""
    known = tuple(variants)
    wanted = wanted.lower()
    for names in (_file_names, _quantisations):
        found = tuple(variant for variant in known if wanted in names(variant))
        if found:
            return found
    return ()


def _file_names(variant: Variant) -> set[str]:
    path = variant.file.lower()
    name = path.rpartition("/")[2]
    return {path, name, name.rpartition(".")[0]}


def _quantisations(variant: Variant) -> set[str]:
    return {variant.quantisation} if variant.quantisation else set()
