"""Rockchip's runtime, and the account on the Hub."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rockfill.access.tokens import Scope
from rockfill.api.commands.table import Json, NoParameters, command
from rockfill.compat.runtime import OFFICIAL_BLOB_IDS
from rockfill.compat.verdict import parse_version
from rockfill.decode import MaxLength
from rockfill.errors import Code, Problem

if TYPE_CHECKING:
    from rockfill.downloads.models import ModelLibrary
    from rockfill.downloads.runtimes import RuntimeLibrary
    from rockfill.state import StateDir
    from rockfill.store.models import ModelStore
    from rockfill.store.runtimes import FoundRuntime

Version = Annotated[str, MaxLength(100)]


@command("runtimes.list", scope=Scope.READ)
async def list_runtimes(_: NoParameters, runtimes: RuntimeLibrary, models: ModelStore, library: ModelLibrary) -> Json:
    """The runtimes on this machine, which one the chosen model is run with and why, and which can be fetched.

    Result: `{runtimes: [{version, path, origin: "configured" | "installed" | "system", generation, official,
    problem}], chosen: {version, installed, reason} | null, pinned: VERSION | null, available: [VERSION, …]}`. `origin`
    says who put it there: the configuration names it, Rockfill installed it, or somebody put it where libraries are.
    """
    await runtimes.refresh()
    target = models.chosen
    converter = None
    if target is not None and target.engine == "rkllm":
        converter = await asyncio.to_thread(library.converter_of, target.path)
    choice = runtimes.choice_for(converter)
    return {
        "runtimes": [_value(runtime) for runtime in runtimes.found],
        "chosen": {"version": choice.version, "installed": choice.installed, "reason": choice.reason}
        if choice is not None
        else None,
        "pinned": runtimes.pinned,
        "available": [version for version in OFFICIAL_BLOB_IDS if (parse_version(version) or (0,)) >= (1, 1)],
    }


@dataclass(frozen=True, slots=True)
class InstallParameters:
    """`version` is one of `available` ("": the one that runs most models); `path` a librkllmrt.so to take instead."""

    version: Version = ""
    path: Annotated[str, MaxLength(4096)] | None = None


@command("runtimes.install", scope=Scope.ADMIN, parameters=InstallParameters)
async def install(parameters: InstallParameters, runtimes: RuntimeLibrary) -> Json:
    """Fetch a release of the vendor's with its licence, or install a file of this machine.

    Result: `{version, installed, download: {…} | null}`; a fetch is told of as models' are (`models.downloads`).
    """
    if parameters.path is not None:
        if not parameters.path.startswith("/") or "\0" in parameters.path:
            raise Problem(Code.INVALID_VALUE, "path: must be an absolute path.")
        version = await runtimes.install_file(Path(parameters.path))
        return {"version": version, "installed": True, "download": None}
    job = await runtimes.install(parameters.version)
    version = parameters.version or runtimes.default_version
    return {"version": version, "installed": job is None, "download": job.value() if job is not None else None}


@dataclass(frozen=True, slots=True)
class VersionParameters:
    """`version` is that of a runtime that is here."""

    version: Version


@command("runtimes.use", scope=Scope.CONTROL, parameters=VersionParameters)
async def use(parameters: VersionParameters, runtimes: RuntimeLibrary) -> Json:
    """Run every model with that version from the next load on; "auto" takes what suits each again.

    Result: `{pinned: VERSION | null}`.
    """
    return {"pinned": await runtimes.use(parameters.version)}


@command("runtimes.remove", scope=Scope.ADMIN, parameters=VersionParameters)
async def remove(parameters: VersionParameters, runtimes: RuntimeLibrary) -> Json:
    """Remove a runtime that Rockfill installed. Result: `{version, left: [names of files that are not its own]}`."""
    return {"version": parameters.version, "left": await runtimes.remove(parameters.version)}


@dataclass(frozen=True, slots=True)
class LoginParameters:
    """`token` is an access token of the Hub, with the right to read."""

    token: Annotated[str, MaxLength(1000)]


@command("hub.login", scope=Scope.ADMIN, parameters=LoginParameters)
async def login(parameters: LoginParameters, library: ModelLibrary, state: StateDir) -> Json:
    """Store a token for the Hub, once the Hub has said whose it is. Result: `{account}`."""
    token = parameters.token.strip()
    if not token.isascii() or not token.isprintable() or not token or " " in token:
        raise Problem(Code.INVALID_VALUE, "token: must be an access token of the Hub.")
    account = await library.hub.whoami(token)
    await asyncio.to_thread(state.keep_hub_token, token)
    return {"account": account}


@command("hub.logout", scope=Scope.ADMIN)
async def logout(_: NoParameters, state: StateDir) -> Json:
    """Forget the token for the Hub that is stored here."""
    await asyncio.to_thread(state.keep_hub_token, None)
    return {}


@command("hub.get", scope=Scope.READ)
async def get(_: NoParameters, library: ModelLibrary) -> Json:
    """Which Hub is asked, and whether there is a token for it. Result: `{endpoint, has_token}`."""
    return {
        "endpoint": library.hub.endpoint,
        "has_token": await asyncio.to_thread(lambda: library.hub.token) is not None,
    }


def _value(runtime: FoundRuntime) -> Json:
    identity = runtime.identity
    return {
        "version": runtime.version,
        "path": str(runtime.path),
        "origin": runtime.origin,
        "generation": identity.generation.value if identity is not None and identity.generation is not None else None,
        "official": identity is not None and identity.found_by == "blob_id",
        "problem": runtime.problem.value() if runtime.problem is not None else None,
    }
