from __future__ import annotations

from tests import state_diagram


def test_the_diagram_in_the_architecture_is_that_of_the_machine() -> None:
    assert state_diagram.written() == state_diagram.diagram(), "run `python -m tests.state_diagram`"
