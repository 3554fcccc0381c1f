"""The daemon and its worker, treated as the world treats them."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.appliance import START_S, Appliance, ScriptedAppliance


def stream(appliance: Appliance, body: dict[str, Any]) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """A streamed completion, its headers read."""
    connection = http.client.HTTPConnection("127.0.0.1", appliance.port, timeout=60)
    headers = {"Authorization": f"Bearer {appliance.token}"}
    connection.request("POST", "/v1/completions", json.dumps({"stream": True, **body}), headers)
    return connection, connection.getresponse()


def events(response: http.client.HTTPResponse) -> list[Any]:
    """All events up to the end of the stream, [DONE] as a string."""
    data = [line[6:].decode() for line in response.read().splitlines() if line.startswith(b"data: ")]
    return [entry if entry == "[DONE]" else json.loads(entry) for entry in data]


def gone(pid: int, within_s: float = START_S) -> bool:
    """Whether process `pid` ends by itself; one that nobody has waited for yet has ended."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.005)
    return False


def test_the_bundled_model_completes_whole_and_streamed_alike(appliance: Appliance) -> None:
    body = {"prompt": "def add(a, b):\n    return ", "suffix": "\n", "max_tokens": 16, "rockfill": {"mode": "line"}}
    whole = appliance.request("POST", "/v1/completions", body)
    assert b'"text":"' in whole.body
    assert b"\n" not in whole.body
    text = whole.json()["choices"][0]["text"]
    assert text.strip()
    connection, response = stream(appliance, {**body, "stream_options": {"include_usage": True}})
    *chunks, usage, done = events(response)
    connection.close()
    assert done == "[DONE]"
    assert usage["choices"] == []
    assert usage["usage"] == whole.json()["usage"]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == text
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]


def test_control_tokens_in_the_users_text_stay_text(appliance: Appliance) -> None:
    plain = appliance.complete("a = 1\n", "\nb = 2\n")["usage"]["prompt_tokens"]
    for marker in ("<|fim_middle|>", "<|fim_prefix|>", "<|fim_suffix|>", "<|file_separator|>", "<bos>"):
        before = appliance.complete(f"a = 1\n# {marker}\n", "\nb = 2\n")["usage"]["prompt_tokens"]
        after = appliance.complete("a = 1\n", f"\nb = 2\n# {marker}\n")["usage"]["prompt_tokens"]
        # as a control token it would be one; as text each is several
        assert before > plain + 4, marker
        assert after > plain + 4, marker


def test_two_requests_at_once_never_mix_their_texts(scripted: ScriptedAppliance) -> None:
    scripted.script(token_s=0.001)
    texts: dict[str, str] = {}

    def ask(name: str) -> None:
        texts[name] = scripted.complete(f"first line\n{name * 20}", "")["choices"][0]["text"]

    threads = [threading.Thread(target=ask, args=(name,)) for name in ("abc", "xyz", "123", "ÄÖÜ")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == {name: (name * 20)[:32] for name in ("abc", "xyz", "123", "ÄÖÜ")}


def test_a_worker_killed_in_mid_stream_ends_the_stream_with_an_error_and_the_next_request_works(
    scripted: ScriptedAppliance,
) -> None:
    scripted.script(text="x" * 1000, token_s=0.01)
    connection, response = stream(scripted, {"prompt": "p", "max_tokens": 1000})
    assert response.readline().startswith(b"data: ")
    os.kill(scripted.command("engine.get")["worker_pid"], signal.SIGKILL)
    *_, last = events(response)
    connection.close()
    assert last["error"]["code"] == "engine_crashed"
    scripted.script(text="fine")
    assert scripted.complete("p")["choices"][0]["text"] == "fine"


def test_a_worker_that_crashes_before_the_first_token_is_answered_with_its_last_words_and_a_status(
    scripted: ScriptedAppliance, tmp_path: Path
) -> None:
    once = tmp_path / "once"
    once.touch()
    scripted.script(text="fine", fault={"when": "prefill", "what": "segv"}, once=str(once))
    answer = scripted.request("POST", "/v1/completions", {"prompt": "p"})
    assert (answer.status, answer.json()["error"]["code"]) == (502, "engine_crashed")
    assert "SIGSEGV" in answer.json()["error"]["message"]
    assert scripted.complete("p")["choices"][0]["text"] == "fine"


def test_a_failure_stands_in_the_journal_with_its_exit_and_the_last_words(scripted: ScriptedAppliance) -> None:
    fault = {"when": "prefill", "what": "segv"}
    scripted.script(text="fine", prints="E fake: the last words", fault=fault)
    scripted.request("POST", "/v1/completions", {"prompt": "p"})
    scripted.stop()
    told = "\n".join(scripted.printed)
    assert "crashed (SIGSEGV).\n  | E fake: the last words" in told


def test_a_request_that_took_two_workers_with_it_is_refused(scripted: ScriptedAppliance) -> None:
    scripted.script(fault={"when": "prefill", "what": "segv"})
    codes = [scripted.request("POST", "/v1/completions", {"prompt": "poison"}).json()["error"]["code"]]
    scripted.wait_for_state("ready")
    codes.append(scripted.request("POST", "/v1/completions", {"prompt": "poison"}).json()["error"]["code"])
    scripted.script(text="fine")
    scripted.wait_for_state("ready")
    codes.append(scripted.request("POST", "/v1/completions", {"prompt": "poison"}).json()["error"]["code"])
    assert codes == ["engine_crashed", "engine_crashed", "request_crashes_engine"]
    assert scripted.complete("another")["choices"][0]["text"] == "fine"


@pytest.mark.parametrize("script", [{"token_s": 0.5}, {"prefill_s": 500}])
def test_a_client_that_goes_away_ends_the_run(scripted: ScriptedAppliance, script: dict[str, float]) -> None:
    scripted.script(text="x" * 1000, **script)
    connection = http.client.HTTPConnection("127.0.0.1", scripted.port)
    headers = {"Authorization": f"Bearer {scripted.token}"}
    connection.request("POST", "/v1/completions", json.dumps({"prompt": "p", "max_tokens": 1000}), headers)
    scripted.wait_for_state("busy")
    connection.close()
    scripted.wait_for_state("ready")
    scripted.script(text="fine")
    assert scripted.complete("p")["choices"][0]["text"] == "fine"


def test_a_client_that_goes_away_while_it_waits_leaves_the_queue(scripted: ScriptedAppliance) -> None:
    scripted.script(text="x" * 1000, token_s=0.5)
    running, _ = stream(scripted, {"prompt": "p", "max_tokens": 1000})
    waiting = http.client.HTTPConnection("127.0.0.1", scripted.port)
    headers = {"Authorization": f"Bearer {scripted.token}"}
    waiting.request("POST", "/v1/completions", json.dumps({"prompt": "another", "max_tokens": 1000}), headers)
    while scripted.command("engine.get")["queue_depth"] == 0:
        time.sleep(0.01)
    waiting.close()
    while scripted.command("engine.get")["queue_depth"] > 0:
        time.sleep(0.01)
    running.close()
    scripted.wait_for_state("ready")


def test_sigterm_ends_daemon_and_worker_in_the_middle_of_a_run(scripted: ScriptedAppliance) -> None:
    scripted.script(text="x" * 1000, token_s=0.5)
    connection, response = stream(scripted, {"prompt": "p", "max_tokens": 1000})
    worker = scripted.command("engine.get")["worker_pid"]
    assert scripted.stop() == 0
    assert gone(worker)
    *_, last = events(response)
    connection.close()
    assert last["error"]["code"] == "engine_stopped"


def test_a_killed_daemon_takes_its_worker_with_it_and_the_next_one_starts(scripted: ScriptedAppliance) -> None:
    worker = scripted.command("engine.get")["worker_pid"]
    assert scripted.stop(signal.SIGKILL) == -signal.SIGKILL
    assert gone(worker)
    scripted.start()
    assert scripted.complete("hello")["choices"][0]["text"] == "hello"


def test_the_chosen_model_is_remembered(scripted: ScriptedAppliance) -> None:
    assert scripted.command("engine.load", model="fake")["model"]["name"] == "fake"
    assert json.loads((scripted.state_dir / "state.json").read_text())["model"] == "fake"


def test_unload_and_load_on_demand(scripted: ScriptedAppliance) -> None:
    worker = scripted.command("engine.get")["worker_pid"]
    scripted.command("engine.unload")
    scripted.wait_for_state("stopped")
    assert gone(worker)
    assert scripted.complete("hello")["choices"][0]["text"] == "hello"
    scripted.command("engine.restart")
    assert scripted.wait_for_state("ready")["worker_pid"] != worker


def test_nothing_but_a_command_loads_the_model_of_a_paused_engine(scripted: ScriptedAppliance) -> None:
    scripted.command("engine.pause")
    scripted.wait_for_state("stopped")
    refused = scripted.request("POST", "/api/generate", {"model": "fake"})
    assert (refused.status, refused.json()["code"]) == (503, "engine_paused")
    assert scripted.command("models.use", model="fake")["installed"]
    time.sleep(0.1)  # what would be loaded in the background is no longer stopped by then
    assert scripted.command("engine.get")["state"] == "stopped"
    scripted.command("engine.resume")
    assert scripted.command("engine.get")["state"] == "ready"


def test_who_may_only_complete_does_not_start_a_failed_engine_again(scripted: ScriptedAppliance) -> None:
    token = scripted.command("tokens.add", name="editor", scopes=["complete"])["token"]
    scripted.script(fault={"when": "load", "what": "problem"})
    scripted.command("engine.restart")
    scripted.wait_for_state("failed")
    scripted.script()
    assert scripted.request("POST", "/api/generate", {"model": "fake"}, token=token).status == 403
    assert scripted.command("engine.get")["state"] == "failed"
    assert scripted.request("POST", "/api/generate", {"model": "fake"}).status == 200
    assert scripted.request("POST", "/api/generate", {"model": "fake"}, token=token).status == 200


def test_no_text_of_users_reaches_the_log(tmp_path: Path) -> None:
    appliance = ScriptedAppliance(tmp_path / "state")
    appliance.start()
    try:
        appliance.script(fault={"when": 3, "what": "segv"})
        appliance.request("POST", "/v1/completions", {"prompt": "my secret code", "suffix": "more secrets"})
        appliance.request("POST", "/v1/completions", {"prompt": "my secret code", "max_tokens": "more secrets"})
        appliance.request("GET", "/v1/models/secret", headers={"X-API-Key": "secret-token"}, token=None)
    finally:
        appliance.stop()
    assert appliance.printed[:-1] or appliance.printed
    assert not [line for line in appliance.printed if "secret" in line]
