"""The ctypes structures against rkllm.h, as compilers on x86-64 and aarch64 lay it out (`tests/data`)."""

from __future__ import annotations

import ctypes
import gc
import json
from pathlib import Path
from typing import Any

import pytest

from rockfill.compat.runtime import Generation
from rockfill.errors import Code, Problem
from rockfill.rkllm.abi import Abi, Library

LAYOUTS: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "data" / "rkllm-layouts.json").read_text(encoding="utf-8")
)
GENERATIONS = {
    "1.1.4": Generation.V1_1,
    "1.2.0": Generation.V1_2_0,
    "1.2.1b1": Generation.V1_2_1B1,
    "1.2.1": Generation.V1_2_1,
    "1.2.3": Generation.V1_2_1,
    "1.3.0": Generation.V1_3,
}
VERSIONS = [version for version in LAYOUTS if not version.startswith("1.0")]
# rkllm.h up to 1.2.1 says "MultiModel"
RENAMED = {"RKLLMMultiModelInput": "RKLLMMultiModalInput"}
KINDS = {
    "int32_t": ctypes.c_int32,
    "int": ctypes.c_int,
    "uint32_t": ctypes.c_uint32,
    "size_t": ctypes.c_size_t,
    "int8_t": ctypes.c_int8,
    "uint8_t": ctypes.c_uint8,
    "bool": ctypes.c_bool,
    "float": ctypes.c_float,
    "char*": ctypes.c_char_p,
}


def place_of(structure: Any, dotted_name: str) -> tuple[int, int, Any]:
    """Offset, size and ctypes type of a field, which may be in a nested structure."""
    offset = 0
    size = 0
    for name in dotted_name.split("."):
        field = getattr(structure, name)
        offset, size = offset + field.offset, field.size
        structure = next(
            kind
            for owner in (structure, *(kind for _, kind in structure._fields_ if issubclass(kind, ctypes.Union)))
            for owned, kind in owner._fields_
            if owned == name
        )
    return offset, size, structure


def test_every_layout_has_a_generation() -> None:
    assert set(VERSIONS) == set(GENERATIONS)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_field_stands_where_the_header_puts_it(version: str) -> None:
    abi = Abi.of(GENERATIONS[version])
    for name, layout in LAYOUTS[version].items():
        structure = abi.structures[RENAMED.get(name, name)]
        assert (ctypes.sizeof(structure), ctypes.alignment(structure)) == (layout["size"], layout["align"]), name
        for field in layout["fields"]:
            offset, size, kind = place_of(structure, field["name"])
            assert (offset, size) == (field["offset"], field["size"]), f"{name}.{field['name']}"
            c_type = field["type"].removeprefix("const ")
            assert kind is KINDS.get(c_type, kind), f"{name}.{field['name']} is no {c_type}"


@pytest.mark.parametrize("version", VERSIONS)
def test_there_is_no_field_and_no_structure_that_the_header_lacks(version: str) -> None:
    structures = Abi.of(GENERATIONS[version]).structures
    named = {name: structure for name, structure in structures.items() if name.startswith("RKLLM") and "." not in name}
    assert set(named) == {RENAMED.get(name, name) for name in LAYOUTS[version]}
    for name, layout in LAYOUTS[version].items():
        names = [owned for owned, *_ in named[RENAMED.get(name, name)]._fields_]
        wanted = dict.fromkeys(field["name"].split(".")[0] for field in layout["fields"])
        if name == "RKLLMInput":  # its anonymous union has a name here
            wanted = dict.fromkeys(field for field in wanted if not field.endswith("_input")) | {"payload": None}
        assert names == list(wanted), name


def test_functions_are_absent_where_the_library_lacks_them() -> None:
    added = {"rkllm_set_chat_template", "rkllm_clear_kv_cache"}
    assert added.isdisjoint(Abi.of(Generation.V1_1).prototypes)
    for generation in list(Generation)[1:]:
        assert set(Abi.of(generation).prototypes) == set(Abi.of(Generation.V1_1).prototypes) | added


def test_clear_kv_cache_takes_a_range_from_1_2_1_on() -> None:
    arguments = {g: len(Abi.of(g).prototypes["rkllm_clear_kv_cache"][1]) for g in list(Generation)[1:]}
    assert arguments == {
        Generation.V1_2_0: 2,
        Generation.V1_2_1B1: 2,
        Generation.V1_2_1: 4,
        Generation.V1_3: 4,
    }


@pytest.mark.parametrize("generation", list(Generation))
def test_a_token_input_keeps_its_ids_and_zeros_for_whoever_reads_on(generation: Generation) -> None:
    ids = list(range(100_000, 101_000))
    made = Abi.of(generation).token_input(ids)
    gc.collect()
    assert made.token_input.input_ids[: made.token_input.n_tokens] == ids
    size = ctypes.sizeof(made)
    assert ctypes.string_at(ctypes.addressof(made) + size, 160 - size) == bytes(160 - size)


@pytest.mark.parametrize("generation", list(Generation))
def test_an_infer_param_generates_without_history(generation: Generation) -> None:
    made = Abi.of(generation).infer_param(17)
    limit = getattr(made, "max_new_tokens", 0)
    assert limit == (17 if generation is Generation.V1_3 else 0)
    assert bytes(made).count(0) == ctypes.sizeof(made) - (limit > 0)


def test_a_file_that_is_no_library_is_a_problem(tmp_path: Path) -> None:
    rubbish = tmp_path / "librkllmrt.so"
    rubbish.write_bytes(b"<html>")
    for path in (rubbish, tmp_path / "absent"):
        with pytest.raises(Problem) as caught:
            Library.open(path, Generation.V1_3)
        assert caught.value.code is Code.ENGINE_NOT_INSTALLED


def test_a_library_without_the_functions_is_a_problem() -> None:
    with pytest.raises(Problem) as caught:
        Library.open(Path("libc.so.6"), Generation.V1_3)
    assert caught.value.code is Code.RUNTIME_UNSUPPORTED
