"""A machine with a real systemd, booted in a container beside the checkout. Needs root, and cgroup v2.

The root file system is Debian's, made once and kept in ``.cache/``; what a machine writes to it outlasts a reboot and
is gone with the machine. The checkout is at /checkout, the packages of the running interpreter at /packages. Of those,
what is compiled for another Python is passed over for its pure half, as in the Debian package. The network is the
host's, or one of the machine's own with the host as its only neighbour.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tests.appliance import ROOT
from tests.not_run import not_run
from tests.packaging.machine import CLEAN, COMMAND_S, Machine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TRIXIE = "trixie"
# Beside systemd and Python, what a board's image has anyway and people use in its shell.
PACKAGES = ("systemd", "systemd-sysv", "dbus", "python3", "udev", "ca-certificates", "curl", "procps", "sudo")
TOOLS = ("systemd-nspawn", "mmdebstrap", "unshare", "nsenter", "ip")
MAKE_S, BOOT_S, END_S = 1200.0, 300.0, 120.0  # far more than a machine takes that does nothing else

ENVIRONMENT = {
    "PYTHONPATH": "/checkout/daemon:/checkout:/packages",
    "PYTHONDONTWRITEBYTECODE": "1",
    **{f"{name}_NO_EXTENSIONS": "1" for name in ("AIOHTTP", "MULTIDICT", "YARL", "FROZENLIST", "PROPCACHE")},
}

# The host's PID 1 may be anything, so nothing is registered with it, and its cgroups may be of the first version, so
# that the container gets a tree of its own of the second one in a mount namespace of its own. The groups that it made
# outlast it there and are removed. Its disk is in memory and in that namespace too; 133 is how nspawn says "reboot".
BOOT = """
set -e
umount -R /sys/fs/cgroup && mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
group=/sys/fs/cgroup/nspawn-$1 root=$2 disk=$3
shift 3
mount -t tmpfs -o mode=755 tmpfs $disk
mkdir $disk/upper $disk/work $disk/root
mount -t overlay -o lowerdir=$root,upperdir=$disk/upper,workdir=$disk/work overlay $disk/root
status=133
while [ $status = 133 ]
do
    mkdir -p $group
    status=0
    sh -c 'echo $$ > "$0"/cgroup.procs && exec "$@"' $group "$@" --directory=$disk/root || status=$?
    find $group -depth -type d -exec rmdir {} +
done
exit $status
"""


class Container(Machine):
    """A booted machine; `run` is a shell in it."""

    def __init__(self, container: subprocess.Popen[bytes], console: Path, address: str | None) -> None:
        """`address` is what it has in its own network, None in the host's."""
        self._container = container
        self._console = console
        self.address = address
        self._leader = 0
        self._come_up()

    def run(
        self, *command: str, stdin: str = "", within_s: float = COMMAND_S, online: bool = False
    ) -> subprocess.CompletedProcess[str]:
        enter = ["nsenter", "-t", str(self._leader), "-m", "-u", "-i", "-p", "-C", "-r", "-w"]
        return subprocess.run(
            [*enter, *([] if online else ["-n"]), "--", *CLEAN, *command],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )

    def origin(self, port: int) -> str:
        return f"http://{self.address or '127.0.0.1'}:{port}"

    def path(self, inside: str) -> Path:
        """Where the host finds a file of the machine's."""
        return Path(f"/proc/{self._leader}/root{inside}")

    def reboot(self) -> None:
        """``systemctl reboot``, and wait until it is up again."""
        before = self._leader
        self.run("systemctl", "reboot")
        deadline = time.monotonic() + BOOT_S
        while psutil.pid_exists(before):
            assert time.monotonic() < deadline, "it does not go down"
            time.sleep(0.05)
        self._come_up()

    def _come_up(self) -> None:
        self._leader = _leader(self._container, self._console)
        if self.address is not None:
            self._connect()
        deadline = time.monotonic() + BOOT_S
        while not self.is_up():
            assert time.monotonic() < deadline, self.run("systemctl", "list-jobs").stdout
            time.sleep(0.05)

    def _connect(self) -> None:
        """A wire between the host and the machine, with an address at each end."""
        host, ours = f"rf{self._leader}", ("nsenter", "-t", str(self._leader), "-n", "ip")
        first, _, last = str(self.address).rpartition(".")
        peer = f"{first}.{int(last) - 1}"
        for command in (
            ("ip", "link", "add", host, "type", "veth", "peer", "name", "host0", "netns", str(self._leader)),
            ("ip", "address", "add", f"{peer}/30", "dev", host),
            ("ip", "link", "set", host, "up"),
            (*ours, "address", "add", f"{self.address}/30", "dev", "host0"),
            (*ours, "link", "set", "host0", "up"),
        ):
            subprocess.run(command, check=True, capture_output=True)


@contextlib.contextmanager
def booted(folder: Path, suite: str = TRIXIE, *, own_network: bool = False) -> Iterator[Container]:
    """A machine with `folder` at /folder. Ends the test as not run where the host can't boot one."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if os.geteuid() != 0 or missing:
        not_run("systemd", f"{', '.join(missing)} missing" if missing else "only root may boot a container")
    root, name = root_of(suite), f"rockfill-{os.getpid()}"
    nspawn = ["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe"]
    nspawn += ["--machine", name, "--resolv-conf=copy-host", *(["--private-network"] if own_network else [])]
    packages = sysconfig.get_path("platlib")
    nspawn += [f"--bind-ro={ROOT}:/checkout", f"--bind-ro={packages}:/packages", f"--bind={folder}:/folder"]
    # Two neighbours for each test process, of the addresses that are kept for documentation.
    address = f"192.0.2.{os.getpid() % 64 * 4 + 2}" if own_network else None
    with tempfile.TemporaryDirectory(prefix="rockfill-disk-") as disk, (folder / "console").open("wb") as console:
        # The console is a file, as nobody reads along.
        container = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", BOOT, "sh", name, str(root), disk, *nspawn],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
        )
        try:
            yield Container(container, folder / "console", address)
        finally:
            _end(container)


def _end(container: subprocess.Popen[bytes]) -> None:
    for process in psutil.Process(container.pid).children(recursive=True):
        if process.name() == "systemd-nspawn":
            process.terminate()  # which powers the machine off
    try:
        container.wait(END_S)
    except subprocess.TimeoutExpired:
        for process in psutil.Process(container.pid).children(recursive=True):
            if process.name() == "systemd-nspawn":
                process.kill()
        container.wait(END_S)


def root_of(suite: str) -> Path:
    """The root file system that is booted."""
    return made_once("systemd" if suite == TRIXIE else suite, suite, PACKAGES, within_s=MAKE_S)


def made_once(what: str, suite: str, packages: Sequence[str], options: Sequence[str] = (), *, within_s: float) -> Path:
    """A root file system, made if this checkout has none of these packages and `options` of mmdebstrap's yet.

    Ends the test `what` as not run where it can't be made.
    """
    digest = hashlib.sha256(" ".join((suite, *packages, *options)).encode()).hexdigest()[:8]
    root = ROOT / ".cache" / f"root-{suite}-{digest}"
    if not root.exists():
        root.parent.mkdir(exist_ok=True)
        unfinished = root.with_suffix(".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(packages)}", *options, suite]
        made = subprocess.run(
            [*command, str(unfinished)], capture_output=True, text=True, timeout=within_s, check=False
        )
        if made.returncode != 0:
            shutil.rmtree(unfinished, ignore_errors=True)
            # The first error tells of the cause, the last one that there was one.
            errors = [line for line in made.stderr.splitlines() if line.startswith("E: ")]
            not_run(what, f"mmdebstrap failed: {errors[0] if errors else _last_line(made.stderr)}")
        unfinished.rename(root)
    return root


def _leader(container: subprocess.Popen[bytes], console: Path) -> int:  # noqa: RET503 - not_run never returns
    """The machine's PID 1 as the host numbers it, once it runs systemd."""
    deadline = time.monotonic() + BOOT_S
    while time.monotonic() < deadline and container.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(container.pid).children(recursive=True):
                parent = process.parent()
                if process.name() == "systemd" and parent is not None and parent.name() == "systemd-nspawn":
                    return process.pid
        time.sleep(0.02)
    container.kill()
    container.wait()
    not_run("systemd", f"the host can't boot a container: {_last_line(console.read_text(errors='replace'))}")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]


def unit(command: Sequence[str], **settings: str) -> str:
    """A minimal service that runs `command` with the checkout's packages."""
    lines = {"Type": "notify", "ExecStart": " ".join(command), **settings}
    environment = " ".join(f"{name}={value}" for name, value in ENVIRONMENT.items())
    return (
        "[Service]\n" + "".join(f"{name}={value}\n" for name, value in lines.items()) + f"Environment={environment}\n"
    )
