"""The worker of an earlier daemon: told from others, ended, or in the way."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from rockfill.engine import leftover
from rockfill.engine.leftover import Leftover
from rockfill.errors import Code, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, as a worker is."""
    with subprocess.Popen(["sleep", "3600"], process_group=0) as process:
        yield process
        process.kill()


async def of(process: subprocess.Popen[bytes]) -> Leftover:
    known = await asyncio.to_thread(Leftover.of, process.pid)
    assert known is not None
    assert Leftover.stored(known.value()) == known
    return known


async def test_one_that_is_still_there_is_ended(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftover, "GONE_S", 60)  # however slow the machine is
    await (await of(sleeper)).end()  # though nobody has waited for it yet
    assert await asyncio.to_thread(Leftover.of, sleeper.pid) is None
    assert sleeper.wait() == -signal.SIGKILL


@pytest.mark.parametrize("changed", [{"started_ticks": 1}, {"boot_id": "of another boot"}])
async def test_another_process_of_the_same_number_is_left_alone(
    sleeper: subprocess.Popen[bytes], changed: dict[str, Any]
) -> None:
    await replace(await of(sleeper), **changed).end()
    assert sleeper.poll() is None


async def test_one_that_cannot_be_ended_is_told(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftover, "GONE_S", 0.05)
    monkeypatch.setattr(os, "killpg", lambda pid, number: None)
    with pytest.raises(Problem) as caught:
        await (await of(sleeper)).end()
    assert caught.value.code is Code.NPU_WEDGED
    assert str(sleeper.pid) in caught.value.message


@pytest.mark.parametrize("value", [None, [], {"pid": "1"}, {"pid": 1}])
def test_what_is_no_worker_is_none(value: object) -> None:
    assert Leftover.stored(value) is None
