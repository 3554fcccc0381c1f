"""The real daemon on a tree that looks like a board: its clocks however it ends, its figures, and the doctor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.appliance import ROOT, START_S, Appliance, ScriptedAppliance, environment
from tests.fakes.boards import Tree, armbian_vendor, x86_laptop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NPU = "sys/class/devfreq/fdab0000.npu"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return armbian_vendor(tmp_path / "root")


@pytest.fixture
def board(tmp_path: Path, tree: Tree) -> Iterator[ScriptedAppliance]:
    """A daemon on that tree whose engine does as it is told."""
    running = ScriptedAppliance(tmp_path / "state", variables={"ROCKFILL_SYSFS_ROOT": str(tree.root)})
    running.start()
    yield running
    running.stop()


def rockfill(appliance: Appliance, tree: Tree, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line on the same machine as `appliance`."""
    variables = {"ROCKFILL_STATE_DIR": str(appliance.state_dir), "ROCKFILL_SYSFS_ROOT": str(tree.root)}
    return subprocess.run(
        [sys.executable, "-m", "rockfill", *arguments],
        env={**environment(), **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def governor(tree: Tree) -> str:
    return tree.read(f"{NPU}/governor")


def wait_for_governor(tree: Tree, wanted: str) -> None:
    deadline = time.monotonic() + START_S
    while governor(tree) != wanted:
        assert time.monotonic() < deadline, f"still {governor(tree)}"
        time.sleep(0.02)


def test_clocks_are_raised_by_work_and_given_back_at_the_end(board: ScriptedAppliance, tree: Tree) -> None:
    board.complete("x = ")
    wait_for_governor(tree, "performance")
    now = board.command("clocks.get")
    assert now["raised"]
    assert now["devices"][0]["held"] == {"governor": "rknpu_ondemand"}
    assert board.stop() == 0
    assert governor(tree) == "rknpu_ondemand"
    assert not (board.state_dir / "clocks.json").exists()


def test_after_a_kill_the_service_manager_gives_clocks_back(board: ScriptedAppliance, tree: Tree) -> None:
    board.command("clocks.set", policy="always", fixed_mhz={"npu": 900})
    assert tree.read(f"{NPU}/max_freq") == "900000000"
    board.stop(signal.SIGKILL)
    assert tree.read(f"{NPU}/max_freq") == "900000000"
    restored = rockfill(board, tree, "clocks", "restore")  # what the unit's ExecStopPost runs
    assert (restored.returncode, restored.stderr) == (0, "")
    assert (tree.read(f"{NPU}/max_freq"), tree.read(f"{NPU}/min_freq")) == ("1000000000", "300000000")
    assert rockfill(board, tree, "clocks", "restore").stdout == "No clocks are held.\n"
    board.start()  # what was chosen is remembered
    wait_for_governor(tree, "rknpu_ondemand")
    assert board.command("clocks.get")["fixed_mhz"] == {"npu": 900}
    board.command("clocks.set", policy="off")
    assert tree.read(f"{NPU}/max_freq") == "1000000000"


def test_after_a_kill_the_next_start_gives_clocks_back(board: ScriptedAppliance, tree: Tree) -> None:
    board.command("clocks.set", policy="always")
    assert governor(tree) == "performance"
    board.stop(signal.SIGKILL)
    state = json.loads((board.state_dir / "state.json").read_text())
    (board.state_dir / "state.json").write_text(json.dumps({**state, "clock_policy": "off"}))
    board.start()
    wait_for_governor(tree, "rknpu_ondemand")


def test_clocks_of_another_boot_are_not_given_back(board: ScriptedAppliance, tree: Tree) -> None:
    board.command("clocks.set", policy="always")
    board.stop(signal.SIGKILL)
    tree.put("proc/sys/kernel/random/boot_id", "another\n")
    restored = rockfill(board, tree, "clocks", "restore")
    assert restored.returncode == 0
    assert governor(tree) == "performance"  # this kernel's own choice, for all we know
    assert not (board.state_dir / "clocks.json").exists()


def test_with_a_daemon_restore_goes_through_it(board: ScriptedAppliance, tree: Tree) -> None:
    board.command("clocks.set", policy="always")
    restored = rockfill(board, tree, "clocks", "restore", "--url", board.url)
    assert restored.returncode == 0, restored.stderr
    assert "not raised" in restored.stdout
    assert governor(tree) == "rknpu_ondemand"


def test_the_clocks_as_a_person_sees_them(board: ScriptedAppliance, tree: Tree) -> None:
    shown = rockfill(board, tree, "clocks", "set", "always", "--fix", "npu=900", "--url", board.url)
    assert shown.returncode == 0, shown.stderr
    assert "policy always: raised" in shown.stdout
    assert "900 to 900" in shown.stdout
    wrong = rockfill(board, tree, "clocks", "set", "always", "--fix", "npu=901", "--url", board.url)
    assert wrong.returncode == 1
    assert "npu does not run at 901 MHz" in wrong.stderr
    assert rockfill(board, tree, "clocks", "set", "sometimes").returncode == 2
    as_json = rockfill(board, tree, "clocks", "--json", "--url", board.url)
    assert json.loads(as_json.stdout)["fixed_mhz"] == {"npu": 900}


def test_the_figures_as_a_person_and_a_program_see_them(board: ScriptedAppliance, tree: Tree) -> None:
    board.complete("x = ")
    shown = rockfill(board, tree, "stats", "--url", board.url)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines()[0].split() == ["NPU", "42", "%", "7", "%", "0", "%", "1000", "MHz", "46.3", "°C"]
    figures = json.loads(rockfill(board, tree, "stats", "--json", "--url", board.url).stdout)["figures"]
    assert figures["npu.load_percent"] == [42, 7, 0]
    answer = board.request("GET", "/api/stats?history=seconds&keys=npu").json()
    columns = answer["history"]["columns"]
    assert {"time_s", "npu.load_percent.0", "npu.freq_hz"} <= columns.keys()
    assert len({len(column) for column in columns.values()}) == 1
    assert board.request("GET", "/api/stats", token=None).status == 401
    assert board.request("GET", "/api/stats?history=weeks").status == 400
    assert board.command("board.get")["npu"]["version"] == "0.9.8"


def test_the_doctor_of_a_running_daemon(board: ScriptedAppliance, tree: Tree) -> None:
    value: dict[str, Any] = board.command("doctor.run")
    checks = {finding["check"]: finding["level"] for finding in value["findings"]}
    assert (checks["kernel"], checks["driver"], checks["runtime"]) == ("ok", "ok", "problem")
    assert "port" not in checks  # it is ours
    shown = rockfill(board, tree, "doctor", "--url", board.url)
    assert shown.returncode == {"ok": 0, "warning": 1, "problem": 3}[value["level"]]
    assert "PROBLEM  runtime" in shown.stdout


def test_the_doctor_without_a_daemon(tmp_path: Path) -> None:
    """It says the same of the board, makes no state directory, and needs neither Hub nor token."""
    tree = x86_laptop(tmp_path / "root")
    state = tmp_path / "state"
    (tmp_path / "config.toml").write_text('[hub]\nendpoint = "http://127.0.0.1:9"\n[server]\nlisten = "127.0.0.1:1"\n')
    command = [sys.executable, "-m", "rockfill", "doctor", "--json", "--config", str(tmp_path / "config.toml")]
    variables = {"ROCKFILL_STATE_DIR": str(state), "ROCKFILL_SYSFS_ROOT": str(tree.root)}
    done = subprocess.run(
        command, env={**environment(), **variables}, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stderr == ""
    value = json.loads(done.stdout)
    levels = {finding["check"]: finding["level"] for finding in value["findings"]}
    assert levels["kernel"] == "ok"
    assert levels["hub"] == "warning"
    assert done.returncode == 1, value
    assert not state.exists()


def test_metrics_for_prometheus(board: ScriptedAppliance) -> None:
    board.complete("x = ")
    assert board.command("clocks.get")["raised"]  # which waits until they are
    answer = board.request("GET", "/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }
    assert found["rockfill_completions_total",] == 1
    assert found["rockfill_generated_tokens_total",] > 0
    assert found["rockfill_engine_state", "ready"] + found["rockfill_engine_state", "busy"] == 1
    assert found["rockfill_events_total", "model.loaded"] == 1
    assert found["rockfill_npu_load_ratio", "0"] == 0.42
    assert found["rockfill_clocks_raised",] == 1
    assert board.request("GET", "/metrics", token=None).status == 401


def test_sensors_that_hang_cost_their_own_figures_and_nothing_else(tmp_path: Path, tree: Tree) -> None:
    """A FIFO in place of two of them: to open it for reading waits for ever, as a driver may for its chip."""
    for path in ("sys/class/thermal/thermal_zone6/temp", "sys/class/devfreq/dmc/cur_freq"):
        (tree.root / path).unlink()
        os.mkfifo(tree.root / path)
    board = ScriptedAppliance(tmp_path / "hanging", variables={"ROCKFILL_SYSFS_ROOT": str(tree.root)})
    board.start()
    try:
        assert board.complete("x = ")["choices"][0]["text"] != ""
        # On a machine that stood still for a moment another one may have been missed, for once.
        hanging = dict.fromkeys(("ddr frequency", "thermal zone npu-thermal"), "the read does not return")
        deadline = time.monotonic() + START_S
        while (stats := board.request("GET", "/api/stats").json())["failures"] != hanging:
            assert time.monotonic() < deadline, stats
            time.sleep(0.1)
        figures = stats["figures"]
        assert (figures["npu.temp_celsius"], figures["ddr.freq_hz"]) == (None, None)
        assert (figures["gpu.temp_celsius"], figures["npu.load_percent"]) == (45.3, [42, 7, 0])
        assert board.complete("y = ")["choices"][0]["text"] != ""
    finally:
        assert board.stop() == 0
    told = [line for line in board.printed if "can't be read" in line]
    for name in hanging:
        assert len([line for line in told if name in line]) == 1, board.printed
