from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.engines import Script

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """A scripted model; it repeats the last line of the prompt until told otherwise."""
    return Script(tmp_path / "script.json")
