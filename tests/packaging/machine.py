"""A machine that tests install packages on and type commands into, whatever it is made of."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

COMMAND_S = 300.0

# What a command finds in its environment, and nothing of the host's.
CLEAN = ("env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "SYSTEMD_COLORS=0")

UP = ("running", "degraded")  # the second one lacks hardware, and is good enough


class Machine(abc.ABC):
    """A booted machine with systemd. `slowness` is by what every patience with it is multiplied."""

    slowness = 1.0

    @abc.abstractmethod
    def run(
        self, *command: str, stdin: str = "", within_s: float = COMMAND_S, online: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """One command to its end, as root, with nothing of the host's environment.

        `online` gives it a network in which there are package archives, for apt.
        """

    @abc.abstractmethod
    def origin(self, port: int) -> str:
        """Where the host reaches a port of the machine's: ``http://…``."""

    def property(self, unit: str, name: str) -> str:
        """What ``systemctl show`` tells of a unit."""
        return self.run("systemctl", "show", "--value", "--property", name, unit).stdout.strip()

    def is_up(self) -> bool:
        """Whether everything that starts at boot has started."""
        return self.run("systemctl", "is-system-running").stdout.strip() in UP

    def add_unit(self, name: str, text: str) -> None:
        """Put a unit where it is lost with the machine."""
        written = self.run("tee", f"/run/systemd/system/{name}", stdin=text)
        assert written.returncode == 0, written.stderr
        assert self.run("systemctl", "daemon-reload").returncode == 0
