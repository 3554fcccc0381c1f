"""Which `librkllmrt.so` is this, and which ABI does it speak?

The library has no call that tells its version, and a structure laid out for another release makes it read garbage or
crash; so the file is identified from its bytes, and nothing is ever guessed. In order:

1. the git blob id of the file, which names an official build exactly;
2. the string ``RKLLM SDK (version: …)``, seen in 1.2.0, 1.2.1b1 and 1.3.1;
3. the exported symbols, which tell 1.0, 1.1, 1.2.0/1.2.1b1 and later apart, but not 1.2.1 from 1.3.

What is then still open, the worker settles from the bytes that `rkllm_createDefaultParam` writes (`settle`).
Layouts: rkllm.h of each release of airockchip/rknn-llm. Issues [#N] are of that repository.
"""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from rockfill.errors import Code, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator


class Generation(StrEnum):
    """The releases of rkllm.h that differ in layout or prototypes, oldest first, each named by its first release."""

    V1_1 = "1.1"  # 1.1.0 to 1.1.4: one header, byte for byte
    V1_2_0 = "1.2.0"
    V1_2_1B1 = "1.2.1b1"
    V1_2_1 = "1.2.1"  # 1.2.1 to 1.2.3
    V1_3 = "1.3"


_GENERATIONS = {
    **dict.fromkeys(("1.1.0", "1.1.1", "1.1.2", "1.1.3", "1.1.4"), Generation.V1_1),
    "1.2.0": Generation.V1_2_0,
    "1.2.1b1": Generation.V1_2_1B1,
    **dict.fromkeys(("1.2.1", "1.2.2", "1.2.3"), Generation.V1_2_1),
    "1.3.0": Generation.V1_3,
}
# What a version whose header was never seen (1.3.1, betas) may speak, as far as its symbols and defaults agree
_UNSEEN = {
    (1, 1): (Generation.V1_1,),
    (1, 2): (Generation.V1_2_1B1, Generation.V1_2_1),
    (1, 3): (Generation.V1_3,),
}

# Linux/aarch64, from the tree objects of airockchip/rknn-llm
OFFICIAL_BLOB_IDS = MappingProxyType(
    {
        "1.0.0": "53e00993ebbc7797df09673f806479e8642db946",
        "1.0.1": "a026cbe60905af0ad6c07dfa2fcc339dd4b9fa10",
        "1.0.2b": "c913ab1569dfed48916c05fcd898f8d3f9dafe04",
        "1.1.0": "66dfdc7c25cdca9ccf9930798118e17abf7592ff",
        "1.1.1": "bfca051375287d0f5aa754a7b8681b4ede52e259",
        "1.1.2": "e8f4afc38c7394beeff83003dbc772412f649a44",
        "1.1.3": "68e79327e82f675413956be615f48c62ccd0f16e",
        "1.1.4": "3bb8cb6172c4c06e1c622c8f8c579888378784f4",
        "1.2.0": "d45ee9b8dcb9ef27d7dd875ce3be3d5e6dfb654d",
        "1.2.1b1": "db041c01bba5e0e8f624bb2ff50d48825dde1bfc",
        "1.2.1": "6b9439d59f2fe4bb8ef5ee2b09c102f1bf993da9",
        "1.2.2": "8ed9cca16f8d5ad8f7cdd7d393de6561182b3395",
        "1.2.3": "0084abc34ab43359cfa9fd5d4c92ece34127dbd0",
        "1.3.0": "34167b32f99cb7ab19e21fb579fb750d96b878f1",
    }
)
_VERSION_BY_BLOB_ID = {blob_id: version for version, blob_id in OFFICIAL_BLOB_IDS.items()}

# "RKLLM SDK (version: 1.2.1b1 | target: Linux | build: 27637c95 2025-05-02 17:46:07)" in the 1.2.1b1 library
_VERSION_STRING = re.compile(rb"RKLLM SDK \(version: ?(\d{1,4}\.\d{1,4}\.\d{1,4}(?:b\d{0,4})?) ")

_ADVICE = "Use the librkllmrt.so of release 1.2.3 of airockchip/rknn-llm."


@dataclass(frozen=True, slots=True)
class RuntimeIdentity:
    """What the bytes of a library say about it.

    `generation` is None while more than the bytes is needed; `candidates` are those that are still possible (none: the
    bytes contradict each other), and `settle` chooses among them. `architecture` is as `platform.machine()` names it,
    None if not known by name. `blob_id` is the git blob id; that of an official build is in `OFFICIAL_BLOB_IDS`.
    """

    version: str | None
    generation: Generation | None
    candidates: tuple[Generation, ...]
    architecture: str | None
    found_by: Literal["blob_id", "version_string", "symbols"]
    blob_id: str


def identify(image: bytes) -> RuntimeIdentity:
    """The identity of a `librkllmrt.so` from its whole content.

    Raises `runtime_unsupported`, saying what was seen, for anything that is no such library, for 1.0 and for
    releases that this Rockfill does not know.
    """
    architecture = _architecture(image)
    blob_id = git_blob_id(image)
    if version := _VERSION_BY_BLOB_ID.get(blob_id):
        candidates = _by_version(version)
        return RuntimeIdentity(version, candidates[0], candidates, architecture, "blob_id", blob_id)
    versions = {match.decode() for match in _VERSION_STRING.findall(image)}
    if len(versions) == 1:
        [version] = versions
        candidates = _by_version(version)
        if version in _GENERATIONS:
            return RuntimeIdentity(version, candidates[0], candidates, architecture, "version_string", blob_id)
        by_symbols = _by_symbols(image)
        candidates = tuple(generation for generation in candidates if generation in by_symbols)
        return RuntimeIdentity(version, None, candidates, architecture, "version_string", blob_id)
    candidates = _by_symbols(image)
    generation = candidates[0] if len(candidates) == 1 else None
    return RuntimeIdentity(None, generation, candidates, architecture, "symbols", blob_id)


def git_blob_id(image: bytes) -> str:
    """What ``git hash-object`` says of these bytes; `OFFICIAL_BLOB_IDS` has that of each official build."""
    return hashlib.sha1(b"blob %d\0" % len(image) + image, usedforsecurity=False).hexdigest()


def settle(identity: RuntimeIdentity, default_params: bytes) -> Generation:
    """The one generation that the file and the running library agree on.

    `default_params` is what `probe_generation` takes. Raises `runtime_unsupported` if they contradict each other,
    or if the library's defaults do not decide what the file left open.
    """
    probed = probe_generation(default_params)
    if not probed and identity.generation is not None:
        return identity.generation
    agreed = [generation for generation in identity.candidates if generation in probed]
    if len(agreed) == 1:
        return agreed[0]
    raise Problem(
        Code.RUNTIME_UNSUPPORTED,
        f"librkllmrt.so {identity.version or 'of unknown version'} can't be matched to a known ABI: "
        f"the file allows {_list(identity.candidates)}, its default parameters look like {_list(probed)}",
        _ADVICE,
        candidates=list(identity.candidates),
        probed=list(probed),
        default_params=default_params[:128].hex(),
    )


def probe_generation(default_params: bytes) -> tuple[Generation, ...]:
    """The generations whose RKLLMParam these bytes can be; empty if they fit none, or two that exclude each other.

    `default_params` are 512 bytes that `rkllm_createDefaultParam` was given to fill. The defaults looked at are those
    of 1.2.1b1 (n_keep -1, embed_flash 1, 4 CPUs, three image markers that point to ""); 1.3's are assumed equal.
    Bytes that the library leaves alone may hold anything.
    """
    if len(default_params) < _PROBED_BYTES:
        return ()
    if struct.unpack_from("<i", default_params, 20)[0] != -1:
        # 1.1 has no n_keep: top_p and temperature stand at 20 and 24
        top_p, temperature = struct.unpack_from("<2f", default_params, 20)
        return (Generation.V1_1,) if 0 < top_p <= 1 and 0 < temperature <= 2 else ()
    markers = struct.unpack_from("<3Q", default_params, 64)
    is_1_2 = all(4096 <= marker < 1 << 56 for marker in markers) and _extend_param_at(default_params, 88)
    is_1_3 = _extend_param_at(default_params, 60)
    if is_1_2 == is_1_3:
        return ()
    return (Generation.V1_3,) if is_1_3 else (Generation.V1_2_0, Generation.V1_2_1B1, Generation.V1_2_1)


_PROBED_BYTES = 96


def _extend_param_at(image: bytes, offset: int) -> bool:
    """Whether base_domain_id 0, embed_flash 1 and enabled_cpus_num 4 stand there."""
    return struct.unpack_from("<ibb", image, offset) == (0, 1, 4)


def _list(generations: tuple[Generation, ...]) -> str:
    return " or ".join(generations) or "none"


def _by_version(version: str) -> tuple[Generation, ...]:
    """The generations that a version may have: one where its header is known."""
    if generation := _GENERATIONS.get(version):
        return (generation,)
    major, minor, _ = version.split(".")
    release = (int(major), int(minor))
    if release in _UNSEEN:
        return _UNSEEN[release]
    what = "too old for" if release < min(_UNSEEN) else "not known to"
    raise Problem(
        Code.RUNTIME_UNSUPPORTED,
        f"librkllmrt.so {version} is {what} Rockfill, which supports 1.1 to 1.3",
        _ADVICE,
        version=version,
    )


def _by_symbols(image: bytes) -> tuple[Generation, ...]:
    names = {name for name in _exported_names(image) if name.startswith(b"rkllm_")}
    if not {b"rkllm_init", b"rkllm_run"} <= names:
        raise Problem(
            Code.RUNTIME_UNSUPPORTED,
            "The library is no librkllmrt.so: it exports no rkllm_init and rkllm_run",
            _ADVICE,
            symbols=sorted(name.decode(errors="replace") for name in names),
        )
    if b"rkllm_run_async" not in names:  # added in 1.1.0
        return _by_version("1.0.x")
    if b"rkllm_set_chat_template" not in names:  # added in 1.2.0
        return (Generation.V1_1,)
    if b"rkllm_get_kv_cache_size" not in names:  # added in 1.2.1
        # 1.2.0 differs only in RKLLMMultiModelInput, which is shorter there and never used here
        return (Generation.V1_2_1B1,)
    return (Generation.V1_2_1, Generation.V1_3)  # 1.3.0 changed nearly every structure, and added no function


# --- ELF, as far as needed (System V gABI, "Object Files"): 64-bit little-endian

_MACHINES = {3: "i686", 40: "armv7l", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
_CLASS_64_LITTLE_ENDIAN = b"\x02\x01"
_SHT_DYNSYM = 11
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_LONGEST_NAME = 256


def _architecture(image: bytes) -> str | None:
    if len(image) < 64 or image[:4] != b"\x7fELF":
        seen = "no shared library"
        if not image:
            seen = "an empty file"
        elif image.startswith(b"version https://git-lfs"):
            seen = "a Git LFS pointer, not the file that it stands for"
        elif image.lstrip()[:1] == b"<":
            seen = "a web page"
        raise _not_a_library(image, f"This is {seen} ({len(image)} bytes)")
    if image[4:6] == _CLASS_64_LITTLE_ENDIAN:
        table, entry_size, count = _section_table(image)
        if table + entry_size * count > len(image):  # linkers write this table last
            raise _not_a_library(image, f"The library is cut short: it has only {len(image)} bytes")
    return _MACHINES.get(int.from_bytes(image[18:20], "little"))


def _not_a_library(image: bytes, message: str) -> Problem:
    return Problem(Code.RUNTIME_UNSUPPORTED, message, _ADVICE, size_bytes=len(image), head=image[:16].hex())


def _section_table(image: bytes) -> tuple[int, int, int]:
    (offset,) = struct.unpack_from("<Q", image, 0x28)
    entry_size, count = struct.unpack_from("<2H", image, 0x3A)
    return offset, entry_size, count


def _exported_names(image: bytes) -> Iterator[bytes]:
    """Names that the dynamic symbol table defines; fewer or none where the file is damaged, never an error."""
    table, entry_size, count = _section_table(image)
    if image[4:6] != _CLASS_64_LITTLE_ENDIAN or entry_size != _SECTION.size:
        return
    sections = [_SECTION.unpack_from(image, table + index * entry_size) for index in range(count)]
    for _, kind, _, _, offset, size, link, _, _, _ in sections:
        if kind != _SHT_DYNSYM:
            continue
        if link >= count or offset + size > len(image):
            return
        strings = sections[link][4]
        for at in range(offset, offset + size - _SYMBOL.size + 1, _SYMBOL.size):
            name, _, _, section, _, _ = _SYMBOL.unpack_from(image, at)
            if section != 0:  # 0: imported, not defined here
                yield image[strings + name : strings + name + _LONGEST_NAME].split(b"\0", 1)[0]
        return  # there is one such table; a file that claims thousands is not worth the time
