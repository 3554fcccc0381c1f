"""What the doctor says of every known kind of machine, as golden files.

``WRITE_GOLDEN=1 pytest tests/unit/doctor`` writes them anew.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from rockfill.config import ClockPolicy, Config
from rockfill.doctor.checks import diagnose
from rockfill.doctor.facts import Facts, HubFacts, worst
from rockfill.doctor.gather import Asked, gather
from rockfill.hardware.board import Account
from rockfill.snapshots import Target
from tests.fakes.boards import BOARDS

GOLDEN = Path(__file__).with_name("golden")
SOMEBODY = Account("rockfill", 12345, frozenset({os.getgid()}))
TINY = Target("rockfill-tiny", "llama", "/usr/share/rockfill/tiny.gguf", "starcoder", demonstration=True)

# What each is expected to be as a whole, apart from its runtime, which none of the trees has.
LEVELS = {
    "armbian_vendor": "problem",
    "armbian_vendor_without_dmc": "problem",
    "bsp_5_10": "problem",
    "debugfs_only": "problem",
    "rk3576": "problem",
    "mainline_rocket": "problem",
    "x86_laptop": "ok",
}


def facts_of(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Facts:
    """Of a tree; what comes from the machine that tests is made the same everywhere."""
    monkeypatch.setenv("ROCKFILL_SYSFS_ROOT", str(tmp_path / "root"))
    BOARDS[name](tmp_path / "root")
    asked = Asked(
        config=Config(),
        policy=ClockPolicy.AUTO,
        state_dir=tmp_path / "state",
        state_problem=None,
        model=TINY,
        tested=False,
        account=SOMEBODY,
        port_is_ours=True,
    )
    facts = gather(asked, libraries=[tmp_path / "lib"])
    groups = {"card": "video", "rend": "render", "rknp": "root", "acce": "render"}
    nodes = tuple(replace(node, group=groups[node.path.rpartition("/")[2][:4]]) for node in facts.board.npu.nodes)
    return replace(
        facts,
        board=replace(facts.board, npu=replace(facts.board.npu, nodes=nodes)),
        disk_free_bytes=40 * 2**30,
        state_dir="/var/lib/rockfill",
        files_limit=65_536,
        now_s=1_795_700_000.0,
        released_s=1_795_000_000.0,
        hub=HubFacts("https://huggingface.co", None, 0.4),
    )


@pytest.mark.parametrize("name", BOARDS)
def test_what_the_doctor_says_is_the_golden_text(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    findings = diagnose(facts_of(name, tmp_path, monkeypatch))
    assert worst(findings) == LEVELS[name]
    written = json.dumps([asdict(finding) for finding in findings], indent=1, ensure_ascii=False) + "\n"
    assert str(tmp_path) not in written
    path = GOLDEN / f"{name}.json"
    if os.environ.get("WRITE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(written)
    assert written == path.read_text()


def test_nothing_golden_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(BOARDS) == set(LEVELS)
