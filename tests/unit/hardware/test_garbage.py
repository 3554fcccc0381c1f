"""Every file of a board holds garbage from the beginning on: nothing raises, and nothing is made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rockfill.clocks.policy import wanted
from rockfill.config import Clocks
from rockfill.hardware.board import Account, boot_id, read_board
from rockfill.hardware.cpus import clusters
from rockfill.hardware.devices import ClockFiles, scaled_devices
from rockfill.hardware.sampler import KEYS, Sampler
from tests.fakes.boards import BOARDS

if TYPE_CHECKING:
    from pathlib import Path

GARBAGE = ["", "\n", "²", "9" * 5000, "-1", "1e9", "\0\0", "é" * 9000, "0x10 performance ²²", "NPU load: Core0: ²%"]
GARBAGE += ["MemTotal: " + "9" * 5000 + " kB", "cpu  1 2", "cpu  a b c d e f g h", "0.9." + "8" * 5000]


@pytest.mark.parametrize("name", BOARDS)
@pytest.mark.parametrize("text", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_from_the_beginning_raises_nothing(
    name: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROCKFILL_SYSFS_ROOT", str(tmp_path))
    BOARDS[name](tmp_path)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            path.write_bytes(text.encode() if text != "\0\0" else b"\xff\xfe\0")
    clusters()
    boot_id()
    read_board(Account("somebody", 12345, frozenset()))
    devices = scaled_devices()
    base = {file: ClockFiles().read(file) for device in devices for file in device.files}
    wanted(devices, base, Clocks(fixed_mhz={"npu": 900}), 3)
    sampler = Sampler(tmp_path)
    try:
        for _ in range(2):
            assert set(sampler.sample(1, 2).figures) == set(KEYS)
    finally:
        sampler.close()
