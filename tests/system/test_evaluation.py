"""``rockfill eval infill`` against a running daemon, and the sandbox that its programs run in."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from rockfill.errors import Code, Problem
from rockfill.evaluation.sandbox import Sandbox
from tests.appliance import ROOT, START_S, ScriptedAppliance, environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FUNCTIONS = {"double": "2 * x", "square": "x * x", "negate": "-x"}


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox.find()


@pytest.fixture
def appliance(tmp_path: Path) -> Iterator[ScriptedAppliance]:
    running = ScriptedAppliance(tmp_path / "state")
    running.start()
    yield running
    running.stop()


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    path = tmp_path / "tasks.jsonl"
    path.write_text("".join(json.dumps(task(name, body)) + "\n" for name, body in FUNCTIONS.items()))
    return path


def task(name: str, body: str) -> dict[str, str]:
    return {
        "task_id": name,
        "entry_point": name,
        "prompt": f"def {name}(x):\n",
        "suffix": "    return y\n",
        "canonical_solution": f"    y = {body}\n",
        "test": f"def check(candidate):\n    x = 7\n    assert candidate(x) == {body}\n",
    }


def evaluate(
    appliance: ScriptedAppliance, *arguments: str, status: int = 0, **variables: str
) -> subprocess.CompletedProcess[str]:
    return rockfill(appliance, "eval", "infill", *arguments, status=status, **variables)


def shown(appliance: ScriptedAppliance, model: str) -> list[str]:
    """What ``rockfill models show`` prints."""
    return rockfill(appliance, "models", "show", model).stdout.splitlines()


def rockfill(
    appliance: ScriptedAppliance, *arguments: str, status: int = 0, **variables: str
) -> subprocess.CompletedProcess[str]:
    where = ("--url", appliance.url, "--state-dir", str(appliance.state_dir))
    ended = subprocess.run(
        [sys.executable, "-m", "rockfill", *arguments, *where],
        cwd=ROOT,
        env={**environment(), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == status, ended.stderr
    return ended


def test_an_oracle_gets_everything_right(appliance: ScriptedAppliance, tasks: Path) -> None:
    appliance.script(answers=[{"has": f"def {name}(", "text": f"    y = {body}\n"} for name, body in FUNCTIONS.items()])
    (result,) = json.loads(evaluate(appliance, "--tasks", str(tasks), "--json").stdout)["evaluations"]
    (score,) = result["evaluation"]["scores"]
    assert (score["count"], score["passed"], score["exact"], score["loops"]) == (3, 1, 1, 0)
    assert (result["model"], result["file"], result["runtime"]) == ("fake", "script.json", "fake")
    assert appliance.command("evaluations.list")["evaluations"] == [result]
    assert appliance.command("models.show", model="fake")["evaluations"] == [result]
    assert result not in appliance.command("models.show", model="rockfill-tiny")["evaluations"]
    assert shown(appliance, "fake")[-2:] == [
        "measured        tasks.jsonl on fake",
        "                  tasks: pass@1 100.0 % ± 0.0, exact 100.0 % ± 0.0, loops 0.0 % ± 0.0, of 3",
    ]
    appliance.stop()
    appliance.start()
    assert appliance.command("evaluations.list")["evaluations"] == [result]


@pytest.mark.parametrize("fault", ["segv", "hang"])
def test_an_engine_that_is_lost_over_a_question_is_asked_again(tmp_path: Path, tasks: Path, fault: str) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[engine]\ntoken_gap_timeout_s = 4\n")
    appliance = ScriptedAppliance(tmp_path / "faulty", ["--config", str(config)])
    answers = [{"has": f"def {name}(", "text": f"    y = {body}\n"} for name, body in FUNCTIONS.items()]
    once = tmp_path / "once"
    once.touch()
    appliance.script(answers=answers, fault={"when": 2, "what": fault}, once=str(once))
    appliance.start()
    try:
        (result,) = json.loads(evaluate(appliance, "--tasks", str(tasks), "--json").stdout)["evaluations"]
        assert not once.exists()
        assert result["evaluation"]["scores"][0]["passed"] == 1
        appliance.script(answers=answers, fault={"when": 2, "what": "segv"})
        for questions in (("--tasks", str(tasks)), (str(config),)):
            assert evaluate(appliance, *questions, status=1).stderr.startswith("rockfill: ")
    finally:
        appliance.stop()


def test_a_model_without_a_score_says_how_to_get_one_and_the_bundled_one_comes_with_its_own(
    appliance: ScriptedAppliance,
) -> None:
    assert shown(appliance, "fake")[-1].startswith("measured        not yet; see `rockfill eval infill")
    measured = shown(appliance, "rockfill-tiny")
    assert any(line.strip().startswith("tasks: pass@1 ") and line.endswith("of 1033") for line in measured)


@pytest.mark.parametrize(
    "wrong", ["    y = None", "    raise SystemExit(0)", "    import os; os._exit(0)", "", "    y = ("]
)
def test_a_wrong_answer_scores_nothing(appliance: ScriptedAppliance, tasks: Path, wrong: str) -> None:
    appliance.script(text=wrong)
    printed = evaluate(appliance, "--tasks", str(tasks), "--limit", "2").stdout
    assert "tasks, 2 places" in printed
    assert "pass@1              0.0 %" in printed


def test_lines_of_files_are_compared(appliance: ScriptedAppliance, tmp_path: Path) -> None:
    folder = tmp_path / "source"
    (folder / ".git").mkdir(parents=True)
    (folder / "a.py").write_text("answer = 42\n" * 3)
    (folder / "b.bin").write_bytes(b"\xff" * 20)
    (folder / ".git" / "c.py").write_text("hidden = 1\n")
    appliance.script(text="answer = 42")
    values: dict[str, Any] = json.loads(evaluate(appliance, str(folder), "--limit", "6", "--json").stdout)
    scores = {score["name"]: score for score in values["evaluations"][0]["evaluation"]["scores"]}
    assert {name: score["count"] for name, score in scores.items()} == {"whole lines": 2, "rests of lines": 1}
    assert scores["whole lines"]["exact"] == 1
    assert scores["whole lines"]["passed"] is None
    assert scores["rests of lines"]["exact"] == 0


def test_the_whole_context_is_asked_with_however_slow_the_engine(appliance: ScriptedAppliance, tmp_path: Path) -> None:
    appliance.script(text="x", prefill_s=0.5)
    typed = {"input_prefix": "filler\n" * 200, "input_suffix": "\n", "n_predict": 4}
    assert appliance.request("POST", "/infill", typed).status == 200  # from which the engine's speed is known
    file = tmp_path / "a.py"
    file.write_text("# HEAD\n" + "#\n" * 1000 + "answer\n")
    appliance.script(text="wrong", answers=[{"has": "HEAD", "text": "answer"}])
    (result,) = json.loads(evaluate(appliance, str(file), "--limit", "1", "--json").stdout)["evaluations"]
    assert result["evaluation"]["scores"][0]["exact"] == 1


def test_nothing_to_ask_is_said(appliance: ScriptedAppliance, tmp_path: Path) -> None:
    assert "--tasks" in evaluate(appliance, status=1).stderr
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no line of code" in evaluate(appliance, str(empty), status=1).stderr


def test_a_score_needs_a_loaded_model(appliance: ScriptedAppliance) -> None:
    appliance.command("engine.unload")
    appliance.wait_for_state("stopped")
    answer = appliance.request(
        "POST",
        "/api/command/evaluations.keep",
        {"questions": "q", "sha256": "", "seed": 0, "limit": None, "scores": []},
    )
    assert answer.json()["error"]["code"] == "engine_stopped"


async def test_a_program_is_judged_by_its_end(sandbox: Sandbox) -> None:
    assert await sandbox.passes("assert 1 + 1 == 2")
    assert not await sandbox.passes("assert 1 + 1 == 3")
    assert not await sandbox.passes("import sys; sys.exit(0)")
    assert not await sandbox.passes("print('x' * 64); import os; os._exit(0)")
    assert await sandbox.passes("import sys\nprint('noise')\nsys.stderr.write('noise')\nassert sys.stdin.read() == ''")


async def test_a_program_reaches_no_network(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        program = f"import socket\nwith socket.create_connection(('127.0.0.1', {port}), 2): pass"
        assert not await sandbox.passes(program)
        exec(program, {})  # it would, out here


async def test_a_program_writes_nothing_and_sees_nobody(sandbox: Sandbox, tmp_path: Path) -> None:
    target = tmp_path / "written"
    assert not await sandbox.passes(f"open({str(target)!r}, 'w')")
    assert not await sandbox.passes(f"open({str(ROOT / 'written')!r}, 'w')")
    assert not target.exists()
    assert await sandbox.passes("open('/tmp/mine', 'w').write('x')")
    assert await sandbox.passes(f"import os\nassert not os.path.exists('/proc/{os.getpid()}')")
    assert not await sandbox.passes("open('/etc/passwd')")
    assert await sandbox.passes("import os\nassert not {'run', 'var', 'home', 'srv'} & set(os.listdir('/'))")
    assert await sandbox.passes("import os\nassert set(os.environ) <= {'PWD', 'LC_CTYPE'}")


async def test_a_program_may_use_only_so_much(sandbox: Sandbox) -> None:
    assert not await sandbox.passes("x = bytearray(1 << 30)")
    assert not await sandbox.passes("open('/tmp/large', 'wb').write(bytes(64 << 20))")
    assert not await sandbox.passes("while True: pass", timeout_s=0.5)


async def test_what_a_program_starts_ends_with_it(sandbox: Sandbox) -> None:
    name = f"left{os.getpid()}"
    program = f"""
import os
if os.fork() == 0:
    os.setsid()
os.execv("/bin/sh", ["{name}", "-c", "sleep 600; true"])
"""
    running = asyncio.create_task(sandbox.passes(program, timeout_s=600))
    assert await asyncio.to_thread(_named, name, 2) == 2
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await asyncio.to_thread(_named, name, 0) == 0


def _named(name: str, wanted: int) -> int:
    """How many processes have `name` as their first argument, once they are as many as `wanted`, or after a while."""
    deadline = time.monotonic() + START_S
    while True:
        commands = [process.info["cmdline"] for process in psutil.process_iter(["cmdline"])]
        found = len([command for command in commands if command and command[0] == name])
        if found == wanted or time.monotonic() > deadline:
            return found
        time.sleep(0.02)


def test_without_bubblewrap_no_program_is_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Problem) as caught:
        Sandbox.find()
    assert caught.value.code is Code.SANDBOX_MISSING
    assert "apt install bubblewrap" in caught.value.advice


async def test_a_sandbox_that_does_not_work_is_said(sandbox: Sandbox) -> None:
    await sandbox.check()
    with pytest.raises(Problem) as caught:
        await replace(sandbox, bwrap="/bin/false").check()
    assert caught.value.code is Code.SANDBOX_MISSING
    assert "does not work here" in caught.value.message


def test_tasks_are_not_asked_without_a_sandbox(appliance: ScriptedAppliance, tasks: Path, tmp_path: Path) -> None:
    said = evaluate(appliance, "--tasks", str(tasks), status=1, PATH=str(tmp_path)).stderr
    assert "bubblewrap is not installed" in said
