"""The command line against a running daemon: what somebody does who looks after an appliance."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

from tests.appliance import ROOT, ScriptedAppliance, environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

PATIENCE_S = 60.0


def command(appliance: ScriptedAppliance, arguments: Sequence[str]) -> list[str]:
    return [
        *(sys.executable, "-m", "rockfill", *arguments),
        *("--url", appliance.url, "--state-dir", str(appliance.state_dir)),
    ]


def rockfill(appliance: ScriptedAppliance, *arguments: str, status: int = 0) -> str:
    """What one command prints."""
    ended = subprocess.run(
        command(appliance, arguments), cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert ended.returncode == status, ended.stderr
    return ended.stdout


@contextlib.contextmanager
def following(appliance: ScriptedAppliance) -> Iterator[queue.SimpleQueue[str]]:
    """The lines of ``rockfill logs -f`` as they come."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    logs = subprocess.Popen(
        command(appliance, ("logs", "-f")), cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert logs.stdout is not None
    output = logs.stdout

    def read() -> None:
        for line in output:
            lines.put(line.rstrip("\n"))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield lines
    finally:
        logs.send_signal(signal.SIGINT)
        logs.wait(PATIENCE_S)
        reader.join()
        logs.stdout.close()


def test_the_engine_is_unloaded_loaded_restarted_paused_and_resumed_by_hand(scripted: ScriptedAppliance) -> None:
    assert rockfill(scripted, "engine", "unload") == "unload: done.\n"
    scripted.wait_for_state("stopped")
    assert rockfill(scripted, "engine", "load", "fake") == "fake is loaded.\n"
    worker = scripted.wait_for_state("ready")["worker_pid"]
    assert rockfill(scripted, "engine", "restart") == "restart: done.\n"
    while (value := scripted.wait_for_state("ready"))["worker_pid"] == worker:
        pass
    assert rockfill(scripted, "engine", "pause") == "pause: done.\n"
    assert scripted.wait_for_state("stopped")["paused"]
    answer = scripted.request("POST", "/v1/completions", {"prompt": "p"})
    assert (answer.status, answer.json()["error"]["code"]) == (503, "engine_paused")
    assert rockfill(scripted, "engine", "resume") == "resume: done.\n"
    assert scripted.complete("back")["choices"][0]["text"] == "back"
    assert value["pinned"] is False


def test_a_pinned_model_says_so_until_it_is_unpinned(scripted: ScriptedAppliance) -> None:
    for name, pinned in (("pin", True), ("unpin", False)):
        rockfill(scripted, "engine", name)
        assert json.loads(rockfill(scripted, "status", "--json"))["pinned"] is pinned


def test_status_tells_programs_all_and_by_its_exit_status_whether_it_would_complete(
    scripted: ScriptedAppliance,
) -> None:
    value: dict[str, Any] = json.loads(rockfill(scripted, "status", "--json"))
    assert (value["state"], value["model"]["name"], value["problem"]) == ("ready", "fake", None)
    assert value["worker_pid"]
    assert rockfill(scripted, "status").startswith("ready · fake · fake")
    rockfill(scripted, "engine", "unload")
    scripted.wait_for_state("stopped")
    assert json.loads(rockfill(scripted, "status", "--json", status=1))["state"] == "stopped"


def test_the_history_tells_a_crash_and_survives_a_restart_and_rubbish(
    scripted: ScriptedAppliance, tmp_path: Path
) -> None:
    once = tmp_path / "once"
    once.touch()
    scripted.script(fault={"when": "prefill", "what": "segv"}, once=str(once))
    scripted.request("POST", "/v1/completions", {"prompt": "p"})
    scripted.wait_for_state("ready")
    told = rockfill(scripted, "engine", "history")
    assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d starting · fake · engine_crashed: .*SIGSEGV", told, re.MULTILINE)
    events = json.loads(rockfill(scripted, "engine", "history", "--json"))["events"]
    assert next(event["exit_status"] for event in events if event["code"]) == -signal.SIGSEGV
    scripted.stop()
    path = scripted.state_dir / "history.json"
    kept = json.loads(path.read_text())
    assert kept[: len(events)] == events
    path.write_text(json.dumps([None, {"time_s": 1e300, "state": "ready"}, *kept, {"time_s": {}}]))
    scripted.start()
    assert json.loads(rockfill(scripted, "engine", "history", "--json"))["events"][: len(kept)] == kept
    scripted.stop()
    path.write_bytes(b"\x00\xff" * 100)
    scripted.start()
    states = [event["state"] for event in json.loads(rockfill(scripted, "engine", "history", "--json"))["events"]]
    assert states == ["starting", "loading", "ready"]


def test_logs_are_followed_into_the_next_worker(scripted: ScriptedAppliance) -> None:
    with following(scripted) as lines:
        for name in ("first", "second"):
            scripted.script(text=f"{name} worker", prints=f"{name} worker")
            scripted.complete("p")
            assert lines.get(timeout=PATIENCE_S) == f"{name} worker"
            worker = scripted.wait_for_state("ready")["worker_pid"]
            os.kill(worker, signal.SIGKILL)
            while scripted.wait_for_state("ready")["worker_pid"] == worker:
                pass
        # The last words of one that is gone by the next look are told as well.
        scripted.script(prints="third worker", fault={"when": "prefill", "what": "segv"})
        scripted.request("POST", "/v1/completions", {"prompt": "p"})
        assert lines.get(timeout=PATIENCE_S) == "third worker"
    assert lines.empty()
    assert rockfill(scripted, "logs").splitlines() == ["first worker", "second worker", "third worker"]
    assert rockfill(scripted, "logs", "-n", "1") == "third worker\n"
