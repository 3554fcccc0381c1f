"""Which cores are the fast ones, read from small trees that look like a machine's /sys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rockfill.hardware.cpus import big_cores

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# cpu_capacity of an RK3588: four A55 and four A76
RK3588 = {number: 530 if number < 4 else 1024 for number in range(8)}


@pytest.fixture
def cpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROCKFILL_SYSFS_ROOT", str(tmp_path))
    directory = tmp_path / "sys/devices/system/cpu"
    directory.mkdir(parents=True)
    for other in ("cpufreq", "cpuidle", "possible"):  # what else stands there
        (directory / other).mkdir()
    return directory


def make(cpus: Path, capacities: Mapping[int, int | None], online: Mapping[int, int] | None = None) -> None:
    for number, capacity in capacities.items():
        (cpus / f"cpu{number}").mkdir()
        if capacity is not None:
            (cpus / f"cpu{number}/cpu_capacity").write_text(f"{capacity}\n")
    for number, value in (online or {}).items():
        (cpus / f"cpu{number}/online").write_text(f"{value}\n")


def test_an_rk3588_has_four(cpus: Path) -> None:
    make(cpus, RK3588, dict.fromkeys(range(1, 8), 1))  # cpu0 can't be switched off and has no such file
    assert big_cores() == (4, 5, 6, 7)


def test_a_core_that_is_switched_off_is_none(cpus: Path) -> None:
    make(cpus, RK3588, {4: 0, 5: 1, 6: 1, 7: 1})
    assert big_cores() == (5, 6, 7)


def test_two_clusters_of_fast_cores_count_as_fast(cpus: Path) -> None:
    make(cpus, {0: 300, 1: 300, 2: 900, 3: 1024})
    assert big_cores() == (2, 3)


def test_ten_and_more_cores_are_read_as_numbers(cpus: Path) -> None:
    make(cpus, {number: 400 if number < 8 else 1024 for number in range(12)})
    assert big_cores() == (8, 9, 10, 11)


@pytest.mark.parametrize(
    "capacities",
    [{}, {0: 1024, 1: 1024}, {0: None, 1: None}],
    ids=["no cores at all", "all alike", "x86 has no capacities"],
)
def test_where_nothing_tells_them_apart_there_are_none(cpus: Path, capacities: dict[int, int | None]) -> None:
    make(cpus, capacities)
    assert big_cores() == ()


def test_where_there_is_no_sysfs_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROCKFILL_SYSFS_ROOT", str(tmp_path))
    assert big_cores() == ()
