"""``rockfill runtime``."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rockfill.cli.progress import follow
from rockfill.cli.reaching import reach

if TYPE_CHECKING:
    import argparse

ORIGINS = {"configured": "named in the configuration", "installed": "installed by Rockfill", "system": "found"}


def list_runtimes(arguments: argparse.Namespace) -> int:
    """Print the runtimes that are here, and which one is run."""
    value = asyncio.run(_call(arguments, "runtimes.list", {}))
    if arguments.json:
        print(json.dumps(value, indent=1))
        return 0
    chosen = value["chosen"]
    for runtime in value["runtimes"]:
        sign = "*" if chosen is not None and runtime["version"] == chosen["version"] else " "
        official = "" if runtime["official"] else ", no official build"
        print(f"{sign} {runtime['version'] or 'unknown':10}{ORIGINS[runtime['origin']]}{official}: {runtime['path']}")
        if runtime["problem"]:
            print(f"    {runtime['problem']['message']}")
    if not value["runtimes"]:
        print("No runtime is here.")
    if chosen is not None:
        wanted = "" if chosen["installed"] else f"; `rockfill runtime install {chosen['version']}` fetches it"
        print(f"Models are run with {chosen['version']}: {chosen['reason']}{wanted}.")
    print(f"Can be fetched: {', '.join(value['available'])}")
    return 0


def install(arguments: argparse.Namespace) -> int:
    """Install a runtime: a release of the vendor's, or a file."""
    what = arguments.what or ""
    is_file = "/" in what or what.endswith(".so")
    parameters = {"path": str(Path(what).absolute())} if is_file else {"version": what}
    return asyncio.run(_install(arguments, parameters, is_file=is_file))


async def _install(arguments: argparse.Namespace, parameters: dict[str, str], *, is_file: bool) -> int:
    async with reach(arguments) as ask:
        value = await ask.call("runtimes.install", parameters)
        if value["download"] is not None:
            await follow(ask, value["download"]["id"])
    already = value["installed"] and not is_file
    print(f"Runtime {value['version']} is {'here already' if already else 'installed'}.")
    return 0


def use(arguments: argparse.Namespace) -> int:
    """Choose the runtime for every model."""
    value = asyncio.run(_call(arguments, "runtimes.use", {"version": arguments.version}))
    if value["pinned"] is None:
        print("Each model is run with the runtime that suits it, from the next load on.")
    else:
        print(f"Every model is run with {value['pinned']} from the next load on.")
    return 0


def remove(arguments: argparse.Namespace) -> int:
    """Remove a runtime that Rockfill installed."""
    value = asyncio.run(_call(arguments, "runtimes.remove", {"version": arguments.version}))
    left = f"; left as it is not Rockfill's: {', '.join(value['left'])}" if value["left"] else ""
    print(f"Runtime {value['version']} was removed{left}.")
    return 0


async def _call(arguments: argparse.Namespace, type_: str, parameters: dict[str, Any]) -> dict[str, Any]:
    async with reach(arguments) as ask:
        return await ask.call(type_, parameters)
