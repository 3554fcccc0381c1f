"""Which `librkllmrt.so` is this: over bytes made here; the compiled simulators are in `unit/rkllm`."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockfill.compat import runtime
from rockfill.compat.runtime import (
    OFFICIAL_BLOB_IDS,
    Generation,
    RuntimeIdentity,
    git_blob_id,
    identify,
    probe_generation,
    settle,
)
from rockfill.errors import Code, Problem

V1_0 = ("rkllm_createDefaultParam", "rkllm_init", "rkllm_run", "rkllm_destroy")
V1_1 = (*V1_0, "rkllm_run_async", "rkllm_abort", "rkllm_is_running")
V1_2_0 = (*V1_1, "rkllm_set_chat_template", "rkllm_clear_kv_cache")
V1_2_1 = (*V1_2_0, "rkllm_get_kv_cache_size")
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:3cef353105c3bfd31f99c4963fce8498\nsize 6239192\n"


def elf(exported: tuple[str, ...], content: bytes = b"", machine: int = 183, imported: tuple[str, ...] = ()) -> bytes:
    """A 64-bit shared library as far as `identify` reads one: header, content, .dynstr, .dynsym, section table."""
    names, offsets = b"\0", {}
    for name in (*exported, *imported):
        offsets[name] = len(names)
        names += name.encode() + b"\0"
    symbols = bytes(24)
    for name in (*exported, *imported):
        symbols += struct.pack("<IBBHQQ", offsets[name], 0x12, 0, 5 if name in exported else 0, 0x1000, 8)
    names_at = 64 + len(content)
    symbols_at = names_at + len(names)
    sections = bytes(64)
    sections += struct.pack("<IIQQQQIIQQ", 0, 11, 0, 0, symbols_at, len(symbols), 2, 1, 8, 24)
    sections += struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, names_at, len(names), 0, 0, 1, 0)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = ident + struct.pack(
        "<HHIQQQIHHHHHH", 3, machine, 1, 0, 0, symbols_at + len(symbols), 0, 64, 0, 0, 64, 3, 0
    )
    return header + content + names + symbols + sections


def sdk(version: str) -> bytes:
    return f"\0RKLLM SDK (version: {version} | target: Linux | build: 27637c95 2025-05-02 17:46:07)\0".encode()


def refusal(image: bytes) -> Problem:
    with pytest.raises(Problem) as caught:
        identify(image)
    assert caught.value.code is Code.RUNTIME_UNSUPPORTED
    assert caught.value.advice
    return caught.value


def default_params(generation: Generation, fill: bytes) -> bytes:
    """What `rkllm_createDefaultParam` writes over memory that held `fill`, 512 bytes of it."""
    image = bytearray(fill)
    sampling = struct.pack("<5f", 0.9, 0.8, 1.1, 0, 0) + struct.pack("<iff", 0, 5.0, 0.1)
    image[0:20] = struct.pack("<Qiii", 0, 512, -1, 40)
    if generation is Generation.V1_1:
        image[20:54] = sampling + b"\1\0"
        image[56:84] = struct.pack("<3Qi", *[0x7F00_1234_5678] * 3, 0)
    elif generation is Generation.V1_3:
        image[20:59] = struct.pack("<i", -1) + sampling + b"\1\0\0"
        image[60:72] = struct.pack("<ibbxxI", 0, 1, 4, 0xF0)
    else:
        image[20:58] = struct.pack("<i", -1) + sampling + b"\1\0"
        image[64:100] = struct.pack("<3QibbxxI", *[0x7F00_1234_5678] * 3, 0, 1, 4, 0xF0)
    return bytes(image)


@pytest.mark.parametrize(
    ("exported", "candidates"),
    [
        (V1_1, (Generation.V1_1,)),
        (V1_2_0, (Generation.V1_2_1B1,)),
        (V1_2_1, (Generation.V1_2_1, Generation.V1_3)),
    ],
)
def test_symbols_tell_what_they_can_and_no_more(exported: tuple[str, ...], candidates: tuple[Generation, ...]) -> None:
    identity = identify(elf(exported, imported=("malloc", "rkllm_get_kv_cache_size")[: 1 if exported == V1_2_1 else 2]))
    assert identity.candidates == candidates
    assert identity.generation == (candidates[0] if len(candidates) == 1 else None)
    assert (identity.version, identity.architecture, identity.found_by) == (None, "aarch64", "symbols")


@pytest.mark.parametrize(
    ("version", "generation"),
    [
        ("1.1.2", Generation.V1_1),
        ("1.2.0", Generation.V1_2_0),
        ("1.2.1b1", Generation.V1_2_1B1),
        ("1.2.3", Generation.V1_2_1),
        ("1.3.0", Generation.V1_3),
    ],
)
def test_a_version_string_goes_before_symbols(version: str, generation: Generation) -> None:
    identity = identify(elf(V1_2_1, sdk(version)))
    assert (identity.version, identity.generation, identity.found_by) == (version, generation, "version_string")


@pytest.mark.parametrize(
    ("version", "exported", "candidates"),
    [
        ("1.3.1", V1_2_1, (Generation.V1_3,)),
        ("1.2.4", V1_2_1, (Generation.V1_2_1,)),
        ("1.2.1b2", V1_2_0, (Generation.V1_2_1B1,)),
        ("1.2.1b2", V1_2_1, (Generation.V1_2_1,)),
        ("1.3.1", V1_1, ()),
    ],
)
def test_a_version_whose_header_was_never_seen_waits_for_the_defaults(
    version: str, exported: tuple[str, ...], candidates: tuple[Generation, ...]
) -> None:
    identity = identify(elf(exported, sdk(version)))
    assert (identity.version, identity.generation, identity.candidates) == (version, None, candidates)


def test_two_version_strings_that_disagree_count_as_none() -> None:
    assert identify(elf(V1_1, sdk("1.2.3") + sdk("1.3.0"))).found_by == "symbols"
    assert identify(elf(V1_1, sdk("1.2.3") + sdk("1.2.3"))).version == "1.2.3"


def test_an_official_build_is_known_by_its_blob_id(monkeypatch: pytest.MonkeyPatch) -> None:
    image = elf(V1_2_1, sdk("1.3.0"))
    monkeypatch.setitem(runtime._VERSION_BY_BLOB_ID, git_blob_id(image), "1.2.2")
    identity = identify(image)
    assert (identity.version, identity.generation, identity.found_by) == ("1.2.2", Generation.V1_2_1, "blob_id")
    monkeypatch.setitem(runtime._VERSION_BY_BLOB_ID, git_blob_id(image), "1.0.2b")
    assert "1.0.2b is too old" in refusal(image).message


def test_the_blob_id_is_what_git_says() -> None:
    assert git_blob_id(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert all(len(blob_id) == 40 for blob_id in OFFICIAL_BLOB_IDS.values())
    assert len(set(OFFICIAL_BLOB_IDS.values())) == len(OFFICIAL_BLOB_IDS) == 14


@pytest.mark.parametrize(
    ("image", "seen"),
    [
        (b"", "an empty file"),
        (b"\n<!DOCTYPE html><html>Sign in", "a web page"),
        (LFS_POINTER, "a Git LFS pointer"),
        (b"\x7fELF\x02\x01", "no shared library"),
        (elf(V1_2_1)[:-1], "cut short"),
        (elf(("sqrt", "sin")), "exports no rkllm_init"),
        (elf((), imported=V1_2_1), "exports no rkllm_init"),
        (elf(V1_0), "1.0.x is too old"),
        (elf(V1_0, sdk("1.0.1")), "1.0.1 is too old"),
        (elf(V1_2_1, sdk("1.4.0")), "1.4.0 is not known"),
        (elf(V1_2_1, sdk("2.0.0")), "2.0.0 is not known"),
    ],
)
def test_what_is_no_supported_library_is_refused_with_what_was_seen(image: bytes, seen: str) -> None:
    assert seen in refusal(image).message


@pytest.mark.parametrize(("machine", "name"), [(183, "aarch64"), (40, "armv7l"), (62, "x86_64"), (9999, None)])
def test_the_architecture_is_named(machine: int, name: str | None) -> None:
    assert identify(elf(V1_1, machine=machine)).architecture == name


@given(st.binary(max_size=300).map(lambda tail: b"\x7fELF\x02\x01" + tail))
def test_rubbish_is_refused_and_never_an_error(image: bytes) -> None:
    refusal(image)


@given(st.data())
def test_damage_never_causes_an_error(data: st.DataObject) -> None:
    image = bytearray(elf(V1_2_1, sdk("1.2.3")[:20]))
    for at in data.draw(st.lists(st.integers(4, len(image) - 1), min_size=1, max_size=8)):
        image[at] = data.draw(st.sampled_from((0, 1, 64, 127, 255)))
    with suppress(Problem):
        identify(bytes(image))


@pytest.mark.parametrize("generation", list(Generation))
@given(fill=st.binary(min_size=512, max_size=512))
def test_the_defaults_tell_the_layout_whatever_the_memory_held(generation: Generation, fill: bytes) -> None:
    probed = probe_generation(default_params(generation, fill))
    # By accident the rest can look like the other layout; then nothing is said
    assert probed == () or generation in probed


@pytest.mark.parametrize("byte", [0x00, 0xA5, 0xFF])
@pytest.mark.parametrize("generation", list(Generation))
def test_the_defaults_tell_the_layout(generation: Generation, byte: int) -> None:
    probed = probe_generation(default_params(generation, bytes([byte] * 512)))
    alike = (Generation.V1_2_0, Generation.V1_2_1B1, Generation.V1_2_1)
    assert probed == (alike if generation in alike else (generation,))


def test_defaults_that_fit_two_layouts_tell_nothing() -> None:
    both = bytearray(default_params(Generation.V1_2_1, bytes(512)))
    both[60:66] = default_params(Generation.V1_3, bytes(512))[60:66]
    assert probe_generation(bytes(both)) == ()
    assert probe_generation(bytes(512)) == ()
    assert probe_generation(b"") == ()


def identity(generation: Generation | None, *candidates: Generation) -> RuntimeIdentity:
    return RuntimeIdentity(None, generation, candidates, "aarch64", "symbols", "0" * 40)


def test_the_defaults_settle_what_symbols_leave_open() -> None:
    undecided = identity(None, Generation.V1_2_1, Generation.V1_3)
    assert settle(undecided, default_params(Generation.V1_2_1, bytes(512))) is Generation.V1_2_1
    assert settle(undecided, default_params(Generation.V1_3, bytes(512))) is Generation.V1_3


def test_a_known_generation_stands_if_the_defaults_say_nothing() -> None:
    known = identity(Generation.V1_3, Generation.V1_3)
    assert settle(known, bytes(512)) is Generation.V1_3


@pytest.mark.parametrize(
    ("found", "params"),
    [
        (identity(None, Generation.V1_2_1, Generation.V1_3), bytes(512)),
        (identity(None, Generation.V1_3), bytes(512)),
        (identity(None, Generation.V1_3), default_params(Generation.V1_2_1, bytes(512))),
        (identity(Generation.V1_3, Generation.V1_3), default_params(Generation.V1_2_1, bytes(512))),
        (identity(None), default_params(Generation.V1_3, bytes(512))),
    ],
)
def test_what_stays_open_or_contradicts_is_refused(found: RuntimeIdentity, params: bytes) -> None:
    with pytest.raises(Problem) as caught:
        settle(found, params)
    assert caught.value.code is Code.RUNTIME_UNSUPPORTED
