"""A board that is not there: the simulator of Rockchip's runtime, an RK3588's kernel files, and a stand-in Hub."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Self

from tests.fakes.boards import armbian_vendor
from tests.fakes.hub import FileSpec, HubServer
from tests.npu import NpuAppliance

if TYPE_CHECKING:
    from pathlib import Path

REPOSITORY = "c01zaut/codegemma-2b-rk3588-1.1.2"
SMALL = "user/small-rk3588-1.1.4"  # nothing to accept, no token
GATED = "user/gated-rk3588-1.1.4"
FOREIGN = "user/other-board-rk3576-1.2.0"
MAGIC = "daeeb33603000000" + "00" * 16  # what the simulator takes for a model (fakes/rkllm_simulator.py)


def furnish(hub: HubServer, size_bytes: int, tokenizer: str) -> None:
    """Fill the Hub: CodeGemma as it is published, each variant of `size_bytes`, and some that are awkward."""
    companions = {"tokenizer.json": FileSpec(tokenizer, lfs=False), "config.json": FileSpec("{}", lfs=False)}
    variants = {
        "codegemma-2b-rk3588-w8a8-opt-1-hybrid-ratio-0.5.rkllm": 0,
        "codegemma-2b-rk3588-w8a8_g128-opt-1-hybrid-ratio-0.0.rkllm": 1,
        "codegemma-2b-rk3588-w8a8_g256-opt-0-hybrid-ratio-1.0.rkllm": 2,
        "codegemma-2b-rk3588-w8a8_g512-opt-0-hybrid-ratio-1.0.rkllm": 3,
    }
    files = {name: FileSpec(size_bytes=size_bytes, start=start, head=MAGIC) for name, start in variants.items()}
    hub.add(REPOSITORY, {**files, **companions}, licence="gemma")
    small = {"small-rk3588-w8a8-opt-0-hybrid-ratio-0.0.rkllm": FileSpec(size_bytes=size_bytes)}
    hub.add(SMALL, {**small, **companions})
    hub.add(GATED, {**small, **companions}, gated=True, token="right")
    foreign = {"other-rk3576-w4a16-opt-0-hybrid-ratio-0.0.rkllm": FileSpec(size_bytes=size_bytes)}
    hub.add(FOREIGN, {**foreign, **companions})
    hub.know("right", "somebody")


class Stage:
    """A daemon on that board; `tree` holds its kernel files, `hub` what it fetches from. A context manager."""

    def __init__(self, directory: Path, *, size_bytes: int = 1 << 20, chosen: bool = True) -> None:
        """`chosen` False leaves the appliance without a model, as it is after its installation."""
        self.directory = directory
        self.size_bytes = size_bytes
        self.tree = armbian_vendor(directory / "root")
        self.governors = self.read_governors()  # as they were before anybody touched them
        self.hub = HubServer()
        self.appliance = NpuAppliance(directory)
        if not chosen:
            del self.appliance.arguments[:2]  # --model, and which

    def __enter__(self) -> Self:
        self.hub.__enter__()
        furnish(self.hub, self.size_bytes, (self.appliance.model / "tokenizer.json").read_text())
        appliance = self.appliance
        variables = appliance.variables
        variables["ROCKFILL_SYSFS_ROOT"] = os.fspath(self.tree.root)
        variables["HF_ENDPOINT"] = self.hub.url
        appliance.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.appliance.stop()
        self.hub.stop()

    def read_governors(self) -> dict[str, str]:
        """What the governor's file of everything whose clock is scaled holds now."""
        files = [*self.tree.root.glob("sys/class/devfreq/*/governor")]
        files += self.tree.root.glob("sys/devices/system/cpu/cpufreq/*/scaling_governor")
        return {file.relative_to(self.tree.root).as_posix(): file.read_text().strip() for file in files}

    def npu(self, load: int, celsius: float) -> None:
        """What the NPU's first core and its thermal zone say from now on."""
        for path in ("proc/rknpu/load", "sys/kernel/debug/rknpu/load"):
            self.tree.put(path, f"NPU load:  Core0: {load:2}%, Core1:  7%, Core2:  0%,\n")
        for zone in (self.tree.root / "sys/class/thermal").iterdir():
            if (zone / "type").read_text().strip() == "npu-thermal":
                (zone / "temp").write_text(f"{round(celsius * 1000)}\n")
