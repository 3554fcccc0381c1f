"""What the composition root decides by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from rockfill.app import _load
from rockfill.errors import Code, Problem
from rockfill.snapshots import EngineSnapshot, Phase, Target
from rockfill.store.models import DEFAULT_MODEL, ModelStore

if TYPE_CHECKING:
    from rockfill.engine.supervisor import Supervisor

ON_NPU = Target("big", "rkllm", "/big.rkllm", None)
PICKED = Target("picked", "rkllm", "/picked.rkllm", None)
BUNDLED = Target(DEFAULT_MODEL, "llama", "/tiny.gguf", None)


class Refusing:
    """Loads nothing that the NPU runs; meanwhile somebody may choose another model."""

    snapshot = EngineSnapshot(Phase.STOPPED)

    def __init__(self, models: ModelStore, code: Code, picked: Target | None) -> None:
        self._models, self._code, self._picked = models, code, picked
        self.asked: list[Target] = []

    async def ensure_ready(self, target: Target) -> None:
        self.asked.append(target)
        if self._picked is not None:
            self._models.choose(self._picked)
        if target.engine == "rkllm":
            raise Problem(self._code, "No.")


@pytest.mark.parametrize(
    ("code", "picked", "chosen"),
    [
        (Code.RUNTIME_MISSING, None, BUNDLED),
        (Code.RUNTIME_MISSING, PICKED, PICKED),
        (Code.ENGINE_STOPPED, PICKED, PICKED),  # replaced
        (Code.ENGINE_STOPPED, None, ON_NPU),  # unloaded, or paused
    ],
)
async def test_the_bundled_model_stands_in_for_what_cannot_run_and_for_nothing_else(
    code: Code, picked: Target | None, chosen: Target
) -> None:
    models = ModelStore([])
    for target in (BUNDLED, ON_NPU):
        models.choose(target)
    supervisor = Refusing(models, code, picked)
    await _load(cast("Supervisor", supervisor), models, lambda line: None, paused=lambda: False)
    assert models.chosen == chosen
    assert supervisor.asked == ([ON_NPU, BUNDLED] if chosen == BUNDLED else [ON_NPU])
    assert (models.instead_of is not None) == (chosen == BUNDLED)


@pytest.mark.parametrize("paused_after", [0, 1])
async def test_nothing_more_is_loaded_once_the_engine_is_paused(paused_after: int) -> None:
    models = ModelStore([])
    for target in (BUNDLED, ON_NPU):
        models.choose(target)
    supervisor = Refusing(models, Code.RUNTIME_MISSING, None)

    def paused() -> bool:
        return len(supervisor.asked) >= paused_after

    await _load(cast("Supervisor", supervisor), models, lambda line: None, paused=paused)
    assert supervisor.asked == [ON_NPU][:paused_after]
