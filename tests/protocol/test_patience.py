"""A machine that has other things to do is slow, and nothing that is slow is hung."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.appliance import ScriptedAppliance


def test_a_worker_that_waits_for_its_turn_on_the_cores_takes_up_a_request_late_and_lives(
    scripted: ScriptedAppliance,
) -> None:
    scripted.script(text="a + b")
    pid = scripted.command("engine.get")["worker_pid"]
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(scripted.complete, "x = ")
        scripted.wait_for_state("busy")
        time.sleep(1.5)  # a long time to wait for a turn
        os.kill(pid, signal.SIGCONT)
        assert asked.result()["choices"][0]["text"] == "a + b"
    assert scripted.command("engine.get")["worker_pid"] == pid
