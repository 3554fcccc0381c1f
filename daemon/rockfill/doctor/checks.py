"""The checks: pure, from facts to findings. The order is that in which things have to be mended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rockfill.config import ClockDevice, ClockPolicy
from rockfill.doctor.facts import Facts, Finding, Level
from rockfill.hardware.board import RKNPU, ROCKET

if TYPE_CHECKING:
    from rockfill.doctor.facts import ClockFacts

Check = Callable[[Facts], Iterator[Finding]]

MIB, GIB = 2**20, 2**30

# Runtimes from 1.1 on refuse older ones or work badly with them; 0.9.8 is what Rockchip documents (README of rknn-llm).
WORKS_WITH_DRIVER = (0, 9, 7)
DOCUMENTED_DRIVER = (0, 9, 8)

# Each buffer on the NPU is a file. Rockchip's own server asks for 102,400, the unit for 65,536 (rknn-llm issue 62).
MANY_FILES = 65_536
FEW_FILES = 8_192

# A certificate is not valid yet, or no more, for who is off by hours; some begin just when they were made.
CLOCK_OFF_S = 600.0

VENDOR_KERNEL = "sudo apt install linux-image-vendor-rk35xx linux-dtb-vendor-rk35xx && sudo reboot"
TRIED_RUNTIME = "1.2.3"

# The unit grants it at its start (systemd/clock-files).
GRANT = "sudo systemctl restart rockfill"


def diagnose(facts: Facts) -> tuple[Finding, ...]:
    """Every check's findings."""
    return tuple(finding for check in CHECKS for finding in check(facts))


def has_npu(facts: Facts) -> bool:
    """Whether this board has an NPU of Rockchip's, with a driver or without."""
    return facts.board.npu.driver is not None or bool(facts.board.npu.in_device_tree)


# ---- the board


def kernel(facts: Facts) -> Iterator[Finding]:
    board, npu = facts.board, facts.board.npu
    name = " ".join(part for part in (board.model or board.architecture, board.kernel) if part)
    if not has_npu(facts):
        yield Finding("kernel", Level.OK, f"{name}: no NPU of Rockchip's here, models run on the CPU.")
    elif npu.driver == RKNPU:
        yield Finding("kernel", Level.OK, f"{name}: the kernel drives the NPU with rknpu.")
    else:
        what = "with mainline's rocket, which" if npu.driver == ROCKET else "not at all, and"
        needs = "Rockchip's runtime can't use" if npu.driver == ROCKET else "Rockchip's runtime needs the driver rknpu"
        image = board.release.armbian is not None
        yield Finding(
            "kernel",
            Level.PROBLEM,
            f"{name}: the kernel drives the NPU {what} {needs}: models run on the CPU.",
            VENDOR_KERNEL if image else "Install the vendor's image of this board, with its kernel 5.10 or 6.1.",
        )


def driver(facts: Facts) -> Iterator[Finding]:
    npu = facts.board.npu
    if npu.driver != RKNPU:
        return
    update = (
        "sudo apt update && sudo apt full-upgrade && sudo reboot"
        if facts.board.release.armbian
        else "Install a newer image of the board's vendor: the driver is part of its kernel."
    )
    version = tuple(map(int, npu.version.split("."))) if npu.version else None
    if version is None:
        yield Finding("driver", Level.WARNING, "The version of the rknpu driver can't be read.", update)
    elif version < WORKS_WITH_DRIVER:
        yield Finding(
            "driver", Level.PROBLEM, f"The rknpu driver {npu.version} is too old: RKLLM needs 0.9.7 or newer.", update
        )
    elif version < DOCUMENTED_DRIVER:
        yield Finding(
            "driver", Level.WARNING, f"The rknpu driver {npu.version} works; Rockchip asks for 0.9.8.", update
        )
    else:
        yield Finding("driver", Level.OK, f"The rknpu driver is {npu.version}.")


def device(facts: Facts) -> Iterator[Finding]:
    npu = facts.board.npu
    if npu.driver != RKNPU:
        return
    if not npu.nodes:
        yield Finding(
            "device",
            Level.PROBLEM,
            "The NPU has no device file: the driver has not started.",
            "sudo dmesg | grep -i npu",
        )
        return
    barred = [node for node in npu.nodes if not node.usable]
    if not barred:
        names = ", ".join(node.path for node in npu.nodes)
        yield Finding("device", Level.OK, f"The user {facts.account} may use the NPU ({names}).")
        return
    groups = sorted({node.group for node in barred if node.group not in (None, "root")})
    if groups:
        fix = f"sudo usermod -aG {','.join(filter(None, groups))} {facts.account} && sudo systemctl restart rockfill"
    else:
        fix = (
            """echo 'SUBSYSTEM=="misc", KERNEL=="rknpu", GROUP="render", MODE="0660"' """
            "| sudo tee /etc/udev/rules.d/60-rknpu.rules && sudo udevadm control --reload && sudo udevadm trigger"
        )
    names = ", ".join(f"{node.path} of the group {node.group}" for node in barred)
    yield Finding("device", Level.PROBLEM, f"The user {facts.account} may not use the NPU: {names}.", fix)


def npu_load(facts: Facts) -> Iterator[Finding]:
    if facts.board.npu.driver == RKNPU and not facts.npu_load_readable:
        yield Finding(
            "npu-load",
            Level.WARNING,
            "How busy the NPU is can't be read: the kernel shows it in debugfs to root only.",
            "Install the package: its unit makes that readable for the service.",
        )


# ---- what runs on it


def runtime(facts: Facts) -> Iterator[Finding]:
    if facts.board.npu.driver != RKNPU:
        return
    usable = [found for found in facts.runtimes if found.problem is None and found.architecture == "aarch64"]
    for found in facts.runtimes:
        if found not in usable:
            why = found.problem or f"it is for {found.architecture or 'another kind of machine'}, not for aarch64"
            yield Finding(
                "runtime", Level.WARNING, f"{found.path} can't be used: {why.rstrip('.')}.", f"sudo rm {found.path}"
            )
    if usable:
        names = ", ".join(found.version or "of unknown version" for found in usable)
        unknown = any(found.version is None for found in usable)
        yield Finding(
            "runtime",
            Level.WARNING if unknown else Level.OK,
            f"Rockchip's runtime is installed: {names}.",
            f"rockfill runtime install {TRIED_RUNTIME}" if unknown else "",
        )
    else:
        yield Finding(
            "runtime",
            Level.PROBLEM,
            "Rockchip's runtime, librkllmrt.so, is not installed: nothing runs on the NPU.",
            f"rockfill runtime install {TRIED_RUNTIME}",
        )


def libgomp(facts: Facts) -> Iterator[Finding]:
    if facts.board.npu.driver == RKNPU and not facts.libgomp:
        yield Finding(
            "libgomp",
            Level.PROBLEM,
            "libgomp.so.1 is not installed, and Rockchip's runtime does not load without it.",
            "sudo apt install libgomp1",
        )


def model(facts: Facts) -> Iterator[Finding]:
    chosen = facts.model
    if chosen is None:
        yield Finding("model", Level.WARNING, "No model has been chosen yet.", "rockfill models use NAME")
        return
    for refuses, message, advice in chosen.misfits:
        level = Level.PROBLEM if refuses else Level.WARNING
        yield Finding("model", level, f"{chosen.name}: {message}", advice)
    if not chosen.misfits:
        yield Finding("model", Level.OK, f"The chosen model is {chosen.name}.")


def selftest(facts: Facts) -> Iterator[Finding]:
    chosen = facts.model
    if chosen is not None and chosen.engine == "rkllm" and not chosen.tested:
        yield Finding(
            "selftest",
            Level.WARNING,
            f"What {chosen.name} does on this board was not tested yet; it may read prompts in another order.",
            "rockfill selftest",
        )


def memory(facts: Facts) -> Iterator[Finding]:
    total, available = facts.board.ram_bytes, facts.ram_available_bytes
    if total is None or available is None:
        yield Finding("memory", Level.WARNING, "How much memory there is can't be read.")
        return
    size = facts.model.size_bytes if facts.model is not None else 0
    says = f"{available / GIB:.1f} of {total / GIB:.1f} GiB of memory are free"
    if size > total:
        name = facts.model.name if facts.model is not None else ""
        yield Finding(
            "memory", Level.PROBLEM, f"{says}, and {name} has {size / GIB:.1f} GiB.", "Choose a smaller variant."
        )
    elif available < 512 * MIB:
        yield Finding("memory", Level.WARNING, f"{says}.", "End what else runs on the board: ps aux --sort -rss | head")
    else:
        yield Finding("memory", Level.OK, f"{says}.")


def disk(facts: Facts) -> Iterator[Finding]:
    free = facts.disk_free_bytes
    if facts.state_problem is not None:
        yield Finding("disk", Level.PROBLEM, facts.state_problem, f"sudo chown -R {facts.account}: {facts.state_dir}")
    elif free is None:
        yield Finding("disk", Level.WARNING, f"How much room there is in {facts.state_dir} can't be read.")
    elif free < 5 * GIB:
        level = Level.PROBLEM if free < GIB // 2 else Level.WARNING
        says = f"{free / GIB:.1f} GiB are free where models are kept ({facts.state_dir}); one takes 2 to 8."
        yield Finding("disk", level, says, "rockfill models list, then rockfill models rm NAME")
    else:
        yield Finding("disk", Level.OK, f"{free / GIB:.0f} GiB are free where models are kept.")


# ---- clocks


def memory_clock(facts: Facts) -> Iterator[Finding]:
    if facts.board.npu.driver != RKNPU:
        return
    found = [clock for clock in facts.clocks if clock.kind is ClockDevice.DDR]
    if not found:
        yield Finding(
            "memory-clock",
            Level.WARNING,
            "This kernel does not scale the memory's clock: where it was left low, a model is up to 40 % slower.",
            "Install a boot loader and kernel of the board's vendor with DMC support.",
        )
    for clock in found:
        yield _parked("memory-clock", clock, facts, "the memory")


def governors(facts: Facts) -> Iterator[Finding]:
    if facts.board.npu.driver != RKNPU:
        return
    clocks = [clock for clock in facts.clocks if clock.kind in (ClockDevice.NPU, ClockDevice.CPU)]
    if not clocks:
        yield Finding("governors", Level.WARNING, "No clock of NPU and CPU can be set on this kernel.")
    barred = [clock for clock in clocks if _is_barred(clock, facts)]
    if barred:
        names = ", ".join(clock.name for clock in barred)
        yield Finding(
            "governors", Level.WARNING, f"The user {facts.account} may not raise the clocks of {names}.", GRANT
        )
    findings = [_parked("governors", clock, facts, clock.name) for clock in clocks if clock not in barred]
    bad = [finding for finding in findings if finding.level is not Level.OK]
    yield from bad
    if clocks and not bad and not barred:
        says = f"The clocks of NPU and CPU can be set; the policy is {facts.clock_policy}."
        yield Finding("governors", Level.OK, says)


def _is_barred(clock: ClockFacts, facts: Facts) -> bool:
    return not clock.writable and clock.governor != "performance" and facts.clock_policy is not ClockPolicy.OFF


def _parked(check: str, clock: ClockFacts, facts: Facts, name: str) -> Finding:
    if clock.max_hz is not None and clock.highest_hz is not None and clock.max_hz < clock.highest_hz:
        says = f"The clock of {name} is limited to {_mhz(clock.max_hz)} of {_mhz(clock.highest_hz)} MHz."
        return Finding(
            check, Level.WARNING, says, "rockfill stats tells whether it is the heat; else find who set its max_freq"
        )
    if clock.governor == "performance":
        return Finding(check, Level.OK, f"The clock of {name} is at its highest.")
    at = f"it stands at {_mhz(clock.current_hz)} of {_mhz(clock.highest_hz)} MHz"
    if facts.clock_policy is ClockPolicy.OFF:
        says = f"The clock of {name} is not raised while models work, and {at}."
        return Finding(check, Level.WARNING, says, "rockfill clocks set auto")
    if _is_barred(clock, facts):
        says = f"The user {facts.account} may not raise the clock of {name}; {at}."
        return Finding(check, Level.WARNING, says, GRANT)
    return Finding(check, Level.OK, f"The clock of {name} is raised while a model works.")


def _mhz(hertz: int | None) -> str:
    return "?" if hertz is None else f"{hertz / 1e6:.0f}"


# ---- the system


def open_files(facts: Facts) -> Iterator[Finding]:
    if facts.files_limit < MANY_FILES and has_npu(facts):
        level = Level.PROBLEM if facts.files_limit < FEW_FILES else Level.WARNING
        says = f"Only {facts.files_limit} files may be open, and each buffer on the NPU is one."
        yield Finding("open-files", level, says, "ulimit -n 65536, or LimitNOFILE= in the service's unit")
    elif facts.files_limit < 1024:
        yield Finding("open-files", Level.WARNING, f"Only {facts.files_limit} files may be open.", "ulimit -n 65536")
    else:
        yield Finding("open-files", Level.OK, f"{facts.files_limit} files may be open.")


def clock(facts: Facts) -> Iterator[Finding]:
    ahead_s = facts.hub.ahead_s if facts.hub is not None else None
    fix = "sudo timedatectl set-ntp true"
    if facts.now_s < facts.released_s - 86400:
        yield Finding("clock", Level.PROBLEM, "The clock is wrong: it stands before this release was made.", fix)
    elif ahead_s is not None and abs(ahead_s) > CLOCK_OFF_S:
        way = "ahead of" if ahead_s > 0 else "behind"
        says = f"The clock is {abs(ahead_s) / 60:.0f} minutes {way} the Hub's: secure connections fail."
        yield Finding("clock", Level.PROBLEM, says, fix)
    elif ahead_s is not None:
        yield Finding("clock", Level.OK, "The clock agrees with the Hub's.")


def hub(facts: Facts) -> Iterator[Finding]:
    if facts.hub is None:
        return
    if facts.hub.problem is None:
        yield Finding("hub", Level.OK, f"{facts.hub.endpoint} answers.")
        return
    says = f"{facts.hub.endpoint} can't be reached, so no model can be fetched: {facts.hub.problem}."
    yield Finding("hub", Level.WARNING, says, f"curl -sI {facts.hub.endpoint}; behind a proxy, set HTTPS_PROXY")


def port(facts: Facts) -> Iterator[Finding]:
    if facts.port_taken is not None:
        number = facts.port_taken.rpartition(":")[2]
        says = f"Another program listens on {facts.port_taken}."
        yield Finding("port", Level.PROBLEM, says, f"sudo ss -ltnp 'sport = :{number}'")


def sandbox(facts: Facts) -> Iterator[Finding]:
    for file, line in facts.weakened:
        says = f"{file} weakens the service's sandbox: {line}."
        yield Finding("sandbox", Level.WARNING, says, f"sudo rm {file} && sudo systemctl daemon-reload")


CHECKS: tuple[Check, ...] = (
    *(kernel, driver, device, npu_load, runtime, libgomp, model, selftest, memory, disk),
    *(memory_clock, governors, open_files, clock, hub, port, sandbox),
)
