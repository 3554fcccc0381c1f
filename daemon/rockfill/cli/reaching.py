"""Running a command wherever it can run: through the daemon that has the state directory, else right here.

Both ways run the same functions of the table of commands, so that results are the same.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from rockfill import config, paths
from rockfill.cli.asking import client_for
from rockfill.errors import Code, Problem
from rockfill.state import StateDir

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path

    from rockfill.client import Client

Json = dict[str, Any]

# The commands that need no engine.
WITHOUT_DAEMON = ("models.", "runtimes.", "hub.", "tokens.")


class Ask(Protocol):
    """Something that commands can be run on."""

    @property
    def is_daemon(self) -> bool:
        """Whether what it was told to do goes on after us."""
        ...

    async def call(self, type_: str, parameters: Mapping[str, Any] | None = None) -> Json:
        """Run the command `type_` and return its result."""
        ...


@asynccontextmanager
async def reach(arguments: argparse.Namespace) -> AsyncGenerator[Ask, None]:
    """Whatever runs commands for the state directory: its daemon, or this process, which then holds its lock.

    As root, this process becomes the state directory's owner first.
    """
    directory = paths.state_dir(arguments.state_dir)
    if arguments.url or os.environ.get("ROCKFILL_URL"):
        async with client_for(arguments) as client:
            yield _Through(client)
        return
    act_as_owner(directory)
    try:
        state = StateDir.acquire(directory)
    except Problem as problem:
        if problem.code is not Code.ALREADY_RUNNING:
            raise
        async with _client(arguments, problem) as client:
            yield _Through(client)
        return
    with state:
        async with _here(state, arguments) as ask:
            yield ask


def act_as_owner(directory: Path) -> None:
    """If we are root and `directory` is somebody's, become that user for good: what we make is then theirs."""
    if os.geteuid() != 0:
        return
    try:
        owner = directory.stat()
    except OSError:  # not there yet: then it becomes root's
        return
    if owner.st_uid == 0:
        return
    try:
        entry = pwd.getpwuid(owner.st_uid)
        groups = os.getgrouplist(entry.pw_name, owner.st_gid)
        os.environ["HOME"] = entry.pw_dir
    except KeyError:
        groups = [owner.st_gid]
    os.setgroups(groups)
    os.setresgid(owner.st_gid, owner.st_gid, owner.st_gid)
    os.setresuid(owner.st_uid, owner.st_uid, owner.st_uid)


@asynccontextmanager
async def _client(arguments: argparse.Namespace, running: Problem) -> AsyncGenerator[Client, None]:
    """The daemon that holds the lock."""
    client = client_for(arguments)
    try:
        entered = await client.__aenter__()
    except Problem as problem:
        if problem.code is not Code.NO_DAEMON:
            raise
        raise Problem(
            Code.NO_DAEMON,
            f"{running.message} {problem.message}",
            "Wait until the other command has ended; for a daemon elsewhere say where with --url or ROCKFILL_URL.",
        ) from None
    try:
        yield entered
    finally:
        await client.__aexit__(None, None, None)


@asynccontextmanager
async def _here(state: StateDir, arguments: argparse.Namespace) -> AsyncGenerator[Ask, None]:
    from rockfill.access.tokens import Access
    from rockfill.api.commands.all import COMMANDS
    from rockfill.api.commands.table import Dispatch
    from rockfill.bus import Bus
    from rockfill.downloads.libraries import board_facts, build_libraries
    from rockfill.evaluation.results import Results
    from rockfill.store.models import ModelStore, choose_remembered

    # What fails is told by whoever waits for it.
    logging.getLogger("rockfill.downloads").setLevel(logging.ERROR)
    configuration = config.load(paths.config_file(getattr(arguments, "config", None)))
    models = ModelStore([paths.bundled_models(), state.path / "models"])
    choose_remembered(models, state.choices().model)
    libraries = build_libraries(configuration, state, models, Bus(), board_facts)
    services = {
        "access": Access(state.token(), state.tokens()),
        "evaluations": Results(state.evaluations()),
        "library": libraries.models,
        "downloads": libraries.downloads,
        "runtimes": libraries.runtimes,
        "models": models,
        "state": state,
        "run_model": models.choose,
    }
    able = [command for command in COMMANDS if command.type.startswith(WITHOUT_DAEMON)]
    await libraries.downloads.take_up(go_on=False)
    working = asyncio.create_task(libraries.downloads.run(), name="download queue")
    try:
        yield _Here(Dispatch(able, services))
    finally:
        working.cancel()
        await asyncio.wait([working])


class _Through:
    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def is_daemon(self) -> bool:
        return True

    async def call(self, type_: str, parameters: Mapping[str, Any] | None = None) -> Json:
        return await self._client.call(type_, parameters)


class _Here:
    def __init__(self, dispatch: Any) -> None:
        self._dispatch = dispatch

    @property
    def is_daemon(self) -> bool:
        return False

    async def call(self, type_: str, parameters: Mapping[str, Any] | None = None) -> Json:
        from rockfill.access.tokens import EVERYTHING, Visitor
        from rockfill.api.commands.table import Caller

        entry = self._dispatch.find(type_)
        result: Json = await self._dispatch.run(entry, dict(parameters or {}), Caller(Visitor(EVERYTHING)))
        return result
