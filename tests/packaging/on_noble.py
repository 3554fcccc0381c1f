"""The tests of the installed packages once more, on Ubuntu 24.04. The name keeps it out of ``make test``.

CI's machines reach no archive of Ubuntu's. mmdebstrap knows where it is, and its keys are in Debian's package
ubuntu-archive-keyring.
"""

from __future__ import annotations

import pytest

from tests.packaging.test_installed import *  # noqa: F403 - all of its tests, with the machine that this module says
from tests.packaging.test_installed import INSTALL, from_a_repository

INSTALL["noble"] = from_a_repository


@pytest.fixture(scope="module")  # type: ignore[no-redef] # that is the point
def suite() -> str:
    return "noble"
