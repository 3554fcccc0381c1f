"""The table of commands as others read it: for programs at ``/api/protocol.json``, for people in PROTOCOL.md."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from aiohttp import web

from rockfill import __version__
from rockfill.api.commands.all import COMMANDS
from rockfill.api.commands.table import NoParameters
from rockfill.api.errors import STATUS, WEBSOCKET_CODES, dumps
from rockfill.api.schema import schema
from rockfill.api.server import Route
from rockfill.api.ws.frames import PROTOCOL_VERSION
from rockfill.bus import Topic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rockfill.api.commands.table import Command


def protocol() -> dict[str, Any]:
    """All that a program can know of the protocol beforehand."""
    return {
        "version": __version__,
        "protocol": PROTOCOL_VERSION,
        "topics": [topic.value for topic in Topic],
        "codes": {
            code.value: {"status": status, "websocket": WEBSOCKET_CODES.get(code, code.value)}
            for code, status in STATUS.items()
        },
        "commands": {
            command.type: {
                "scope": command.scope.value if command.scope is not None else None,
                "streams": command.streams,
                "long": command.long,
                "http": not command.needs_connection,
                "description": command.doc,
                "parameters": {**schema(command.parameters), **_described(command)},
            }
            for command in COMMANDS
        },
    }


def _described(command: Command) -> dict[str, str]:
    return {"description": _doc(command.parameters)} if command.parameters is not NoParameters else {}


def _doc(cls: Any) -> str:
    text = cls.__dict__.get("__doc__") or ""
    return "" if text.startswith(f"{cls.__name__}(") else inspect.cleandoc(text)  # dataclass() writes one, too


def chapter() -> str:
    """The commands in Markdown."""
    return "\n".join(line for command in COMMANDS for line in _section(command))


def _section(command: Command) -> Iterator[str]:
    scope = f"scope {command.scope.value}" if command.scope is not None else "any scope"
    where = (
        ", websocket only"
        if command.needs_connection
        else ", streams"
        if command.streams
        else ", long"
        if command.long
        else ""
    )
    yield f"#### `{command.type}` ({scope}{where})"
    yield ""
    yield command.doc
    yield ""
    parameters = schema(command.parameters)
    for name, property_ in parameters["properties"].items():
        needed = ", required" if name in parameters.get("required", ()) else ""
        default = f", default `{dumps(property_['default']).decode()}`" if "default" in property_ else ""
        yield f"- `{name}`: {_kind(property_)}{needed}{default}"
    if parameters["properties"]:
        yield ""
        if described := _doc(command.parameters):
            yield described
            yield ""


def _kind(property_: dict[str, Any]) -> str:
    """A schema in a few words: ``integer, 1 to 200``."""
    if "anyOf" in property_:
        return " or ".join(_kind(alternative) for alternative in property_["anyOf"])
    if "enum" in property_:
        return "one of " + " ".join(f"`{value}`" for value in property_["enum"])
    match property_.get("type"):
        case "array":
            most = f", at most {property_['maxItems']}" if "maxItems" in property_ else ""
            return f"list of {_kind(property_['items'])}{most}"
        case "object" if "properties" in property_:
            return "`{" + ", ".join(property_["properties"]) + "}`"
        case None:
            return "anything"
        case kind:
            return f"{kind}{_limits(property_)}"


def _limits(property_: dict[str, Any]) -> str:
    if "minimum" in property_ and "maximum" in property_:
        return f", {property_['minimum']:g} to {property_['maximum']:g}"
    if "minimum" in property_:
        return f", at least {property_['minimum']:g}"
    return f", at most {property_['maxLength']} characters" if "maxLength" in property_ else ""


class ProtocolDocument:
    """``GET /api/protocol.json``, open to everybody: it holds nothing that the source does not."""

    def __init__(self) -> None:
        self._written = dumps(protocol())

    def routes(self) -> list[Route]:
        return [Route("GET", "/api/protocol.json", self.get, None)]

    async def get(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=self._written, content_type="application/json")
