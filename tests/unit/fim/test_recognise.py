from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rockfill.fim.context import Context, ContextFile
from rockfill.fim.families import FAMILIES, ORDERS, Family, Order
from rockfill.fim.prompt import render
from rockfill.fim.recognise import recognise

SPELLINGS = {
    "Zed, Continue: CodeGemma and Qwen": "<|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>",
    "llama.cpp --spm-infill": "<|fim_suffix|>S<|fim_prefix|>P<|fim_middle|>",
    "Continue: StarCoder": "<fim_prefix>P<fim_suffix>S<fim_middle>",
    "StarCoder, SPM": "<fim_prefix><fim_suffix>S<fim_middle>P",
    "Mellum": "<fim_suffix>S<fim_prefix>P<fim_middle>",
    "Continue: DeepSeek": "<｜fim▁begin｜>P<｜fim▁hole｜>S<｜fim▁end｜>",
    "Zed: CodeLlama": "<PRE> P <SUF>S <MID>",
    "CodeLlama, suffix first": "<PRE> <SUF>S <MID> P",
    "Zed: Codestral": "[SUFFIX]S[PREFIX]P",
    "Zed: GLM": "<|code_prefix|>P<|code_suffix|>S<|code_middle|>",
    "Seed-Coder": "<[fim-suffix]>S<[fim-prefix]>P<[fim-middle]>",
    "Continue: Seed-Coder in the wrong order": "<[fim-prefix]>P<[fim-suffix]>S<[fim-middle]>",
}


@pytest.mark.parametrize("bos", ["", "<bos>", "<s>", "<｜begin▁of▁sentence｜>"])
@pytest.mark.parametrize("prompt", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_a_whole_template_gives_its_prefix_and_suffix(prompt: str, bos: str) -> None:
    recognised = recognise(bos + prompt)
    assert recognised is not None
    assert recognised.context == Context("P", "S")


@pytest.mark.parametrize(
    ("prompt", "context"),
    [
        (
            (
                "<|repo_name|>shop\n<|file_sep|>a.py\nA\n<|file_sep|>b.py\nB\n<|file_sep|>c.py\n"
                "<|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>"
            ),
            Context("P", "S", (ContextFile("a.py", "A\n"), ContextFile("b.py", "B\n")), "c.py"),
        ),
        (
            "<|file_sep|>a.py\nA\n<|file_sep|>c.py\n<|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>",
            Context("P", "S", (ContextFile("a.py", "A\n"),), "c.py"),
        ),
        (
            "A<|file_separator|>B<|file_separator|><|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>",
            Context("P", "S", (ContextFile("", "A"), ContextFile("", "B"))),
        ),
        (
            "<file_sep>A<file_sep>B<file_sep><fim_prefix>P<fim_suffix>S<fim_middle>",
            Context("P", "S", (ContextFile("", "A"), ContextFile("", "B"))),
        ),
        (
            "[SUFFIX]S[PREFIX]+++++ a.py\nA\n\n+++++ c.py\nP",
            Context("P", "S", (ContextFile("a.py", "A\n"),), "c.py"),
        ),
        ("[SUFFIX]S[PREFIX]+++++ c.py\nP", Context("P", "S", (), "c.py")),
    ],
)
def test_the_forms_for_several_files_give_the_files_too(prompt: str, context: Context) -> None:
    recognised = recognise(prompt)
    assert recognised is not None
    assert recognised.context == context


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "def f():\n    return",
        "<|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>x",
        "x<|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>",
        " <|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>",
        "<|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>\n",
        "<|fim_prefix|>P<|fim_suffix|>S",
        "<|fim_prefix|>P<|fim_suffix|>a<|fim_suffix|>S<|fim_middle|>",
        "<|fim_prefix|>a<|fim_middle|>P<|fim_suffix|>S<|fim_middle|>",
        "<|fim_middle|>P<|fim_suffix|>S<|fim_prefix|>",
        "<bos><bos><|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>",
        "see [PREFIX] and [SUFFIX]",
        "[PREFIX]P[SUFFIX]S",
        "<PRE>P<SUF>S<MID>",
        "# Complete this:\n<｜fim▁begin｜>P<｜fim▁hole｜>S<｜fim▁end｜>",
        "<|file_sep|>a.py\nA<|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>",
        "<|file_sep|>a.py<|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>",
        "notes <|file_sep|>c.py\n<|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>",
        "<file_sep>A<fim_prefix>P<fim_suffix>S<fim_middle>",
        "the marker is called <|fim_prefix|> in this vocabulary",
        'STOPS = ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"]',
    ],
)
def test_text_that_is_not_a_whole_template_is_text(prompt: str) -> None:
    assert recognise(prompt) is None


texts = st.text("ab+# (\n<|>[]", max_size=40)
files = st.lists(st.builds(ContextFile, st.just("dir/a b.py"), texts.map(lambda text: text + "x\n")), max_size=3)


@given(st.sampled_from(FAMILIES), st.sampled_from(ORDERS), texts, texts, files)
def test_what_is_rendered_is_recognised(
    family: Family, order: Order, prefix: str, suffix: str, context_files: list[ContextFile]
) -> None:
    if family.template(order) is None:
        return
    if family.files is None or family.name == "deepseek-coder":  # whose files are never taken from a prompt
        context_files = []
    context = Context(prefix, suffix, tuple(context_files), "c.py" if context_files else "")
    written = "".join(map(str, render(family, order, context, allow_unverified=True)))
    if family.name == "codestral":  # its files are set off by ordinary text, which another text may hold
        assume(not any("+++++ " in text for text in (prefix, *(file.text for file in context_files))))
        # clients do not write its dummy space
        written = written.replace("[PREFIX] ", "[PREFIX]")
    recognised = recognise(written)
    assert recognised is not None
    assert (recognised.context.prefix, recognised.context.suffix) == (prefix, suffix)
    assert [file.text for file in recognised.context.files] == [file.text for file in context.files]
