"""What every command answers that can be asked for without changing anything, as it stands in ``golden/commands.json``.

``WRITE_GOLDEN=1 pytest tests/protocol/test_commands.py`` writes it anew. It has the names of all fields; their values
are the machine's.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rockfill.access.tokens import Scope
from rockfill.api.commands.all import COMMANDS
from rockfill.api.schema import schema

if TYPE_CHECKING:
    from rockfill.api.commands.table import Command
    from tests.appliance import ScriptedAppliance

GOLDEN = Path(__file__).with_name("golden") / "commands.json"

# They only tell, though not everybody.
HARMLESS = {"config.get", "tokens.list", "engine.logs"}
# These ask the network, take long, or depend on the machine.
LEFT_OUT = {"models.verify", "doctor.run", "models.variants"}
LEFT_OUT |= {"stats.get", "stats.history", "board.get", "clocks.get", "runtimes.list", "models.catalogue"}
ASKED = [
    command
    for command in COMMANDS
    if (command.scope in (Scope.READ, None) or command.type in HARMLESS)
    and not command.needs_connection
    and command.type not in LEFT_OUT
    and "required" not in schema(command.parameters)
]


def shape(value: Any) -> Any:
    """The fields of `value`; of a list, those of its first entry."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value and isinstance(value[0], dict | list) else []
    return "…"


def golden() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    return found


@pytest.mark.parametrize("command", ASKED, ids=lambda command: command.type)
def test_the_answer_has_the_fields_of_the_golden_one(speaking: ScriptedAppliance, command: Command) -> None:
    told = shape(speaking.command(command.type))
    known = golden()
    if os.environ.get("WRITE_GOLDEN"):
        known[command.type] = told
        GOLDEN.write_text(json.dumps(dict(sorted(known.items())), indent=1, ensure_ascii=False) + "\n")
    assert told == known.get(command.type), "WRITE_GOLDEN=1 pytest tests/protocol/test_commands.py"


def test_nothing_golden_is_left_over() -> None:
    assert set(golden()) == {command.type for command in ASKED}
