"""When clocks are raised, how far, and what heat does."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockfill.clocks.keeper import Keeper
from rockfill.clocks.policy import DOWN_S, MOST_STEPS, UP_S, Guard, guarded, raised_for_s, wanted
from rockfill.clocks.service import restore
from rockfill.config import ClockDevice, ClockPolicy, Clocks
from rockfill.hardware.board import boot_id
from rockfill.hardware.devices import ClockFiles, ScaledDevice, scaled_devices
from rockfill.hardware.sysfs import root
from rockfill.snapshots import Phase
from tests.fakes.boards import Tree, armbian_vendor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NPU, DDR = "sys/class/devfreq/fdab0000.npu", "sys/class/devfreq/dmc"
BIG = "sys/devices/system/cpu/cpufreq/policy4"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    monkeypatch.setenv("ROCKFILL_SYSFS_ROOT", str(tmp_path))
    return armbian_vendor(tmp_path)


def what_is_wanted(settings: Clocks, steps: int = 0) -> dict[str, str]:
    devices = scaled_devices()
    base = {file: ClockFiles().read(file) for device in devices for file in device.files}
    return wanted(devices, base, settings, steps)


@pytest.mark.parametrize(
    ("policy", "phase", "since_work_s", "for_s"),
    [
        (ClockPolicy.OFF, Phase.BUSY, 0, 0),
        (ClockPolicy.ALWAYS, Phase.STOPPED, inf, inf),
        (ClockPolicy.LOADED, Phase.READY, inf, inf),
        (ClockPolicy.LOADED, Phase.LOADING, inf, inf),
        (ClockPolicy.LOADED, Phase.STOPPED, 1, 0),
        (ClockPolicy.LOADED, Phase.FAILED, 1, 0),
        (ClockPolicy.AUTO, Phase.BUSY, inf, inf),
        (ClockPolicy.AUTO, Phase.LOADING, inf, inf),
        (ClockPolicy.AUTO, Phase.READY, 10, 20),
        (ClockPolicy.AUTO, Phase.READY, 31, 0),
        (ClockPolicy.AUTO, Phase.READY, inf, 0),
        (ClockPolicy.AUTO, Phase.STOPPED, 1, 0),
    ],
)
def test_when_clocks_are_raised(policy: ClockPolicy, phase: Phase, since_work_s: float, for_s: float) -> None:
    assert raised_for_s(policy, phase, 30, since_work_s) == for_s


def test_raising_is_the_performance_governor_of_what_is_chosen(tree: Tree) -> None:
    everything = what_is_wanted(Clocks())
    assert everything == dict.fromkeys(
        [
            f"{NPU}/governor",
            *(f"sys/devices/system/cpu/cpufreq/policy{number}/scaling_governor" for number in (0, 4, 6)),
            f"{DDR}/governor",
        ],
        "performance",
    )
    assert what_is_wanted(Clocks(devices=(ClockDevice.GPU,))) == {
        "sys/class/devfreq/fb000000.gpu/governor": "performance"
    }
    assert what_is_wanted(Clocks(devices=())) == {}


def test_where_there_is_no_performance_governor_the_minimum_is_raised(tree: Tree) -> None:
    tree.put(f"{DDR}/available_governors", "dmc_ondemand userspace\n")
    tree.put(f"{DDR}/max_freq", "1560000000\n")  # somebody's limit, which is kept
    assert what_is_wanted(Clocks(devices=(ClockDevice.DDR,))) == {f"{DDR}/min_freq": "1560000000"}


def test_a_governor_that_would_forget_its_frequency_is_left(tree: Tree) -> None:
    tree.put(f"{BIG}/scaling_governor", "userspace\n")
    found = what_is_wanted(Clocks(devices=(ClockDevice.CPU,)))
    assert f"{BIG}/scaling_governor" not in found
    assert found[f"{BIG}/scaling_min_freq"] == "2400000"


def test_a_fixed_frequency_is_both_limits_in_the_unit_of_the_file(tree: Tree) -> None:
    settings = Clocks(fixed_mhz={"npu": 900, "big0": 2256, "cpu": 1800})
    found = what_is_wanted(settings)
    assert (found[f"{NPU}/min_freq"], found[f"{NPU}/max_freq"]) == ("900000000", "900000000")
    assert found[f"{BIG}/scaling_min_freq"] == "2256000"  # its name stands above its kind
    assert found[f"{BIG.replace('4', '6')}/scaling_max_freq"] == "1800000"
    assert f"{NPU}/governor" not in found
    assert what_is_wanted(replace(settings, fixed_mhz={"npu": 950})) == what_is_wanted(Clocks())  # it has no such


def test_heat_lowers_what_gives_it_off_and_not_memory(tree: Tree) -> None:
    found = what_is_wanted(Clocks(), steps=3)
    assert found[f"{NPU}/max_freq"] == "700000000"
    assert found[f"{BIG}/scaling_max_freq"] == "1200000"  # the next below 70 % of 2400
    assert found[f"{NPU}/governor"] == "performance"
    assert f"{DDR}/max_freq" not in found
    assert f"{NPU}/min_freq" not in found
    fixed = what_is_wanted(Clocks(fixed_mhz={"npu": 900}), steps=3)
    assert fixed[f"{NPU}/min_freq"] == fixed[f"{NPU}/max_freq"] == "700000000"


def test_heat_lowers_a_minimum_that_would_stand_above_it(tree: Tree) -> None:
    tree.put(f"{NPU}/min_freq", "900000000\n")
    found = what_is_wanted(Clocks(), steps=5)
    assert found[f"{NPU}/min_freq"] == found[f"{NPU}/max_freq"] == "500000000"


@given(steps=st.integers(0, MOST_STEPS), low=st.integers(0, 7), high=st.integers(0, 7))
def test_a_minimum_is_never_above_its_maximum(steps: int, low: int, high: int) -> None:
    hz = [300_000_000 + 100_000_000 * number for number in range(8)]
    base: dict[str, str | None] = {"npu/governor": "userspace", "npu/min_freq": str(hz[min(low, high)])}
    base["npu/max_freq"] = str(hz[max(low, high)])
    governor_path, low_path, high_path = (root() / "npu" / name for name in ("governor", "min_freq", "max_freq"))
    npu = ScaledDevice(
        "npu", ClockDevice.NPU, governor_path, low_path, high_path, low_path, 1, ("performance",), tuple(hz)
    )
    for governor in ("userspace", "rknpu_ondemand"):
        base["npu/governor"] = governor
        after = base | wanted([npu], base, Clocks(), steps)
        assert int(after["npu/min_freq"] or 0) <= int(after["npu/max_freq"] or 0)
        assert int(after["npu/max_freq"] or 0) <= int(base["npu/max_freq"] or 0)


def test_the_guard_steps_down_while_it_is_hot_and_up_once_it_has_cooled() -> None:
    guard, steps = Guard(), []
    course = [(84, 10), (85, 40), (80, 40), (77.9, 130)]  # degrees, seconds
    now_s = 0.0
    for celsius, seconds in course:
        for _ in range(seconds):
            now_s += 1
            guard = guarded(guard, celsius, now_s, 85, raised=True)
        steps.append((guard.steps, guard.hot))
    assert steps == [(0, False), (MOST_STEPS, True), (MOST_STEPS, True), (0, False)]


@given(st.lists(st.tuples(st.none() | st.floats(20, 120), st.floats(0.1, 60)), max_size=60))
def test_the_guard_never_steps_faster_or_further_than_it_says(course: list[tuple[float | None, float]]) -> None:
    guard, now_s = Guard(), 0.0
    for celsius, seconds in course:
        now_s += seconds
        before, guard = guard, guarded(guard, celsius, now_s, 85, raised=True)
        assert 0 <= guard.steps <= MOST_STEPS
        assert abs(guard.steps - before.steps) <= 1
        if guard.steps > before.steps:
            assert celsius is not None
            assert celsius >= 85
            assert now_s - before.changed_s >= DOWN_S
        elif guard.steps < before.steps:
            assert celsius is not None
            assert celsius <= 78
            assert now_s - before.changed_s >= UP_S


def test_without_a_temperature_and_while_not_raised_nothing_is_lowered() -> None:
    assert guarded(Guard(), None, 100, 85, raised=True) == Guard()
    assert guarded(Guard(steps=2), None, 100, 85, raised=True).steps == 2
    assert guarded(Guard(), 99, 100, 85, raised=False) == Guard(hot=True)


@pytest.mark.parametrize(
    "file",
    [
        "etc/shadow",
        "sys/class/devfreq/../../../etc/governor",
        "sys/class/devfreq/../governor",
        f"{NPU}/cur_freq",
        f"{NPU}/governor/",
        "",
    ],
)
def test_a_record_can_not_name_any_other_file(tree: Tree, file: str) -> None:
    for path in ("etc/shadow", "etc/governor"):
        tree.put(path, "kept")
    keeper = Keeper(ClockFiles(), Stored({file: {"before": "spoilt", "ours": ["kept", "1000000000"]}}), boot_id)
    restore(keeper)
    with pytest.raises(PermissionError):
        ClockFiles().write(file, "spoilt")
    assert "spoilt" not in "".join(path.read_text() for path in tree.root.rglob("*") if path.is_file())


class Stored:
    """A record on the disk."""

    def __init__(self, holds: dict[str, Any]) -> None:
        self.holds = holds

    def clocks(self) -> Any:
        return {"boot_id": boot_id(), "holds": self.holds}

    def keep_clocks(self, value: Mapping[str, Any] | None) -> None:
        pass
