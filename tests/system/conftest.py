from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.appliance import ScriptedAppliance

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def scripted_for_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedAppliance]:
    """One scripted daemon for tests that leave it as it was."""
    running = ScriptedAppliance(tmp_path_factory.mktemp("scripted") / "state")
    running.start()
    yield running
    running.stop()
