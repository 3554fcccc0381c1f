"""What piuparts says of installation, removal and purge. The name keeps it out of ``make test``: it takes minutes.

tests/packaging/test_installed.py looks for what is left after a purge as well, in a booted system.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.not_run import not_run
from tests.packaging.booted import MAKE_S, root_of
from tests.packaging.packages import BUILD_S, built, native

if TYPE_CHECKING:
    from pathlib import Path

PIUPARTS_S = 1200.0

# Not ours: what debconf and the tools for passwords leave behind in a chroot. Directories end in a slash there.
THEIRS = (
    "/var/cache/debconf/tmp.ci/",
    "/etc/.pwd.lock",
    "/etc/passwd-",
    "/etc/group-",
    "/etc/shadow-",
    "/etc/gshadow-",
)


@pytest.mark.timeout(MAKE_S + BUILD_S + PIUPARTS_S)
@pytest.mark.parametrize("suite", ["trixie", "bookworm"])
def test_piuparts_finds_nothing(suite: str, tmp_path: Path) -> None:
    if shutil.which("piuparts") is None:
        not_run("piuparts", "it is not installed")
    if os.geteuid() != 0:
        not_run("piuparts", "only root may")
    ignored = [option for path in THEIRS for option in ("-i", path)]
    where = ["-d", suite, "-e", str(root_of(suite)), "--keep-sources-list", "--tmpdir", str(tmp_path)]
    packages = [str(package) for package in built(native()).values()]
    done = subprocess.run(
        ["piuparts", *where, *ignored, *packages], capture_output=True, text=True, timeout=PIUPARTS_S, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert "PASS: All tests" in done.stdout
