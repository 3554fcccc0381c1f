"""Commands over HTTP that take longer than a client waits."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.appliance import Answer, Appliance, ScriptedAppliance


def load(appliance: Appliance, prefer: str) -> Answer:
    return appliance.request("POST", "/api/command/engine.load", {}, headers={"Prefer": prefer})


def over(appliance: Appliance, job: str) -> Any:
    while (value := appliance.command("jobs.get", job=job))["state"] == "running":
        time.sleep(0.05)
    return value


def test_who_cannot_wait_gets_a_job_and_the_command_goes_on(scripted: ScriptedAppliance) -> None:
    scripted.command("engine.unload")
    scripted.wait_for_state("stopped")
    scripted.script(load_s=1.0)
    answer = load(scripted, "respond-async")
    assert (answer.status, answer.headers["Preference-Applied"]) == (202, "respond-async")
    assert answer.json()["result"]["state"] == "running"
    done = over(scripted, answer.json()["result"]["job"])
    assert (done["command"], done["state"], done["result"]["model"]["name"]) == ("engine.load", "done", "fake")
    assert scripted.command("engine.get")["state"] == "ready"
    assert [job["job"] for job in scripted.command("jobs.list")["jobs"]] == [done["job"]]


def test_who_can_wait_a_little_gets_the_result_if_it_comes_in_time(scripted: ScriptedAppliance) -> None:
    answer = load(scripted, "respond-async, wait=20")
    assert (answer.status, answer.json()["result"]["model"]["name"]) == (200, "fake")
    assert "Preference-Applied" not in answer.headers


def test_a_job_that_fails_says_why(scripted: ScriptedAppliance) -> None:
    scripted.command("engine.unload")
    scripted.wait_for_state("stopped")
    scripted.script(load_s=0.5, fault={"when": "load", "what": "problem"})
    failed = over(scripted, load(scripted, "respond-async").json()["result"]["job"])
    assert (failed["state"], failed["result"]) == ("failed", None)
    assert failed["problem"]["message"]
    soon = load(scripted, "respond-async, wait=20")
    assert soon.status >= 400
    assert soon.json()["error"]["code"] == failed["problem"]["code"]


def test_a_job_is_shown_only_to_those_who_may_run_the_command(scripted: ScriptedAppliance) -> None:
    job = load(scripted, "respond-async").json()["result"]["job"]
    token = scripted.command("tokens.add", name="reader", scopes=["read"])["token"]
    answer = scripted.request("POST", "/api/command/jobs.get", {"job": job}, token=token)
    assert (answer.status, answer.json()["error"]["code"]) == (403, "forbidden")
    assert scripted.request("POST", "/api/command/jobs.list", {}, token=token).json()["result"] == {"jobs": []}
    unknown = scripted.request("POST", "/api/command/jobs.get", {"job": "../1"})
    assert (unknown.status, unknown.json()["error"]["code"]) == (404, "not_found")


def test_what_is_refused_is_refused_at_once_and_is_no_job(scripted: ScriptedAppliance) -> None:
    token = scripted.command("tokens.add", name="reader", scopes=["read"])["token"]
    headers = {"Prefer": "respond-async"}
    parameters = {"path": "/nothing"}
    forbidden = scripted.request("POST", "/api/command/models.import", parameters, token=token, headers=headers)
    assert (forbidden.status, forbidden.json()["error"]["code"]) == (403, "forbidden")
    wrong = scripted.request("POST", "/api/command/models.import", {"path": [1]}, headers=headers)
    assert (wrong.status, wrong.json()["error"]["code"]) == (400, "invalid_value")
    assert scripted.command("jobs.list") == {"jobs": []}


def test_what_is_not_long_is_answered_at_once_whatever_is_preferred(scripted: ScriptedAppliance) -> None:
    for prefer in ("respond-async", "wait=x", "respond-async; wait=-1", ",,=", "\u00e9".encode().decode("latin-1")):
        answer = scripted.request("POST", "/api/command/engine.get", {}, headers={"Prefer": prefer})
        assert answer.status == 200


def test_a_stop_does_not_wait_for_jobs(scripted: ScriptedAppliance) -> None:
    scripted.command("engine.unload")
    scripted.wait_for_state("stopped")
    scripted.script(load_s=3600)
    assert load(scripted, "respond-async").status == 202
    assert scripted.stop() == 0
    assert not any("did not finish loading" in line for line in scripted.printed)  # which is how the job would end
    assert not any("Traceback" in line for line in scripted.printed), json.dumps(scripted.printed)
