"""What a command is, and how the listed ones are bound to the services they ask for."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rockfill.access.tokens import Scope
from rockfill.decode import decode_request
from rockfill.errors import Code, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class NoParameters:
    pass


@dataclass(frozen=True, slots=True)
class Command:
    """One command. `run` takes the decoded parameters first, then services by the names of its arguments."""

    type: str
    scope: Scope
    parameters: Any  # the dataclass that its parameters are decoded into
    run: Callable[..., Awaitable[Json]]

    @property
    def services(self) -> tuple[str, ...]:
        """The names of the services that it asks for."""
        return tuple(inspect.signature(self.run).parameters)[1:]


def command(
    type: str,  # noqa: A002 - it is what the field is called on every wire
    *,
    scope: Scope,
    parameters: type[Any] = NoParameters,
) -> Callable[[Callable[..., Awaitable[Json]]], Command]:
    """Make a function into a `Command`. Nothing is registered: the command has to be put into the table."""
    return lambda run: Command(type, scope, parameters, run)


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

    async def run(self, entry: Command, parameters: object) -> Json:
        """Run it with what a caller sent as its parameters."""
        return await entry.run(decode_request(entry.parameters, parameters), **self._bound[entry.type])
