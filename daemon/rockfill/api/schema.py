"""What `decode` takes, as JSON Schema (draft 2020-12): made from the same annotations."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal, Union, get_args, get_origin

from rockfill.decode import MaxLength, Range

Schema = dict[str, Any]

_SCALARS: Mapping[Any, Schema] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    type(None): {"type": "null"},
}


def schema(kind: Any) -> Schema:
    """The schema of what `decode` makes a `kind` of."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is typing.Annotated:
        return _bounded(schema(arguments[0]), arguments[1:])
    if origin in (Union, types.UnionType):
        return {"anyOf": [schema(alternative) for alternative in arguments]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (list, tuple):
        return {"type": "array", "items": schema(arguments[0])}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": schema(arguments[1])}
    if kind is Any or kind is object:
        return {}
    if kind in _SCALARS:
        return dict(_SCALARS[kind])
    if issubclass(kind, StrEnum):
        return {"enum": [member.value for member in kind]}
    return _record(kind)


def _bounded(inner: Schema, bounds: tuple[Any, ...]) -> Schema:
    places = inner.get("anyOf", [inner])  # a bound holds for every alternative that it means anything for
    for bound in bounds:
        for place in places:
            if isinstance(bound, Range) and place.get("type") in ("integer", "number"):
                limits = {"minimum": bound.minimum, "maximum": bound.maximum}
                place.update({name: limit for name, limit in limits.items() if limit is not None})
            elif isinstance(bound, MaxLength) and place.get("type") in ("string", "array"):
                place["maxLength" if place["type"] == "string" else "maxItems"] = bound.length
    return inner


def _record(cls: Any) -> Schema:
    hints = typing.get_type_hints(cls, include_extras=True)
    properties: Schema = {}
    required: list[str] = []
    for field in dataclasses.fields(cls):
        name = field.metadata.get("name", field.name)
        properties[name] = schema(hints[field.name])
        if field.default is not dataclasses.MISSING:
            properties[name]["default"] = list(field.default) if isinstance(field.default, tuple) else field.default
        elif field.default_factory is dataclasses.MISSING:
            required.append(name)
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}
