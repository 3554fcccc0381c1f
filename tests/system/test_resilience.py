"""What once went wrong, or would have: each of these was seen to fail before it was mended."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import resource
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.appliance import Answer, Appliance, ScriptedAppliance

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """The results of all calls, made at the same time."""
    results: list[Any] = [None] * len(calls)

    def run(index: int) -> None:
        results[index] = calls[index]()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def begun(appliance: ScriptedAppliance, prompt: str) -> http.client.HTTPConnection:
    """A completion that is running or waiting, its answer not read."""
    connection = http.client.HTTPConnection("127.0.0.1", appliance.port, timeout=60)
    headers = {"Authorization": f"Bearer {appliance.token}"}
    connection.request("POST", "/v1/completions", json.dumps({"prompt": prompt, "max_tokens": 500}), headers)
    return connection


def queued(appliance: ScriptedAppliance, depth: int) -> None:
    while appliance.command("engine.get")["queue_depth"] < depth:
        time.sleep(0.005)


def code_of(answer: Answer) -> str:
    body = answer.json()
    return str(body["error"]["code"]) if "error" in body else "ok"


def test_strangers_who_hold_every_descriptor_do_not_end_the_daemon(tmp_path: Path) -> None:
    launcher = [sys.executable, "-c", _FEW_DESCRIPTORS]
    appliance = ScriptedAppliance(tmp_path / "state", launcher=launcher)
    appliance.start()
    worker = appliance.command("engine.get")["worker_pid"]
    idlers = [socket.create_connection(("127.0.0.1", appliance.port)) for _ in range(80)]
    try:
        time.sleep(0.3)
        os.kill(worker, signal.SIGKILL)
        time.sleep(0.5)
    finally:
        for idler in idlers:
            idler.close()
    appliance.command("engine.load", model="fake")
    assert appliance.complete("hello")["choices"][0]["text"] == "hello"
    assert appliance.stop() == 0


_FEW_DESCRIPTORS = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
sys.argv = ["tests/fakes/daemon.py", *sys.argv[1:]]
runpy.run_path("tests/fakes/daemon.py", run_name="__main__")
"""


def test_the_daemon_asks_for_as_many_descriptors_as_it_may_have(appliance: Appliance) -> None:
    soft, hard = resource.prlimit(appliance.pid, resource.RLIMIT_NOFILE)
    assert soft == min(hard, 102_400) or hard == resource.RLIM_INFINITY


def test_who_waits_for_the_old_model_does_not_undo_the_load_of_another(scripted: ScriptedAppliance) -> None:
    other = scripted.state_dir / "models" / "other"
    other.mkdir()
    manifest = {"name": "other", "engine": "fake", "file": "../fake/script.json", "family": "codegemma"}
    (other / "manifest.json").write_text(json.dumps(manifest))
    scripted.stop()
    scripted.start()
    scripted.script(text="x" * 400, token_s=0.5)
    waiting = [begun(scripted, prompt) for prompt in ("one", "two", "three")]
    queued(scripted, 2)
    scripted.command("engine.load", model="other")
    assert scripted.command("engine.get")["model"]["name"] == "other"
    for connection in waiting:
        connection.close()
    scripted.wait_for_state("ready")


def test_a_pause_frees_the_machine_whoever_waits(scripted: ScriptedAppliance) -> None:
    scripted.script(text="x" * 400, token_s=0.5)
    waiting = [begun(scripted, prompt) for prompt in ("one", "two", "three")]
    queued(scripted, 2)
    scripted.command("engine.pause")
    statuses = []
    for connection in waiting:
        response = connection.getresponse()
        statuses.append((response.status, json.loads(response.read())["error"]["code"]))
        connection.close()
    assert set(statuses) <= {(503, "engine_paused"), (503, "engine_stopped")}
    assert scripted.wait_for_state("stopped")["paused"] is True
    assert code_of(scripted.request("POST", "/v1/completions", {"prompt": "a"})) == "engine_paused"
    assert code_of(scripted.request("POST", "/api/command/selftest.run", {})) == "engine_paused"
    scripted.script()
    scripted.command("engine.resume")
    assert scripted.complete("hello")["choices"][0]["text"] == "hello"


def test_hanging_up_on_a_selftest_leaves_the_engine_to_the_next(scripted: ScriptedAppliance) -> None:
    scripted.script(text="x" * 400, token_s=0.5)
    connection = http.client.HTTPConnection("127.0.0.1", scripted.port)
    connection.request("POST", "/api/command/selftest.run", "{}", {"Authorization": f"Bearer {scripted.token}"})
    scripted.wait_for_state("busy")
    connection.close()
    scripted.script()
    assert scripted.complete("hello")["choices"][0]["text"] == "hello"


def test_many_writers_at_once_all_succeed(scripted: ScriptedAppliance) -> None:
    load = {"model": "fake"}
    answers = at_once(*[lambda: scripted.request("POST", "/api/command/engine.load", load)] * 20)
    assert [answer.status for answer in answers] == [200] * 20
    assert json.loads((scripted.state_dir / "state.json").read_text())["model"] == "fake"


def test_a_broken_manifest_costs_only_its_own_model_and_names_may_have_capitals(tmp_path: Path) -> None:
    appliance = ScriptedAppliance(tmp_path / "state")
    for name, manifest in (("bad", "{"), ("good", '{"name": "Qwen-Coder", "engine": "fake", "file": "x"}')):
        directory = appliance.state_dir / "models" / name
        directory.mkdir()
        (directory / "manifest.json").write_text(manifest)
    appliance.start()
    try:
        names = [model["id"] for model in appliance.request("GET", "/v1/models").json()["data"]]
        assert set(names) == {"rockfill-tiny", "fake", "Qwen-Coder"}
        for name in ("Qwen-Coder", "qwen-coder", "Qwen-Coder:latest"):
            assert appliance.request("GET", f"/v1/models/{name}").status == 200
    finally:
        appliance.stop()
    assert any("bad" in line for line in appliance.printed)


def test_a_choice_that_can_not_be_kept_changes_nothing(scripted: ScriptedAppliance) -> None:
    (scripted.state_dir / "state.json").mkdir()  # nothing can be moved there
    assert code_of(scripted.request("POST", "/api/command/engine.load", {"model": "rockfill-tiny"})) == (
        "state_dir_unusable"
    )
    chosen = [model["name"] for model in scripted.command("models.list")["models"] if model["chosen"]]
    assert chosen == ["fake"]
    (scripted.state_dir / "state.json").rmdir()


@pytest.mark.parametrize("body", [gzip.compress(b" " * 1_000_000), b"garbage"])
def test_compressed_bodies_are_refused_before_they_are_looked_at(scripted: ScriptedAppliance, body: bytes) -> None:
    for path in ("/login", "/v1/completions"):
        answer = scripted.request("POST", path, body, headers={"Content-Encoding": "gzip"})
        assert (answer.status, code_of(answer)) == (400, "unsupported")


def test_what_is_not_http_leaves_no_traceback(tmp_path: Path) -> None:
    appliance = ScriptedAppliance(tmp_path / "state")
    appliance.start()
    for rubbish in (
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"GET * HTTP/1.1\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", appliance.port)) as connection:
            connection.sendall(rubbish)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass
    appliance.stop()
    assert not [line for line in appliance.printed if "Traceback" in line or "Error" in line]


def test_a_body_of_mistakes_gets_a_short_answer(scripted: ScriptedAppliance) -> None:
    for body in ({"prompt": "", "rockfill": {"files": [0] * 1_000_000}}, {"prompt": [0] * 1_000_000}):
        answer = scripted.request("POST", "/v1/completions", body)
        assert answer.status == 400
        assert len(answer.body) < 10_000


def test_no_token_asked_for_is_none_given(appliance: Appliance) -> None:
    reply = appliance.complete("import ", max_tokens=0)
    assert (reply["choices"][0]["text"], reply["choices"][0]["finish_reason"]) == ("", "length")
    assert reply["usage"]["completion_tokens"] == 0


def test_a_defect_in_every_run_is_blamed_on_the_request_in_the_end(scripted: ScriptedAppliance) -> None:
    scripted.script(fault={"when": "prefill", "what": "raise"})
    codes = []
    for _ in range(3):
        codes.append(code_of(scripted.request("POST", "/v1/completions", {"prompt": "poison"})))
        scripted.wait_for_state("ready", "failed")
    assert codes == ["engine_failed", "engine_failed", "request_crashes_engine"]
