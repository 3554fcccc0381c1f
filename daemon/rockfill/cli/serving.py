"""The commands that work on this machine, without a daemon: serve, token, config check."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rockfill import config, paths
from rockfill.errors import Code, Problem
from rockfill.hardware.process import allow_many_files
from rockfill.state import StateDir, read_token
from rockfill.store import runtimes

if TYPE_CHECKING:
    import argparse


def serve(arguments: argparse.Namespace) -> int:
    """Run the daemon until it is told to stop."""
    from rockfill import app

    config_path = paths.config_file(arguments.config)
    configuration = config.load(config_path)
    if arguments.listen is not None:
        try:
            config.parse_address(arguments.listen)
        except ValueError as error:
            raise Problem(Code.CONFIG_INVALID, f"--listen {error}.") from None
    if arguments.sysfs_root is not None:
        os.environ["ROCKFILL_SYSFS_ROOT"] = arguments.sysfs_root
    allow_many_files()  # strangers may hold as many connections as they like
    options = app.Options(
        configuration, config_path, model=arguments.model, listen=arguments.listen, say_token=not _to_the_journal()
    )
    with StateDir.acquire(paths.state_dir(arguments.state_dir)) as state:
        try:
            asyncio.run(app.serve(options, state, _say))
        except* Problem as group:
            raise _first(group) from None
    return 0


def token(arguments: argparse.Namespace) -> int:
    """Print the primary token."""
    directory = paths.state_dir(arguments.state_dir)
    found = read_token(directory)
    if found is None:
        raise Problem(
            Code.NOT_FOUND, f"There is no token in {directory} yet.", "`rockfill serve` makes one at its first start."
        )
    print(found)
    return 0


def config_check(arguments: argparse.Namespace) -> int:
    """Say whether the configuration can be used."""
    path = paths.config_file(arguments.file)
    loaded = config.load(path)
    if arguments.json:
        print(json.dumps(asdict(loaded), indent=1))
    else:
        print(f"{path}: fine" if path else "No configuration file; the defaults are in force.")
    return 0


def runtime_inspect(arguments: argparse.Namespace) -> int:
    """Print what a library is, as far as its bytes tell."""
    identity = runtimes.inspect(Path(arguments.file))
    if arguments.json:
        print(json.dumps(asdict(identity), indent=1))
        return 0
    generation = identity.generation or " or ".join(identity.candidates) + " (its defaults will tell)"
    print(f"version       {identity.version or 'not told'}")
    print(f"generation    {generation}")
    print(f"architecture  {identity.architecture or 'unknown'}")
    print(f"found by      {identity.found_by.replace('_', ' ')}")
    print(f"git blob id   {identity.blob_id}")
    return 0


def _to_the_journal() -> bool:
    """Whether what is printed is kept in the journal, which more people may read than the state directory.

    systemd.exec(5): ``JOURNAL_STREAM`` is device and inode of what it connected, which may have been replaced since.
    """
    try:
        status = os.fstat(sys.stdout.fileno())
    except (OSError, ValueError):  # closed, or no file
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _say(line: str) -> None:
    try:
        print(line, flush=True)
    except OSError as error:  # whoever started us closed the pipe; the appliance goes on
        logging.getLogger(__name__).info("nobody reads standard output: %s", error.strerror)


def _first(group: BaseExceptionGroup[Problem]) -> Problem:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Problem)
    return error
