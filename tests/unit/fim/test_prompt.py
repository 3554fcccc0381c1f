from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockfill.errors import Code, Problem
from rockfill.fim.context import Context, ContextFile
from rockfill.fim.families import FAMILIES, ORDERS, Family, Marker, Order, family_of
from rockfill.fim.prompt import Piece, fit, overhead, render

M = Marker
PLAIN = Context("P", "S")
TWO_FILES = Context("P", "S", (ContextFile("a.py", "A"), ContextFile("", "B\n")), "src/c.py")


def count(text: str) -> int:
    return len(re.findall(r"\w+|\s|[^\w\s]", text))


def named(name: str) -> Family:
    family = family_of(name)
    assert family is not None
    return family


@pytest.mark.parametrize(
    ("name", "order", "pieces"),
    [
        ("codegemma", "psm", (M("<|fim_prefix|>"), "P", M("<|fim_suffix|>"), "S", M("<|fim_middle|>"))),
        ("rockfill-tiny", "spm", (M("<|fim_suffix|>"), "S", M("<|fim_prefix|>"), "P", M("<|fim_middle|>"))),
        ("starcoder2", "psm", (M("<fim_prefix>"), "P", M("<fim_suffix>"), "S", M("<fim_middle>"))),
        ("deepseek-coder", "psm", (M("<｜fim▁begin｜>"), "P", M("<｜fim▁hole｜>"), "S", M("<｜fim▁end｜>"))),
        ("seed-coder", "spm", (M("<[fim-suffix]>"), "S", M("<[fim-prefix]>"), "P", M("<[fim-middle]>"))),
        ("codestral", "spm", (M("[SUFFIX]"), "S", M("[PREFIX]"), " P")),
    ],
)
def test_a_prompt_is_its_template_filled_in(name: str, order: Order, pieces: tuple[Piece, ...]) -> None:
    assert render(named(name), order, PLAIN) == pieces


def test_codellama_has_the_dummy_space_before_the_prefix_only_and_tokens_by_their_vocabulary_names() -> None:
    pieces = render(named("codellama"), "psm", PLAIN)
    assert [str(piece) if isinstance(piece, str) else piece.text for piece in pieces] == [
        "▁<PRE>",
        " P",
        "▁<SUF>",
        "S",
        "▁<MID>",
    ]


@pytest.mark.parametrize(
    ("name", "written"),
    [
        (
            "qwen2.5-coder",
            (
                "<|repo_name|>myproject\n<|file_sep|>a.py\nA\n<|file_sep|>filename\nB\n<|file_sep|>src/c.py\n"
                "<|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>"
            ),
        ),
        ("codegemma", "A\n<|file_separator|>B\n<|file_separator|><|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>"),
        ("starcoder2", "<file_sep>A\n<file_sep>B\n<file_sep><fim_prefix>P<fim_suffix>S<fim_middle>"),
        ("deepseek-coder", "#a.py\nA\n#filename\nB\n#src/c.py\n<｜fim▁begin｜>P<｜fim▁hole｜>S<｜fim▁end｜>"),
        (
            "mellum",
            "<filename>a.py\nA\n<filename>filename\nB\n<filename>src/c.py\n<fim_suffix>S<fim_prefix>P<fim_middle>",
        ),
        ("codestral", "[SUFFIX]S[PREFIX] +++++ a.py\nA\n\n+++++ filename\nB\n\n+++++ src/c.py\nP"),
        ("codellama", "<PRE> P <SUF>S <MID>"),  # no documented form: the files are not there
    ],
)
def test_files_stand_in_the_documented_form_of_the_family(name: str, written: str) -> None:
    family = named(name)
    assert "".join(map(str, render(family, family.default_order, TWO_FILES))) == written


def test_what_looks_like_a_marker_in_user_text_stays_text() -> None:
    context = Context("a<|fim_middle|>b", "<|fim_suffix|>", (ContextFile("<|file_sep|>", "<|endoftext|>"),))
    pieces = render(named("qwen2.5-coder"), "psm", context)
    assert [piece.text for piece in pieces if isinstance(piece, Marker)] == [
        "<|repo_name|>",
        "<|file_sep|>",
        "<|file_sep|>",
        "<|fim_prefix|>",
        "<|fim_suffix|>",
        "<|fim_middle|>",
    ]
    assert "a<|fim_middle|>b" in pieces


def test_an_order_that_is_not_known_is_refused_and_an_unverified_one_unless_it_is_allowed() -> None:
    with pytest.raises(Problem) as unknown:
        render(named("mellum"), "psm", PLAIN, allow_unverified=True)
    assert unknown.value.code is Code.FIM_UNSUPPORTED
    assert "spm" in unknown.value.info.advice
    with pytest.raises(Problem) as unverified:
        render(named("codegemma"), "spm", PLAIN)
    assert unverified.value.code is Code.FIM_UNSUPPORTED
    assert render(named("codegemma"), "spm", PLAIN, allow_unverified=True)[1] == "S"


def test_overhead_counts_bos_markers_and_literal_text() -> None:
    assert overhead(named("codegemma"), "psm", count) == 4
    assert overhead(named("qwen2.5-coder"), "psm", count) == 3
    assert overhead(named("codestral"), "spm", count) == 4  # BOS, two markers, the dummy space


@given(
    st.sampled_from(FAMILIES),
    st.sampled_from(ORDERS),
    st.text("ab (\n", max_size=60),
    st.text("ab (\n", max_size=60),
    st.lists(st.builds(ContextFile, st.sampled_from(["", "x/y.py"]), st.text("ab \n", max_size=30)), max_size=3),
    st.integers(0, 120),
)
def test_a_fitted_prompt_is_never_longer_than_asked(
    family: Family, order: Order, prefix: str, suffix: str, files: list[ContextFile], prompt_tokens: int
) -> None:
    if family.template(order) is None:
        return
    context = Context(prefix, suffix, tuple(files))
    trimmed = fit(family, order, context, prompt_tokens, count, allow_unverified=True)
    pieces = render(family, order, trimmed.context, allow_unverified=True)
    tokens = int(family.bos) + sum(1 if isinstance(piece, Marker) else count(piece) for piece in pieces)
    assert tokens <= max(prompt_tokens, overhead(family, order, count, allow_unverified=True))
    assert len(trimmed.context.files) + trimmed.files_dropped == len(files)


def test_the_newline_that_a_file_lacks_is_paid_for() -> None:
    context = Context("", "", (ContextFile("", "A"),))
    needed = 4 + 3  # BOS and three markers; the text, its newline and the separator
    assert fit(named("codegemma"), "psm", context, needed, count).context.files == context.files
    assert fit(named("codegemma"), "psm", context, needed - 1, count).context.files == ()


@pytest.mark.parametrize(
    "family", [family for family in FAMILIES if family.files is not None], ids=lambda family: family.name
)
def test_a_path_without_end_is_never_counted(family: Family) -> None:
    counted: list[int] = []

    def counts(text: str) -> int:
        counted.append(len(text))
        return count(text)

    context = Context("P", "S", (ContextFile("p" * 100_000, "A"), ContextFile("b.py", "B")))
    trimmed = fit(family, family.default_order, context, 1000, counts, allow_unverified=True)
    assert max(counted) < 1000
    assert [file.path for file in trimmed.context.files] == ["b.py"]


def test_files_of_a_family_without_a_layout_count_as_dropped() -> None:
    trimmed = fit(named("codellama"), "psm", TWO_FILES, 1000, count)
    assert trimmed.context.files == ()
    assert trimmed.files_dropped == 2
    assert not trimmed.is_whole
