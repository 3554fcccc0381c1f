"""The tokenizer of a model: the bundled model's, and vocabularies of the other shapes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from rockfill import paths
from rockfill.errors import Code, Problem
from rockfill.rkllm.tokenizer import ModelTokenizer
from tests.fakes.vocabulary import FIM, SPECIAL, Prefix, sentencepiece_like

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BUNDLED = paths.bundled_models() / "rockfill-tiny" / "tokenizer.json"
TEXTS = ("def add(a, b):\n    return a + b\n", " x", "x", "\tif é:\n\n\n", "<s>", "naïve 日本 \U0001f980", "")


def pieces(path: Path, ids: list[int]) -> str:
    """The text of `ids`, spaces at its beginning included."""
    decoded: str = Tokenizer.from_file(str(path)).decode(ids, skip_special_tokens=False)
    return decoded


@pytest.fixture(params=["bundled", *get_args(Prefix)])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "bundled":
        return BUNDLED
    return sentencepiece_like(tmp_path / "tokenizer.json", prefix=request.param)


def test_the_ids_of_a_text_are_that_text_and_nothing_before_it(path: Path) -> None:
    tokenizer = ModelTokenizer(path)
    for text in TEXTS:
        assert pieces(path, tokenizer.encode(text)) == text
    assert tokenizer.encode("") == []


def test_a_text_in_parts_is_the_same_text(path: Path) -> None:
    tokenizer = ModelTokenizer(path)
    text = "".join(TEXTS)
    for at in range(1, len(text)):
        assert pieces(path, tokenizer.encode(text[:at]) + tokenizer.encode(text[at:])) == text


def test_special_tokens_in_a_text_are_text(path: Path) -> None:
    tokenizer = ModelTokenizer(path)
    names = [token["content"] for token in json.loads(path.read_bytes())["added_tokens"] if token["special"]]
    special = {tokenizer.token_id(name) for name in names}
    assert None not in special
    for name in names:
        ids = tokenizer.encode(f"a {name}{name} b")
        assert special.isdisjoint(ids)
        assert pieces(path, ids) == f"a {name}{name} b"


def test_the_bos_is_known_and_whether_the_vocabulary_asks_for_it(tmp_path: Path) -> None:
    made = ModelTokenizer(sentencepiece_like(tmp_path / "tokenizer.json"))
    assert (made.adds_bos, made.bos_id) == (True, SPECIAL.index("<bos>"))
    bundled = ModelTokenizer(BUNDLED)
    assert (bundled.adds_bos, bundled.bos_id) == (False, 0)


def test_only_special_tokens_end_a_run(tmp_path: Path) -> None:
    made = ModelTokenizer(sentencepiece_like(tmp_path / "tokenizer.json"))
    assert made.token_id("</s>") is not None  # the HTML tag
    assert made.eos_ids == {SPECIAL.index("<eos>"), SPECIAL.index("<end_of_turn>")}
    assert ModelTokenizer(BUNDLED).eos_ids == {1}


def test_a_vocabulary_that_marks_nothing_as_special_still_has_its_ends(tmp_path: Path) -> None:
    path = sentencepiece_like(tmp_path / "tokenizer.json")
    changed = json.loads(path.read_bytes())
    for token in changed["added_tokens"]:
        token["special"] = False
    path.write_text(json.dumps(changed))
    assert SPECIAL.index("<eos>") in ModelTokenizer(path).eos_ids


def test_truncation_and_padding_in_the_file_do_not_touch_our_texts(tmp_path: Path) -> None:
    path = sentencepiece_like(tmp_path / "tokenizer.json")
    changed = Tokenizer.from_file(str(path))
    changed.enable_truncation(4)
    changed.enable_padding(length=8)
    changed.save(str(path))
    assert pieces(path, ModelTokenizer(path).encode("x")) == "x"
    assert pieces(path, ModelTokenizer(path).encode("abcdefgh")) == "abcdefgh"


def _directory(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    "make",
    [
        lambda path: None,
        _directory,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"),
        lambda path: path.write_text('{"version": "1.0", "model": {"type": "Surprise"}}'),
    ],
    ids=["missing", "directory", "empty", "pointer", "unknown"],
)
def test_a_file_that_cannot_be_used_is_a_problem_that_says_what_to_do(
    tmp_path: Path, make: Callable[[Path], object]
) -> None:
    path = tmp_path / "codegemma" / "tokenizer.json"
    path.parent.mkdir()
    make(path)
    with pytest.raises(Problem, match=r"tokenizer\.json") as caught:
        ModelTokenizer(path)
    assert caught.value.code is Code.TOKENIZER_MISSING
    assert "original repository" in caught.value.advice


@given(parts=st.lists(st.sampled_from([*FIM, *SPECIAL, "<", "<|", "|>", "fim_prefix", " ", "x", "é"]), max_size=12))
def test_no_combination_of_control_tokens_in_a_text_becomes_one(
    parts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any-tokenizer.json"
    tokenizer = ModelTokenizer(path if path.exists() else sentencepiece_like(path))
    control = {tokenizer.token_id(name) for name in (*FIM, *SPECIAL)} - {tokenizer.token_id("<unk>")}
    ids = tokenizer.encode("".join(parts))
    assert control.isdisjoint(ids)
    assert pieces(path, ids) == "".join(parts)
