"""``rockfill models`` and ``rockfill hub``."""

from __future__ import annotations

import asyncio
import getpass
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rockfill.cli.progress import follow, line, size
from rockfill.cli.reaching import reach
from rockfill.decode import decode
from rockfill.errors import Code, Problem
from rockfill.evaluation.results import Result

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from rockfill.cli.reaching import Ask

CAPABILITIES = {
    "completion": "completes",
    "generation": "generates",
    "chat": "chats",
    "instructions": "follows instructions",
}


def list_models(arguments: argparse.Namespace) -> int:
    """Print the models that are here."""
    value = asyncio.run(_call(arguments, "models.list", {}))
    if arguments.json:
        return _json(value)
    rows = [
        (
            "*" if model["chosen"] else "",
            model["name"],
            model["quantisation"] or "",
            size(model["size_bytes"]),
            {"rkllm": "NPU", "llama": "CPU"}.get(model["engine"], model["engine"]),
            "comes with Rockfill" if model["demonstration"] else (model["source"] or {}).get("repository", ""),
        )
        for model in value["models"]
    ]
    _table(("", "NAME", "KIND", "SIZE", "RUNS ON", "FROM"), rows)
    return 0


def catalogue(arguments: argparse.Namespace) -> int:
    """Print the models that Rockfill suggests."""
    value = asyncio.run(_call(arguments, "models.catalogue", {}))
    if arguments.json:
        return _json(value)
    for model in value["models"]:
        print(f"{model['name']:24}{model['title']}{' (installed)' if model['installed'] else ''}")
        for offer in model["offers"]:
            able = ", ".join(CAPABILITIES[name] for name in offer["capabilities"])
            where = "NPU" if offer["engine"] == "rkllm" else "CPU"
            print(f"  {where}: {offer['repository']}{' (Instruct)' if offer['tuned'] else ''}; {able}")
        print(f"  licence: {model['licence']['name']}. {model['note']}")
    print("Fetch one with `rockfill models pull NAME`.")
    return 0


def variants(arguments: argparse.Namespace) -> int:
    """Print what a repository offers."""
    parameters = {"repository": arguments.repository, "revision": arguments.revision}
    value = asyncio.run(_call(arguments, "models.variants", parameters))
    if arguments.json:
        return _json(value)
    rows = [
        (
            "*" if row["recommended"] else "" if row["fits"] else "x",
            row["file"],
            row["quantisation"] or "unknown",
            _known(row["optimisation"]),
            (row["platform"] or "unknown") if row["engine"] == "rkllm" else "CPU",
            (row["converter_version"] or "unknown") if row["engine"] == "rkllm" else "",
            size(row["size_bytes"]) if row["size_bytes"] is not None else "unknown",
            f"{row['expected_tokens_per_second']:g}" if row["expected_tokens_per_second"] is not None else "unknown",
        )
        for row in value["variants"]
    ]
    _table(("", "FILE", "KIND", "OPT", "PLATFORM", "CONVERTER", "SIZE", "TOKENS/S"), rows)
    licence = value["licence"]
    print(f"Licence: {licence['name']}{' (accepted)' if licence['to_be_accepted'] and licence['accepted'] else ''}")
    for row in value["variants"]:
        if row["recommended"]:
            print(f"Recommended: {row['file']} ({row['reason']})")
    for row in value["variants"]:
        if row["evaluations"]:
            print("\n  ".join([f"Measured: {row['file']}", *_measured(row)]))
    for message in dict.fromkeys(_told(problem) for row in value["variants"] for problem in row["problems"]):
        print(message)
    return 0


def pull(arguments: argparse.Namespace) -> int:
    """Fetch a variant and show how far it is."""
    return asyncio.run(_fetch(arguments, "models.pull"))


def use(arguments: argparse.Namespace) -> int:
    """Choose the model to run, fetching it first if need be."""
    return asyncio.run(_fetch(arguments, "models.use"))


async def _fetch(arguments: argparse.Namespace, type_: str) -> int:
    parameters = {
        "model": arguments.model,
        "variant": arguments.variant,
        "revision": arguments.revision,
        "tokenizer": arguments.tokenizer,
        "accept_licence": arguments.accept_licence,
        "force": arguments.force,
    }
    async with reach(arguments) as ask:
        try:
            value = await ask.call(type_, parameters)
        except Problem as problem:
            if problem.code is not Code.LICENCE_NOT_ACCEPTED or not _accepts(problem):
                raise
            value = await ask.call(type_, {**parameters, "accept_licence": True})
        for problem_value in value["problems"]:
            print(_told(problem_value), file=sys.stderr)
        if value["download"] is not None:
            value["download"] = await _followed(ask, value["download"])
        if value["runtime_download"] is not None:
            value["runtime_download"] = await _followed_if_it_comes(ask, value["runtime_download"])
    if arguments.json:
        return _json(value)
    name = value["model"]
    if type_ == "models.use":
        print(f"{name} is the chosen model.")
    elif value["installed"]:
        print(f"{name} is here already.")
    else:
        print(f"{name} is here. `rockfill models use {name}` runs it.")
    return 0


async def _followed(ask: Ask, download: dict[str, Any]) -> dict[str, Any]:
    try:
        return await follow(ask, download["id"])
    except asyncio.CancelledError:
        if ask.is_daemon:
            print(f"The daemon goes on with it; `rockfill models cancel {download['id']}` ends it.", file=sys.stderr)
        else:
            print("What has come is kept; the same command goes on from there.", file=sys.stderr)
        raise


async def _followed_if_it_comes(ask: Ask, download: dict[str, Any]) -> dict[str, Any]:
    """The model is here even if the runtime that it needs is not."""
    try:
        return await _followed(ask, download)
    except Problem as problem:
        again = f"`rockfill runtime install {download['id']}` tries again."
        print(f"{download['name']} did not come: {problem.message} {again}", file=sys.stderr)
        return download


def _accepts(problem: Problem) -> bool:
    """Ask whoever sits there; nobody does where the input is no terminal."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print(problem.message, file=sys.stderr)
    print("Do you accept it? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def downloads(arguments: argparse.Namespace) -> int:
    """Print what is being fetched or was left unfinished."""
    value = asyncio.run(_call(arguments, "models.downloads", {}))
    if arguments.json:
        return _json(value)
    for job in value["downloads"]:
        print(f"{job['state']:10}{line(job, bar=False)}  [{job['id']}]")
    if not value["downloads"]:
        print("Nothing is being fetched.")
    return 0


def cancel(arguments: argparse.Namespace) -> int:
    """End a download."""
    parameters = {"download": arguments.download, "discard": arguments.discard}
    value = asyncio.run(_call(arguments, "models.cancel", parameters))
    if arguments.json:
        return _json(value)
    print("Cancelled." if arguments.discard else "Cancelled; what has come is kept.")
    return 0


def show(arguments: argparse.Namespace) -> int:
    """Print all that is known of a model that is here."""
    value = asyncio.run(_call(arguments, "models.show", {"model": arguments.model}))
    if arguments.json:
        return _json(value)
    manifest, verdict = value["manifest"] or {}, value["verdict"] or {}
    source = value["source"] or {}
    rate = verdict.get("expected_tokens_per_second")
    for name, text in (
        ("name", ", ".join([value["name"], *value["aliases"]])),
        ("file", value["path"]),
        ("size", size(value["size_bytes"])),
        ("family", value["family"]),
        ("quantisation", value["quantisation"]),
        *(_of_npu(value, manifest) if value["engine"] == "rkllm" else ()),
        ("licence", value["licence"]),
        ("repository", source.get("repository")),
        ("commit", source.get("commit")),
        ("tokens a second", f"{rate:g} ({verdict['speed_source']})" if rate is not None else None),
    ):
        print(f"{name:16}{text or 'unknown'}")
    for number, text in enumerate(_measured(value) or ["not yet; see `rockfill eval infill --help`"]):
        print(f"{'' if number else 'measured':16}{text}")
    for problem in verdict.get("problems", ()):
        print(_told(problem))
    return 0


def verify(arguments: argparse.Namespace) -> int:
    """Compare a model's files with what was installed; exit status 1 if one is not right."""
    value = asyncio.run(_call(arguments, "models.verify", {"model": arguments.model}))
    if arguments.json:
        _json(value)
    elif value["ok"]:
        print(f"{value['model']} is as it was installed.")
    else:
        for file, what in value["wrong"].items():
            print(f"{file} {what}.")
        print(f"Fetch it again: `rockfill models rm {value['model']}`, then `rockfill models pull`.")
    return 0 if value["ok"] else 1


def remove(arguments: argparse.Namespace) -> int:
    """Remove models."""
    for model in arguments.models:
        value = asyncio.run(_call(arguments, "models.remove", {"model": model}))
        left = f"; left as it is not Rockfill's: {', '.join(value['left'])}" if value["left"] else ""
        print(f"{value['model']} was removed{left}.")
    return 0


def bring_in(arguments: argparse.Namespace) -> int:
    """Copy a model from a file."""
    tokenizer = arguments.tokenizer
    if tokenizer is not None and Path(tokenizer).exists():
        tokenizer = str(Path(tokenizer).absolute())
    parameters = {"path": str(Path(arguments.path).absolute()), "tokenizer": tokenizer, "name": arguments.name}
    value = asyncio.run(_call(arguments, "models.import", parameters))
    if arguments.json:
        return _json(value)
    print(f"{value['model']} is here. `rockfill models use {value['model']}` runs it.")
    return 0


def login(arguments: argparse.Namespace) -> int:
    """Store a token for the Hub; never one from the command line, which others can see."""
    if sys.stdin.isatty():
        token = getpass.getpass("Access token of the Hub (from huggingface.co/settings/tokens): ")
    else:
        token = sys.stdin.readline()
    value = asyncio.run(_call(arguments, "hub.login", {"token": token.strip()}))
    print(f"The Hub knows you as {value['account']}.")
    return 0


def logout(arguments: argparse.Namespace) -> int:
    """Forget the token for the Hub."""
    asyncio.run(_call(arguments, "hub.logout", {}))
    print("The token was removed.")
    return 0


def _of_npu(value: dict[str, Any], manifest: dict[str, Any]) -> list[tuple[str, str | None]]:
    runtime = (value["verdict"] or {}).get("runtime") or {}
    return [
        ("platform", manifest.get("platform")),
        ("converter", manifest.get("converter_version")),
        ("runtime", f"{runtime['version']} ({runtime['reason']})" if runtime else None),
    ]


def _measured(value: dict[str, Any]) -> list[str]:
    return [line for result in value["evaluations"] for line in decode(Result, result).lines]


async def _call(arguments: argparse.Namespace, type_: str, parameters: dict[str, Any]) -> dict[str, Any]:
    async with reach(arguments) as ask:
        return await ask.call(type_, parameters)


def _json(value: object) -> int:
    print(json.dumps(value, indent=1))
    return 0


def _known(value: object) -> str:
    return "unknown" if value is None else str(value)


def _told(problem: dict[str, Any]) -> str:
    sign = "won't run" if problem["severity"] == "refuse" else "mind"
    return f"{sign}: {problem['message']} {problem['advice']}".rstrip()


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
