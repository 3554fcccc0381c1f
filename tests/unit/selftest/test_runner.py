from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from rockfill.errors import Code, Problem
from rockfill.selftest.runner import SelfTest
from rockfill.snapshots import EngineSnapshot, Phase, Target

if TYPE_CHECKING:
    from rockfill.engine.supervisor import Supervisor


class UnloadedAtOnce:
    """Loads the model, and unloads it again before whoever waited for that has a look."""

    snapshot = EngineSnapshot(Phase.STOPPING)

    async def ensure_ready(self, target: Target) -> None:
        pass


async def test_a_model_that_is_unloaded_as_soon_as_it_is_there_is_a_problem_and_no_defect() -> None:
    with pytest.raises(Problem) as caught:
        await SelfTest(cast("Supervisor", UnloadedAtOnce())).run(Target("m", "fake", "/m", None))
    assert caught.value.code is Code.ENGINE_STOPPED
