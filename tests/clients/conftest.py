from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.appliance import Appliance

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """One daemon with the CPU engine and the bundled model, for tests that leave it as it was."""
    started = Appliance(tmp_path_factory.mktemp("running") / "state")
    started.start()
    yield started
    started.stop()
