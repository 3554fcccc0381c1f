from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.appliance import ScriptedAppliance

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def speaking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedAppliance]:
    """A daemon whose engine says ``a + b``, in one token: so every stream has one piece."""
    running = ScriptedAppliance(tmp_path_factory.mktemp("speaking") / "state")
    running.script(text="a + b", tokens=1)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def held(tmp_path: Path) -> Path:
    """A file that is there until the test removes it: for what a script ``holds`` meanwhile (`fakes/worker.py`)."""
    path = tmp_path / "held"
    path.touch()
    return path
