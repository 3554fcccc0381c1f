"""Every known kind of machine, as the trees in ``fakes/boards.py`` show it: what it is, and its figures.

``WRITE_GOLDEN=1 pytest tests/unit/hardware`` writes the golden files anew.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from rockfill.hardware.board import Account, read_board
from rockfill.hardware.devices import scaled_devices
from rockfill.hardware.sampler import KEYS, Sampler
from tests.fakes.boards import BOARDS, armbian_vendor, bsp_5_10, mainline_rocket, rk3576

GOLDEN = Path(__file__).with_name("golden")

# Somebody who is neither root nor the owner of the trees' files, but in their group.
SOMEBODY = Account("somebody", 12345, frozenset({os.getgid()}))


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROCKFILL_SYSFS_ROOT", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", BOARDS)
def test_what_the_machine_is_and_its_figures_are_the_golden_ones(name: str, root: Path) -> None:
    tree = BOARDS[name](root)
    sampler = Sampler(root)
    try:
        assert sampler.sample(None, None).failures.keys() <= {"thermal zone SEN1"}
        cores = len(list((root / "sys/devices/system/cpu").glob("cpu[0-9]*")))
        tree.jiffies([(1000 + 10 * number, 9100) for number in range(cores)])
        figures = sampler.sample(None, None).figures
    finally:
        sampler.close()
    assert set(figures) == set(KEYS)
    disk = [figures.pop("disk.total_bytes"), figures.pop("disk.free_bytes")]  # of the machine that tests
    assert all(isinstance(size, int) and size > 0 for size in disk)
    board = asdict(read_board(SOMEBODY))
    for node in board["npu"]["nodes"]:
        node["group"] = "<group>"
    devices = [
        {"name": device.name, "governors": device.governors, "frequencies_hz": device.frequencies_hz}
        for device in scaled_devices()
    ]
    compare(name, {"board": board, "devices": devices, "figures": figures})


def compare(name: str, value: dict[str, Any]) -> None:
    path = GOLDEN / f"{name}.json"
    written = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    if os.environ.get("WRITE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(written)
    assert json.loads(written) == json.loads(path.read_text())


def test_nothing_golden_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(BOARDS)


def test_the_npu_is_found_by_what_it_is_and_not_by_the_name_of_the_soc(root: Path) -> None:
    rk3576(root)
    [npu] = [device for device in scaled_devices() if device.kind == "npu"]
    assert npu.governor_path == root / "sys/class/devfreq/27700000.npu/governor"


def test_a_driver_in_the_wrong_group_is_not_usable(root: Path) -> None:
    armbian_vendor(root)
    stranger = Account("stranger", 12345, frozenset())
    assert [node.usable for node in read_board(SOMEBODY).npu.nodes] == [True, True]
    assert [node.usable for node in read_board(stranger).npu.nodes] == [False, False]
    assert [node.usable for node in read_board(Account("root", 0, frozenset())).npu.nodes] == [True, True]


def test_a_node_only_for_root_is_not_usable(root: Path) -> None:
    bsp_5_10(root)
    assert [(node.path, node.usable) for node in read_board(SOMEBODY).npu.nodes] == [("/dev/rknpu", False)]


def test_the_owner_of_a_node_is_not_judged_by_its_group(root: Path) -> None:
    tree = armbian_vendor(root)
    tree.put("dev/dri/renderD129", "", 0o060)
    owner = Account("owner", os.getuid() or 12345, frozenset({os.getgid()}))
    os.chown(root / "dev/dri/renderD129", owner.uid, -1)
    nodes = {node.path: node.usable for node in read_board(owner).npu.nodes}
    assert nodes["/dev/dri/renderD129"] is False


def test_a_version_is_read_from_the_drivers_nodes_where_the_module_has_none(root: Path) -> None:
    armbian_vendor(root)
    (root / "sys/module/rknpu/version").unlink()
    assert read_board(SOMEBODY).npu.version == "0.9.8"


def test_rocket_is_told_apart(root: Path) -> None:
    mainline_rocket(root)
    npu = read_board(SOMEBODY).npu
    assert (npu.driver, npu.version, npu.in_device_tree) == ("rocket", None, True)


def test_an_empty_tree_is_a_machine_of_which_nothing_is_known(root: Path) -> None:
    board = read_board(SOMEBODY)
    assert (board.soc, board.platform, board.model, board.kernel, board.ram_bytes, board.swap_bytes) == (None,) * 6
    assert (board.npu.driver, board.npu.in_device_tree, board.clusters, board.disks) == (None, None, (), ())
    sampler = Sampler(root)
    taken = sampler.sample(None, None)
    sampler.close()
    assert not taken.failures
    assert {key for key, value in taken.figures.items() if value is not None} == {"disk.total_bytes", "disk.free_bytes"}


def test_garbage_in_every_file_is_null_everywhere(root: Path) -> None:
    armbian_vendor(root)
    sampler = Sampler(root)
    assert not sampler.sample(None, None).failures
    for text in (
        "",
        "\n",
        "garbage",
        "\0\0\0",
        "99999999999999999999",
        "-99999999",
        "NPU load: Core0: 4711%",
        "é" * 9000,
    ):
        for path in root.rglob("*"):
            if path.is_file():
                path.write_text(text)
        taken = sampler.sample(None, None)
        values = [value for key, value in taken.figures.items() if not key.startswith("disk.")]
        assert all(value is None or (isinstance(value, list | dict) and not any_number(value)) for value in values), (
            text
        )
        assert len(taken.failures) > 15
        assert set(taken.figures) == set(KEYS)
    sampler.close()


def any_number(value: list[Any] | dict[str, Any]) -> bool:
    return any(inner is not None for inner in (value.values() if isinstance(value, dict) else value))
