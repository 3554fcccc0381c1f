"""``rockfill clocks``: how the board's clocks are set."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from rockfill import paths
from rockfill.cli.asking import client_for
from rockfill.cli.reaching import act_as_owner
from rockfill.clocks.keeper import Keeper
from rockfill.clocks.service import restore as give_back
from rockfill.errors import Code, Problem
from rockfill.hardware.board import boot_id
from rockfill.hardware.devices import ClockFiles
from rockfill.state import StateDir

if TYPE_CHECKING:
    import argparse


def clocks(arguments: argparse.Namespace) -> int:
    """Print how they are set."""
    return asyncio.run(_ask(arguments, "clocks.get", {}))


def set_policy(arguments: argparse.Namespace) -> int:
    """Change the policy."""
    parameters = {"policy": arguments.policy, "fixed_mhz": dict(map(_fixed, arguments.fix))}
    return asyncio.run(_ask(arguments, "clocks.set", parameters))


def restore(arguments: argparse.Namespace) -> int:
    """Give clocks back as they were found: by the daemon, or here where none runs. The unit's ExecStopPost calls it."""
    path = paths.state_dir(arguments.state_dir)
    if not (path / "clocks.json").exists():
        print("No clocks are held.")
        return 0
    act_as_owner(path)
    try:
        state = StateDir.acquire(path)
    except Problem as problem:
        if problem.code is not Code.ALREADY_RUNNING:
            raise
        return asyncio.run(_ask(arguments, "clocks.restore", {}))
    with state:
        keeper = Keeper(ClockFiles(), state, boot_id)
        count = give_back(keeper)
    for file, hold in keeper.lease.holds.items():
        print(f"{file} could not be set back to {hold.before}: {keeper.refused.get(file, 'it can not be read')}.")
    print(f"{count} settings are as they were before.")
    return 1 if keeper.lease.holds else 0


async def _ask(arguments: argparse.Namespace, type_: str, parameters: dict[str, Any]) -> int:
    async with client_for(arguments) as client:
        value = await client.call(type_, parameters)
    print(json.dumps(value, indent=1) if arguments.json else "\n".join(table(value)))
    return 0


def table(value: dict[str, Any]) -> list[str]:
    """The policy, a line for each device, and what is in the way."""
    heat = f", lowered by {value['lowered_percent']} % for heat" if value["lowered_percent"] else ""
    lines = [f"policy {value['policy']}: {'raised' if value['raised'] else 'not raised'}{heat}"]
    for device in value["devices"]:
        limits = f"{_mhz(device['min_hz'])} to {_mhz(device['max_hz'])}"
        held = ", ".join(f"{name} was {before}" for name, before in device["held"].items())
        lines.append(
            f"  {device['name']:<8}{_mhz(device['current_hz']):>6} MHz   {device['governor'] or '-':<16}"
            f"{limits:<14}{held}".rstrip()
        )
        if device["frequencies_hz"]:
            lines.append(f"{'':10}of " + " ".join(_mhz(hz) for hz in device["frequencies_hz"]))
    lines += [f"{problem['message']} {problem['advice']}".rstrip() for problem in value["problems"]]
    return lines


def _mhz(hertz: int | None) -> str:
    return "-" if hertz is None else f"{hertz / 1e6:.0f}"


def _fixed(text: str) -> tuple[str, int]:
    name, _, mhz = text.partition("=")
    if not name or not (mhz.isascii() and mhz.isdigit()):
        raise Problem(Code.INVALID_VALUE, f'"{text}" is not DEVICE=MHZ.', 'Write it like "npu=900".')
    return name, int(mhz)
