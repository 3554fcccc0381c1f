from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from rockfill.api import errors
from rockfill.api.errors import (
    STATUS,
    command_shape,
    dumps,
    info_of,
    llamacpp_shape,
    ollama_shape,
    openai_shape,
    problem_response,
)
from rockfill.errors import Code, Problem, ProblemInfo

if TYPE_CHECKING:
    from rockfill.api.errors import ErrorShape

SHAPES = {name: shape for name, shape in vars(errors).items() if name.endswith("_shape")}


def body(response: web.Response) -> Any:
    assert isinstance(response.body, bytes)
    return json.loads(response.body)


def test_every_code_has_a_status_that_is_an_error() -> None:
    assert set(STATUS) == set(Code)
    assert all(400 <= status < 600 for status in STATUS.values())


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("code", Code)
def test_every_shape_of_every_code_is_json_that_says_what_happened(code: Code, name: str) -> None:
    response = problem_response(ProblemInfo(code, "It “happened”.", "Do this.", {"a": [1, None]}), SHAPES[name])
    assert response.status == STATUS[code]
    assert response.content_type == "application/json"
    written = json.dumps(body(response), ensure_ascii=False)
    assert code.value in written
    assert "“happened”" in written
    assert "Do this." in written


def test_the_openai_shape_is_what_its_clients_read() -> None:
    assert openai_shape(ProblemInfo(Code.UNAUTHORIZED, "No.", "Send it."), 401) == {
        "error": {"message": "No. Send it.", "type": "authentication_error", "param": None, "code": "unauthorized"}
    }
    kinds = {
        status: openai_shape(ProblemInfo(Code.NOT_FOUND, ""), status)["error"]["type"] for status in (400, 404, 503)
    }
    assert kinds == {400: "invalid_request_error", 404: "not_found_error", 503: "server_error"}


@pytest.mark.parametrize(("shape", "where"), [(openai_shape, "error"), (llamacpp_shape, "error"), (ollama_shape, None)])
def test_the_shapes_of_others_have_it_where_there_is_one(shape: ErrorShape, where: str | None) -> None:
    crash = ProblemInfo(Code.ENGINE_CRASHED, "It crashed.", detail={"exit_status": -11, "last_lines": ["E rkllm: no"]})
    for info, detail in (
        (crash, {"exit_status": -11, "last_lines": ["E rkllm: no"]}),
        (replace(crash, detail=None), None),
    ):
        error = shape(info, 502)
        assert (error[where] if where else error).get("detail") == detail


def test_our_own_shape_has_the_detail() -> None:
    assert command_shape(ProblemInfo(Code.QUEUE_FULL, "Full.", detail={"n": 1}), 503) == {
        "success": False,
        "error": {"code": "queue_full", "message": "Full.", "advice": "", "detail": {"n": 1}},
    }


@pytest.mark.parametrize("shape", [openai_shape, command_shape])
def test_who_may_come_back_is_told_when_and_who_must_log_in_how(shape: ErrorShape) -> None:
    full = problem_response(Problem(Code.QUEUE_FULL, "Full.", retry_after_s=7).info, shape)
    assert full.headers["Retry-After"] == "7"
    stranger = problem_response(ProblemInfo(Code.UNAUTHORIZED, "Who?"), shape)
    assert stranger.headers["WWW-Authenticate"] == 'Bearer realm="rockfill"'
    assert "Retry-After" not in stranger.headers


def test_a_problem_is_passed_on_as_it_is() -> None:
    problem = Problem(Code.MODEL_BUSY, "Busy.", "Wait.", a=1)
    assert info_of(problem) is problem.info


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (web.HTTPRequestEntityTooLarge(1, 2), Code.BODY_TOO_LARGE, "too large"),
        (web.HTTPMethodNotAllowed("PUT", ["POST", "GET"]), Code.METHOD_NOT_ALLOWED, "Use GET, POST."),
        (web.HTTPNotFound(), Code.NOT_FOUND, "nothing at this address"),
        (web.HTTPBadRequest(reason="odd"), Code.INVALID_VALUE, "400: odd"),
    ],
)
def test_what_the_http_library_raises_is_told_in_our_words(error: web.HTTPException, code: Code, says: str) -> None:
    info = info_of(error)
    assert info.code is code
    assert says in errors.sentence(info)


def test_a_defect_is_told_by_an_incident_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        info = info_of(RuntimeError("secret"))
    assert info.code is Code.INTERNAL_ERROR
    assert info.detail is not None
    assert info.detail["incident"] in info.message
    assert "secret" not in json.dumps(command_shape(info, 500))
    [record] = caplog.records
    assert info.detail["incident"] in record.message
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "secret"


@given(
    st.recursive(
        st.none() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_json_is_written_on_one_line_without_spaces_of_its_own(value: object) -> None:
    """llama.vim looks for ``"content":"`` and takes nothing else; server-sent events end at a newline."""
    written = dumps(value)
    assert b"\n" not in written
    assert json.loads(written) == value
    assert written == json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def test_half_a_surrogate_pair_does_not_keep_an_answer_back() -> None:
    assert dumps({"a": "x\ud800y"}) == b'{"a":"x?y"}'
