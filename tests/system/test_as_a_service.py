"""What the daemon does where it is a service, and its packages are not all there."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.appliance import Appliance, environment

if TYPE_CHECKING:
    from pathlib import Path

WITHOUT_BUNDLED_MODELS = """
import sys
from pathlib import Path
from rockfill import paths
paths.bundled_models = lambda: Path("/nonexistent")
from rockfill.cli.main import main
sys.exit(main())
"""
# A file in the place of the journal: what systemd.exec(5) tells of either is the same.
TO_THE_JOURNAL = """
import os, sys
status = os.fstat(1)
os.environ["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
from rockfill.cli.main import main
sys.exit(main())
"""


def test_without_any_model_it_runs_and_says_what_is_missing(tmp_path: Path) -> None:
    appliance = Appliance(tmp_path / "state", launcher=[sys.executable, "-c", WITHOUT_BUNDLED_MODELS])
    appliance.start()
    try:
        assert any("rockfill-cpu" in line for line in appliance.printed), appliance.printed
        assert appliance.request("GET", "/health", token=None).status == 200
        answer = appliance.request("POST", "/v1/completions", {"prompt": "p"})
        assert (answer.status, answer.json()["error"]["code"]) == (404, "model_not_found")
        assert appliance.command("models.list")["models"] == []
    finally:
        assert appliance.stop() == 0


def test_without_any_model_a_remembered_one_is_no_reason_to_stay_down(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state/state.json").write_text(json.dumps({"version": 1, "model": "gone"}))
    appliance = Appliance(tmp_path / "state", launcher=[sys.executable, "-c", WITHOUT_BUNDLED_MODELS])
    appliance.start()
    assert appliance.stop() == 0


@pytest.mark.parametrize("launcher", [TO_THE_JOURNAL, "from rockfill.cli.main import main; main()"])
def test_the_token_is_printed_but_not_into_the_journal(tmp_path: Path, launcher: str) -> None:
    output, state = tmp_path / "output", tmp_path / "state"
    command = [sys.executable, "-c", launcher, "serve", "--listen", "127.0.0.1:0", "--state-dir", str(state)]
    with output.open("wb") as opened:
        # A variable of whatever started these tests means another stream.
        variables = {**environment(), "JOURNAL_STREAM": "1:1"}
        process = subprocess.Popen(command, stdout=opened, stderr=opened, stdin=subprocess.DEVNULL, env=variables)
    while "http://" not in output.read_text() and process.poll() is None:
        time.sleep(0.05)
    process.terminate()
    assert process.wait() == 0, output.read_text()
    assert ((state / "token").read_text().strip() in output.read_text()) == (launcher is not TO_THE_JOURNAL)


def test_the_state_of_a_newer_version_ends_it_for_good(tmp_path: Path) -> None:
    """78 is what a service manager must not try again after."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state/state.json").write_text(json.dumps({"version": 99}))
    command = [sys.executable, "-m", "rockfill", "serve", "--listen", "127.0.0.1:0", "--state-dir", f"{tmp_path}/state"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 78, done.stderr
    assert "was written by a newer Rockfill" in done.stderr
    assert "Traceback" not in done.stderr
