"""The examples in packaging/examples, each as it stands there: home automations, scripts, a reverse proxy.

Home Assistant's part is done here as Home Assistant does it: `rest` and `rest_command` with an HTTP client and
templates, `command_line` with a shell.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import jinja2
import pytest
import yaml

from tests.appliance import ROOT, START_S, ScriptedAppliance, environment, free_port
from tests.not_run import not_run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXAMPLES = ROOT / "packaging" / "examples"
NODE_RED = ROOT / "build" / "node-red" / "node_modules" / "node-red" / "red.js"
BOARD = "http://rock5.local:8012"


@pytest.fixture
def board(tmp_path: Path) -> Iterator[ScriptedAppliance]:
    running = ScriptedAppliance(tmp_path / "state")
    running.script(text="a + b")
    running.start()
    yield running
    running.stop()


def variables(board: ScriptedAppliance, token: str) -> dict[str, str]:
    return {**environment(), "ROCKFILL_URL": board.url, "ROCKFILL_TOKEN": token}


def test_the_shell_script(board: ScriptedAppliance) -> None:
    for tool in ("curl", "jq"):
        if shutil.which(tool) is None:
            not_run("shell", f"{tool} is not installed")
    token = board.command("tokens.add", name="shell", scopes=["read", "complete"])["token"]
    command = ["sh", str(EXAMPLES / "watch.sh")]
    done = subprocess.run(command, env=variables(board, token), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    engine, npu, completion = done.stdout.splitlines()
    assert engine == "engine: ready, model: fake"
    assert npu.startswith("npu: ")
    assert completion == "a + b"
    failed = subprocess.run(command, env=variables(board, "wrong"), capture_output=True, text=True, check=False)
    assert failed.returncode != 0


def test_the_python_script(board: ScriptedAppliance) -> None:
    token = board.command("tokens.add", name="python", scopes=["read", "complete", "control"])["token"]
    program = subprocess.Popen(
        [sys.executable, str(EXAMPLES / "automation.py")],
        env=variables(board, token),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert program.stdout is not None
        assert [program.stdout.readline() for _ in range(2)] == ["ready\n", "a + b\n"]
        while not select.select([program.stdout], [], [], 0)[0]:  # it may not have subscribed yet when we begin
            board.command("engine.unload")
            board.wait_for_state("stopped")
            board.command("engine.load")
        assert program.stdout.readline() == "model.loaded fake\n"
    finally:
        program.kill()
        program.wait()
        assert program.stdout is not None
        program.stdout.close()


# ---- Home Assistant


class _Secrets(yaml.SafeLoader):  # type: ignore[misc]
    """YAML with Home Assistant's ``!secret``."""


def home_assistant(board: ScriptedAppliance, token: str) -> Any:
    """The example, with its secrets filled in, and this board in place of the one that it names."""
    secrets = {"rockfill_authorization": f"Bearer {token}"}
    _Secrets.add_constructor("!secret", lambda loader, node: secrets[node.value])
    text = (EXAMPLES / "home-assistant.yaml").read_text().replace(BOARD, board.url)
    return yaml.load(text, _Secrets)


def rendered(template: str, **values: object) -> str:
    return jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(template).render(**values)


@pytest.fixture
def assistant(board: ScriptedAppliance) -> Any:
    scopes = ["read", "complete", "control"]
    return home_assistant(board, board.command("tokens.add", name="home-assistant", scopes=scopes)["token"])


def test_home_assistants_sensors(board: ScriptedAppliance, assistant: Any) -> None:
    states: dict[str, str] = {}
    for resource in assistant["rest"]:
        path = resource["resource"].removeprefix(board.url)
        # As its `rest` integration asks: no body, and the headers that were configured.
        answer = board.request(resource["method"], path, b"", headers=resource["headers"], token=None)
        assert answer.status == 200
        for entity in (*resource["sensor"], *resource.get("binary_sensor", [])):
            states[entity["name"]] = rendered(entity["value_template"], value_json=answer.json())
    assert states["Rockfill engine"] == "ready"
    assert states["Rockfill model"] == "fake"
    assert states["Rockfill paused"] == "False"
    assert states["Rockfill queue"] == "0"
    assert states["Rockfill NPU temperature"] == str(board.command("stats.get")["figures"]["npu.temp_celsius"])


def test_home_assistants_commands(board: ScriptedAppliance, assistant: Any) -> None:
    def call(name: str, **values: str) -> Any:
        """As `rest_command` does: the payload rendered, the content type beside the headers."""
        command = assistant["rest_command"][name]
        headers = {**command["headers"], "User-Agent": "HomeAssistant/2026.11 aiohttp/3.13"}
        if "content_type" in command:
            headers["Content-Type"] = command["content_type"]
        body = rendered(command["payload"], **values).encode() if "payload" in command else b""
        path = command["url"].removeprefix(board.url)
        answer = board.request(command["method"].upper(), path, body, headers=headers, token=None)
        assert answer.status in (200, 202), answer.body
        return answer.json()["result"]

    assert call("rockfill_complete", prefix='x = "é\n', suffix="\n")["text"] == "a + b"
    call("rockfill_pause")
    board.wait_for_state("stopped")
    assert board.command("engine.get")["paused"]
    board.script(text="a + b", load_s=1.0)
    for name, values in (("rockfill_resume", {}), ("rockfill_load", {"model": "fake"})):
        job = call(name, **values)["job"]  # it waits 10 s at most, and a load may take longer: that goes on by itself
        while (state := board.command("jobs.get", job=job)["state"]) == "running":
            time.sleep(0.05)
        assert state == "done"
        assert board.command("engine.get")["state"] == "ready"


def test_home_assistants_command_lines(board: ScriptedAppliance, assistant: Any, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        not_run("shell", "curl is not installed")
    (tmp_path / "token").write_text(board.command("tokens.add", name="cli", scopes=["read", "control"])["token"])

    def run(command: str) -> str:
        """As `command_line` does: through a shell."""
        command = command.replace("/config/rockfill-token", str(tmp_path / "token"))
        done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=START_S, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    sensor = assistant["command_line"][0]["sensor"]
    assert rendered(sensor["value_template"], value_json=json.loads(run(sensor["command"])))[0].isdigit()
    switch = assistant["command_line"][1]["switch"]

    def is_on() -> str:
        return rendered(switch["value_template"], value_json=json.loads(run(switch["command_state"])))

    assert is_on() == "True"
    run(switch["command_off"])
    assert is_on() == "False"
    run(switch["command_on"])
    assert is_on() == "True"


# ---- Node-RED


def test_node_red(board: ScriptedAppliance, tmp_path: Path) -> None:
    """The flow itself, in Node-RED without its editor; what it would show is written to a file."""
    node = shutil.which("node")
    if node is None or not NODE_RED.exists():
        not_run("node-red", "it is not in build/node-red (packaging/bootstrap.py debian-packages)")
    told = tmp_path / "told"
    flow = json.loads((EXAMPLES / "node-red.json").read_text())
    talk = next(entry for entry in flow if entry["id"] == "rockfill-talk")
    talk["wires"][1] = ["test-write"]
    line = "return { payload: JSON.stringify([msg.topic, msg.payload]) };"
    flow += [
        {"id": "test-write", "type": "function", "z": "rockfill-tab", "func": line, "wires": [["test-file"]]},
        {
            "id": "test-file",
            "type": "file",
            "z": "rockfill-tab",
            "filename": str(told),
            "filenameType": "str",
            "appendNewline": True,
            "createDir": False,
            "overwriteFile": "false",
            "encoding": "none",
            "wires": [[]],
        },
    ]
    (tmp_path / "flows.json").write_text(json.dumps(flow))
    settings = {"httpAdminRoot": False, "httpNodeRoot": False, "uiHost": "127.0.0.1", "uiPort": free_port()}
    settings["logging"] = {"console": {"level": "warn"}}
    (tmp_path / "settings.js").write_text(f"module.exports = {json.dumps(settings)};")
    token = board.command("tokens.add", name="node-red", scopes=["read", "complete"])["token"]
    program = subprocess.Popen(
        [node, str(NODE_RED), "--userDir", str(tmp_path), "flows.json"],
        env={
            **os.environ,
            "ROCKFILL_WS_URL": board.url.replace("http", "ws") + "/ws",
            "ROCKFILL_TOKEN": token,
            "NODE_RED_DISABLE_TELEMETRY": "true",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        heard: dict[str, Any] = {}
        deadline_s = time.monotonic() + 2 * START_S

        def listen() -> None:
            assert program.poll() is None, program.communicate()
            assert time.monotonic() < deadline_s, f"{heard}"
            time.sleep(0.1)
            if told.exists():
                whole = [line for line in told.read_text().splitlines(keepends=True) if line.endswith("\n")]
                heard.update(map(json.loads, whole))

        while not {"completion", "temperature"} <= heard.keys():
            listen()
        assert heard["completion"] == "a + b"
        assert heard["temperature"] == board.command("stats.get")["figures"]["npu.temp_celsius"]
        board.command("engine.restart")
        while "engine.restarted" not in heard:
            listen()
        assert heard["engine.restarted"]["model"] == "fake"
    finally:
        program.terminate()
        program.communicate()
