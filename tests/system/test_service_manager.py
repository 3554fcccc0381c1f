"""The daemon under a service manager, with a socket of the test in the place of systemd's."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.appliance import ScriptedAppliance

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE_S = 60.0
WATCHDOG_S = 1.5
HOUR = {"text": "x" * 1200, "token_s": 3}  # what a run of an hour says

# A first token is due within that and a tenth of a second for each token of the prompt.
HASTY = "[engine]\nfirst_token_timeout_s = 0.2\n"
PATIENT = "[engine]\nfirst_token_timeout_s = 600\n"


class Notifications:
    """What a daemon tells its service manager, each message once and in order."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    def next(self, prefix: str, within_s: float = PATIENCE_S) -> str:
        """The next message that begins so; those before it are passed over."""
        message = self.find(prefix, within_s)
        assert message is not None, f"no {prefix} within {within_s} s"
        return message

    def find(self, prefix: str, within_s: float) -> str | None:
        """Likewise; None if there is none in that time."""
        deadline = time.monotonic() + within_s
        while (left_s := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left_s)
            try:
                message = self._socket.recv(65536).decode()
            except TimeoutError:
                break
            if message.startswith(prefix):
                return message
        return None

    def waiting(self) -> list[str]:
        """All that has come by now."""
        self._socket.setblocking(False)
        messages = []
        try:
            while True:
                messages.append(self._socket.recv(65536).decode())
        except BlockingIOError:
            return messages

    def close(self) -> None:
        self._socket.close()


class ManagedAppliance(ScriptedAppliance):
    """A daemon with a configuration that the test may rewrite, and that can be brought to a standstill."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config.toml"
        self.config.write_text(PATIENT)
        super().__init__(folder / "state", ["--config", str(self.config)])
        self._launcher = [sys.executable, "-m", "tests.fakes.stuck", str(folder)]

    def reload(self, config: str) -> None:
        """SIGHUP with another configuration; returns once the daemon has said what it makes of it."""
        self.config.write_text(config)
        os.kill(self.pid, signal.SIGHUP)
        self.wait_for_line("the configuration ")

    def stick(self, name: str) -> None:
        (self.folder / name).touch()

    def wait_until_stuck(self, name: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not (self.folder / f"{name}.reached").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def free(self, name: str) -> None:
        (self.folder / name).unlink()

    def begin(self, **body: object) -> http.client.HTTPConnection:
        """A streamed completion of which nobody reads anything yet."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        headers = {"Authorization": f"Bearer {self.token}"}
        connection.request("POST", "/v1/completions", json.dumps({"prompt": "p", "stream": True, **body}), headers)
        self.wait_for_state("busy")
        return connection

    def wait_for_queue(self, depth: int) -> None:
        while self.command("engine.get")["queue_depth"] != depth:
            time.sleep(0.01)


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Notifications]:
    path = tmp_path / "notify"
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    notifications = Notifications(path)
    yield notifications
    notifications.close()


@pytest.fixture
def managed(tmp_path: Path, manager: Notifications) -> Iterator[ManagedAppliance]:
    appliance = ManagedAppliance(tmp_path)
    yield appliance
    appliance.stop()


def test_ready_is_told_when_health_answers_and_not_before(manager: Notifications, managed: ManagedAppliance) -> None:
    managed.stick("start")
    starting = threading.Thread(target=managed.start)
    starting.start()
    managed.wait_until_stuck("start")
    assert manager.find("READY=1", 0.3) is None
    managed.free("start")
    assert manager.next("READY=1") == "READY=1"
    assert managed.request("GET", "/health", token=None).status == 200
    starting.join()


def test_the_status_line_follows_the_engine(manager: Notifications, managed: ManagedAppliance, tmp_path: Path) -> None:
    managed.start()
    for status in ("starting · fake", "loading · fake", "ready · fake · fake"):
        assert manager.next("STATUS=") == f"STATUS={status}"
    once = tmp_path / "once"
    once.touch()
    managed.script(fault={"when": "prefill", "what": "segv"}, once=str(once))
    assert managed.request("POST", "/v1/completions", {"prompt": "p"}).status == 502
    assert manager.next("STATUS=busy") == "STATUS=busy · fake · fake"
    assert "crashed (SIGSEGV)" in manager.next("STATUS=starting")
    assert manager.next("STATUS=ready") == "STATUS=ready · fake · fake"
    managed.stop()
    assert [line for message in manager.waiting() for line in message.splitlines() if "=" not in line] == []


def test_signs_of_life_come_again_and_again_and_none_while_the_event_loop_stands_still(
    manager: Notifications, managed: ManagedAppliance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", str(round(WATCHDOG_S * 1e6)))
    managed.start()
    for _ in range(4):
        manager.next("WATCHDOG=1")
    managed.stick("loop")
    os.kill(managed.pid, signal.SIGUSR1)
    managed.wait_until_stuck("loop")
    manager.waiting()
    assert manager.find("WATCHDOG=1", WATCHDOG_S) is None
    managed.free("loop")
    manager.next("WATCHDOG=1")


def test_no_sign_of_life_while_the_supervisor_stands_still(
    manager: Notifications, managed: ManagedAppliance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", str(round(WATCHDOG_S * 1e6)))
    managed.start()
    managed.stick("queue")
    managed.command("engine.restart")
    managed.wait_until_stuck("queue")
    managed.request("GET", "/health", token=None)  # what was about to be told is told before that is answered
    manager.waiting()
    assert manager.find("WATCHDOG=1", WATCHDOG_S) is None
    assert managed.request("GET", "/health", token=None).status == 200
    managed.free("queue")
    manager.next("WATCHDOG=1")


def test_signs_of_life_are_for_the_process_they_were_asked_of(
    manager: Notifications, managed: ManagedAppliance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    managed.start()
    manager.next("READY=1")
    assert manager.find("WATCHDOG=1", 0.5) is None


@pytest.mark.parametrize("signals", [1, 2])
def test_sigterm_under_load_is_told_and_bounded_and_a_second_one_changes_nothing(
    manager: Notifications, managed: ManagedAppliance, signals: int
) -> None:
    managed.start()
    managed.script(**HOUR)
    clients = [managed.begin(prompt=f"p{number}", max_tokens=1200) for number in range(3)]
    managed.wait_for_queue(2)  # one runs, two wait
    for _ in range(signals - 1):
        os.kill(managed.pid, signal.SIGTERM)
        manager.next("STOPPING=1")
    assert managed.stop() == 0
    if signals == 1:
        manager.next("STOPPING=1")
    for client in clients:
        ending = client.getresponse().read()
        assert ending.count(b'"code":"engine_stopped"') == 1
        client.close()


def test_a_client_that_reads_nothing_can_not_hold_up_the_end(managed: ManagedAppliance) -> None:
    managed.start()
    managed.script(text="x" * 40_000_000, tokens=400, context_tokens=100_000)
    client = managed.begin(max_tokens=400)
    assert managed.stop() == 0
    client.close()


def test_sighup_takes_up_the_deadlines(managed: ManagedAppliance) -> None:
    managed.start()
    managed.script(fault={"when": "prefill", "what": "hang"})
    managed.reload(HASTY)
    answer = managed.request("POST", "/v1/completions", {"prompt": "p"})
    assert answer.json()["error"]["code"] == "engine_hung"
    managed.stop()
    assert any("first_token_timeout_s in force now" in line for line in managed.printed)


def test_sighup_takes_up_all_that_can_be_and_names_the_rest(managed: ManagedAppliance) -> None:
    managed.start()
    foreign = {"Host": "code.example.org"}
    assert managed.request("GET", "/health", token=None, headers=foreign).status == 403
    managed.reload(
        '[server]\nlisten = "127.0.0.1:1"\nallowed_hosts = ["code.example.org"]\n'
        "[completion]\nmax_queue = 0\n[rkllm]\nembed_flash = false\n"
    )
    assert managed.request("GET", "/health", token=None, headers=foreign).status == 200
    config = managed.command("config.get")
    assert (config["server"]["listen"], config["completion"]["max_queue"]) == ("127.0.0.1:8012", 0)
    assert (config["rkllm"]["embed_flash"], config["engine"]["first_token_timeout_s"]) == (False, 20)
    managed.script(**HOUR)
    running = managed.begin(max_tokens=1200)
    assert managed.request("POST", "/v1/completions", {"prompt": "waits"}).json()["error"]["code"] == "queue_full"
    managed.stop()
    running.close()
    [told] = [line for line in managed.printed if "the configuration was read again" in line]
    assert told.endswith(
        ": server.allowed_hosts, engine.first_token_timeout_s, completion.max_queue in force now; "
        "rkllm.embed_flash from the next load of a model on; "
        "server.listen only after a restart, as what they say is built once"
    )


def test_sighup_with_mistakes_names_each_and_keeps_the_old_deadlines(managed: ManagedAppliance) -> None:
    managed.config.write_text(HASTY)
    managed.start()
    managed.script(fault={"when": "prefill", "what": "hang"})
    managed.reload(PATIENT + 'ping_s = "often"\nping_ss = 1\n')
    answer = managed.request("POST", "/v1/completions", {"prompt": "p"})
    assert answer.json()["error"]["code"] == "engine_hung"
    managed.stop()
    told = "\n".join(managed.printed)
    assert "the configuration stays as it was" in told
    for key in ("engine.ping_s: ", "engine.ping_ss: "):
        assert f"{managed.config}: {key}" in told
