"""The board's clocks."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from rockfill.access.tokens import Scope
from rockfill.api.commands.table import Json, NoParameters, command
from rockfill.config import ClockPolicy
from rockfill.unbroken import to_the_end

if TYPE_CHECKING:
    from rockfill.clocks.service import ClockService, ClockState
    from rockfill.state import StateDir


@dataclass(frozen=True, slots=True)
class SetParameters:
    """`policy` says when clocks are raised; `fixed_mhz` puts single devices at one frequency instead of their highest,
    in place of all that were fixed before."""

    policy: ClockPolicy
    fixed_mhz: dict[str, int] = field(default_factory=dict)


@command("clocks.get", scope=Scope.READ)
async def get(_: NoParameters, clocks: ClockService) -> Json:
    """The policy, whether clocks are raised and how far heat lowers them, each device's clock and what it was before
    (`held`), and the problems that keep clocks from being set."""
    return asdict(await clocks.clocks())


@command("clocks.set", scope=Scope.CONTROL, parameters=SetParameters)
async def set_policy(parameters: SetParameters, clocks: ClockService, state: StateDir) -> Json:
    """Change the policy, for good. Answers as `clocks.get`."""
    return asdict(await to_the_end(_set_for_good(parameters, clocks, state)))


async def _set_for_good(parameters: SetParameters, clocks: ClockService, state: StateDir) -> ClockState:
    fixed = parameters.fixed_mhz
    after = await clocks.configure(replace(clocks.settings, policy=parameters.policy, fixed_mhz=fixed))
    await asyncio.to_thread(partial(state.change, clock_policy=parameters.policy.value, fixed_mhz=fixed))
    return after


@command("clocks.restore", scope=Scope.CONTROL)
async def restore(_: NoParameters, clocks: ClockService) -> Json:
    """Give all clocks back as they were found, until the engine changes its state the next time."""
    return asdict(await clocks.give_back())
