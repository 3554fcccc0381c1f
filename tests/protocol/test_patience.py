"""A machine that has other things to do is slow, and nothing that is slow is hung."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.appliance import ScriptedAppliance


def test_a_worker_that_computes_takes_up_a_request_late_and_lives(scripted: ScriptedAppliance) -> None:
    scripted.script(text="a + b")
    pid = scripted.command("engine.get")["worker_pid"]
    scripted.script(text="a + b", tokenize_s=1.5)  # longer than one that sleeps would be given
    assert scripted.complete("x = ")["choices"][0]["text"] == "a + b"
    assert scripted.command("engine.get")["worker_pid"] == pid
