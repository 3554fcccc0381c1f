"""What a repository holds, asked with the real `huggingface_hub` from a stand-in that answers as the Hub does."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from rockfill.compat.variants import RepoFile
from rockfill.errors import Code, Problem
from rockfill.hub.client import Hub, Licence
from tests.appliance import ROOT
from tests.fakes.hub import COMMIT, FileSpec, HubServer

if TYPE_CHECKING:
    from pathlib import Path

NAME = "user/model"
WEIGHTS = FileSpec(size_bytes=5000)
CONFIG = FileSpec(text="{}", lfs=False)


def asking(hub: HubServer, tmp_path: Path, token: str | None = None) -> Hub:
    hub.add(NAME, {"model.gguf": WEIGHTS, "dir/config.json": CONFIG}, licence="gemma", base_model="org/base")
    return Hub(hub.url, lambda: token, tmp_path / "cache")


async def refused(asked: Hub, name: str = NAME, revision: str | None = None) -> Problem:
    with pytest.raises(Problem) as caught:
        await asked.repository(name, revision)
    assert caught.value.advice
    return caught.value


async def test_a_repository_says_what_it_holds(hub: HubServer, tmp_path: Path) -> None:
    repository = await asking(hub, tmp_path).repository(NAME)
    assert (repository.name, repository.commit, repository.gated) == (NAME, COMMIT, False)
    assert (repository.licence, repository.base_model) == (Licence("gemma"), "org/base")
    assert repository.files == (
        RepoFile("model.gguf", 5000, WEIGHTS.sha256(), WEIGHTS.blob_id()),
        RepoFile("dir/config.json", 2, None, CONFIG.blob_id()),
    )
    assert await asyncio.to_thread(os.listdir, tmp_path) == [], "it keeps no files"
    assert {entry["path"] for entry in hub.log} == {f"/api/models/{NAME}"}, "and asks nothing else"


@pytest.mark.parametrize("token", [None, "hf_secret"])
async def test_the_token_is_sent_if_there_is_one(hub: HubServer, tmp_path: Path, token: str | None) -> None:
    await asking(hub, tmp_path, token).repository(NAME, "main")
    [entry] = hub.log
    assert entry["authorization"] == (f"Bearer {token}" if token else None)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"status": 500}, Code.HUB_FAILED),
        ({"status": 404}, Code.HUB_FAILED),
        ({"status": 429, "retry_after": "7"}, Code.HUB_RATE_LIMITED),
        ({"status": 401, "error_code": "RepoNotFound"}, Code.REPOSITORY_NOT_FOUND),
        ({"status": 403, "error_code": "GatedRepo"}, Code.HUB_GATED),
        ({"status": 404, "error_code": "RevisionNotFound"}, Code.REPOSITORY_NOT_FOUND),
        ({"status": 200}, Code.HUB_FAILED),  # a login page, say
    ],
)
async def test_what_the_hub_refuses(hub: HubServer, tmp_path: Path, fault: dict[str, Any], code: Code) -> None:
    asked = asking(hub, tmp_path)
    hub.fail("status", where="api", times=0, **fault)
    problem = await refused(asked)
    assert problem.code is code
    if code is Code.HUB_RATE_LIMITED:
        assert problem.detail["retry_after_s"] == 7
    if code is Code.HUB_GATED:
        assert f"{hub.url}/{NAME}" in problem.advice


@pytest.mark.parametrize("url", ["http://no-such-host.invalid", "http://127.0.0.1:1", "nonsense"])
async def test_a_hub_that_is_not_there(tmp_path: Path, url: str) -> None:
    problem = await refused(Hub(url, lambda: None, tmp_path))
    assert problem.code is Code.HUB_UNREACHABLE
    assert url in problem.message


async def test_whose_a_token_is(hub: HubServer, tmp_path: Path) -> None:
    hub.know("hf_good", "somebody")
    asked = Hub(hub.url, lambda: None, tmp_path)
    assert await asked.whoami("hf_good") == "somebody"
    with pytest.raises(Problem) as caught:
        await asked.whoami("hf_bad")
    assert caught.value.code is Code.UNAUTHORIZED


async def test_questions_at_the_same_time_do_not_disturb_each_other(hub: HubServer, tmp_path: Path) -> None:
    asked = asking(hub, tmp_path)
    found = await asyncio.gather(*(asked.repository(NAME) for _ in range(5)))
    assert len(set(found)) == 1


async def test_a_question_that_nobody_waits_for_any_more_does_not_hang_up_on_the_next_one(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asking(hub, tmp_path)
    await asked.repository(NAME)
    closed: list[bool] = []
    monkeypatch.setattr("huggingface_hub.close_session", lambda: closed.append(True))
    began, go_on = threading.Event(), threading.Event()

    def first() -> None:
        began.set()
        go_on.wait(30)

    def second() -> list[bool]:
        go_on.set()
        time.sleep(0.1)  # in which the first one would hang up
        return list(closed)

    asking_first = asyncio.create_task(asked._in_thread(first))
    await asyncio.to_thread(began.wait)
    asking_first.cancel()
    await asyncio.wait([asking_first])
    assert await asked._in_thread(second) == []
    assert closed == [True]


DOWNLOAD = """
import sys
from huggingface_hub import hf_hub_download
print(open(hf_hub_download("user/model", "model.gguf"), "rb").read() == open(sys.argv[1], "rb").read())
"""


@pytest.mark.timeout(60)
def test_the_stand_in_answers_as_the_hub_does(hub: HubServer, tmp_path: Path) -> None:
    """The real client's own download, which asks for more than ours, succeeds against it."""
    hub.add(NAME, {"model.gguf": WEIGHTS, "config.json": CONFIG})
    (tmp_path / "right").write_bytes(b"".join(WEIGHTS.pieces()))
    variables = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-c", DOWNLOAD, str(tmp_path / "right")]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


IMPORTED = """
import json, sys
import rockfill.app
print(json.dumps([name for name in ("huggingface_hub", "httpx2", "yaml") if name in sys.modules]))
"""


@pytest.mark.timeout(60)
def test_the_daemon_does_not_load_it_before_somebody_asks() -> None:
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "daemon")}
    done = subprocess.run([sys.executable, "-c", IMPORTED], env=variables, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
