"""The arm64 packages in an emulated arm64 machine, as people install and use them: `make test-deb-vm`.

The name keeps it out of ``make test``, since everything takes some twenty times longer here. It is what a container is
not: arm64, a kernel of its own, with every cgroup controller. The tests are those of the container, as far as they look
at the machine through its shell and its network only.

The machine's disk is in memory and is lost with it: the kernel unpacks the root file system and starts systemd on it.
"""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.appliance import free_port
from tests.not_run import not_run
from tests.packaging import arm64, readme
from tests.packaging.installed import ANSWERS, Service, paths_on
from tests.packaging.machine import CLEAN, COMMAND_S, Machine
from tests.packaging.packages import BUILD_S, built

# The tests of the container that hold here as well.
from tests.packaging.test_installed import (  # noqa: F401 - pytest finds them
    THEIRS,
    test_a_killed_daemon_takes_its_worker_along_and_comes_back,
    test_a_killed_worker_is_replaced_and_the_daemon_stays,
    test_it_completes_code_as_a_user_of_its_own,
    test_status_and_journal_say_what_runs_and_not_the_token,
    test_the_sandbox_is_tight,
    test_the_token_is_for_root_and_the_service_only,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

WHAT = "arm64 machine"
TOOLS = {
    "qemu-system-aarch64": "qemu-system-arm",
    "cpio": "cpio",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}
SLOWNESS = 20.0
BOOT_S, TESTS_S = 1800.0, 7200.0
MEMORY_MIB = 4096

pytestmark = pytest.mark.timeout(arm64.MAKE_S + BUILD_S + BOOT_S + TESTS_S)

# Where qemu's own network has a machine that did not ask.
ADDRESS = "10.0.2.15"
SHELL_PORT = 22
NETWORK = f"[Match]\nType=ether\n[Network]\nAddress={ADDRESS}/24\n"

# What a worker may take is for real machines.
CONFIG = """\
[server]
listen = "0.0.0.0:8012"
[engine]
hello_timeout_s = 600
load_timeout_s = 600
accepted_timeout_s = 120
pong_timeout_s = 120
"""


class VirtualMachine(Machine):
    """`run` is a shell over ssh, on one connection that is kept."""

    slowness = SLOWNESS

    def __init__(self, qemu: subprocess.Popen[bytes], console: Path, ports: dict[int, int], key: Path) -> None:
        """`ports` are the machine's, and which of the host's lead to them."""
        self._qemu = qemu
        self._ports = ports
        options = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "ControlMaster": "auto",
            "ControlPersist": "yes",
            "ControlPath": str(key.with_suffix(".control")),
            "LogLevel": "ERROR",
            "IdentityFile": str(key),
            "Port": str(ports[SHELL_PORT]),
        }
        self._ssh = ["ssh", "-F", "none", *(f"-o{name}={value}" for name, value in options.items()), "root@127.0.0.1"]
        deadline = time.monotonic() + BOOT_S
        while not self.is_up():
            told = console.read_text(errors="replace")[-3000:]
            assert qemu.poll() is None, told
            assert time.monotonic() < deadline, told
            time.sleep(2)

    def run(
        self, *command: str, stdin: str = "", within_s: float = COMMAND_S, online: bool = False
    ) -> subprocess.CompletedProcess[str]:
        assert not online, "nothing is reached from there"
        return subprocess.run(
            [*self._ssh, shlex.join([*CLEAN, *command])],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=within_s * self.slowness,
            check=False,
        )

    def origin(self, port: int) -> str:
        return f"http://127.0.0.1:{self._ports[port]}"

    def leave(self) -> None:
        """End the connection that `run` keeps."""
        subprocess.run([*self._ssh, "-O", "exit"], capture_output=True, check=False)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualMachine]:
    """A booted one, with the packages in /folder."""
    arm64.require(WHAT, TOOLS)
    if psutil.virtual_memory().available < 1.5 * MEMORY_MIB * 2**20:
        not_run(WHAT, f"it needs {1.5 * MEMORY_MIB / 1024:.0f} GiB of free memory")
    root = arm64.root(WHAT)
    (kernel,) = (root / "boot").glob("vmlinuz-*")
    folder = tmp_path_factory.mktemp("machine")
    # A socket's path may not be long, and whose key it is matters to ssh.
    with tempfile.TemporaryDirectory(prefix="rockfill-vm-") as private:
        key = Path(private) / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        system = folder / "system"
        shutil.copyfile(_packed(root), system)
        _pack(_added(folder / "added", key.with_suffix(".pub").read_text()), system)
        ports = {SHELL_PORT: free_port(), 8012: free_port()}
        forwarded = "".join(f",hostfwd=tcp:127.0.0.1:{ours}-{ADDRESS}:{its}" for its, ours in ports.items())
        command = ["qemu-system-aarch64", "-machine", "virt", "-cpu", "cortex-a76", "-smp", "2"]
        command += ["-accel", "tcg,thread=multi", "-m", str(MEMORY_MIB), "-nodefaults", "-display", "none"]
        command += ["-kernel", str(kernel), "-initrd", str(system), "-serial", f"file:{folder / 'console'}"]
        command += ["-append", "console=ttyAMA0 panic=-1 rdinit=/sbin/init", "-no-reboot"]
        command += ["-netdev", f"user,id=net,restrict=on{forwarded}", "-device", "virtio-net-pci,netdev=net,romfile="]
        command += ["-device", "virtio-rng-pci"]
        (folder / "console").touch()
        with (folder / "console").open("ab") as console:
            qemu = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=console, stderr=console)
        try:
            machine = VirtualMachine(qemu, folder / "console", ports, key)
            try:
                yield machine
            finally:
                machine.leave()
        finally:
            qemu.terminate()
            qemu.wait()
            system.unlink()


def _pack(folder: Path, archive: Path) -> None:
    """Add what is in `folder` to `archive`, which the kernel unpacks from beginning to end."""
    found = subprocess.run(["find", ".", "-xdev", "-print0"], cwd=folder, capture_output=True, check=True).stdout
    pack = ["cpio", "--null", "--create", "--format=newc", "--quiet"]
    with archive.open("ab") as opened:
        subprocess.run(pack, cwd=folder, input=found, stdout=opened, check=True)


def _packed(root: Path) -> Path:
    """The root file system, packed once."""
    packed = root.with_suffix(".cpio")
    if not packed.exists():
        unfinished = root.with_suffix(".cpio.new")
        unfinished.unlink(missing_ok=True)
        _pack(root, unfinished)
        unfinished.rename(packed)
    return packed


def _added(folder: Path, public_key: str) -> Path:
    """What this machine has and others have not."""
    files = {
        "etc/apt/apt.conf.d/99answers": ANSWERS,
        "etc/hostname": "rock5\n",
        "etc/hosts": "127.0.0.1 localhost rock5\n",
        "etc/machine-id": f"{uuid.uuid4().hex}\n",
        "etc/rockfill/config.toml": CONFIG,
        "etc/systemd/network/vm.network": NETWORK,
        "root/.ssh/authorized_keys": public_key,
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "root").chmod(0o700)
    wanted = folder / "etc/systemd/system/multi-user.target.wants"
    wanted.mkdir(parents=True)
    (wanted / "systemd-networkd.service").symlink_to("/usr/lib/systemd/system/systemd-networkd.service")
    (folder / "folder").mkdir()
    for package in built("arm64").values():
        shutil.copy(package, folder / "folder")
    return folder


@pytest.fixture(scope="module")
def installed(machine: VirtualMachine) -> Service:
    """With what the README says."""
    service = Service(machine)
    service.found = paths_on(machine, THEIRS)
    assert service.sh("dpkg", "--print-architecture").strip() == "arm64"
    service.said = service.in_folder(readme.blocks("Install")[0][0])
    return service


def test_memory_runs_out_in_the_worker_and_the_daemon_lives_to_say_so(installed: Service) -> None:
    """The kernel's choice, where a container can't limit memory: what OOMScoreAdjust and OOMPolicy are for."""
    installed.ready()
    daemon, before = installed.tells("MainPID"), installed.journal().count("SIGKILL")
    group = f"/sys/fs/cgroup{installed.tells('ControlGroup')}"
    installed.sh("rockfill", "engine", "unload")
    installed.until(lambda: installed.command("engine.get")["state"] == "stopped", "it is not unloaded")
    told = re.search(r"(?m)^anon (\d+)$", installed.sh("cat", f"{group}/memory.stat"))
    assert told is not None
    limit = int(told[1]) + 16 * 2**20  # less than a worker's Python takes
    installed.sh("systemctl", "set-property", "--runtime", "rockfill", f"MemoryMax={limit}")
    try:
        assert installed.sh("cat", f"{group}/memory.max").strip() == str(limit // 4096 * 4096)
        answer = installed.request("POST", "/v1/completions", {"prompt": "def f():\n", "max_tokens": 4})
        error = answer.json()["error"]
        assert (error["code"], error["detail"]["exit_status"]) == ("engine_crashed", -signal.SIGKILL)
        assert "ran out of memory" in answer.body.decode()
        killed = re.search(r"(?m)^oom_kill (\d+)$", installed.sh("cat", f"{group}/memory.events"))
        assert killed is not None
        assert int(killed[1]) > 0
        assert installed.tells("MainPID") == daemon
        assert installed.tells("ActiveState") == "active"
        assert installed.journal().count("SIGKILL") > before
    finally:
        installed.sh("systemctl", "set-property", "--runtime", "rockfill", "MemoryMax=infinity")
    installed.sh("rockfill", "engine", "restart")
    installed.ready()
    assert installed.complete("def f():\n")["choices"]


def test_a_restart_keeps_the_token(installed: Service) -> None:
    token, daemon = installed.token, installed.tells("MainPID")
    installed.sh("systemctl", "restart", "rockfill")
    installed.ready()
    assert installed.tells("MainPID") != daemon
    assert installed.token == token
    assert (installed.tells("Result"), installed.tells("NRestarts")) == ("success", "0")


def test_removed_it_keeps_the_token_and_purged_it_leaves_nothing(installed: Service) -> None:
    installed.apt("remove", "rockfill", "rockfill-cpu")
    assert installed.tells("LoadState") == "not-found"
    with pytest.raises(OSError, match=r"refused|reset|closed"):
        installed.request("GET", "/health", token=None)
    assert installed.token
    said = installed.apt("purge", "rockfill", "rockfill-cpu")
    assert re.search(r"models, settings and cache are removed: [\d.]+[KMG]? freed", said), said
    for database in ("passwd", "group"):
        assert installed.machine.run("getent", database, "rockfill").returncode != 0
    # What was there before, in place of a conffile, is a conffile.
    config = {"/etc/rockfill", "/etc/rockfill/config.toml"}
    after = paths_on(installed.machine, THEIRS)
    assert after - installed.found == set()
    assert {path for path in installed.found - after if "rockfill" in path} == config
