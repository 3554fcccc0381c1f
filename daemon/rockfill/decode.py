"""Untrusted JSON or TOML values into frozen dataclasses.

`decode(cls, value)` checks types strictly and says where: ``params.temperature: must be a number``. A plan is
compiled once per class, so decoding costs little on the paths where it happens for every request.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from rockfill.errors import Code, Problem

T = TypeVar("T")
Unknown = Literal["ignore", "refuse"]

# Nobody reads more, and a large body of nothing but mistakes must not become a larger answer.
MOST_ERRORS = 20
_Errors = list[str]
_Plan = Callable[[Any, str, _Errors, Unknown], Any]


@dataclass(frozen=True, slots=True)
class Range:
    """A bound for a number: ``Annotated[int, Range(0, 65535)]``. Both ends are allowed values."""

    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True, slots=True)
class MaxLength:
    """The most characters or items that a string or list may have."""

    length: int


class DecodeError(Exception):
    """The value does not fit; `errors` names every place, as ``path: what it must be``."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors = errors


def decode(cls: type[T], value: object, *, path: str = "", unknown: Unknown = "ignore") -> T:
    """`value` as `cls`, or `DecodeError` with every mistake in it.

    A field without a default must be there. Where a field has a default, JSON null stands for it unless the field's
    type admits None itself.
    """
    errors: _Errors = []
    result = _plan(typing.cast(Any, cls))(value, path, errors, unknown)
    if errors:
        raise DecodeError(errors)
    return typing.cast(T, result)


def decode_request(cls: type[T], value: object, *, path: str = "") -> T:
    """As `decode`, for what a caller sent: the mistakes become one `invalid_value` problem."""
    try:
        return decode(cls, value, path=path)
    except DecodeError as error:
        raise Problem(Code.INVALID_VALUE, "; ".join(error.errors), fields=error.errors) from None


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _complain(errors: _Errors, path: str, what: str) -> None:
    if len(errors) < MOST_ERRORS:
        errors.append(f"{path or 'the value'}: {what}")


@cache
def _plan(kind: Any) -> _Plan:
    origin = get_origin(kind)
    if origin is typing.Annotated:
        inner, *bounds = get_args(kind)
        return _bounded(_plan(inner), tuple(bounds))
    if origin in (Union, types.UnionType):
        return _union(get_args(kind))
    if origin is Literal:
        return _choice({value: value for value in get_args(kind)})
    if origin in (list, tuple):
        arguments = get_args(kind)
        assert origin is list or arguments[1:] == (...,), f"{kind}: only homogeneous tuples"
        return _sequence(_plan(arguments[0]), origin)
    if origin in (dict, Mapping):
        return _mapping(_plan(get_args(kind)[1]))
    if kind is Any or kind is object:
        return lambda value, path, errors, unknown: value
    if isinstance(kind, type):
        if dataclasses.is_dataclass(kind):
            return _record(kind)
        if issubclass(kind, StrEnum):
            return _choice({member.value: member for member in kind})
        if kind in _SCALARS:
            return _SCALARS[kind]
    raise TypeError(f"decode: no plan for {kind!r}")


def _string(value: Any, path: str, errors: _Errors, unknown: Unknown) -> Any:
    if not isinstance(value, str):
        _complain(errors, path, "must be a string")
    elif not value.isascii() and any(0xD800 <= ord(character) <= 0xDFFF for character in value):
        # JSON may carry lone surrogates (\ud800), which no UTF-8 encoder, tokenizer or file name can take
        _complain(errors, path, "must not contain lone surrogates")
    return value


def _boolean(value: Any, path: str, errors: _Errors, unknown: Unknown) -> Any:
    if not isinstance(value, bool):
        _complain(errors, path, "must be true or false")
    return value


def _integer(value: Any, path: str, errors: _Errors, unknown: Unknown) -> Any:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # JavaScript has one number type and may write 16.0
    if isinstance(value, bool) or not isinstance(value, int):
        _complain(errors, path, "must be an integer")
        return 0
    if not -(2**63) <= value < 2**63:
        _complain(errors, path, "must fit in 64 bits")
        return 0
    return value


def _number(value: Any, path: str, errors: _Errors, unknown: Unknown) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _complain(errors, path, "must be a number")
        return 0.0
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        _complain(errors, path, "must be a finite number")
        return 0.0
    return number


def _null(value: Any, path: str, errors: _Errors, unknown: Unknown) -> Any:
    if value is not None:
        _complain(errors, path, "must be null")


_SCALARS: dict[Any, _Plan] = {str: _string, bool: _boolean, int: _integer, float: _number, type(None): _null}


def _bounded(inner: _Plan, bounds: tuple[Any, ...]) -> _Plan:
    longest = min((bound.length for bound in bounds if isinstance(bound, MaxLength)), default=None)

    def plan(value: Any, path: str, errors: _Errors, unknown: Unknown) -> Any:
        before = len(errors)
        if longest is not None and isinstance(value, list | str) and len(value) > longest:
            _complain(errors, path, f"must not be longer than {longest}")  # before anything in it is looked at
            return None
        result = inner(value, path, errors, unknown)
        if len(errors) > before or result is None:
            return result
        for bound in bounds:
            if isinstance(bound, Range):
                if bound.minimum is not None and result < bound.minimum:
                    _complain(errors, path, f"must be at least {bound.minimum:g}")
                if bound.maximum is not None and result > bound.maximum:
                    _complain(errors, path, f"must be at most {bound.maximum:g}")
        return result

    return plan


def _union(kinds: tuple[Any, ...]) -> _Plan:
    plans = [_plan(kind) for kind in kinds if kind is not type(None)]
    nullable = len(plans) < len(kinds)

    def plan(value: Any, path: str, errors: _Errors, unknown: Unknown) -> Any:
        if value is None and nullable:
            return None
        attempts: list[_Errors] = []
        for alternative in plans:
            attempt: _Errors = []
            result = alternative(value, path, attempt, unknown)
            if not attempt:
                return result
            attempts.append(attempt)
        # One that is of the right kind says what is wrong with it.
        told = [attempt for attempt in attempts if ": must be " not in attempt[0]]
        if told or len(attempts) == 1:
            errors.extend((told or attempts)[0])
        else:
            wanted = dict.fromkeys(attempt[0].rpartition(": must be ")[2] for attempt in attempts)
            _complain(errors, path, "must be " + " or ".join(wanted))
        return None

    return plan


def _choice(choices: Mapping[Any, Any]) -> _Plan:
    names = ", ".join(repr(choice).replace("'", '"') for choice in choices)

    def plan(value: Any, path: str, errors: _Errors, unknown: Unknown) -> Any:
        if isinstance(value, str | int) and value in choices:
            return choices[value]
        _complain(errors, path, f"must be one of {names}")
        return None

    return plan


def _sequence(item: _Plan, build: Callable[[list[Any]], Any]) -> _Plan:
    def plan(value: Any, path: str, errors: _Errors, unknown: Unknown) -> Any:
        if not isinstance(value, list):
            _complain(errors, path, "must be a list")
            return None
        return build([item(entry, f"{path}[{index}]", errors, unknown) for index, entry in enumerate(value)])

    return plan


def _mapping(item: _Plan) -> _Plan:
    def plan(value: Any, path: str, errors: _Errors, unknown: Unknown) -> Any:
        if not isinstance(value, dict):
            _complain(errors, path, "must be an object")
            return None
        return {str(key): item(entry, _join(path, str(key)), errors, unknown) for key, entry in value.items()}

    return plan


def _record(cls: Any) -> _Plan:
    hints = typing.get_type_hints(cls, include_extras=True)
    fields: dict[str, tuple[_Plan, bool, bool]] = {}
    for field in dataclasses.fields(cls):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        nullable = type(None) in get_args(hints[field.name]) or hints[field.name] in (Any, object)
        fields[field.metadata.get("name", field.name)] = (_plan(hints[field.name]), required, nullable)
    arguments = {field.metadata.get("name", field.name): field.name for field in dataclasses.fields(cls)}

    def plan(value: Any, path: str, errors: _Errors, unknown: Unknown) -> Any:
        if not isinstance(value, dict):
            _complain(errors, path, "must be an object")
            return None
        before = len(errors)
        values: dict[str, Any] = {}
        for name, (inner, required, nullable) in fields.items():
            if name in value and (required or nullable or value[name] is not None):
                values[arguments[name]] = inner(value[name], _join(path, name), errors, unknown)
            elif required:
                _complain(errors, _join(path, name), "is missing")
        if unknown == "refuse":
            for name in value:
                if name not in fields:
                    _complain(errors, _join(path, str(name)), "is not known")
        return cls(**values) if len(errors) == before else None

    return plan
