from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from rockfill.errors import Code, ProblemInfo
from rockfill.session import ModelFacts
from rockfill.snapshots import EngineSnapshot, Phase, Target
from rockfill.watchdog import ServiceManager, status_text

if TYPE_CHECKING:
    from collections.abc import Iterator

TARGET = Target("codegemma:2b", "rkllm", "/m", "codegemma", quantisation="w8a8")
NAMED = replace(TARGET, name="codegemma-W8A8")
ON_THE_CPU = Target("tiny", "llama", "/t", None)
FACTS = ModelFacts(4096, 256_000, 2, adds_bos=True, honours=(), runtime="RKLLM 1.2.3")


@pytest.fixture(params=["path", "abstract"])
def told(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """What a service manager hears; systemd in containers gives abstract addresses."""
    name = f"rockfill-test-{os.getpid()}"
    address = str(tmp_path_factory.mktemp("n") / "notify") if request.param == "path" else f"@{name}"
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address if request.param == "path" else f"\0{name}")
        manager.setblocking(False)
        yield manager


@pytest.fixture
def manager(told: socket.socket) -> Iterator[ServiceManager]:
    with contextlib.closing(ServiceManager()) as made:
        yield made


def messages(told: socket.socket) -> list[str]:
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(told.recv(65536).decode())
    return found


def test_each_message_is_one_datagram_of_utf8(told: socket.socket, manager: ServiceManager) -> None:
    manager.ready()
    manager.status("ready · 模型 · …")
    manager.stopping()
    assert messages(told) == ["READY=1", "STATUS=ready · 模型 · …", "STOPPING=1"]


def test_a_status_is_told_when_it_changes_and_can_not_smuggle_in_another_message(
    told: socket.socket, manager: ServiceManager
) -> None:
    for text in ("ready", "ready", "failed\nWATCHDOG=1", "name with a lone \udc80"):
        manager.status(text)
    assert messages(told) == ["STATUS=ready", "STATUS=failed WATCHDOG=1", "STATUS=name with a lone ?"]


def test_a_manager_that_does_not_listen_is_not_waited_for(told: socket.socket, manager: ServiceManager) -> None:
    for number in range(2000):  # far more than a socket holds
        manager.status(str(number))
    assert messages(told)[0] == "STATUS=0"
    told.close()
    manager.stopping()


async def test_without_a_manager_nothing_is_sent_and_nothing_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setenv("WATCHDOG_USEC", "1000")
    manager = ServiceManager()
    manager.ready()
    await manager.watchdog(_never)


async def _never() -> None:
    raise AssertionError


@pytest.mark.parametrize(("usec", "pid"), [("", None), ("soon", None), ("-5", None), ("0", None), ("1000", "1")])
async def test_no_signs_of_life_where_none_are_asked_of_us(
    told: socket.socket, manager: ServiceManager, monkeypatch: pytest.MonkeyPatch, usec: str, pid: str | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", pid)
    await manager.watchdog(_never)
    assert messages(told) == []


async def test_each_sign_of_life_follows_a_heartbeat(
    told: socket.socket, manager: ServiceManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "3000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    sent: list[list[str]] = []

    fourth = asyncio.Event()

    async def heartbeat() -> None:
        sent.append(messages(told))
        if len(sent) == 4:
            fourth.set()
            await asyncio.Event().wait()  # stuck

    refreshed: list[int] = []
    beating = asyncio.create_task(manager.watchdog(heartbeat, lambda: refreshed.append(len(sent))))
    await fourth.wait()
    await asyncio.sleep(0.02)
    beating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await beating
    assert sent == [[], ["WATCHDOG=1"], ["WATCHDOG=1"], ["WATCHDOG=1"]]
    assert refreshed == [1, 2, 3]
    assert messages(told) == []


def test_the_status_is_one_line_for_people() -> None:
    crash = ProblemInfo(Code.ENGINE_CRASHED, "The engine's process crashed (SIGSEGV).")
    ready = EngineSnapshot(Phase.READY, TARGET, FACTS)
    for snapshot, speed, celsius, text in (
        (EngineSnapshot(Phase.STOPPED), None, 40.0, "stopped"),
        (EngineSnapshot(Phase.LOADING, TARGET), 10.2, None, "loading · codegemma:2b w8a8"),
        (ready, 10.21, 54.4, "ready · codegemma:2b w8a8 · RKLLM 1.2.3 · 10.2 tok/s · NPU 54 °C"),
        (EngineSnapshot(Phase.FAILED, NAMED, problem=crash), 10.2, None, f"failed · codegemma-W8A8 · {crash.message}"),
        (EngineSnapshot(Phase.READY, ON_THE_CPU), None, 54.4, "ready · tiny"),
    ):
        assert status_text(snapshot, speed, celsius) == text
