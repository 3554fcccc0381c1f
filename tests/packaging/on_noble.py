"""The tests of the installed packages once more, on Ubuntu 24.04. The name keeps it out of ``make test``.

mmdebstrap knows where Ubuntu's archive is, but trusts only keys that are here, and not every Debian has them packaged.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.not_run import not_run
from tests.packaging.test_installed import *  # noqa: F403 - all of its tests, with the machine that this module says
from tests.packaging.test_installed import INSTALL, from_a_repository

KEYS = Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg")

INSTALL["noble"] = from_a_repository

if not KEYS.exists():
    not_run("noble", f"Ubuntu's keys are not here: {KEYS} of the package ubuntu-keyring or ubuntu-archive-keyring")


@pytest.fixture(scope="module")  # type: ignore[no-redef] # that is the point
def suite() -> str:
    return "noble"
