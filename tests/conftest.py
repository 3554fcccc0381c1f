"""The ground rules of every test, and the appliance that tests drive.

`leaks.py` says what no test may leave behind, `limits.py` how long it may take, `not_run.py` how what could not be
tested is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.appliance import Appliance, ScriptedAppliance

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest_plugins = ["tests.leaks", "tests.limits", "tests.not_run", "tests.hub", "pytester"]


@pytest.fixture
def appliance(tmp_path: Path) -> Iterator[Appliance]:
    """A daemon with the CPU engine and the bundled model, running."""
    running = Appliance(tmp_path / "state")
    running.start()
    yield running
    running.stop()


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[ScriptedAppliance]:
    """A daemon whose engine does as it is told, running."""
    running = ScriptedAppliance(tmp_path / "state")
    running.start()
    yield running
    running.stop()
