"""Tokens for others, and what a caller's own is good for."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

from rockfill.access.logins import LINK_S
from rockfill.access.tokens import Scope
from rockfill.api.commands.table import Caller, Json, NoParameters, command
from rockfill.decode import MaxLength

if TYPE_CHECKING:
    from rockfill.access.logins import Logins
    from rockfill.access.tokens import Access
    from rockfill.state import StateDir


@command("access.get", scope=None)
async def get(_: NoParameters, caller: Caller) -> Json:
    """What the caller may do: its `scopes`."""
    return {"scopes": [scope.value for scope in Scope if scope in caller.scopes]}


@command("access.link", scope=Scope.ADMIN)
async def link(_: NoParameters, access: Access, logins: Logins, caller: Caller) -> Json:
    """A link that signs a browser in, once: its `path` below the appliance's address, good for `good_for_s`.

    It, and the session, end with the token that it was made with.
    """
    session = access.new_session(caller.visitor, time.time())
    return {"path": f"/login/{logins.new_link(session)}", "good_for_s": LINK_S}


@dataclass(frozen=True, slots=True)
class AddParameters:
    """`name` is for people: letters, digits, dots, dashes and underscores. `scopes` is what the token is good for."""

    name: Annotated[str, MaxLength(64)]
    scopes: Annotated[tuple[Scope, ...], MaxLength(len(Scope))]


@command("tokens.add", scope=Scope.ADMIN, parameters=AddParameters)
async def add(parameters: AddParameters, access: Access, state: StateDir) -> Json:
    """Make a token, and tell it as `token`, once: only its hash is kept."""
    token = access.add(parameters.name, parameters.scopes, time.time())
    await asyncio.to_thread(state.keep_tokens, lambda: access.stored)
    return {"name": parameters.name, "token": token}


@command("tokens.list", scope=Scope.ADMIN)
async def list_tokens(_: NoParameters, access: Access) -> Json:
    """The tokens that were made, as `tokens: [{name, scopes, created_s}]`; not the primary one."""
    listed = [{name: value for name, value in asdict(token).items() if name != "sha256"} for token in access.named]
    return {"tokens": listed}


@dataclass(frozen=True, slots=True)
class RevokeParameters:
    name: Annotated[str, MaxLength(64)]


@command("tokens.revoke", scope=Scope.ADMIN, parameters=RevokeParameters)
async def revoke(parameters: RevokeParameters, access: Access, state: StateDir) -> Json:
    """Make a token worthless. Sessions and websockets that came by it end at once."""
    access.revoke(parameters.name)
    await asyncio.to_thread(state.keep_tokens, lambda: access.stored)
    return {}
