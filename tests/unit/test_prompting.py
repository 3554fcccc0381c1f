"""From a request to ids, over vocabularies of one token a character and any control tokens."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockfill.errors import Code, Problem
from rockfill.fim.families import BY_NAME, FAMILIES, Family, Marker, Slot, Template
from rockfill.link.messages import File, Generate, Render, Trimmed
from rockfill.prompting import COMPLETION_SHARE, TEXTS_KEPT, Prompter
from rockfill.session import ModelFacts, Run, Sampling

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BOS = 0
FIRST_TEXT_ID = 1000
CODEGEMMA = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|file_separator|>", "<end_of_turn>", "<eos>")
PREFIX, SUFFIX, MIDDLE, FILE_END, *_ = range(1, 7)


class Vocabulary:
    """A session that can only tokenise. `parses`: takes what looks like a control token for one, in any text."""

    def __init__(
        self,
        controls: Sequence[str] = CODEGEMMA,
        *,
        parses: bool = False,
        context_tokens: int = 4096,
        bos_id: int | None = BOS,
        adds_bos: bool = True,
        reuses_prefix: bool = True,
    ) -> None:
        self._ids = {text: number for number, text in enumerate(controls, 1)}
        pattern = "|".join(map(re.escape, sorted(controls, key=len, reverse=True)))
        self._pattern = re.compile(f"({pattern})|." if parses and controls else "(?!)()|.", re.DOTALL)
        facts = ModelFacts(context_tokens, FIRST_TEXT_ID, bos_id, adds_bos, (), "test")
        self._facts = replace(facts, reuses_prefix=reuses_prefix)

    @property
    def facts(self) -> ModelFacts:
        return self._facts

    def tokenize(self, text: str) -> list[int]:
        matches = self._pattern.finditer(text)
        return [self._ids[match[1]] if match[1] else FIRST_TEXT_ID + ord(match[0]) for match in matches]

    def detokenize(self, token_ids: list[int]) -> str:
        return "".join(chr(max(0, token_id - FIRST_TEXT_ID)) for token_id in token_ids)

    def token_id(self, marker: str) -> int | None:
        return self._ids.get(marker)

    def generate(
        self,
        prompt_ids: list[int],
        sampling: Sampling,
        max_tokens: int,
        stop_ids: frozenset[int],
        on_text: Callable[[str, int], None],
        aborted: Callable[[], bool],
    ) -> Run:
        raise NotImplementedError

    def abort(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class Counting(Vocabulary):
    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def tokenize(self, text: str) -> list[int]:
        self.asked.append(text)
        return super().tokenize(text)


def ids_of(
    vocabulary: Vocabulary, prefix: str, suffix: str | None = None, family: str | None = "codegemma"
) -> list[int]:
    ids, _, _ = Prompter(vocabulary, family).prompt(Generate(1, prefix, suffix))
    return ids


def shown(ids: Sequence[int]) -> list[int | str]:
    """Control tokens as their ids, what is between them as text."""
    parts: list[int | str] = []
    for token_id in ids:
        if token_id < FIRST_TEXT_ID:
            parts.append(token_id)
        elif parts and isinstance(parts[-1], str):
            parts[-1] += chr(token_id - FIRST_TEXT_ID)
        else:
            parts.append(chr(token_id - FIRST_TEXT_ID))
    return parts


# ---- the prompt


def test_the_middle_is_asked_for_with_the_family_s_tokens_and_one_bos() -> None:
    assert shown(ids_of(Vocabulary(), "a(", ")")) == [BOS, PREFIX, "a(", SUFFIX, ")", MIDDLE]


def test_an_empty_suffix_is_a_suffix_and_none_is_a_plain_continuation() -> None:
    assert shown(ids_of(Vocabulary(), "a", "")) == [BOS, PREFIX, "a", SUFFIX, MIDDLE]
    assert shown(ids_of(Vocabulary(), "a")) == [BOS, "a"]


def test_files_go_before_with_their_separator() -> None:
    request = Generate(1, "a", "b", (File("x.py", "one"), File("y.py", "two\n")))
    ids, _, trimmed = Prompter(Vocabulary(), "codegemma").prompt(request)
    assert shown(ids) == [BOS, "one\n", FILE_END, "two\n", FILE_END, PREFIX, "a", SUFFIX, "b", MIDDLE]
    assert trimmed == Trimmed()


def test_files_are_left_out_and_counted_where_there_is_no_way_to_give_them() -> None:
    files = (File("x.py", "one"),)
    without_separator = Vocabulary(CODEGEMMA[:3])
    assert Prompter(without_separator, "codegemma").prompt(Generate(1, "a", "b", files))[2] == Trimmed(0, 0, 1)
    assert Prompter(Vocabulary(), "codegemma").prompt(Generate(1, "a", None, files))[2] == Trimmed(0, 0, 1)


# ---- the next keystroke

LINES = "".join(f"line {number}\n" for number in range(100))


def typed(prefix: str, suffix: str = ")\n", budget_tokens: int = 100) -> Generate:
    return Generate(1, prefix, suffix, max_tokens=10, budget_tokens=budget_tokens)


def prompts(prompter: Prompter, *requests: Generate) -> list[list[int | str]]:
    return [shown(prompter.prompt(request)[0]) for request in requests]


def test_a_text_is_tokenised_once_and_at_the_next_key_only_what_is_new() -> None:
    vocabulary = Counting()
    prompter = Prompter(vocabulary, "codegemma")
    for _ in range(3):  # whatever it has kept, it gives the same
        ids, _, _ = prompter.prompt(Generate(1, "a(", ")"))
        assert shown(ids) == [BOS, PREFIX, "a(", SUFFIX, ")", MIDDLE]
    prompter.prompt(Generate(1, "ab(", ")"))
    assert vocabulary.asked == ["a(", ")", "ab("]
    for number in range(TEXTS_KEPT):
        prompter.prompt(Generate(1, f"{number}", None))
    prompter.prompt(Generate(1, "a(", ")"))
    assert vocabulary.asked[-2:] == ["a(", ")"]  # forgotten meanwhile


def test_what_is_typed_goes_behind_the_prompt_that_the_engine_has() -> None:
    prompter = Prompter(Vocabulary(), "codegemma")
    first, second, third = prompts(prompter, typed("f("), typed("f(a["), typed("f(a[0],"))
    assert first == [BOS, PREFIX, "f(", SUFFIX, ")\n", MIDDLE]
    assert second == [*first, "a["]
    assert third == [*first, "a[0],"]


def test_looking_at_a_prompt_changes_none() -> None:
    looked, not_looked = (Prompter(Vocabulary(), "codegemma") for _ in range(2))
    for prompter in (looked, not_looked):
        prompter.prompt(typed("f("))
    looked.shown(Render(2, "elsewhere", ")\n", budget_tokens=100))
    assert prompts(looked, typed("f(a")) == prompts(not_looked, typed("f(a"))


@pytest.mark.parametrize("text", ["a, ", "a"])
def test_within_a_token_the_suffix_is_read_again_and_the_beginning_stays(text: str) -> None:
    prompter = Prompter(Vocabulary(), "codegemma")
    _, second, third = prompts(prompter, typed("f("), typed(f"f({text}"), typed(f"f({text}["))
    assert second == [BOS, PREFIX, f"f({text}", SUFFIX, ")\n", MIDDLE]
    assert third == [*second, "["]


def test_with_the_suffix_first_it_goes_behind_the_prefix() -> None:
    prompter = Prompter(Vocabulary(), "codegemma", "spm")
    assert prompts(prompter, typed("f("), typed("f(a"))[1] == [BOS, SUFFIX, ")\n", PREFIX, "f(a", MIDDLE]


def test_the_beginning_stays_until_the_prompt_is_twice_its_budget_and_what_is_left_out_is_told() -> None:
    prompter = Prompter(Vocabulary(), "codegemma")
    first, _, trimmed = prompter.prompt(typed(LINES))
    assert trimmed.prefix_chars > 0
    lengths = []
    for count in range(1, 200):
        ids, _, now = prompter.prompt(typed(LINES + "(" * count))
        if ids[: len(first)] != first:
            break
        assert now == trimmed
        lengths.append(len(ids))
    else:
        pytest.fail("it grew for ever")
    assert 190 <= max(lengths) <= 200
    assert len(ids) <= 100


@pytest.mark.parametrize(
    ("between", "request_"),
    [
        ((), typed("f(a", "]\n")),
        ((), typed("g(a")),
        ((), typed("f(a", budget_tokens=0)),
        ((), Generate(1, "f(a", ")\n", budget_tokens=100, fim_order="psm")),
        ((typed("elsewhere"),), typed("f(a")),
        ((Generate(1, "plain"),), typed("f(a")),
    ],
)
def test_anything_else_is_laid_out_anew(between: Sequence[Generate], request_: Generate) -> None:
    prompter = Prompter(Vocabulary(), "codegemma")
    *_, last = prompts(prompter, typed("f("), *between, request_)
    assert last == [BOS, PREFIX, request_.prefix, SUFFIX, request_.suffix, MIDDLE]


def test_where_nothing_is_reused_nothing_grows() -> None:
    prompter = Prompter(Vocabulary(reuses_prefix=False), "codegemma")
    assert prompts(prompter, typed("f("), typed("f(a"))[1] == [BOS, PREFIX, "f(a", SUFFIX, ")\n", MIDDLE]


def test_an_order_may_be_asked_for() -> None:
    spm = [BOS, SUFFIX, "b", PREFIX, "a", MIDDLE]
    assert shown(Prompter(Vocabulary(), "codegemma", "spm").prompt(Generate(1, "a", "b"))[0]) == spm
    assert shown(Prompter(Vocabulary(), "codegemma").prompt(Generate(1, "a", "b", fim_order="spm"))[0]) == spm
    qwen = BY_NAME["qwen2.5-coder"]
    assert Prompter(vocabulary_of(qwen), qwen.name, "spm").order == "psm"  # it has no other


@pytest.mark.parametrize(
    ("family", "adds_bos", "bos_id", "expected"),
    [
        ("codegemma", False, BOS, 1),  # the template's word counts
        ("codegemma", True, None, 0),  # there is none to give
        ("qwen2.5-coder", True, BOS, 0),
        (None, True, BOS, 1),
        (None, False, BOS, 0),
    ],
)
def test_bos_comes_exactly_once_where_it_is_wanted(
    family: str | None, adds_bos: bool, bos_id: int | None, expected: int
) -> None:
    vocabulary = Vocabulary(CODEGEMMA if family else (), adds_bos=adds_bos, bos_id=bos_id)
    ids = ids_of(vocabulary, "text", "more" if family else None, family)
    assert ids.count(BOS) == expected
    assert BOS not in ids[1:]


def test_an_empty_prompt_is_refused_where_not_even_bos_is_left() -> None:
    with pytest.raises(Problem) as caught:
        ids_of(Vocabulary((), bos_id=None), "", family=None)
    assert caught.value.code is Code.INVALID_VALUE
    assert ids_of(Vocabulary(()), "", family=None) == [BOS]


# ---- text stays text

TEXTS = st.lists(st.sampled_from(CODEGEMMA) | st.text(max_size=4) | st.sampled_from(["<|", "|>", "\n"])).map("".join)


@given(TEXTS, TEXTS, st.booleans())
def test_what_users_write_is_never_a_control_token(prefix: str, suffix: str, parses: bool) -> None:
    """Also where the session takes it for one, as llama.cpp does with tokens that a GGUF calls user-defined."""
    expected = [BOS, PREFIX, prefix, SUFFIX, suffix, MIDDLE]
    assert shown(ids_of(Vocabulary(parses=parses), prefix, suffix)) == [part for part in expected if part != ""]


@given(TEXTS)
def test_nor_is_it_in_a_plain_continuation_or_in_a_file(text: str) -> None:
    vocabulary = Vocabulary(parses=True)
    assert shown(ids_of(vocabulary, text)) == [part for part in (BOS, text) if part != ""]
    ids, _, _ = Prompter(vocabulary, "codegemma").prompt(Generate(1, "a", "b", (File("x", text),)))
    assert [part for part in shown(ids) if isinstance(part, int)] == [BOS, FILE_END, PREFIX, SUFFIX, MIDDLE]


def test_a_text_that_can_not_be_kept_from_becoming_one_is_refused() -> None:
    class Stubborn(Vocabulary):
        """Normalises before it looks, so that no cut helps."""

        def tokenize(self, text: str) -> list[int]:
            return [PREFIX if character == "<" else FIRST_TEXT_ID + ord(character) for character in text]

    with pytest.raises(Problem) as caught:
        ids_of(Stubborn(), "a < b")
    assert caught.value.code is Code.UNSUPPORTED


# ---- room


@given(
    st.integers(64, 400),
    st.integers(0, 500),
    st.integers(0, 200),
    st.text("ab \n", max_size=600),
    st.none() | st.text("ab \n", max_size=600),
)
def test_prompt_and_completion_fit_into_the_context_and_the_budget(
    context_tokens: int, max_tokens: int, budget_tokens: int, prefix: str, suffix: str | None
) -> None:
    prompter = Prompter(Vocabulary(context_tokens=context_tokens), "codegemma")
    request = Generate(1, prefix, suffix, max_tokens=max_tokens, budget_tokens=budget_tokens)
    ids, granted, trimmed = prompter.prompt(request)
    assert granted == min(max_tokens, int(context_tokens * COMPLETION_SHARE))
    assert len(ids) + granted <= context_tokens
    if budget_tokens:
        assert len(ids) <= max(budget_tokens, 1 if suffix is None else 4)  # BOS and three markers are the least
    kept = len(ids) - (1 if suffix is None else 4)
    assert kept == len(prefix) + len(suffix or "") - trimmed.prefix_chars - trimmed.suffix_chars


# ---- which family


def vocabulary_of(family: Family) -> Vocabulary:
    """One that has just the tokens of this family's default prompt, its files and its ends."""
    template = family.template(family.default_order)
    assert template is not None
    files = family.files
    layout = (*files.lead, *files.each, *files.current) if files else ()
    parts = (*template.parts, *layout, *family.stop_markers)
    return Vocabulary([part.text for part in dict.fromkeys(parts) if isinstance(part, Marker)])


def markers(template: Template | None) -> set[str]:
    return {part.text for part in template.parts if isinstance(part, Marker)} if template else set()


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_named_family_is_used_and_its_stops_are_known(family: Family) -> None:
    vocabulary = vocabulary_of(family)
    prompter = Prompter(vocabulary, family.name)
    assert prompter.order == family.default_order
    assert prompter.stop_ids == {vocabulary.token_id(marker.text) for marker in family.stop_markers}
    expected = [*([BOS] if family.bos else []), *_filled(family, vocabulary)]
    assert shown(prompter.prompt(Generate(1, "P", "S"))[0]) == expected


def _filled(family: Family, vocabulary: Vocabulary) -> list[int | str]:
    template = family.template(family.default_order)
    assert template is not None
    filled: list[int | str] = []
    for part in template.parts:
        if isinstance(part, Marker):
            token_id = vocabulary.token_id(part.text)
            assert token_id is not None
            filled.append(token_id)
        elif part is not Slot.FILES:
            text = (
                {Slot.PREFIX: "P", Slot.SUFFIX: "S", Slot.SPACE: " "}.get(part, "") if isinstance(part, Slot) else part
            )
            if filled and isinstance(filled[-1], str):
                filled[-1] += text
            else:
                filled.append(text)
    return filled


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("name", [None, "no such family", "codellama", "glm"])
def test_a_family_whose_tokens_are_not_there_gives_way_to_one_whose_are(family: Family, name: str | None) -> None:
    """Families that share all their markers can't be told apart so; the markers of the prompt are right at least."""
    found = Prompter(vocabulary_of(family), name)._family
    assert found is not None
    assert markers(found.template(found.default_order)) == markers(family.template(family.default_order))


def test_a_vocabulary_without_any_template_can_only_continue() -> None:
    prompter = Prompter(Vocabulary(("<eos>",)), "codegemma")
    assert (prompter.order, prompter.stop_ids) == (None, frozenset())
    with pytest.raises(Problem) as caught:
        prompter.prompt(Generate(1, "a", "b"))
    assert caught.value.code is Code.FIM_UNSUPPORTED
    assert shown(prompter.prompt(Generate(1, "a"))[0]) == [BOS, "a"]
