"""Every way to get it wrong ends in an answer that says what was wrong and what to do."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from rockfill.paths import bundled_models
from tests.appliance import ROOT, Appliance, ScriptedAppliance, environment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BUNDLED = bundled_models() / "rockfill-tiny" / "rockfill-tiny-q8_0.gguf"


@pytest.mark.parametrize(
    ("body", "status", "code", "says"),
    [
        (b"{", 400, "invalid_json", "not JSON"),
        (b"", 400, "invalid_json", "not JSON"),
        (b"\xff\xfe", 400, "invalid_json", "not JSON"),
        (b"[" * 100_000, 400, "invalid_json", "not JSON"),
        (b"[]", 400, "invalid_value", "must be an object"),
        (b"{}", 400, "invalid_value", "prompt: is missing"),
        (b'{"prompt": 1}', 400, "invalid_value", "prompt: must be a string or a list"),
        (b'{"prompt": "\\ud800"}', 400, "invalid_value", "prompt: must not contain lone surrogates"),
        (b'{"prompt": "a", "max_tokens": "3"}', 400, "invalid_value", "max_tokens: must be an integer"),
        (b'{"prompt": "a", "max_tokens": 1e300}', 400, "invalid_value", "max_tokens"),
        (b'{"prompt": "a", "temperature": NaN}', 400, "invalid_value", "temperature: must be a finite number"),
        (b'{"prompt": "a", "rockfill": {"mode": "x"}}', 400, "invalid_value", "rockfill.mode: must be one of"),
        (b'{"prompt": "a", "rockfill": {"files": [{"path": 1}]}}', 400, "invalid_value", "rockfill.files[0].path"),
        (b'{"prompt": ["a", "b"]}', 400, "unsupported", "prompt: only a single text"),
        (b'{"prompt": "a", "n": 2}', 400, "unsupported", "n: only 1"),
        (b'{"prompt": "a", "logprobs": 3}', 400, "unsupported", "logprobs: not supported"),
        (b'{"prompt": "a", "model": "gpt-4"}', 404, "model_not_found", 'no model "gpt-4"'),
    ],
)
def test_a_bad_completion_request_is_refused_by_name(
    scripted_for_module: ScriptedAppliance, body: bytes, status: int, code: str, says: str
) -> None:
    answer = scripted_for_module.request("POST", "/v1/completions", body)
    error = answer.json()["error"]
    assert (answer.status, error["code"]) == (status, code)
    assert says in error["message"]
    assert set(error) == {"message", "type", "param", "code"}
    assert scripted_for_module.complete("still here")["choices"][0]["text"]


def test_a_body_over_4_mib_is_refused(scripted_for_module: ScriptedAppliance) -> None:
    body = json.dumps({"prompt": "x" * (4 * 1024 * 1024)}).encode()
    answer = scripted_for_module.request("POST", "/v1/completions", body)
    assert (answer.status, answer.json()["error"]["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    "header", [{}, {"Authorization": "Bearer "}, {"Authorization": "Bearer wrong"}, {"X-API-Key": "x"}]
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/completions"),
        ("GET", "/v1/models"),
        ("POST", "/api/command/engine.get"),
        ("POST", "/api/command/no"),
    ],
)
def test_nobody_gets_in_without_the_token(
    scripted_for_module: ScriptedAppliance, method: str, path: str, header: dict[str, str]
) -> None:
    answer = scripted_for_module.request(method, path, {} if method == "POST" else None, token=None, headers=header)
    assert answer.status == 401
    assert answer.json()["error"]["code"] == "unauthorized"


def test_either_header_carries_the_token(scripted_for_module: ScriptedAppliance) -> None:
    for header in ({"X-API-Key": scripted_for_module.token}, {"Authorization": f"bearer {scripted_for_module.token}"}):
        assert scripted_for_module.request("GET", "/v1/models", token=None, headers=header).status == 200


def test_the_session_cookie_opens_what_the_token_opens_but_not_for_other_origins(
    scripted_for_module: ScriptedAppliance,
) -> None:
    login = scripted_for_module.request("POST", "/login", {"token": scripted_for_module.token}, token=None)
    assert login.status == 204
    cookie, *attributes = login.headers["Set-Cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict"} <= set(attributes)
    ours = {"Cookie": cookie, "Origin": scripted_for_module.url}
    theirs = {"Cookie": cookie, "Origin": "http://evil.example"}
    unsaid = {"Cookie": cookie}
    forged = {**ours, "Cookie": cookie[:-1] + ("0" if cookie[-1] != "0" else "1")}
    call = "/api/command/engine.get"
    assert scripted_for_module.request("POST", call, {}, token=None, headers=ours).status == 200
    assert scripted_for_module.request("POST", call, {}, token=None, headers=theirs).status == 403
    assert scripted_for_module.request("POST", call, {}, token=None, headers=unsaid).status == 403
    assert scripted_for_module.request("POST", call, {}, token=None, headers=forged).status == 401
    assert scripted_for_module.request("POST", "/login", {"token": "wrong"}, token=None).status == 401


def test_a_foreign_host_name_is_refused_everywhere(scripted_for_module: ScriptedAppliance) -> None:
    for path in ("/", "/health", "/static/x/main.js", "/v1/models", "/nothing"):
        connection = http.client.HTTPConnection("127.0.0.1", scripted_for_module.port)
        connection.request("GET", path, headers={"Host": "rebound.example"})
        response = connection.getresponse()
        body = json.loads(response.read())
        connection.close()
        assert (response.status, body["error"]["code"]) == (403, "host_not_allowed")


def test_unknown_addresses_and_methods_are_answered_in_json(scripted_for_module: ScriptedAppliance) -> None:
    assert scripted_for_module.request("GET", "/nothing").json()["error"]["code"] == "not_found"
    assert scripted_for_module.request("GET", "/static/x/..%2fpage.html").json()["error"]["code"] == "not_found"
    assert scripted_for_module.request("GET", "/v1/completions").json()["error"]["code"] == "method_not_allowed"
    assert scripted_for_module.request("POST", "/api/command/no.such", {}).json()["error"]["code"] == "unknown_command"


def test_a_prompt_beyond_the_context_is_trimmed_and_the_reply_says_so(appliance: Appliance) -> None:
    lines = "".join(f"value_{number} = compute({number})\n" for number in range(2000))
    reply = appliance.complete(lines + "value_2000 = ", "\nprint(value_2000)\n", rockfill={"mode": "line"})
    assert reply["usage"]["prompt_tokens"] <= 1024 - 32
    assert reply["rockfill"]["trimmed"]["prefix_chars"] > len(lines) / 2
    assert reply["rockfill"]["trimmed"]["suffix_chars"] == 0


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("missing.gguf", None, "model_missing"),
        ("truncated.gguf", BUNDLED.read_bytes()[:2_000_000], "invalid_model"),
        ("headless.gguf", BUNDLED.read_bytes()[:3000], "invalid_model"),
        ("empty.gguf", b"", "invalid_model"),
        ("page.gguf", b"<!doctype html><title>404</title>", "invalid_model"),
    ],
)
def test_a_bad_model_file_is_named_and_the_daemon_lives(
    tmp_path: Path, name: str, content: bytes | None, code: str
) -> None:
    model = tmp_path / name
    if content is not None:
        model.write_bytes(content)
    appliance = Appliance(tmp_path / "state", ["--model", str(model)])
    appliance.start()
    try:
        state = appliance.wait_for_state("failed")
        assert state["problem"]["code"] == code
        assert name in state["problem"]["message"]
        assert state["problem"]["advice"]
        answer = appliance.request("POST", "/v1/completions", {"prompt": "a"})
        assert (answer.status, answer.json()["error"]["code"]) == (503, code)
        assert appliance.request("GET", "/ready", token=None).status == 503
        appliance.command("engine.load", model="rockfill-tiny")
        assert appliance.complete("import ")["choices"][0]["text"]
    finally:
        appliance.stop()


def test_without_the_cpu_extra_the_way_to_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "hide" / "xllamacpp").mkdir(parents=True)
    (tmp_path / "hide" / "xllamacpp" / "__init__.py").write_text("raise ImportError('hidden')")
    launcher = [
        sys.executable,
        "-c",
        (
            f"import os, sys; os.environ['PYTHONPATH'] = {str(tmp_path / 'hide')!r} + ':' + os.environ['PYTHONPATH'];"
            "from rockfill.cli.main import main; sys.exit(main())"
        ),
    ]
    appliance = Appliance(tmp_path / "state", launcher=launcher)
    appliance.start()
    try:
        problem = appliance.wait_for_state("failed")["problem"]
        assert problem["code"] == "engine_not_installed"
        assert "rockfill-cpu" in problem["advice"]
    finally:
        appliance.stop()


def run(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """The command line, to its end."""
    command = [sys.executable, "-m", "rockfill", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = run(["serve", "--listen", address, "--state-dir", str(tmp_path / "state")])
    assert ended.returncode == 1
    assert re.search(rf"rockfill: \S+ \(process \d+\) is already listening on {address}", ended.stderr)
    assert "Traceback" not in ended.stderr


def test_a_state_directory_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    obstacle = tmp_path / "file"
    obstacle.write_text("")
    ended = run(["serve", "--listen", "127.0.0.1:0", "--state-dir", str(obstacle / "state")])
    assert ended.returncode == 1
    assert str(obstacle / "state") in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_state_directory_of_somebody_else_is_named(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o500)
    # Root may write anywhere, and nobody may not read the Python that root runs: so import first, then become nobody.
    imports = "import locale, os, sys, rockfill.app, rockfill.cli.serving; from rockfill.cli.main import main"
    program = f"{imports}; os.geteuid() or os.setuid(65534); sys.exit(main(sys.argv[1:]))"
    ended = subprocess.run(
        [sys.executable, "-c", program, "serve", "--listen", "127.0.0.1:0", "--state-dir", str(state)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "can't be used: Permission denied" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_second_daemon_on_the_same_state_directory_is_refused(appliance: Appliance) -> None:
    ended = run(["serve", "--listen", "127.0.0.1:0", "--state-dir", str(appliance.state_dir)])
    assert ended.returncode == 1
    assert f"process {appliance.pid}" in ended.stderr
    assert appliance.complete("import ")["choices"][0]["text"]


def test_every_mistake_of_a_configuration_is_reported_at_once(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[server]\nlisten = "nowhere"\n[engine]\nload_timeout_s = "long"\n[completion]\nmax_que = 3\n')
    for arguments in (["config", "check", str(config)], ["serve", "--config", str(config)]):
        ended = run(arguments)
        assert ended.returncode == 78
        for key in ("server.listen", "engine.load_timeout_s", "completion.max_que"):
            assert f"{config}: {key}: " in ended.stderr
        assert "Traceback" not in ended.stderr
