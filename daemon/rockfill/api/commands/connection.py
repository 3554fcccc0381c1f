"""Commands on the websocket that they come over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from rockfill.access.tokens import Scope
from rockfill.api.commands.table import Caller, Connection, Json, NoParameters, command
from rockfill.api.gate import forbidden
from rockfill.bus import Topic
from rockfill.decode import MaxLength, Range
from rockfill.errors import Code, Problem


@dataclass(frozen=True, slots=True)
class SubscribeParameters:
    """`interval_s` is how often `stats` are wanted at most."""

    topics: Annotated[tuple[Topic, ...], MaxLength(len(Topic))]
    interval_s: Annotated[float, Range(0.5, 3600)] = 1.0


@command("subscribe", scope=Scope.READ, parameters=SubscribeParameters)
async def subscribe(parameters: SubscribeParameters, caller: Caller, connection: Connection) -> Json:
    """Send events from now on, under this command's id; first one with the present state of each topic that has any.

    The topic `logs` needs the scope control.
    """
    if Topic.LOGS in parameters.topics and Scope.CONTROL not in caller.scopes:
        raise forbidden(Scope.CONTROL)
    connection.subscribe(parameters.topics, parameters.interval_s)
    return {}


@dataclass(frozen=True, slots=True)
class UnsubscribeParameters:
    """`subscription` is the id that the subscription was opened with."""

    subscription: int


@command("unsubscribe", scope=None, parameters=UnsubscribeParameters)
async def unsubscribe(parameters: UnsubscribeParameters, connection: Connection) -> Json:
    """End a subscription."""
    if not connection.unsubscribe(parameters.subscription):
        raise Problem(Code.NOT_FOUND, f"There is no subscription {parameters.subscription}.")
    return {}


@command("ping", scope=None)
async def ping(_: NoParameters) -> Json:
    """Do nothing, which shows that the connection works."""
    return {}
