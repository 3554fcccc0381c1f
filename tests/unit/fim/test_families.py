from __future__ import annotations

import pytest

from rockfill.fim.families import FAMILIES, ORDERS, Family, Marker, Slot, family_of

NAMES = {
    "c01zaut/codegemma-2b-rk3588-1.1.2": "codegemma",
    "codegemma-7b-it-rk3588-w8a8-opt-1-hybrid-ratio-0.5.rkllm": "codegemma",
    "codegemma:2b": "codegemma",
    "Qwen2.5-Coder-1.5B-Instruct-w8a8.rkllm": "qwen2.5-coder",
    "3ib0n/Qwen2.5-7B-Coder-Instruct-rkllm": "qwen2.5-coder",
    "qwen2_5_coder": "qwen2.5-coder",
    "qwen3-coder:30b": "qwen2.5-coder",
    "Qwen/CodeQwen1.5-7B": "starcoder",
    "deepseek-coder:6.7b": "deepseek-coder",
    "DeepSeek-Coder-V2-Lite-Base": "deepseek-coder",
    "bigcode/starcoder2-3b": "starcoder2",
    "bigcode/starcoderbase-1b": "starcoder",
    "stabilityai/stable-code-3b": "starcoder",
    "ibm-granite/granite-3b-code-base-2k": "starcoder",
    "ibm-granite/granite-4.0-h-1b": "granite4",
    "CodeLlama-7b-hf": "codellama",
    "code-llama:13b": "codellama",
    "Codestral-22B-v0.1": "codestral",
    "Seed-Coder-8B-Base": "seed-coder",
    "JetBrains/Mellum-4b-base": "mellum",
    "smallcloudai/Refact-1_6B-fim": "refact",
    "glm-4.5-air": "glm",
    "rockfill-tiny": "rockfill",
    "rockfill-tiny-q8_0.gguf": "rockfill",
    "/var/lib/rockfill/models/codegemma-2b/": "codegemma",
    "codegemma-and-others/qwen2.5-coder-1.5b": "qwen2.5-coder",
    "codegemma/model.gguf": "codegemma",
}


@pytest.mark.parametrize(("name", "family"), NAMES.items())
def test_a_name_gives_its_family(name: str, family: str) -> None:
    found = family_of(name)
    assert found is not None
    assert found.name == family


@pytest.mark.parametrize(
    "name",
    [
        "gemma-2-2b-it-RK3588-1.1.4",
        "Qwen2.5-1.5B-Instruct",
        "llama3:70b",
        "CodeLlama-7b-Python-hf",
        "codellama:34b",
        "mamba-codestral-7b",
        "refactor-llm",
        "granite-3.0-3b-a800m-instruct",
        "/var/lib/rockfill/models/model.gguf",
        "",
    ],
)
def test_a_model_that_was_not_trained_to_infill_has_no_family(name: str) -> None:
    assert family_of(name) is None


def test_names_of_families_are_distinct_and_name_their_family() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    for family in FAMILIES:
        if family.name not in ("glm", "rockfill", "refact"):  # these want a version in the name
            assert family_of(family.name) is family


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_template_takes_prefix_and_suffix_once_and_its_order_is_what_its_name_says(family: Family) -> None:
    assert family.default_order in family.orders
    for order in ORDERS:
        template = family.template(order)
        if template is None:
            continue
        slots = [part for part in template.parts if part in (Slot.PREFIX, Slot.SUFFIX)]
        assert slots == ([Slot.PREFIX, Slot.SUFFIX] if order == "psm" else [Slot.SUFFIX, Slot.PREFIX])
        assert template.parts.count(Slot.FILES) == (family.files is not None)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_marker_of_a_prompt_ends_a_completion(family: Family) -> None:
    layout = family.files
    parts = [part for template in (family.psm, family.spm) if template for part in template.parts]
    parts += [*layout.lead, *layout.each, *layout.current] if layout else []
    assert {part for part in parts if isinstance(part, Marker)} <= set(family.stop_markers)


def test_codegemma_spm_is_there_but_not_verified() -> None:
    codegemma = family_of("codegemma-2b")
    assert codegemma is not None
    assert codegemma.spm is not None
    assert codegemma.orders == ("psm",)
