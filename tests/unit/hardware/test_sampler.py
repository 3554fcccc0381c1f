"""Samples of a machine whose files fail, hang, vanish and come back."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import pytest

from rockfill.hardware.own_thread import OwnThread
from rockfill.hardware.sampler import Sampler
from tests.fakes.boards import Tree, armbian_vendor
from tests.jumping import JumpingLoop, hangs_in

NPU_TEMP = "sys/class/thermal/thermal_zone6/temp"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    monkeypatch.setenv("ROCKFILL_SYSFS_ROOT", str(tmp_path))
    return armbian_vendor(tmp_path)


def test_every_file_is_opened_once(tree: Tree) -> None:
    sampler = Sampler(tree.root)
    sampler.sample(None, None)
    files = open_below(tree.root)
    assert len(files) > 15
    for _ in range(50):
        sampler.sample(None, None)
    assert open_below(tree.root) == files
    sampler.close()
    assert open_below(tree.root) == []


def open_below(root: Path) -> list[tuple[str, str]]:
    """Descriptors and what they are of."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:
            continue
        if target.startswith(str(root)):
            found.append((entry.name, target))
    return sorted(found)


def test_an_open_file_tells_what_it_holds_by_now(tree: Tree) -> None:
    sampler = Sampler(tree.root)
    sampler.sample(None, None)
    tree.put("proc/rknpu/load", "NPU load:  Core0: 99%, Core1: 100%, Core2:  1%,\n")
    tree.put(NPU_TEMP, "61000\n")
    figures = sampler.sample(None, None).figures
    assert figures["npu.load_percent"] == [99, 100, 1]
    assert figures["npu.temp_celsius"] == 61.0
    sampler.close()


def test_an_npu_of_one_core_has_one_load(tree: Tree) -> None:
    tree.put("proc/rknpu/load", "NPU load:  7%\n")
    sampler = Sampler(tree.root)
    assert sampler.sample(None, None).figures["npu.load_percent"] == [7]
    sampler.close()


def test_devfreqs_load_is_never_told_and_what_powers_the_npu_up_never_read(tree: Tree) -> None:
    """A FIFO hangs whoever opens it."""
    for path in ("proc/rknpu/load", "sys/kernel/debug/rknpu/load"):
        (tree.root / path).unlink()
    for path in ("proc/rknpu/freq", "sys/kernel/debug/rknpu/freq"):
        os.mkfifo(tree.root / path)
    sampler = Sampler(tree.root)
    taken = sampler.sample(None, None)
    assert taken.figures["npu.load_percent"] is None
    assert not taken.failures
    sampler.close()


def test_the_memory_of_processes_is_told_while_they_live(tree: Tree) -> None:
    tree.put("proc/100/statm", "5000 1000 500 1 0 300 0\n")
    tree.put("proc/200/statm", "9000 2000 500 1 0 300 0\n")
    page = os.sysconf("SC_PAGE_SIZE")
    sampler = Sampler(tree.root)
    taken = sampler.sample(100, None)
    assert (taken.figures["daemon.rss_bytes"], taken.figures["worker.rss_bytes"]) == (1000 * page, None)
    assert sampler.sample(100, 200).figures["worker.rss_bytes"] == 2000 * page
    taken = sampler.sample(100, 300)  # has just ended
    assert taken.figures["worker.rss_bytes"] is None
    assert not taken.failures
    assert sampler.sample(100, 200).figures["worker.rss_bytes"] == 2000 * page
    sampler.close()


def test_an_unplugged_zone_is_null_and_comes_back(tree: Tree) -> None:
    sampler = Sampler(tree.root)
    sampler.sample(None, None)
    gone = tree.root / NPU_TEMP
    # A kernel's open file gives ENODEV once the device is gone; here the descriptor is taken away under it.
    os.close(next(int(fd) for fd, target in open_below(tree.root) if target == str(gone)))
    gone.unlink()
    for _ in range(2):
        taken = sampler.sample(None, None)
        assert taken.figures["npu.temp_celsius"] is None
        assert taken.figures["gpu.temp_celsius"] == 45.3
        assert taken.failures.keys() == {"thermal zone npu-thermal"}
    tree.put(NPU_TEMP, "50000\n")
    taken = sampler.sample(None, None)
    assert taken.figures["npu.temp_celsius"] == 50.0
    assert not taken.failures
    sampler.close()


def test_an_input_output_error_is_null(tree: Tree) -> None:
    """What a driver says when its bus is stuck, and /proc/self/mem where nothing is mapped."""
    zone = tree.root / NPU_TEMP
    zone.unlink()
    zone.symlink_to("/proc/self/mem")
    sampler = Sampler(tree.root)
    taken = sampler.sample(None, None)
    assert taken.figures["npu.temp_celsius"] is None
    assert taken.failures == {"thermal zone npu-thermal": os.strerror(5)}
    sampler.close()


def test_a_read_that_hangs_costs_its_own_figure_until_it_returns(tree: Tree) -> None:
    zone = tree.root / NPU_TEMP
    zone.unlink()
    os.mkfifo(zone)  # to open it for reading waits for a writer
    with contextlib.closing(JumpingLoop()) as loop:
        loop.run_until_complete(_read_that_hangs(tree, zone, loop))


async def _read_that_hangs(tree: Tree, zone: Path, loop: JumpingLoop) -> None:
    sampler, thread = Sampler(tree.root), OwnThread("sampler under test")
    loop.busy = lambda: thread._turn.locked() and not hangs_in(sampler, {"thermal zone npu-thermal": zone})
    with pytest.raises(TimeoutError):
        await thread.call(lambda: sampler.sample(None, None), 5)
    sampler.abandon()
    for _ in range(3):
        taken = await thread.call(lambda: sampler.sample(None, None), 5)
        assert taken.figures["npu.temp_celsius"] is None
        assert taken.figures["npu.load_percent"] == [42, 7, 0]
        assert taken.failures == {"thermal zone npu-thermal": "the read does not return"}
    hanging = [each for each in threading.enumerate() if each.name == "sampler under test"]
    assert len(hanging) == 2  # the one that hangs, and the one that goes on
    zone.rename(zone.with_name("fifo"))  # noqa: ASYNC240 - nobody else is in this loop
    tree.put(NPU_TEMP, "47000\n")
    os.close(os.open(zone.with_name("fifo"), os.O_WRONLY))  # the read returns
    hanging[0].join()
    taken = await thread.call(lambda: sampler.sample(None, None), 5)
    assert taken.figures["npu.temp_celsius"] == 47.0
    assert not taken.failures
    await thread.call(sampler.close, 5)
    thread.close()
