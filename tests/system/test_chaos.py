"""Hundreds of requests against a worker that crashes, hangs, floods and lies, as a seeded die says.

ROCKFILL_TEST_SEED repeats a run: the die is the same then, the machine's timing is not.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import random
import signal
import string
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.appliance import ScriptedAppliance

CLIENTS = 8
REQUESTS_EACH = 40
PAUSE_S = 5.0  # that a client waits for an engine at most; the pauses grow when one fault follows another
PATIENCE_S = 120.0  # beyond every deadline and backoff below: a request that takes longer has been lost
BACK_S = 180.0  # within which the engine comes back, whatever it was doing: it waits for a minute at most
REST_S = 60.0
SOME_FAULTS = 5

# Short enough that a run with dozens of hangs ends within a minute or two. Where a busy machine takes longer, a worker
# is ended that did nothing wrong, which is one fault more.
CONFIG = """
[engine]
hello_timeout_s = 10
load_timeout_s = 2
accepted_timeout_s = 1
first_token_timeout_s = 1
token_gap_timeout_s = 1
abort_timeout_s = 1
stop_timeout_s = 0.5
ping_s = 0.5
pong_timeout_s = 1
"""

# How a request may end whose worker failed it, or that came while the engine waited before it tries again.
EXPECTED = {"engine_crashed", "engine_hung", "engine_failed", "link_broken", "npu_failed", "model_busy"}

FILLER = "# A prompt of a few lines, so that a prefill is long enough to be measured.\n"


class ChaoticAppliance(ScriptedAppliance):
    def __init__(self, folder: Path, seed: str) -> None:
        (folder / "config.toml").write_text(CONFIG)
        super().__init__(folder / "state", ["--config", str(folder / "config.toml")])
        self.folder = folder
        self._launcher = [sys.executable, "-m", "tests.fakes.chaos", seed, str(folder)]

    def faults(self) -> list[str]:
        """What came of the die's bad throws so far."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / "faults").read_text().splitlines()
        return []

    def tasks(self) -> list[str]:
        """The tasks in the daemon's event loop."""
        path = self.folder / "tasks"
        path.unlink(missing_ok=True)
        os.kill(self.pid, signal.SIGUSR1)
        while not path.exists():
            time.sleep(0.005)
        return path.read_text().splitlines()

    def files(self) -> list[str]:
        """What the daemon has open, without the numbers that tell one socket from another, and without what the
        sampler reads of the present worker, at which it may not have looked yet."""
        names = []
        of_worker = tuple(f"/proc/{child.pid}/" for child in psutil.Process(self.pid).children())
        for link in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                names.append(str(link.readlink()).partition(":[")[0])
        return sorted(name for name in names if not name.startswith(of_worker))


@dataclass(slots=True)
class Tally:
    """How many requests there were, how they ended, and everything that should not be."""

    asked: int = 0
    endings: Counter[str] = field(default_factory=Counter)
    served: set[int] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)  # to count is to read and to write

    def ask(self) -> None:
        with self.lock:
            self.asked += 1

    def end(self, client: int, ending: str) -> None:
        with self.lock:
            self.endings[ending] += 1
            if ending == "whole":
                self.served.add(client)


class Client(threading.Thread):
    """Asks one thing after another. Each prompt ends in a line of its own, which is what the answer must repeat."""

    def __init__(self, appliance: ChaoticAppliance, number: int, seed: str, tally: Tally) -> None:
        super().__init__(name=f"client {number}")
        self._appliance = appliance
        self._number = number
        self._random = random.Random(f"{seed}:client {number}")
        self._tally = tally
        self._headers = {"Authorization": f"Bearer {appliance.token}"}

    def run(self) -> None:
        for serial in itertools.count():
            if serial >= REQUESTS_EACH and self._has_seen_enough():
                return
            self._tally.ask()
            line = f"{self._number}/{serial} " + "".join(self._random.choices(string.ascii_letters + "äöü€🙂", k=16))
            try:
                ending = self._ask(line, stream=self._random.random() < 0.5, leaves=self._random.random() < 0.05)
            except Exception as error:  # whatever it is, the test is to tell it with its request
                self._tally.wrong.append(f"{line}: {type(error).__name__}: {error}")
                ending = "lost"
            self._tally.end(self._number, ending)
            if ending not in ("whole", "left"):
                time.sleep(0.2)  # as a client does that was told to ask again in a moment
                if self._number:  # the first one asks again and again, also while the engine waits
                    self._wait_for_engine()

    def _has_seen_enough(self) -> bool:
        """Whether it was served among all that failed; how long that takes is the machine's and the die's affair."""
        return self._number in self._tally.served and len(self._appliance.faults()) > SOME_FAULTS

    def _wait_for_engine(self) -> None:
        """Else one bad throw of the die would cost all requests: they end at once while the engine waits."""
        deadline = time.monotonic() + PAUSE_S
        while self._appliance.request("GET", "/ready").status != 200 and time.monotonic() < deadline:
            time.sleep(0.1)

    def _ask(self, line: str, *, stream: bool, leaves: bool) -> str:
        body: dict[str, Any] = {"prompt": FILLER + line, "max_tokens": 64, "stream": stream}
        if self._random.random() < 0.5:
            body["suffix"] = ""
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", self._appliance.port, timeout=PATIENCE_S)
        ) as to:
            to.request("POST", "/v1/completions", json.dumps(body), self._headers)
            if leaves:
                time.sleep(self._random.uniform(0, 0.1))
                return "left"
            response = to.getresponse()
            if response.status != 200 or not stream:
                return self._whole(line, response.status, json.loads(response.read()))
            return self._streamed(line, response.read())

    def _whole(self, line: str, status: int, answer: dict[str, Any]) -> str:
        if status != 200:
            code: str = answer["error"]["code"]
            return self._failed(line, code)
        return self._compare(line, answer["choices"][0]["text"], answer["choices"][0]["finish_reason"])

    def _streamed(self, line: str, raw: bytes) -> str:
        """All text, then exactly one end: a finish and [DONE], or an error."""
        events = [entry.removeprefix("data: ") for entry in raw.decode().split("\n\n") if entry]
        if events[-1] != "[DONE]":
            *texts, end = map(json.loads, events)
            said = "".join(event["choices"][0]["text"] for event in texts)
            if not line.startswith(said) or any(event["choices"][0]["finish_reason"] for event in texts):
                self._tally.wrong.append(f"{line}: {events}")
            return self._failed(line, end["error"]["code"])
        *texts, end = map(json.loads, events[:-1])
        if any(event["choices"][0]["finish_reason"] for event in texts):
            self._tally.wrong.append(f"{line}: {events}")
        said = "".join(event["choices"][0]["text"] for event in texts)
        return self._compare(line, said, end["choices"][0]["finish_reason"])

    def _compare(self, line: str, said: str, finish: str) -> str:
        if (said, finish) != (line, "stop"):
            self._tally.wrong.append(f"{line}: answered {said!r}, {finish}")
        return "whole"

    def _failed(self, line: str, code: str) -> str:
        if code not in EXPECTED:
            self._tally.wrong.append(f"{line}: {code}")
        return code


Look = tuple[list[str], list[str]]


def at_rest(appliance: ChaoticAppliance, as_before: Look | None = None) -> Look | None:
    """The daemon's open files and its tasks: once they are `as_before`, or stay the same for a while; or None.

    The last client's connection is closed a moment later than the client's, the history written a moment after it
    changed, and the sampler lets go of an earlier worker when it looks at the present one.
    """
    deadline, looks = time.monotonic() + REST_S, list[Look]()
    while time.monotonic() < deadline:
        appliance.command("stats.get")
        time.sleep(0.2)
        looks.append((appliance.files(), appliance.tasks()))
        if looks[-1] == as_before or (as_before is None and len(looks) > 8 and all(map(looks[-1].__eq__, looks[-8:]))):
            return looks[-1]
    return looks[-1] if as_before is not None else None


@pytest.mark.timeout(900)
def test_every_request_ends_exactly_once_and_nothing_is_left_whatever_the_worker_does(tmp_path: Path) -> None:
    seed = os.environ.get("ROCKFILL_TEST_SEED") or str(random.SystemRandom().randrange(1 << 32))
    print(f"ROCKFILL_TEST_SEED={seed}")
    appliance = ChaoticAppliance(tmp_path, seed)
    appliance.script(token_s=0.0005)
    appliance.start()
    try:
        for number in range(40):
            assert appliance.complete(f"{FILLER}warm {number}")["choices"][0]["text"] == f"warm {number}"
        daemon = psutil.Process(appliance.pid)
        before, rss = at_rest(appliance), daemon.memory_info().rss
        assert before is not None

        tally = Tally()
        (tmp_path / "chaos").touch()
        began = time.monotonic()
        clients = [Client(appliance, number, seed, tally) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        took_s = time.monotonic() - began
        (tmp_path / "chaos").unlink()

        # The engine comes back by itself, whatever it was doing. The last fault may still be to come, a moment after
        # its run, so that the first request finds it out.
        appliance.wait_for_state("ready", within_s=BACK_S)
        appliance.request("POST", "/v1/completions", {"prompt": "anything"})
        last = appliance.wait_for_state("ready", within_s=BACK_S)["worker_pid"]
        # And if it is still to come: the next worker throws no more.
        appliance.command("engine.restart")
        while appliance.wait_for_state("ready", within_s=BACK_S)["worker_pid"] == last:
            time.sleep(0.01)
        assert appliance.complete(f"{FILLER}fine")["choices"][0]["text"] == "fine"
        faults = appliance.faults()
        print(f"{took_s:.1f} s, {(tmp_path / 'workers').stat().st_size} workers, {len(faults)} faults")
        print(dict(tally.endings))
        assert tally.wrong == []
        assert sum(tally.endings.values()) == tally.asked >= CLIENTS * REQUESTS_EACH
        assert tally.served == set(range(CLIENTS))
        assert len(faults) > SOME_FAULTS

        assert at_rest(appliance, before) == before
        (worker,) = daemon.children(recursive=True)
        assert worker.pid == appliance.command("engine.get")["worker_pid"]
        grown_mb = (daemon.memory_info().rss - rss) / 1e6
        print(f"the daemon has grown by {grown_mb:.1f} MB")
        assert grown_mb < 10
    finally:
        status = appliance.stop()
    assert status == 0
    assert not worker.is_running()
    own = [line for line in appliance.printed if not line.startswith("  | ")]  # the rest is a worker's last words
    assert not [line for line in own if "Traceback" in line or "never" in line]
    assert sorted(path.name for path in appliance.state_dir.iterdir()) == ["history.json", "lock", "models", "token"]
