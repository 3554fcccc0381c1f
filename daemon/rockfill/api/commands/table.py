"""What a command is, and how the listed ones are bound to the services they ask for."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

from rockfill.access.tokens import Scope, Visitor
from rockfill.api.gate import forbidden
from rockfill.decode import decode_request
from rockfill.errors import Code, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rockfill.bus import Topic

Json = dict[str, Any]

# What every frame of the websocket has already, beside a command's own parameters.
FRAME_FIELDS = frozenset({"id", "type"})


@dataclass(frozen=True, slots=True)
class NoParameters:
    pass


class Connection(Protocol):
    """What commands may do to the websocket that they came over."""

    def subscribe(self, topics: Sequence[Topic], interval_s: float) -> None:
        """Send events of `topics` under the id of the running command, from after its result on."""
        ...

    def unsubscribe(self, subscription: int) -> bool:
        """End the subscription that was opened with that id; False if there is none."""
        ...

    def cancel(self, command: int) -> bool:
        """End the command that streams under that id; False if there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Caller:
    """Who runs a command. `client` tells one from another; `connection` is None over HTTP."""

    visitor: Visitor
    client: str = ""
    connection: Connection | None = None

    @property
    def scopes(self) -> frozenset[Scope]:
        return self.visitor.scopes


@dataclass(frozen=True, slots=True)
class Command:
    """One command. `run` takes the decoded parameters first, then services by the names of its arguments.

    The service `caller` is the `Caller`, and `connection` the websocket, without which it can't be called. A `run` that
    is an asynchronous generator streams: it gives its result first, then events, each with a `type`, of which the last
    is the end. `scope` None is for everybody who has got in. `long` says that it may take longer than a client of HTTP
    waits.
    """

    type: str
    scope: Scope | None
    parameters: Any  # the dataclass that its parameters are decoded into
    run: Callable[..., Any]
    long: bool = False

    @property
    def streams(self) -> bool:
        return inspect.isasyncgenfunction(self.run)

    @property
    def services(self) -> tuple[str, ...]:
        """The names of the services that it asks for, beside those that depend on who calls."""
        return tuple(name for name in self.arguments if name not in ("caller", "connection"))

    @property
    def needs_connection(self) -> bool:
        """Whether it means something over the websocket only."""
        return "connection" in self.arguments

    @property
    def arguments(self) -> tuple[str, ...]:
        return tuple(inspect.signature(self.run).parameters)[1:]

    @property
    def doc(self) -> str:
        """What it does, and what its result is."""
        return inspect.cleandoc(self.run.__doc__ or "")


Run = Callable[..., Coroutine[Any, Any, Json]] | Callable[..., AsyncGenerator[Json, None]]


def command(
    type: str,  # noqa: A002 - it is what the field is called on every wire
    *,
    scope: Scope | None,
    parameters: type[Any] = NoParameters,
    long: bool = False,
) -> Callable[[Run], Command]:
    """Make a function into a `Command`. Nothing is registered: the command has to be put into the table."""
    assert not FRAME_FIELDS & {field.name for field in fields(parameters)}, "a frame has fields of these names already"
    return lambda run: Command(type, scope, parameters, run, long)


class Dispatch:
    """The commands, bound to their services."""

    def __init__(self, commands: Sequence[Command], services: Mapping[str, object]) -> None:
        """A service that a command asks for and `services` lacks is a KeyError here, not at the first call."""
        self._commands = {entry.type: entry for entry in commands}
        assert len(self._commands) == len(commands), "two commands of the same type"
        self._bound = {entry.type: {name: services[name] for name in entry.services} for entry in commands}

    def find(self, type_: str) -> Command:
        """The command called `type_`, or `unknown_command`."""
        found = self._commands.get(type_)
        if found is None:
            known = ", ".join(sorted(self._commands))
            raise Problem(Code.UNKNOWN_COMMAND, f'There is no command "{type_[:100]}".', f"There are: {known}.")
        return found

    def run(self, entry: Command, parameters: object, caller: Caller) -> Coroutine[Any, Any, Json]:
        """Run it with what a caller sent as its parameters; of one that streams, the result and the last event.

        Who may not, and parameters that it does not take, are refused by this call itself, before there is anything to
        await.
        """
        called = self._call(entry, parameters, caller)
        return _ends(called) if entry.streams else called

    def stream(self, entry: Command, parameters: object, caller: Caller) -> AsyncGenerator[Json, None]:
        """The result and the events of one that streams."""
        events: AsyncGenerator[Json, None] = self._call(entry, parameters, caller)
        return events

    def _call(self, entry: Command, parameters: object, caller: Caller) -> Any:
        if entry.scope is not None and entry.scope not in caller.scopes:
            raise forbidden(entry.scope)
        decoded = decode_request(entry.parameters, parameters)
        arguments = dict(self._bound[entry.type])
        if "caller" in entry.arguments:
            arguments["caller"] = caller
        if entry.needs_connection:
            if caller.connection is None:
                raise Problem(Code.UNSUPPORTED, "This works over the websocket only.", "Connect to /ws.")
            arguments["connection"] = caller.connection
        return entry.run(decoded, **arguments)


async def _ends(values: AsyncGenerator[Json, None]) -> Json:
    """The first and the last of them, as one."""
    first: Json | None = None
    last: Json = {}
    async for value in values:
        first, last = (value, last) if first is None else (first, value)
    return {**(first or {}), **{name: value for name, value in last.items() if name != "type"}}
