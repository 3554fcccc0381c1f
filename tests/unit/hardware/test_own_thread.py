from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from rockfill.hardware.own_thread import MOST_LEFT_BEHIND, OwnThread


def alive(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


async def test_results_and_errors_come_back() -> None:
    thread = OwnThread("a")
    assert await thread.call(lambda: 6 * 7, 60) == 42
    with pytest.raises(ZeroDivisionError):
        await thread.call(lambda: 1 // 0, 60)
    ran_in = await thread.call(threading.current_thread, 60)
    assert ran_in is await thread.call(threading.current_thread, 60)
    assert ran_in.daemon  # the end of the process does not wait for it
    thread.close()
    ran_in.join()
    assert not alive("a")


async def test_a_timeout_that_the_function_itself_raises_leaves_nobody_behind() -> None:
    def fail() -> None:
        raise TimeoutError

    thread = OwnThread("b")
    with pytest.raises(TimeoutError):
        await thread.call(fail, 60)
    ran_in = await thread.call(threading.current_thread, 60)
    with pytest.raises(TimeoutError):
        await thread.call(fail, 60)
    assert await thread.call(threading.current_thread, 60) is ran_in
    thread.close()


async def test_who_hangs_is_left_behind_and_ends_once_it_returns() -> None:
    thread, released = OwnThread("c"), threading.Event()
    with pytest.raises(TimeoutError):
        await thread.call(released.wait, 0.05)
    [hanging] = alive("c")
    assert await thread.call(lambda: "next", 60) == "next"
    assert len(alive("c")) == 2
    released.set()
    hanging.join()
    assert not hanging.is_alive()
    thread.close()


async def test_a_limit_that_passed_while_the_loop_stood_still_is_prolonged_by_that() -> None:
    thread, released = OwnThread("f"), threading.Event()
    call = asyncio.create_task(thread.call(released.wait, 0.1))
    await asyncio.sleep(0)
    time.sleep(3)  # noqa: ASYNC251 - so it stands still
    for _ in range(5):
        await asyncio.sleep(0)
    assert not call.done()
    released.set()
    assert await call
    assert len(alive("f")) == 1
    thread.close()


async def test_there_is_an_end_to_leaving_behind() -> None:
    thread, released = OwnThread("d"), threading.Event()
    for _ in range(MOST_LEFT_BEHIND + 3):
        with pytest.raises(TimeoutError):
            await thread.call(released.wait, 0.01)
    hanging = alive("d")
    assert len(hanging) == MOST_LEFT_BEHIND
    released.set()
    for each in hanging:
        each.join()
    assert await thread.call(lambda: "again", 60) == "again"
    thread.close()


async def test_between_calls_it_never_wakes_up() -> None:
    thread = OwnThread("e")
    ran_in = await thread.call(threading.get_native_id, 60)
    before, slept = -1, voluntary_switches(ran_in)
    while before != slept:  # it may take its time to fall asleep; then there is a second in which it does not wake up
        await asyncio.sleep(1)
        before, slept = slept, voluntary_switches(ran_in)
    assert await thread.call(threading.get_native_id, 60) == ran_in
    while voluntary_switches(ran_in) == slept:  # noqa: ASYNC110 - until it sleeps again, which is no event
        await asyncio.sleep(0.01)
    thread.close()


def voluntary_switches(thread_id: int) -> int:
    """How often it has gone to sleep."""
    status = Path(f"/proc/self/task/{thread_id}/status").read_text()
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
