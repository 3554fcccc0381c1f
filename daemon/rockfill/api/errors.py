"""Problems at the edge: one table from code to HTTP status, and each dialect's shape of an error."""

from __future__ import annotations

import json
import logging
import secrets
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import web

from rockfill.errors import Code, Problem, ProblemInfo

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

STATUS: Mapping[Code, int] = {
    Code.INVALID_JSON: 400,
    Code.INVALID_VALUE: 400,
    Code.INVALID_FORMAT: 400,
    Code.ID_REUSE: 400,
    Code.REQUEST_TIMEOUT: 408,
    Code.TOO_MANY_REQUESTS: 429,
    Code.UNSUPPORTED: 400,
    Code.BODY_TOO_LARGE: 413,
    Code.NOT_FOUND: 404,
    Code.METHOD_NOT_ALLOWED: 405,
    Code.UNKNOWN_COMMAND: 404,
    Code.MODEL_NOT_FOUND: 404,
    Code.UNAUTHORIZED: 401,
    Code.FORBIDDEN: 403,
    Code.HOST_NOT_ALLOWED: 403,
    Code.FIM_UNSUPPORTED: 501,
    Code.QUEUE_FULL: 503,
    Code.SUPERSEDED: 409,
    Code.CANCELLED: 499,  # nobody is left to read it; the number nginx logs for a client that went away
    Code.ENGINE_NOT_INSTALLED: 503,
    Code.MODEL_MISSING: 503,
    Code.INVALID_MODEL: 503,
    Code.ENGINE_START_FAILED: 503,
    Code.ENGINE_CRASHED: 502,
    Code.ENGINE_HUNG: 504,
    Code.ENGINE_STOPPED: 503,
    Code.ENGINE_FAILED: 500,
    Code.LINK_BROKEN: 502,
    Code.REQUEST_CRASHES_ENGINE: 422,
    Code.NPU_WEDGED: 503,
    Code.RUNTIME_UNSUPPORTED: 503,
    Code.MODEL_BUSY: 503,
    Code.ENGINE_PAUSED: 503,
    Code.RUNTIME_MISSING: 503,
    Code.TOKENIZER_MISSING: 503,
    Code.DRIVER_TOO_OLD: 503,
    Code.OUT_OF_NPU_MEMORY: 503,
    Code.PLATFORM_MISMATCH: 503,
    Code.MODEL_TOO_NEW: 503,
    Code.MODEL_TOO_OLD: 503,
    Code.CONTEXT_TOO_LONG: 503,
    Code.NPU_UNAVAILABLE: 503,
    Code.NPU_FAILED: 502,
    Code.TOO_MANY_FILES: 503,
    Code.ADDRESS_IN_USE: 500,
    Code.ADDRESS_UNAVAILABLE: 500,
    Code.STATE_DIR_UNUSABLE: 500,
    Code.STATE_TOO_NEW: 500,
    Code.ALREADY_RUNNING: 500,
    Code.WEB_ROOT_MISSING: 500,
    Code.NO_DAEMON: 503,
    Code.CLOCKS_STUCK: 503,
    Code.BOARD_STUCK: 503,
    Code.FILE_UNREADABLE: 500,
    Code.SANDBOX_MISSING: 500,
    Code.DISK_FULL: 507,
    Code.OUT_OF_MEMORY: 503,
    Code.HUB_UNREACHABLE: 502,
    Code.HUB_FAILED: 502,
    Code.HUB_RATE_LIMITED: 503,
    Code.HUB_GATED: 403,
    Code.REPOSITORY_NOT_FOUND: 404,
    Code.VARIANT_NOT_FOUND: 404,
    Code.LICENCE_NOT_ACCEPTED: 409,
    Code.DOWNLOAD_CORRUPT: 502,
    Code.MODEL_FETCHING: 503,
    Code.NOT_REMOVABLE: 409,
    Code.CONFIG_INVALID: 500,
    Code.INTERNAL_ERROR: 500,
}

# What Home Assistant's clients know some codes as; on the websocket the others are called what they are everywhere.
WEBSOCKET_CODES: Mapping[Code, str] = {
    Code.INVALID_VALUE: Code.INVALID_FORMAT.value,
    Code.FORBIDDEN: Code.UNAUTHORIZED.value,
}

_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
_LAST_WORDS = ("exit_status", "last_lines")
_LLAMACPP_TYPES = {**_OPENAI_TYPES, 501: "not_supported_error", 503: "unavailable_error"}


class ErrorShape(Protocol):
    """How a dialect writes an error down: a JSON value."""

    def __call__(self, info: ProblemInfo, status: int) -> dict[str, Any]: ...


def openai_shape(info: ProblemInfo, status: int) -> dict[str, Any]:
    """``{"error": {"message", "type", "param", "code"}}``; the advice is part of the message, as clients show that."""
    kind = _OPENAI_TYPES.get(status, _any_type(status))
    error = {"message": sentence(info), "type": kind, "param": None, "code": info.code.value}
    return {"error": {**error, **_detail(info)}}


def llamacpp_shape(info: ProblemInfo, status: int) -> dict[str, Any]:
    """llama.cpp's ``{"error": {"code", "message", "type"}}``, where `code` is the status; ours is `reason`."""
    kind = _LLAMACPP_TYPES.get(status, _any_type(status))
    error = {"code": status, "message": sentence(info), "type": kind, "reason": info.code.value}
    return {"error": {**error, **_detail(info)}}


def ollama_shape(info: ProblemInfo, status: int) -> dict[str, Any]:
    """Ollama's ``{"error": "what happened"}``, and our `code`."""
    return {"error": sentence(info), "code": info.code.value, **_detail(info)}


def _detail(info: ProblemInfo) -> dict[str, Any]:
    """Whoever's request went down with the engine gets its exit status and last lines; all else is in the message."""
    told = {name: value for name, value in (info.detail or {}).items() if name in _LAST_WORDS}
    return {"detail": told} if told else {}


def command_shape(info: ProblemInfo, status: int) -> dict[str, Any]:
    """Rockfill's own: ``{"success": false, "error": {"code", "message", "advice", "detail"}}``."""
    return {"success": False, "error": info.value()}


def frame_error(info: ProblemInfo) -> dict[str, Any]:
    """The error of a frame of the websocket."""
    return {**info.value(), "code": WEBSOCKET_CODES.get(info.code, info.code.value)}


def _any_type(status: int) -> str:
    return "invalid_request_error" if status < 500 else "server_error"


def sentence(info: ProblemInfo) -> str:
    """What happened and what to do, in one string."""
    return f"{info.message} {info.advice}".rstrip()


# Made once: json.dumps makes a new one at each call that is not wholly of its defaults.
_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def dumps(value: object) -> bytes:
    """JSON on one line without spaces: llama.vim looks for ``"content":"`` and takes nothing else.

    Half of a surrogate pair, which a caller's JSON may have held and a message about it repeats, becomes a "?".
    """
    return _encoder.encode(value).encode(errors="replace")


def json_response(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=dumps(value), status=status, content_type="application/json", headers=headers)


def problem_response(info: ProblemInfo, shape: ErrorShape) -> web.Response:
    """The answer to a request that failed before any of the answer was sent."""
    status = STATUS[info.code]
    headers: dict[str, str] = {}
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="rockfill"'
    retry_after_s = (info.detail or {}).get("retry_after_s")
    if isinstance(retry_after_s, int):
        headers["Retry-After"] = str(retry_after_s)
    return json_response(shape(info, status), status, headers)


def info_of(error: Exception) -> ProblemInfo:
    """Any exception as a problem. One that is a defect of ours gets an incident id, its traceback in the journal."""
    if isinstance(error, Problem):
        return error.info
    if isinstance(error, web.HTTPException):
        return _of_http(error)
    incident = secrets.token_hex(4)
    log.error("incident %s", incident, exc_info=error)
    return ProblemInfo(
        Code.INTERNAL_ERROR,
        f"Something went wrong inside Rockfill (incident {incident}).",
        "The journal has the details under that number; please report them.",
        {"incident": incident},
    )


def _of_http(error: web.HTTPException) -> ProblemInfo:
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return ProblemInfo(Code.BODY_TOO_LARGE, "The request's body is too large.", "Send at most 4 MiB.")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return ProblemInfo(Code.METHOD_NOT_ALLOWED, f"{error.method} is not for this address.", f"Use {allowed}.")
    if isinstance(error, web.HTTPNotFound):
        return ProblemInfo(Code.NOT_FOUND, "There is nothing at this address.", "Check it against the documentation.")
    return ProblemInfo(Code.INVALID_VALUE, f"The request could not be read ({error.status}: {error.reason}).")
