"""SIGKILL to a daemon at work, again and again: nothing of it survives, and the next start finds all in order."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from rockfill.engine.leftover import Leftover
from tests.appliance import ScriptedAppliance

if TYPE_CHECKING:
    from pathlib import Path

KILLS = 20
ORPHAN_S = 30.0  # by itself: nothing else ends it before the next start. Milliseconds are usual.


class Load:
    """Two clients that complete, stream and load a model as fast as they can, whatever becomes of the daemon."""

    def __init__(self, appliance: ScriptedAppliance) -> None:
        self._appliance = appliance
        self._over = threading.Event()
        self._headers = {"Authorization": f"Bearer {appliance.token}"}
        self._threads = [threading.Thread(target=self._ask, args=(stream,)) for stream in (False, True)]
        self._threads.append(threading.Thread(target=self._change_things))

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _post(self, path: str, body: object) -> None:
        to = http.client.HTTPConnection("127.0.0.1", self._appliance.port, timeout=20)
        with contextlib.closing(to), contextlib.suppress(OSError, http.client.HTTPException):
            to.request("POST", path, json.dumps(body), self._headers)
            to.getresponse().read()

    def _ask(self, stream: bool) -> None:
        while not self._over.is_set():
            self._post("/v1/completions", {"prompt": "x" * 200, "max_tokens": 200, "stream": stream})

    def _change_things(self) -> None:
        """What writes state.json and history.json."""
        while not self._over.is_set():
            self._post("/api/command/engine.load", {"model": "fake"})
            self._post("/api/command/engine.restart", {})
            self._over.wait(0.05)


def lives(process: psutil.Process) -> bool:
    """Whether it still runs; to wait for it is the business of whoever inherited it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def test_the_worker_of_a_daemon_that_is_gone_is_ended_by_the_next_one(scripted: ScriptedAppliance) -> None:
    scripted.stop()
    assert not (scripted.state_dir / "worker.json").exists()
    with subprocess.Popen(["sleep", "3600"], process_group=0) as left:
        known = Leftover.of(left.pid)
        assert known is not None
        (scripted.state_dir / "worker.json").write_text(json.dumps(known.value()))
        scripted.start()
        assert left.wait(60) == -signal.SIGKILL
    assert scripted.complete("x")["choices"][0]["text"] == "x"
    worker = json.loads((scripted.state_dir / "worker.json").read_text())
    assert worker["pid"] == scripted.command("engine.get")["worker_pid"]


def is_locked(path: Path) -> bool:
    with path.open("rb+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.mark.timeout(600)
def test_a_daemon_killed_under_load_leaves_no_worker_no_lock_and_no_broken_file(tmp_path: Path) -> None:
    appliance = ScriptedAppliance(tmp_path / "state")
    appliance.script(token_s=0.001)
    times_s = []
    try:
        for number in range(KILLS):
            appliance.start()
            daemon = psutil.Process(appliance.pid)
            workers = []
            with Load(appliance):
                # At another moment each time: while a worker starts, loads, runs or is being replaced.
                time.sleep(0.02 * (number + 1))
                daemon.suspend()  # or the worker that it is just starting would be missed
                workers = daemon.children(recursive=True)
                assert appliance.stop(signal.SIGKILL) == -signal.SIGKILL
                killed_s = time.monotonic()
                while any(map(lives, workers)) and time.monotonic() < killed_s + ORPHAN_S:
                    time.sleep(0.002)
                times_s.append(time.monotonic() - killed_s)
                assert not any(map(lives, workers))
            assert not is_locked(appliance.state_dir / "lock")
            for name in ("state.json", "history.json"):
                with contextlib.suppress(FileNotFoundError):
                    json.loads((appliance.state_dir / name).read_text())
        print(f"the worker was gone after at most {max(times_s) * 1000:.0f} ms")
        appliance.start()
        assert appliance.complete("still here")["choices"][0]["text"] == "still here"
        assert appliance.command("engine.history")["events"]
    finally:
        appliance.stop()
    assert not list(appliance.state_dir.glob("*.broken"))
