"""The frames of the websocket. Pure: text in, values out, and the other way round."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rockfill import __version__
from rockfill.api.errors import dumps, frame_error
from rockfill.decode import decode
from rockfill.errors import Code, Problem, ProblemInfo

# Raised when something that PROTOCOL.md promises is given up.
PROTOCOL_VERSION = 1

# What a JavaScript number holds exactly.
LARGEST_ID = 2**53 - 1


@dataclass(frozen=True, slots=True)
class Auth:
    """The first frame of a client that was not let in by its request's headers."""

    type: str
    token: str
    protocol: int = PROTOCOL_VERSION


@dataclass(frozen=True, slots=True)
class Frame:
    """A command. `parameters` is the whole frame: they stand beside `id` and `type`."""

    id: int
    type: str
    parameters: Mapping[str, Any]


def parse(text: str) -> dict[str, Any]:
    """A frame's object, or `invalid_format`."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise _malformed("is not JSON") from None
    if not isinstance(value, dict):
        raise _malformed("is not an object")
    return value


def auth_of(value: dict[str, Any]) -> Auth:
    """`value` as an authentication, or `DecodeError`."""
    return decode(Auth, value)


def frame_of(value: dict[str, Any], last_id: int) -> Frame:
    """`value` as a command after the one with `last_id`, or `invalid_format`, or `id_reuse`."""
    id_, type_ = value.get("id"), value.get("type")
    if not _is_id(id_):
        raise _malformed("has no `id` that is a positive integer")
    if not isinstance(type_, str):
        raise _malformed("has no `type` that is a string")
    assert isinstance(id_, int)
    if id_ <= last_id:
        raise Problem(Code.ID_REUSE, f"The id {id_} is not greater than the last one, {last_id}.", "Count upwards.")
    return Frame(id_, type_, value)


def id_of(value: object) -> int | None:
    """The id to answer a frame under that is wrong otherwise; None if it has none."""
    id_ = value.get("id") if isinstance(value, dict) else None
    return id_ if _is_id(id_) else None


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_ID


def greeting(type_: str) -> bytes:
    """``auth_required`` or ``auth_ok``."""
    return dumps({"type": type_, "version": __version__, "protocol": PROTOCOL_VERSION})


def auth_invalid(info: ProblemInfo) -> bytes:
    return dumps({"type": "auth_invalid", **frame_error(info)})


def result(id_: int, value: Mapping[str, Any]) -> bytes:
    return dumps({"id": id_, "type": "result", "success": True, "result": value})


def failure(id_: int | None, info: ProblemInfo) -> bytes:
    return dumps({"id": id_, "type": "result", "success": False, "error": frame_error(info)})


def event(id_: int, written: bytes) -> bytes:
    """An event, which is written down already, for one subscriber."""
    return b'{"id":%d,"type":"event","event":%b}' % (id_, written)


def _malformed(what: str) -> Problem:
    return Problem(
        Code.INVALID_FORMAT, f"The frame {what}.", 'Send a JSON object such as {"id": 1, "type": "engine.get"}.'
    )
