"""The taxonomy of everything that can go wrong and be told to somebody.

A `Problem` is raised wherever the cause is known and travels unchanged to whoever asked: over the worker link,
into the engine's snapshot, and to the edge, where one table gives it an HTTP status and a dialect's shape.
This module knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Code(StrEnum):
    """Stable codes: a caller may compare them; a released one is never renamed or given another meaning."""

    # request: the caller asked for something that can't be done as asked
    INVALID_JSON = "invalid_json"
    INVALID_VALUE = "invalid_value"
    INVALID_FORMAT = "invalid_format"
    ID_REUSE = "id_reuse"
    REQUEST_TIMEOUT = "request_timeout"
    TOO_MANY_REQUESTS = "too_many_requests"
    UNSUPPORTED = "unsupported"
    BODY_TOO_LARGE = "body_too_large"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    UNKNOWN_COMMAND = "unknown_command"
    MODEL_NOT_FOUND = "model_not_found"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    HOST_NOT_ALLOWED = "host_not_allowed"
    FIM_UNSUPPORTED = "fim_unsupported"
    QUEUE_FULL = "queue_full"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"

    # engine: the worker or the native library behind it
    ENGINE_NOT_INSTALLED = "engine_not_installed"
    MODEL_MISSING = "model_missing"
    INVALID_MODEL = "invalid_model"
    RUNTIME_UNSUPPORTED = "runtime_unsupported"
    ENGINE_START_FAILED = "engine_start_failed"
    ENGINE_CRASHED = "engine_crashed"
    ENGINE_HUNG = "engine_hung"
    ENGINE_STOPPED = "engine_stopped"
    ENGINE_FAILED = "engine_failed"
    LINK_BROKEN = "link_broken"
    REQUEST_CRASHES_ENGINE = "request_crashes_engine"
    NPU_WEDGED = "npu_wedged"
    MODEL_BUSY = "model_busy"
    ENGINE_PAUSED = "engine_paused"
    RUNTIME_MISSING = "runtime_missing"
    TOKENIZER_MISSING = "tokenizer_missing"
    DRIVER_TOO_OLD = "driver_too_old"
    OUT_OF_NPU_MEMORY = "out_of_npu_memory"
    PLATFORM_MISMATCH = "platform_mismatch"
    MODEL_TOO_NEW = "model_too_new"
    MODEL_TOO_OLD = "model_too_old"
    CONTEXT_TOO_LONG = "context_too_long"
    NPU_UNAVAILABLE = "npu_unavailable"
    NPU_FAILED = "npu_failed"
    TOO_MANY_FILES = "too_many_files"

    # host: the machine that Rockfill runs on
    ADDRESS_IN_USE = "address_in_use"
    ADDRESS_UNAVAILABLE = "address_unavailable"
    STATE_DIR_UNUSABLE = "state_dir_unusable"
    STATE_TOO_NEW = "state_too_new"
    ALREADY_RUNNING = "already_running"
    WEB_ROOT_MISSING = "web_root_missing"
    NO_DAEMON = "no_daemon"
    CLOCKS_STUCK = "clocks_stuck"
    BOARD_STUCK = "board_stuck"
    FILE_UNREADABLE = "file_unreadable"
    SANDBOX_MISSING = "sandbox_missing"

    DISK_FULL = "disk_full"
    OUT_OF_MEMORY = "out_of_memory"

    # hub: where models and runtimes come from, and those that are here
    HUB_UNREACHABLE = "hub_unreachable"
    HUB_FAILED = "hub_failed"
    HUB_RATE_LIMITED = "hub_rate_limited"
    HUB_GATED = "hub_gated"
    REPOSITORY_NOT_FOUND = "repository_not_found"
    VARIANT_NOT_FOUND = "variant_not_found"
    LICENCE_NOT_ACCEPTED = "licence_not_accepted"
    DOWNLOAD_CORRUPT = "download_corrupt"
    MODEL_FETCHING = "model_fetching"
    NOT_REMOVABLE = "not_removable"

    # config
    CONFIG_INVALID = "config_invalid"

    # a defect of ours
    INTERNAL_ERROR = "internal_error"


@dataclass(frozen=True, slots=True)
class ProblemInfo:
    """A problem as a value: what snapshots hold and the worker link carries.

    `message` is one sentence on what happened, `advice` one on what to do (may be empty where nothing helps),
    `detail` machine-readable facts (JSON values only).
    """

    code: Code
    message: str
    advice: str = ""
    detail: Mapping[str, Any] | None = None

    def raised(self) -> Problem:
        """The same problem as an exception."""
        return Problem(self.code, self.message, self.advice, **(self.detail or {}))

    def value(self) -> dict[str, Any]:
        """The problem as a JSON value: ``{code, message, advice, detail}``."""
        detail = dict(self.detail or {})
        return {"code": self.code.value, "message": self.message, "advice": self.advice, "detail": detail}


class Problem(Exception):  # noqa: N818 - "problem" is the word used from the link to the page
    """Something that a person or program can be told: a stable code, what happened, and what to do."""

    def __init__(self, code: Code, message: str, advice: str = "", /, **detail: Any) -> None:
        super().__init__(message)
        self.info = ProblemInfo(code, message, advice, detail or None)

    @property
    def code(self) -> Code:
        return self.info.code

    @property
    def message(self) -> str:
        return self.info.message

    @property
    def advice(self) -> str:
        return self.info.advice

    @property
    def detail(self) -> Mapping[str, Any]:
        return self.info.detail or {}
