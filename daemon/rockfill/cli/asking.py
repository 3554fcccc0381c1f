"""The commands that ask a running daemon: status, complete."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rockfill import paths
from rockfill.client import Client
from rockfill.errors import Code, Problem
from rockfill.state import read_address, read_token

if TYPE_CHECKING:
    import argparse

DEFAULT_URL = "http://127.0.0.1:8012"

# How often `logs -f` asks for more, and how many lines the daemon keeps.
FOLLOW_S = 0.5
MOST_LINES = 200


def complete(arguments: argparse.Namespace) -> int:
    """Print the completion of a file at a position."""
    prefix, suffix = split_at(arguments.position)
    return asyncio.run(_complete(arguments, prefix, suffix))


async def _complete(arguments: argparse.Namespace, prefix: str, suffix: str) -> int:
    mode = "block" if arguments.multiline else "line"
    parts: list[str] = []
    async with client_for(arguments) as client:
        async for text in client.complete(prefix, suffix, mode=mode, max_tokens=arguments.max_tokens):
            parts.append(text)
            if not arguments.json:
                sys.stdout.write(text)
                sys.stdout.flush()
    if arguments.json:
        print(json.dumps({"completion": "".join(parts)}))
    else:
        print()
    return 0


def status(arguments: argparse.Namespace) -> int:
    """Print what the appliance is doing; exit status 1 unless it would complete."""
    value = asyncio.run(_command(arguments, "engine.get", {}))
    if arguments.json:
        print(json.dumps(value, indent=1))
    else:
        print(status_line(value))
        instead_of = value["instead_of"]
        if instead_of:
            problem = instead_of["problem"]
            print(f"instead of {instead_of['model']['name']}: {problem['message']} {problem['advice']}".rstrip())
        problem = value["problem"]
        if problem:
            print(f"{problem['message']} {problem['advice']}".rstrip())
            for line in problem["detail"].get("last_lines", []):
                print(f"  | {line}")
    return 0 if value["state"] in ("ready", "busy") else 1


def logs(arguments: argparse.Namespace) -> int:
    """Print what the engine printed."""
    return asyncio.run(_logs(arguments))


async def _logs(arguments: argparse.Namespace) -> int:
    async with client_for(arguments) as client:
        value = await client.call("engine.logs", {"lines": arguments.lines})
        _print_lines(value["lines"])
        seen = value["total"]
        while arguments.follow:
            await asyncio.sleep(FOLLOW_S)
            value = await client.call("engine.logs", {"lines": MOST_LINES})
            _print_lines(fresh_lines(value["lines"], value["total"], seen))
            seen = value["total"]
    return 0


def fresh_lines(lines: list[str], total: int, seen: int) -> list[str]:
    """Of the last `lines` of `total`, those that come after the first `seen`; what is not there any more is told."""
    # Fewer in all than were seen: another daemon has begun.
    fresh = total - seen if total >= seen else total
    lost = fresh - len(lines)
    return ([f"… {lost} lines are lost"] if lost > 0 else []) + (lines[-fresh:] if fresh else [])


def _print_lines(lines: list[str]) -> None:
    for line in lines:
        print(line, flush=True)


def engine(arguments: argparse.Namespace) -> int:
    """Carry out one of the engine's commands."""
    name = arguments.engine_command
    parameters = {"model": arguments.model} if name == "load" else {}
    value = asyncio.run(_command(arguments, f"engine.{name}", parameters))
    if arguments.json:
        print(json.dumps(value, indent=1))
    elif name == "history":
        for event in value["events"]:
            print(history_line(event))
            for line in event["last_lines"]:
                print(f"  | {line}")
    elif name == "load":
        print(f"{value['model']['name']} is loaded.")
    else:
        print(f"{name}: done.")
    return 0


async def _command(arguments: argparse.Namespace, type_: str, parameters: dict[str, Any]) -> dict[str, Any]:
    async with client_for(arguments) as client:
        return await client.call(type_, parameters)


def history_line(event: dict[str, Any]) -> str:
    """One line for people: ``2026-11-24 04:12:01 failed · fake · engine_crashed: …``."""
    when = datetime.fromtimestamp(event["time_s"], tz=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    parts = [f"{when} {event['state']}"]
    if event["model"]:
        parts.append(event["model"])
    if event["code"]:
        parts.append(f"{event['code']}: {event['message']}")
    return " · ".join(parts)


def selftest(arguments: argparse.Namespace) -> int:
    """Run the selftest and print its result."""
    value = asyncio.run(_command(arguments, "selftest.run", {}))
    print(
        json.dumps({k: v for k, v in value.items() if k != "report"}, indent=1) if arguments.json else value["report"]
    )
    return 0


def status_line(value: dict[str, Any]) -> str:
    """One line for people: ``ready · rockfill-tiny · llama.cpp · 250 tok/s``."""
    parts = [value["state"]]
    if value["model"]:
        parts.append(value["model"]["name"] + (" (demonstration)" if value["model"]["demonstration"] else ""))
    if value["runtime"]:
        parts.append(value["runtime"])
    if value["tokens_per_second"]:
        parts.append(f"{value['tokens_per_second']:.1f} tok/s")
    return " · ".join(parts)


def split_at(position: str) -> tuple[str, str]:
    """The text of FILE before and after LINE:COL. Columns count characters; one past the end of the line is allowed."""
    file, _, rest = position.rpartition(":")
    name, _, line_text = file.rpartition(":")
    if not name or not line_text.isascii() or not line_text.isdigit() or not rest.isascii() or not rest.isdigit():
        raise Problem(Code.INVALID_VALUE, f'"{position}" is not FILE:LINE:COL.', 'Write it like "main.py:12:5".')
    try:
        with Path(name).open(encoding="utf-8", newline="") as opened:
            text = opened.read()
    except OSError as error:
        raise Problem(Code.FILE_UNREADABLE, f"{name} can't be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise Problem(Code.FILE_UNREADABLE, f"{name} is not UTF-8 text.") from None
    lines = text.split("\n")
    line, column = int(line_text), int(rest)
    if not 1 <= line <= len(lines):
        raise Problem(Code.INVALID_VALUE, f"{name} has {len(lines)} lines, there is no line {line}.")
    here = lines[line - 1].rstrip("\r")
    if not 1 <= column <= len(here) + 1:
        raise Problem(
            Code.INVALID_VALUE, f"Line {line} of {name} has columns 1 to {len(here) + 1}, there is no column {column}."
        )
    offset = sum(len(earlier) + 1 for earlier in lines[: line - 1]) + column - 1
    return text[:offset], text[offset:]


def client_for(arguments: argparse.Namespace) -> Client:
    """A client of the appliance that the arguments and the environment name."""
    directory = paths.state_dir(arguments.state_dir)
    url = arguments.url or os.environ.get("ROCKFILL_URL") or read_address(directory) or DEFAULT_URL
    token = os.environ.get("ROCKFILL_TOKEN") or read_token(directory)
    return Client(url, token)
