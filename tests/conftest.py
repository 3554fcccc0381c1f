"""The ground rules of every test.

`leaks.py` says what no test may leave behind, `not_run.py` how what could not be tested is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.appliance import Appliance, ScriptedAppliance

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest_plugins = ["tests.leaks", "tests.not_run", "pytester"]

# The rest have the limit of pyproject.toml.
QUICK_FOLDERS = {"unit", "protocol"}
QUICK_TIMEOUT_S = 10


def pytest_itemcollected(item: pytest.Item) -> None:
    quick = QUICK_FOLDERS & set(item.path.relative_to(item.config.rootpath).parts)
    if quick and item.get_closest_marker("timeout") is None:
        item.add_marker(pytest.mark.timeout(QUICK_TIMEOUT_S))


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
