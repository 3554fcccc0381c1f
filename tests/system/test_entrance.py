"""``rockfill open`` and ``rockfill token``, with a daemon and without."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from rockfill.access.tokens import Scope
from rockfill.cli.entrance import reachable
from rockfill.cli.entrance_grammar import SCOPES
from tests.appliance import ROOT, environment

if TYPE_CHECKING:
    from pathlib import Path

    from tests.appliance import ScriptedAppliance


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rockfill", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)


def test_open_prints_a_link_that_signs_in(scripted: ScriptedAppliance) -> None:
    done = run("open", "--state-dir", str(scripted.state_dir))
    assert done.returncode == 0, done.stderr
    _, link = done.stdout.splitlines()
    assert link.startswith(f"{scripted.url}/login/")
    assert scripted.token not in done.stdout
    path = link.removeprefix(scripted.url)
    answer = scripted.request("POST", path, b"", token=None, headers={"Origin": scripted.url})
    assert b"has been used" not in answer.body
    assert scripted.request("POST", path, b"", token=None, headers={"Origin": scripted.url}).status == 403


def test_open_needs_a_daemon(tmp_path: Path) -> None:
    done = run("open", "--state-dir", str(tmp_path), "--url", "http://127.0.0.1:9")
    assert done.returncode == 69
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("running", [True, False])
def test_tokens_are_made_and_revoked_with_and_without_a_daemon(scripted: ScriptedAppliance, *, running: bool) -> None:
    state = ("--state-dir", str(scripted.state_dir))
    if not running:
        scripted.stop()
    made = run("token", "add", "ha", "--scope", "read", "--scope", "control", *state)
    assert made.returncode == 0, made.stderr
    token = made.stdout.strip()
    default = run("token", "add", "editor", *state)
    again = run("token", "add", "ha", *state)
    assert (again.returncode, "already" in again.stderr) == (1, True)
    listed = run("token", "list", *state).stdout
    assert [(line.split()[0], line.split()[2:]) for line in listed.splitlines()] == [
        ("ha", ["read", "control"]),
        ("editor", ["read", "complete"]),
    ]
    assert token not in listed
    assert run("token", *state).stdout.strip() == scripted.token
    if not running:
        scripted.start()

    def status(type_: str, token: str) -> int:
        return scripted.request("POST", f"/api/command/{type_}", {}, token=token).status

    assert (status("engine.get", token), status("config.get", token)) == (200, 403)
    assert status("engine.unpin", default.stdout.strip()) == 403
    assert run("token", "revoke", "ha", *state).returncode == 0
    assert status("engine.get", token) == 401
    assert run("token", "revoke", "ha", *state).returncode == 1


def test_the_scopes_that_can_be_named_are_those_that_there_are() -> None:
    assert tuple(scope.value for scope in Scope) == SCOPES


@pytest.mark.parametrize(
    ("url", "listen", "first"),
    [
        ("http://127.0.0.1:8012", "127.0.0.1:8012", "http://127.0.0.1:8012"),
        ("http://rock5.local:8012", "0.0.0.0:8012", "http://rock5.local:8012"),
        ("https://[::1]:8012", "[::]:8012", "https://{}:8012"),
        ("http://127.0.0.1:9000", "0.0.0.0:8012", "http://{}:9000"),
    ],
)
def test_a_link_names_what_others_reach(monkeypatch: pytest.MonkeyPatch, url: str, listen: str, first: str) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "rock5")
    found = reachable(url, listen)
    assert found[0] == first.format("rock5")
    assert all(entry.startswith(url.partition(":")[0]) for entry in found)
