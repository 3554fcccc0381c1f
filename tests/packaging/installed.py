"""The packages on a booted machine, as the people there use them."""

from __future__ import annotations

import contextlib
import http.client
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.appliance import Appliance

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.packaging.booted import Container
    from tests.packaging.machine import Machine

PATIENCE_S = 300.0
APT_S = 900.0

# In the place of a person: never a question, and on one about a conffile the answer that loses nothing. As a file for
# apt's configuration, and for a single call.
ANSWERS = 'APT::Get::Assume-Yes "true";\nDpkg::Options:: "--force-confold";\n'
APT = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", "-o", "Dpkg::Options::=--force-confold")


class Service(Appliance):
    """The service ``rockfill`` of a machine, asked over the network as from another one."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(Path("/var/lib/rockfill"))
        self.machine = machine
        self.port = 8012
        self.url = machine.origin(self.port)
        self.said = ""  # by apt, when it was installed
        self.found: set[str] = set()  # on the disk, before

    @property
    def token(self) -> str:
        return self.sh("cat", str(self.state_dir / "token")).strip()

    def apt(self, *arguments: str, online: bool = False) -> str:
        """apt-get, to its end; what it said."""
        return self.sh(*APT, *arguments, online=online, within_s=APT_S)

    def sh(self, *command: str, online: bool = False, within_s: float = PATIENCE_S) -> str:
        """A command that has to succeed; what it said."""
        done = self.machine.run(*command, online=online, within_s=within_s)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout + done.stderr

    def in_folder(self, command: str, *, online: bool = False) -> str:
        """What somebody types into a shell, where the packages are."""
        return self.sh("sh", "-c", f"cd /folder && {command}", online=online, within_s=APT_S)

    def tells(self, name: str) -> str:
        return self.machine.property("rockfill", name)

    def journal(self) -> str:
        return self.sh("journalctl", "--unit=rockfill", "--output=cat", "--no-pager")

    def restart(self) -> None:
        self.sh("systemctl", "reset-failed", "rockfill")
        self.sh("systemctl", "restart", "rockfill")

    def ready(self) -> None:
        """Wait for the model, as whoever just installed it would."""

        def answers() -> bool:
            with contextlib.suppress(OSError, http.client.HTTPException):
                return self.request("GET", "/ready", token=None).status == 200
            return False

        self.until(answers, "the model is not ready")

    def until(self, true: Callable[[], bool], what: str) -> None:
        """Wait for something, and fail the test by saying `what` never came."""
        deadline = time.monotonic() + PATIENCE_S * self.machine.slowness
        while not true():
            assert time.monotonic() < deadline, what
            time.sleep(0.05 * self.machine.slowness)


class Installed(Service):
    """The same in a container, where the host sees the machine's files."""

    machine: Container

    def __init__(self, machine: Container) -> None:
        super().__init__(machine)


def paths_on(machine: Machine, but: Sequence[str]) -> set[str]:
    """Every path of the machine's own disk, except below those in `but`."""
    skipped = [part for path in but for part in ("-path", path, "-prune", "-o")]
    return set(machine.run("find", "/", "-xdev", *skipped, "-print").stdout.splitlines())
