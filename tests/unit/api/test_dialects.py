"""What the dialects make of a request, without a daemon."""

from __future__ import annotations

from typing import Any

import pytest

from rockfill.api.dialects.asking import MAX_TOKENS, Document, document, limit
from rockfill.api.dialects.llamacpp import InfillBody, picked
from rockfill.api.dialects.ollama import GenerateBody, tagged
from rockfill.api.dialects.tabby import SegmentsBody, asks
from rockfill.api.errors import command_shape, llamacpp_shape, ollama_shape, openai_shape
from rockfill.api.server import error_shape
from rockfill.decode import decode
from rockfill.errors import Problem


def test_only_a_whole_template_without_a_suffix_is_taken_apart() -> None:
    templated = "<fim_prefix>a<fim_suffix>b<fim_middle>"
    assert document(templated, None) == Document("a", "b")
    assert document((templated,), None) == Document("a", "b")
    assert document(templated, "c") == Document(templated, "c")
    assert document(templated + "x", None) == Document(templated + "x", None)


def test_a_length_is_bounded_and_none_asks_for_all() -> None:
    assert [limit(tokens) for tokens in (None, -1, 0, 7, MAX_TOKENS + 1)] == [MAX_TOKENS, MAX_TOKENS, 0, 7, MAX_TOKENS]


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        ([], {"a": {"b": 1, "c": None}, "d": 2}),
        ([""], {}),
        (["d", "a/b"], {"d": 2, "a/b": 1}),
        (["a/c", "a/x", "d/x", "a/b/x", "x"], {"a/c": None}),
        (["a"], {"a": {"b": 1, "c": None}}),
    ],
)
def test_chosen_fields_are_hoisted_under_their_whole_path(paths: list[str], found: dict[str, Any]) -> None:
    assert picked({"a": {"b": 1, "c": None}, "d": 2}, paths) == found


def test_llamacpps_special_numbers() -> None:
    body = decode(
        InfillBody,
        {"input_prefix": "", "input_suffix": "", "max_tokens": 3, "seed": -1, "top_k": -1, "t_max_predict_ms": 0},
    )
    assert (body.tokens, body.sampling.seed, body.sampling.top_k, body.predict_s) == (3, None, 0, None)
    body = decode(
        InfillBody, {"input_prefix": "", "input_suffix": "", "max_tokens": 3, "n_predict": -1, "t_max_predict_ms": 250}
    )
    assert (body.tokens, body.predict_s) == (-1, 0.25)


@pytest.mark.parametrize(
    ("keep_alive", "unloads"),
    [
        *((none, True) for none in (0, "0", "0s", "0m0s")),
        *((some, False) for some in (None, -1, 1800, "-1m", "5m", "1h30m", "500ms")),
    ],
)
def test_no_time_at_all_unloads(keep_alive: object, unloads: bool) -> None:
    assert decode(GenerateBody, {"keep_alive": keep_alive}).unloads is unloads


@pytest.mark.parametrize("keep_alive", ["", "soon", "5 m", "m", "1d", "5m "])
def test_what_is_no_time_is_refused(keep_alive: str) -> None:
    with pytest.raises(Problem, match="keep_alive"):
        _ = decode(GenerateBody, {"keep_alive": keep_alive}).unloads


def test_ollama_names_have_a_tag() -> None:
    assert (tagged("a"), tagged("a:2b")) == ("a:latest", "a:2b")


def test_tabbys_most_relevant_snippet_stands_nearest_to_the_cursor() -> None:
    segments = {
        "prefix": "",
        "declarations": [{"filepath": "1", "body": ""}, {"filepath": "2", "body": ""}],
        "relevant_snippets_from_changed_files": [{"filepath": "3", "body": "", "score": 1}],
        "relevant_snippets_from_recently_opened_files": [{"filepath": "4", "body": ""}],
    }
    body = decode(SegmentsBody, {"segments": segments})
    assert [file.path for file in body.segments.files] == ["4", "3", "2", "1"]


@pytest.mark.parametrize("value", [{"prompt": ""}, ["segments"], "segments", None])
def test_only_a_body_with_segments_is_tabbys(value: object) -> None:
    assert asks({"segments": None})
    assert not asks(value)


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/v1/completions", openai_shape),
        ("/v1/no", openai_shape),
        ("/infill", llamacpp_shape),
        ("/completions", llamacpp_shape),
        ("/completion/no", llamacpp_shape),
        ("/slots", llamacpp_shape),
        ("/api/generate", ollama_shape),
        ("/api/no", ollama_shape),
        ("/api/command/engine.get", command_shape),
        ("/login", command_shape),
        ("/", command_shape),
    ],
)
def test_errors_have_the_shape_of_their_address(path: str, shape: object) -> None:
    assert error_shape(path) is shape
