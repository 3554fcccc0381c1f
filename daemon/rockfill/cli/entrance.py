"""``rockfill open`` and ``rockfill token``: how people and programs come to be let in."""

from __future__ import annotations

import asyncio
import json
import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rockfill.access.tokens import Scope
from rockfill.cli.asking import client_for
from rockfill.cli.reaching import reach
from rockfill.config import Address, parse_address

if TYPE_CHECKING:
    import argparse

    Json = dict[str, Any]


def open_link(arguments: argparse.Namespace) -> int:
    """Print a one-time link, by every address that this machine is likely to be reached at."""
    url, link, listen = asyncio.run(_link(arguments))
    print(f"Open this in a browser within {link['good_for_s'] / 60:g} minutes; it signs in once:")
    for base in reachable(url, listen):
        print(f"{base}{link['path']}")
    return 0


async def _link(arguments: argparse.Namespace) -> tuple[str, Json, str]:
    async with client_for(arguments) as client:
        link = await client.call("access.link")
        configuration = await client.call("config.get")
    return client.url, link, configuration["server"]["listen"]


def reachable(url: str, listen: str) -> list[str]:
    """The addresses under which others reach the appliance that we reach at `url`, and that listens on `listen`."""
    parts = urlsplit(url)
    if parts.hostname not in ("127.0.0.1", "::1", "localhost") or not parse_address(listen).everywhere:
        return [url]
    hosts = [socket.gethostname(), *_own_addresses()]
    return [f"{parts.scheme}://{Address(host, parts.port or 80)}" for host in hosts]


def _own_addresses() -> list[str]:
    """The address from which this machine would speak to the rest of the world, if it can."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a documentation address; a datagram socket sends nothing yet
        except OSError:
            return []
        address: str = probe.getsockname()[0]
        return [address]


def token_add(arguments: argparse.Namespace) -> int:
    """Make a token and print it."""
    scopes = arguments.scope or [Scope.READ.value, Scope.COMPLETE.value]
    made = asyncio.run(_call(arguments, "tokens.add", {"name": arguments.name, "scopes": scopes}))
    print(json.dumps(made, indent=1) if arguments.json else made["token"])
    return 0


def token_list(arguments: argparse.Namespace) -> int:
    """Print the tokens' names, and what they are good for."""
    value = asyncio.run(_call(arguments, "tokens.list", {}))
    if arguments.json:
        print(json.dumps(value, indent=1))
        return 0
    for token in value["tokens"]:
        made = datetime.fromtimestamp(token["created_s"], tz=UTC).astimezone()
        print(f"{token['name']:24} {made:%Y-%m-%d}  {' '.join(token['scopes'])}")
    return 0


def token_revoke(arguments: argparse.Namespace) -> int:
    """Make a token worthless."""
    value = asyncio.run(_call(arguments, "tokens.revoke", {"name": arguments.name}))
    print(json.dumps(value) if arguments.json else f"{arguments.name} is worthless now.")
    return 0


async def _call(arguments: argparse.Namespace, type_: str, parameters: Json) -> Json:
    async with reach(arguments) as ask:
        return await ask.call(type_, parameters)
