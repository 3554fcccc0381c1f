from __future__ import annotations

from typing import TYPE_CHECKING

import psutil
import pytest

from tests.engines import Script

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def own_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where psutil looks is told to the whole process; no test leaves that to another one."""
    monkeypatch.setattr(psutil, "PROCFS_PATH", psutil.PROCFS_PATH)


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """A scripted model; it repeats the last line of the prompt until told otherwise."""
    return Script(tmp_path / "script.json")
