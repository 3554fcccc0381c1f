"""Each check, from a board on which all is well to one where a single thing is not."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from rockfill.cli.main import parser
from rockfill.config import ClockPolicy
from rockfill.doctor.checks import CHECKS, diagnose
from rockfill.doctor.facts import Facts, HubFacts, Level, ModelFacts, RuntimeFacts, worst
from rockfill.hardware.board import DeviceNode, Release
from tests.unit.doctor.test_boards import facts_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RUNTIME = RuntimeFacts("/var/lib/rockfill/runtimes/1.2.3/librkllmrt.so", "1.2.3", "aarch64", None)
MODEL = ModelFacts("codegemma:2b", "rkllm", 3_580_000_000, (), tested=True)


@pytest.fixture
def well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Facts:
    """A board with the package, a runtime and a model, and nothing wrong."""
    facts = facts_of("armbian_vendor", tmp_path, monkeypatch)
    clocks = tuple(replace(clock, writable=True) for clock in facts.clocks)
    return replace(facts, runtimes=(RUNTIME,), libgomp=True, model=MODEL, clocks=clocks)


def test_all_is_well(well: Facts) -> None:
    assert [finding for finding in diagnose(well) if finding.level is not Level.OK] == []


def npu(facts: Facts, **changes: Any) -> Facts:
    return replace(facts, board=replace(facts.board, npu=replace(facts.board.npu, **changes)))


def clock(facts: Facts, name: str, **changes: Any) -> Facts:
    clocks = tuple(replace(clock, **changes) if clock.name == name else clock for clock in facts.clocks)
    return replace(facts, clocks=clocks)


def nodes(facts: Facts, *found: DeviceNode) -> Facts:
    return npu(facts, nodes=found)


MISFIT = (True, "The file was converted for RK3576.", "Choose a variant for RK3588.")
OLD = Release("debian", "11", "Debian", None)

# What is wrong, and how: which check, how bad, a word of what it says, and a word of what mends it.
CASES: dict[str, tuple[Callable[[Facts], Facts], str, Level, str, str]] = {
    "rocket": (lambda f: npu(f, driver="rocket"), "kernel", Level.PROBLEM, "rocket", "vendor-rk35xx"),
    "rocket, no Armbian": (
        lambda f: replace(npu(f, driver="rocket"), board=replace(npu(f, driver="rocket").board, release=OLD)),
        *("kernel", Level.PROBLEM, "rocket", "vendor's image"),
    ),
    "no driver": (lambda f: npu(f, driver=None), "kernel", Level.PROBLEM, "not at all", "vendor-rk35xx"),
    "driver 0.9.6": (lambda f: npu(f, version="0.9.6"), "driver", Level.PROBLEM, "0.9.7 or newer", "full-upgrade"),
    "driver 0.9.7": (lambda f: npu(f, version="0.9.7"), "driver", Level.WARNING, "0.9.8", "full-upgrade"),
    "driver 0.10.0": (lambda f: npu(f, version="0.10.0"), "driver", Level.OK, "0.10.0", ""),
    "driver unknown": (lambda f: npu(f, version=None), "driver", Level.WARNING, "can't be read", "upgrade"),
    "no device file": (nodes, "device", Level.PROBLEM, "no device file", "dmesg"),
    "not in the groups": (
        lambda f: nodes(
            f, DeviceNode("/dev/dri/card1", "video", False), DeviceNode("/dev/dri/renderD1", "render", False)
        ),
        *("device", Level.PROBLEM, "may not use", "usermod -aG render,video rockfill"),
    ),
    "in one of two groups": (
        lambda f: nodes(
            f, DeviceNode("/dev/dri/card1", "video", False), DeviceNode("/dev/dri/renderD1", "render", True)
        ),
        *("device", Level.PROBLEM, "/dev/dri/card1", "usermod -aG video rockfill"),
    ),
    "a device only for root": (
        lambda f: nodes(f, DeviceNode("/dev/rknpu", "root", False)),
        *("device", Level.PROBLEM, "/dev/rknpu", "udev"),
    ),
    "load hidden": (lambda f: replace(f, npu_load_readable=False), "npu-load", Level.WARNING, "debugfs", "package"),
    "no runtime": (lambda f: replace(f, runtimes=()), "runtime", Level.PROBLEM, "not installed", "install 1.2.3"),
    "a runtime that is none": (
        lambda f: replace(f, runtimes=(replace(RUNTIME, version=None, problem="This is a web page"), RUNTIME)),
        *("runtime", Level.WARNING, "web page", "rm "),
    ),
    "only a runtime for another machine": (
        lambda f: replace(f, runtimes=(replace(RUNTIME, architecture="armv7l"),)),
        *("runtime", Level.PROBLEM, "not installed", "install"),
    ),
    "an unknown runtime": (
        lambda f: replace(f, runtimes=(replace(RUNTIME, version=None),)),
        *("runtime", Level.WARNING, "unknown", "install 1.2.3"),
    ),
    "no libgomp": (lambda f: replace(f, libgomp=False), "libgomp", Level.PROBLEM, "libgomp", "apt install libgomp1"),
    "no model": (lambda f: replace(f, model=None), "model", Level.WARNING, "chosen", "models use"),
    "a model for another board": (
        lambda f: replace(f, model=replace(MODEL, misfits=(MISFIT,))),
        *("model", Level.PROBLEM, "RK3576", "RK3588"),
    ),
    "a model that may not fit": (
        lambda f: replace(f, model=replace(MODEL, misfits=((False, *MISFIT[1:]),))),
        *("model", Level.WARNING, "RK3576", "RK3588"),
    ),
    "no selftest": (
        lambda f: replace(f, model=replace(MODEL, tested=False)),
        *("selftest", Level.WARNING, "not tested", "rockfill selftest"),
    ),
    "a model larger than memory": (
        lambda f: replace(f, model=replace(MODEL, size_bytes=20 * 2**30)),
        *("memory", Level.PROBLEM, "20.0 GiB", "smaller"),
    ),
    "little memory": (lambda f: replace(f, ram_available_bytes=2**28), "memory", Level.WARNING, "0.2 of", "ps aux"),
    "memory unknown": (lambda f: replace(f, ram_available_bytes=None), "memory", Level.WARNING, "can't be read", ""),
    "little disk": (lambda f: replace(f, disk_free_bytes=2 * 2**30), "disk", Level.WARNING, "2.0 GiB", "models rm"),
    "no disk": (lambda f: replace(f, disk_free_bytes=2**20), "disk", Level.PROBLEM, "0.0 GiB", "models rm"),
    "no state": (lambda f: replace(f, state_problem="It can't be used."), "disk", Level.PROBLEM, "It can't", "chown"),
    "no DDR scaling": (
        lambda f: replace(f, clocks=tuple(clock for clock in f.clocks if clock.name != "ddr")),
        *("memory-clock", Level.WARNING, "40 %", "DMC"),
    ),
    "DDR parked low": (
        lambda f: clock(f, "ddr", max_hz=528_000_000),
        *("memory-clock", Level.WARNING, "528 of 2112", "rockfill stats"),
    ),
    "DDR not raised": (
        lambda f: replace(f, clock_policy=ClockPolicy.OFF),
        *("memory-clock", Level.WARNING, "528 of 2112", "clocks set auto"),
    ),
    "DDR raised by somebody": (
        lambda f: clock(replace(f, clock_policy=ClockPolicy.OFF), "ddr", governor="performance"),
        *("memory-clock", Level.OK, "highest", ""),
    ),
    "clocks not writable": (
        lambda f: clock(clock(f, "npu", writable=False), "big0", writable=False),
        *("governors", Level.WARNING, "npu, big0", "restart rockfill"),
    ),
    "clocks off": (
        lambda f: replace(f, clock_policy=ClockPolicy.OFF),
        *("governors", Level.WARNING, "not raised", "clocks set auto"),
    ),
    "few files": (lambda f: replace(f, files_limit=1024), "open-files", Level.PROBLEM, "1024", "LimitNOFILE"),
    "not many files": (lambda f: replace(f, files_limit=32_768), "open-files", Level.WARNING, "32768", "LimitNOFILE"),
    "a clock of 1970": (lambda f: replace(f, now_s=3600.0), "clock", Level.PROBLEM, "before this release", "set-ntp"),
    "a clock that is ahead": (
        lambda f: replace(f, hub=HubFacts("https://hub", "certificate has expired", 7200.0)),
        *("clock", Level.PROBLEM, "120 minutes ahead", "set-ntp"),
    ),
    "no Hub": (
        lambda f: replace(f, hub=HubFacts("https://hub", "no route to host", None)),
        *("hub", Level.WARNING, "no route to host", "HTTPS_PROXY"),
    ),
    "the port taken": (
        lambda f: replace(f, port_taken="127.0.0.1:8012"),
        *("port", Level.PROBLEM, "127.0.0.1:8012", "sport = :8012"),
    ),
    "a weaker sandbox": (
        lambda f: replace(f, weakened=(("/etc/systemd/system/rockfill.service.d/x.conf", "User=root"),)),
        *("sandbox", Level.WARNING, "User=root", "daemon-reload"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_one_thing_that_is_wrong(well: Facts, name: str) -> None:
    change, check, level, says, fix = CASES[name]
    findings = [finding for finding in diagnose(change(well)) if finding.check == check]
    assert worst(findings) == level
    [found] = [finding for finding in findings if finding.level == level][:1]
    assert says in found.message
    assert fix in found.fix
    assert level is Level.OK or found.message.endswith(".")
    assert bool(found.fix) == (level is not Level.OK) or name == "memory unknown"


def test_every_check_has_a_case_in_which_it_finds_something() -> None:
    tested = {check.replace("-", "_") for _, check, level, _, _ in CASES.values() if level is not Level.OK}
    assert tested == {check.__name__ for check in CHECKS}


def test_the_worst_counts() -> None:
    assert worst([]) is Level.OK


def test_our_own_commands_that_mend_things_exist(well: Facts) -> None:
    fixes = {finding.fix for change, *_ in CASES.values() for finding in diagnose(change(well))}
    ours = {
        re.sub(" tells.*", "", part) for fix in fixes for part in fix.split(", then ") if part.startswith("rockfill ")
    }
    assert len(ours) >= 6
    for command in ours:
        parser().parse_args(command.split()[1:])  # ends the program where it is not one
