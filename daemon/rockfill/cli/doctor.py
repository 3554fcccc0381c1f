"""``rockfill doctor``: what keeps the appliance from working well."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rockfill import config, paths
from rockfill.cli.asking import client_for
from rockfill.cli.reaching import act_as_owner
from rockfill.doctor.checks import diagnose
from rockfill.doctor.facts import Level, worst
from rockfill.doctor.gather import Asked, gather, hub_facts, is_tested
from rockfill.errors import Code, Problem
from rockfill.hardware.board import Account
from rockfill.state import Choices, StateDir
from rockfill.store.models import DEFAULT_MODEL, ModelStore

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from pathlib import Path

SERVICE_USER = "rockfill"
SERVICE_GROUPS = ("render", "video")  # SupplementaryGroups= of the unit
EXIT_STATUS = {Level.OK: 0, Level.WARNING: 1, Level.PROBLEM: 3}
SIGNS = {Level.OK: "ok     ", Level.WARNING: "warning", Level.PROBLEM: "PROBLEM"}


def doctor(arguments: argparse.Namespace) -> int:
    """Print the findings: the daemon's, which knows the most, or our own where none runs."""
    account = _account()  # before we become somebody else
    if not (arguments.url or os.environ.get("ROCKFILL_URL")):
        act_as_owner(paths.state_dir(arguments.state_dir))
    value = _from_daemon(arguments) if _daemon_runs(arguments) else _here(arguments, account)
    if arguments.json:
        print(json.dumps(value, indent=1))
    else:
        for finding in value["findings"]:
            print(f"{SIGNS[Level(finding['level'])]}  {finding['check']:<13} {finding['message']}")
            if finding["fix"]:
                print(f"{'':24}→ {finding['fix']}")
    return EXIT_STATUS[Level(value["level"])]


def _daemon_runs(arguments: argparse.Namespace) -> bool:
    """Whether another process holds the state directory; somebody else's appliance is asked by its address."""
    if arguments.url or os.environ.get("ROCKFILL_URL"):
        return True
    path = paths.state_dir(arguments.state_dir)
    try:
        if not (path / "lock").exists():
            return False
    except PermissionError:
        raise Problem(
            Code.FILE_UNREADABLE, f"{path} can't be read by this user.", "Run it with sudo: sudo rockfill doctor"
        ) from None
    try:
        with StateDir.acquire(path):
            return False
    except Problem as problem:
        return problem.code is Code.ALREADY_RUNNING


def _from_daemon(arguments: argparse.Namespace) -> dict[str, Any]:
    async def ask() -> dict[str, Any]:
        async with client_for(arguments) as client:
            return await client.call("doctor.run")

    return asyncio.run(ask())


def _account() -> Account:
    """Who would run the daemon: the service's user with the unit's groups if we are root, who may everything."""
    account = Account.mine()
    return (Account.named(SERVICE_USER, also=SERVICE_GROUPS) or account) if account.uid == 0 else account


def _here(arguments: argparse.Namespace, account: Account) -> dict[str, Any]:
    configuration = config.load(paths.config_file(arguments.config))
    path = paths.state_dir(arguments.state_dir)
    choices, selftests, problem = _stored(path)
    models = ModelStore([paths.bundled_models(), path / "models"])
    target = None
    try:
        target = models.find(choices.model or DEFAULT_MODEL)
    except Problem as missing:
        problem = problem or missing.message
    policy = config.ClockPolicy(choices.clock_policy) if choices.clock_policy else configuration.clocks.policy
    findings = diagnose(
        gather(
            Asked(
                config=configuration,
                policy=policy,
                state_dir=path,
                state_problem=problem,
                model=target,
                tested=target is not None and is_tested(selftests, target),
                account=account,
                port_is_ours=False,
            ),
            ask_hub=hub_facts,
        )
    )
    return {"level": worst(findings).value, "findings": [asdict(finding) for finding in findings]}


def _stored(path: Path) -> tuple[Choices, Mapping[str, Any], str | None]:
    """What stands in the state directory, and what is wrong with that. One that is not there yet is none of it."""
    if not path.exists():
        return Choices(), {}, None
    try:
        with StateDir.acquire(path) as state:
            return state.choices(), state.selftests(), None
    except Problem as problem:
        return Choices(), {}, problem.message
