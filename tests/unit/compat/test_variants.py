from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockfill.compat.variants import RepoFile, Variant, name_of, named, parse_name, variants_of

CODEGEMMA = "c01zaut/codegemma-2b-rk3588-1.1.2"

# repository, file, and what they tell: model, quantisation, optimisation, hybrid ratio, platform, converter
Told = tuple[str, str | None, int | None, float | None, str | None, str | None]
NAMES: list[tuple[str, str, Told]] = [
    (
        "c01zaut/codegemma-2b-rk3588-1.1.2",
        "codegemma-2b-rk3588-w8a8-opt-1-hybrid-ratio-0.5.rkllm",
        ("codegemma-2b", "w8a8", 1, 0.5, "rk3588", "1.1.2"),
    ),
    (
        "c01zaut/codegemma-2b-rk3588-1.1.2",
        "codegemma-2b-rk3588-w8a8_g128-opt-0-hybrid-ratio-1.0.rkllm",
        ("codegemma-2b", "w8a8_g128", 0, 1.0, "rk3588", "1.1.2"),
    ),
    (
        "",
        "gemma-lora-rk3576-w4a16_g64-opt-0-hybrid-ratio-0.0.RKLLM",
        ("gemma-lora", "w4a16_g64", 0, 0.0, "rk3576", None),
    ),
    (
        "punchnox/Tinnyllama-1.1B-rk3588-rkllm-1.1.4",
        "TinyLlama-1.1B-Chat-v1.0-rk3588-w8a8-opt-0-hybrid-ratio-0.5.rkllm",
        ("TinyLlama-1.1B-Chat-v1.0", "w8a8", 0, 0.5, "rk3588", "1.1.4"),
    ),
    (
        "dulimov/Qwen3-4B-rk3588-1.2.1-base",
        "Qwen3-4B-rk3588-w8a8-opt-1-hybrid-ratio-0.0.rkllm",
        ("Qwen3-4B", "w8a8", 1, 0.0, "rk3588", "1.2.1"),
    ),
    (
        "a/b",
        "deepseek-coder-1.3b-instruct_w8a8_g128_rk3588.rkllm",
        ("deepseek-coder-1.3b-instruct", "w8a8_g128", None, None, "rk3588", None),
    ),
    ("a/b", "Qwen3-1.7B_W8A8_RK3588.rkllm", ("Qwen3-1.7B", "w8a8", None, None, "rk3588", None)),
    (
        "a/b",
        "Qwen2.5-VL-7B-Instruct-rk3588-1.2.1.rkllm",
        ("Qwen2.5-VL-7B-Instruct", None, None, None, "rk3588", "1.2.1"),
    ),
    ("a/b-1.2.0", "model-rk3588s-w8a8-v1.2.1b1.rkllm", ("model", "w8a8", None, None, "rk3588", "1.2.1b1")),
    (
        "3ib0n/Qwen2.5-14B-Coder-Instruct-rkllm",
        "Qwen2.5-Coder-14B-Instruct.rkllm",
        ("Qwen2.5-Coder-14B-Instruct", None, None, None, None, None),
    ),
    ("Qengineering/RK3576-models", "sub/dir/phi-w4a16.rkllm", ("phi", "w4a16", None, None, "rk3576", None)),
    (
        "ggml-org/Qwen2.5-Coder-1.5B-Q8_0-GGUF",
        "qwen2.5-coder-1.5b-q8_0.gguf",
        ("qwen2.5-coder-1.5b", "q8_0", None, None, None, None),
    ),
    ("a/b", "Codestral-22B-v0.1.Q4_K_M.gguf", ("Codestral-22B-v0.1", "q4_k_m", None, None, None, None)),
    ("a/b", "codegemma-2b-f16.gguf", ("codegemma-2b", "f16", None, None, None, None)),
    ("a/b", "x-IQ4_XS.gguf", ("x", "iq4_xs", None, None, None, None)),
    ("google/codegemma-2b-GGUF", "codegemma-2b.gguf", ("codegemma-2b", None, None, None, None, None)),
]


@pytest.mark.parametrize(("repository", "file", "told"), NAMES)
def test_a_name_tells_what_it_tells(repository: str, file: str, told: Told) -> None:
    engine = "llama" if file.endswith("gguf") else "rkllm"
    assert parse_name(repository, file, 7) == Variant(file, engine, *told, size_bytes=7)


def test_a_repository_offers_its_model_files_and_nothing_else() -> None:
    names = ["a-w8a8.rkllm", "config.json", "b-q8_0.gguf", "mmproj-b-f16.gguf", "b.imatrix.gguf", "README.md"]
    parts = [f"c-q4_0-{number:05}-of-00003.gguf" for number in (1, 2, 3)]
    found = variants_of("u/r", [RepoFile(name, 1) for name in (*names, *parts)])
    assert [(variant.file, variant.parts) for variant in found] == [
        ("a-w8a8.rkllm", 1),
        ("b-q8_0.gguf", 1),
        ("c-q4_0-00001-of-00003.gguf", 3),
    ]
    assert found[2].model == "c"


@pytest.mark.parametrize(
    ("model", "family", "name"),
    [
        ("codegemma-2b", "codegemma", "codegemma:2b"),
        ("codegemma-7b-it", "codegemma", "codegemma:7b-it"),
        ("Qwen2.5-Coder-1.5B-Instruct", "qwen2.5-coder", "qwen2.5-coder:1.5b-instruct"),
        ("Qwen3-4B", None, "qwen3-4b"),
        ("codegemma", "codegemma", "codegemma"),
        ("../..", None, "model"),
    ],
)
def test_names_are_family_and_size_where_both_are_known(model: str, family: str | None, name: str) -> None:
    assert name_of(model, family) == name


def test_a_variant_is_named_by_file_or_quantisation() -> None:
    files = [f"m-rk3588-{q}-opt-{o}-hybrid-ratio-0.0.rkllm" for q in ("w8a8", "w8a8_g128") for o in (0, 1)]
    variants = variants_of("u/r", [RepoFile(f"dir/{file}", 1) for file in files])
    assert [variant.optimisation for variant in named(variants, "W8A8")] == [0, 1]
    for wanted in (f"dir/{files[3]}", files[3], files[3].removesuffix(".rkllm")):
        assert named(variants, wanted) == (variants[3],)
    assert named(variants, "w4a16") == ()


@given(st.text(), st.text())
def test_no_name_is_too_strange(repository: str, stem: str) -> None:
    variant = parse_name(repository, f"{stem}.rkllm")
    assert variant.engine == "rkllm"
    assert variant.model
