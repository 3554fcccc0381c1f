"""The packages on a booted machine, as the people there use them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.appliance import Appliance

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.packaging.booted import Machine

PATIENCE_S = 90.0
APT_S = 300.0

# As in a script: never a question, and on a question about a conffile the answer that loses nothing.
APT = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", "-o", "Dpkg::Options::=--force-confold")


class Installed(Appliance):
    """The service ``rockfill``, asked over the network as from another machine."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(Path("/var/lib/rockfill"))
        self.machine = machine
        self.port = 8012
        self.url = f"http://{machine.address}:{self.port}"
        self.said = ""  # by apt, when it was installed
        self.found: set[str] = set()  # on the disk, before

    @property
    def token(self) -> str:
        return self.machine.path("/var/lib/rockfill/token").read_text().strip()

    def apt(self, *arguments: str, online: bool = False) -> str:
        """apt-get, to its end; what it said."""
        return self.sh(*APT, *arguments, online=online, within_s=APT_S)

    def sh(self, *command: str, online: bool = False, within_s: float = PATIENCE_S) -> str:
        """A command that has to succeed; what it said."""
        done = self.machine.run(*command, online=online, within_s=within_s)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout + done.stderr

    def tells(self, name: str) -> str:
        return self.machine.property("rockfill", name)

    def journal(self) -> str:
        return self.sh("journalctl", "--unit=rockfill", "--output=cat", "--no-pager")

    def restart(self) -> None:
        self.sh("systemctl", "reset-failed", "rockfill")
        self.sh("systemctl", "restart", "rockfill")


def until(true: Callable[[], bool], what: str, within_s: float = PATIENCE_S) -> None:
    """Wait for something, and fail the test by saying `what` never came."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def paths_on(machine: Machine, but: Sequence[str]) -> set[str]:
    """Every path of the machine's own disk, except below those in `but`."""
    skipped = [part for path in but for part in ("-path", path, "-prune", "-o")]
    return set(machine.run("find", "/", "-xdev", *skipped, "-print").stdout.splitlines())
