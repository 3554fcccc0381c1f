"""The daemon under a real systemd: what its notifications, its exit statuses and its end are worth there."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from typing import TYPE_CHECKING

import pytest

from tests.appliance import ScriptedAppliance
from tests.packaging.booted import BOOT_S, MAKE_S, Container, booted, unit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PYTHON = "/usr/bin/python3"
PATIENCE_S = 120.0
WATCHDOG_S = 6  # a healthy daemon gives a sign of life every two, and is not to be killed where that comes late

pytestmark = pytest.mark.timeout(MAKE_S + BOOT_S + PATIENCE_S)  # the first one to boot a machine makes its disk

SETTINGS = {
    "KillMode": "mixed",  # or the worker gets a SIGTERM of its own, and the runs in progress end as crashed
    "WatchdogSec": f"{WATCHDOG_S}",
    "Restart": "always",
    "RestartSec": "100ms",
    "RestartPreventExitStatus": "78",
}


class Service(ScriptedAppliance):
    """The daemon as the service ``rockfill``; asked over the network that machine and host share."""

    def __init__(self, folder: Path, machine: Container) -> None:
        super().__init__(folder / "state")
        self.machine = machine

    def restart(self, **settings: str) -> None:
        """Start it, or start it anew, as a unit with `settings` beside the usual ones."""
        serve = ("serve", "--listen", f"127.0.0.1:{self.port}", "--state-dir", "/folder/state")
        text = unit((PYTHON, "/checkout/tests/fakes/daemon.py", *serve), **{**SETTINGS, **settings})
        self.machine.add_unit("rockfill.service", text)
        self.systemctl("restart", "rockfill")

    def systemctl(self, *arguments: str) -> str:
        done = self.machine.run("systemctl", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def tells(self, name: str) -> str:
        return self.machine.property("rockfill", name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("machine")


@pytest.fixture(scope="module")
def machine(folder: Path) -> Iterator[Container]:
    with booted(folder) as running:
        yield running


@pytest.fixture(scope="module")
def service(folder: Path, machine: Container) -> Service:
    return Service(folder, machine)


@pytest.fixture
def started(service: Service) -> Iterator[Service]:
    """The service, which systemd says is started: from here on it answers."""
    service.script()
    service.restart()
    yield service
    service.systemctl("stop", "rockfill")


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_started_service_answers_and_shows_its_status(started: Service) -> None:
    assert started.request("GET", "/health", token=None).status == 200
    started.wait_for_state("ready")
    until(lambda: started.tells("StatusText") == "ready · fake · fake")
    assert 'Status: "ready · fake · fake"' in started.systemctl("status", "rockfill")


def test_a_frozen_daemon_is_restarted_by_the_watchdog(started: Service) -> None:
    started.wait_for_state("ready")
    before = int(started.tells("NRestarts"))
    daemon, worker = started.tells("MainPID"), str(started.command("engine.get")["worker_pid"])
    started.systemctl("kill", "--kill-whom=main", "--signal=STOP", "rockfill")
    until(lambda: started.tells("MainPID") not in (daemon, "0") and started.tells("ActiveState") == "active")
    assert started.complete("back")["choices"][0]["text"] == "back"
    assert int(started.tells("NRestarts")) == before + 1
    journal = started.machine.run("journalctl", "--unit=rockfill", "--output=cat").stdout
    assert f"Watchdog timeout (limit {WATCHDOG_S}s)!" in journal
    assert started.machine.run("kill", "-0", worker).returncode != 0


def test_a_healthy_daemon_is_left_alone(started: Service) -> None:
    daemon = started.tells("MainPID")
    started.script(text="x" * 200, token_s=1.5 * WATCHDOG_S / 200)
    started.complete("p", max_tokens=200)
    assert started.tells("MainPID") == daemon


def test_stopping_in_the_middle_of_a_run_is_clean(started: Service) -> None:
    """Though it takes longer than the watchdog's time: a run in progress is given three seconds."""
    started.restart(WatchdogSec="2.5")
    started.wait_for_state("ready")
    started.script(text="x" * 1200, token_s=0.05)
    client = http.client.HTTPConnection("127.0.0.1", started.port, timeout=PATIENCE_S)
    with contextlib.closing(client):
        body = {"prompt": "p", "max_tokens": 1200, "stream": True}
        client.request("POST", "/v1/completions", json.dumps(body), {"Authorization": f"Bearer {started.token}"})
        started.wait_for_state("busy")
        started.systemctl("stop", "rockfill")
        assert (started.tells("Result"), started.tells("ExecMainStatus")) == ("success", "0")
        assert started.tells("ActiveState") == "inactive"
        assert client.getresponse().read().count(b'"code":"engine_stopped"') == 1


def test_a_mistake_in_the_configuration_is_no_reason_to_try_again(folder: Path, machine: Container) -> None:
    (folder / "config.toml").write_text("[engine]\nping_s = 'often'\n")
    serve = ("-m", "rockfill", "serve", "--config", "/folder/config.toml", "--state-dir", "/folder/other")
    machine.add_unit("rockfill-misconfigured.service", unit((PYTHON, *serve), **SETTINGS))
    assert machine.run("systemctl", "start", "rockfill-misconfigured").returncode != 0
    until(lambda: machine.property("rockfill-misconfigured", "ActiveState") == "failed")
    assert machine.property("rockfill-misconfigured", "ExecMainStatus") == "78"
    assert machine.property("rockfill-misconfigured", "NRestarts") == "0"
    journal = machine.run("journalctl", "--unit=rockfill-misconfigured", "--output=cat").stdout
    assert "/folder/config.toml: engine.ping_s: must be a number" in journal
